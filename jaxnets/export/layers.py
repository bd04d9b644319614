"""What 8 bits cost a network layer by layer, and which of its layers stay in float32."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxnets.classifier import Classifier
from jaxnets.errors import UserError, nearest, quoted
from jaxnets.export.calibration import Calibration, plural
from jaxnets.export.check import Logits
from jaxnets.export.int8 import Quantisable, answers, of_all, quantise
from jaxnets.export.onnx_export import onnx_logits

_SEEN = 64  # images that the layers are compared on
_SHOWN = 10  # layers in the table


@dataclass(frozen=True)
class Cost:
    """What a layer costs when it alone is in 8 bits, its input and output too, and all else in float32."""

    layer: str
    error: float  # root mean square over images and classes, as a share of that of float32's logits
    changed: int  # images that are answered otherwise


@dataclass(frozen=True)
class Kept:
    """The layers that are to stay in float32."""

    names: tuple[str, ...] = ()  # layers, or what stands before a "/" in the names of several
    most: int = 0  # of those that cost most


def read_kept(given: Sequence[str]) -> Kept:
    """Returns what the values of `--keep-float` mean: names with commas between them, or a number.

    Raises:
        UserError: if they are neither.
    """
    names = tuple(name.strip().strip("/") for each in given for name in each.split(","))
    numbers = [name for name in names if name.lstrip("+-").replace(".", "").isdigit()]
    if numbers and (len(names) > 1 or not names[0].isdigit() or int(names[0]) < 1):
        raise UserError(
            f"--keep-float takes the names of layers, or one whole number above 0 (so many of those that cost most), "
            f"found {quoted(','.join(names))}"
        )
    if not all(names):
        raise UserError(
            f"--keep-float {quoted(','.join(given))} has an empty name: give the names of layers with commas between "
            f"them (--layers shows them), or the number of the costliest to keep"
        )
    return Kept(most=int(numbers[0])) if numbers else Kept(names)


def layers_of(graph: Quantisable, kept: Kept) -> list[str]:
    """Returns the layers that are kept by their names.

    Raises:
        UserError: for a name that means no layer which 8 bits would take, and if no layer is left for them.
    """
    found: list[str] = []
    for name in kept.names:
        below = [layer for layer in graph.layers if f"{layer}/".startswith(f"{name}/")]
        if not below:
            raise _unknown(graph, name)
        found += [layer for layer in below if layer not in found]
    if max(len(found), kept.most) >= len(graph.layers):
        raise UserError(
            f"--keep-float leaves none of the network's {len(graph.layers)} layers for 8 bits: keep fewer, or leave "
            f"--int8 out"
        )
    return found


def nodes_of(graph: Quantisable, kept: Kept, layers: Sequence[str]) -> list[str]:
    """Returns the nodes that stay in float32 with some layers: theirs, and whatever is below the names in `kept`."""
    of_layers = {node for layer in layers for node in graph.layers[layer]}
    below = tuple(f"{name}/" for name in kept.names)
    return [node.name for node in graph.model.graph.node if node.name in of_layers or node.name.startswith(below)]


def _unknown(graph: Quantisable, name: str) -> UserError:
    if any(node.name.startswith(f"{name}/") for node in graph.model.graph.node):
        return UserError(f"--keep-float {name}: int8 leaves it in float32 in any case: leave it out")
    blocks = {layer[:end] for layer in graph.layers for end, letter in enumerate(layer) if letter == "/"}
    return UserError(
        f"--keep-float {quoted(name)} is no layer of this network{nearest(name, [*graph.layers, *sorted(blocks)])}: "
        f"those in 8 bits are {', '.join(graph.layers)}; what stands before a / means all of the layers below"
    )


def sample(calibration: Calibration) -> UInt8[np.ndarray, "n h w c"]:
    """Returns images to compare layers on: of those that int8 is measured on, and if they are few of the others."""
    scored = calibration.scored[np.linspace(0, len(calibration.scored) - 1, _SEEN).astype(int)]
    if len(calibration.scored) >= _SEEN:
        return scored
    if calibration.scored is calibration.images:
        return calibration.images[:_SEEN]
    return np.concatenate([calibration.scored, calibration.images])[:_SEEN]


def costs(
    graph: Quantisable, ranges: Any, classifier: Classifier, exact: Logits, images: UInt8[np.ndarray, "n h w c"]
) -> list[Cost]:
    """Returns what each layer costs, the costliest first.

    Args:
        graph: in float32.
        ranges: of its activations.
        classifier: that it was made of.
        exact: its logits in float32.
        images: that they are compared on.
    """
    thresholds, several = classifier.thresholds, classifier.activation == "sigmoid"
    truth = of_all(exact, images)
    right = answers(truth, thresholds, several=several)
    found = []
    for layer, nodes in graph.layers.items():
        logits = of_all(onnx_logits(quantise(graph, ranges, alone=nodes), classifier), images)
        error = float(np.sqrt(np.square(logits - truth).mean() / max(np.square(truth).mean(), 1e-30)))
        changed = answers(logits, thresholds, several=several) != right
        found.append(Cost(layer, error, int(changed.reshape(len(images), -1).any(1).sum())))
    return sorted(found, key=lambda cost: -cost.error)


def table(found: Sequence[Cost], images: int) -> str:
    """Returns the costliest layers as lines, and what the others come to."""
    lines = [
        f"what a layer costs that alone is in 8 bits, on {images} {plural('image', images)}:",
        "error of the logits  answers changed  layer",
        *(f"{cost.error:19.2%}  {cost.changed:15}  {cost.layer}" for cost in found[:_SHOWN]),
    ]
    rest = found[_SHOWN:]
    if rest:
        changed = max(cost.changed for cost in rest)
        lines.append(
            f"{len(rest)} more {plural('layer', len(rest))} with {rest[0].error:.2%} or less, and {changed} or fewer "
            f"{plural('answer', changed)} changed by each"
        )
    return "\n".join(lines)
