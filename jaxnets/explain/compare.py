"""Which method explains a model best: the curves of several on the same images, beside those of a random order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8
from PIL import Image

from jaxnets.explain.curves import STEPS, area, make_curves, order
from jaxnets.explain.explainer import Explainer
from jaxnets.explain.methods import Method
from jaxnets.models.forward import Activation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANDOM = "random"  # pixels in an order that knows nothing: what a method must beat
_BATCH = 4  # images at once: each is asked 2 · (steps + 1) times


@dataclass(frozen=True, repr=False)
class Comparison:
    """The curves of some methods, by method, image and share of the pixels. The last method is a random order."""

    methods: tuple[str, ...]
    deletion: Float32[np.ndarray, "m n points"]
    insertion: Float32[np.ndarray, "m n points"]

    @cached_property
    def gain(self) -> Float64[np.ndarray, "m n"]:
        """The area below insertion less that below deletion, of each method on each image: the more, the better."""
        return area(self.insertion.astype(np.float64)) - area(self.deletion.astype(np.float64))

    @property
    def best(self) -> str:
        """The method of the largest average gain."""
        return self.methods[int(self.gain.mean(1).argmax())]

    def rows(self) -> list[dict[str, Any]]:
        """Returns the averages of each method, the best first.

        `beats_random` is the share of the images on which it gains more than the random order; `behind_best` by how
        much less than the best it gains, and `behind_best_error` the standard error of that over the images (None for
        one image).
        """
        best = self.gain[self.methods.index(self.best)]
        found: list[dict[str, Any]] = []
        for number in np.argsort(-self.gain.mean(1), kind="stable").tolist():
            gain = self.gain[number]
            behind = best - gain
            error = float(behind.std(ddof=1) / np.sqrt(len(behind))) if len(behind) > 1 else None
            found.append(
                {
                    "method": self.methods[number],
                    "deletion": float(area(self.deletion[number].astype(np.float64)).mean()),
                    "insertion": float(area(self.insertion[number].astype(np.float64)).mean()),
                    "gain": float(gain.mean()),
                    "beats_random": float((gain > self.gain[-1]).mean()),
                    "behind_best": float(behind.mean()),
                    "behind_best_error": error,
                }
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Returns the averages, and the average curves over equal shares of the pixels."""
        return {
            "images": self.deletion.shape[1],
            "best": self.best,
            "methods": self.rows(),
            "share": np.linspace(0, 1, self.deletion.shape[2]).tolist(),
            "deletion": dict(zip(self.methods, self.deletion.mean(1).tolist(), strict=True)),
            "insertion": dict(zip(self.methods, self.insertion.mean(1).tolist(), strict=True)),
        }


def compare(
    explainer: Explainer,
    activation: Activation,
    images: UInt8[np.ndarray, "n h w c"],
    labels: Int32[np.ndarray, " n"],
    methods: Sequence[Method],
    *,
    stage: str | None = None,
    steps: int = STEPS,
    progress: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Returns the curves of methods on images that `preprocess.fit` has brought to size.

    Args:
        labels: of each image the class that is explained.
        stage: for the methods that look at one.
        steps: parts in which the pixels are deleted and inserted.
        progress: is told each method before it begins.
    """
    curves = jax.jit(make_curves(explainer.model, explainer.preprocess, activation, steps=steps))
    height, width = images.shape[1:3]
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for method in (*methods, None):
        progress(method.title if method else RANDOM)
        if method is None:
            noise = np.random.default_rng(1).random((len(images), height, width), np.float32)
            heats = noise
        else:
            maps = explainer.maps(method, images, labels, stage if method.by_stage else None)
            heats = np.stack([_enlarged(heat, height, width) for heat in maps])
        found.append(_in_batches(curves, explainer, images, labels, order(heats)))
    deletion, insertion = (np.stack([pair[i] for pair in found]) for i in (0, 1))
    return Comparison((*(method.name for method in methods), RANDOM), deletion, insertion)


def _in_batches(
    curves: Callable[..., Any], explainer: Explainer, images: np.ndarray, labels: np.ndarray, ranks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    found = []
    size = min(_BATCH, len(images))
    with jax.default_matmul_precision(explainer.matmul_precision):
        for start in range(0, len(images), size):
            some = [array[start : start + size] for array in (images, labels.astype(np.int32), ranks)]
            count = len(some[0])
            padded = [np.pad(array, [(0, size - count), *[(0, 0)] * (array.ndim - 1)]) for array in some]
            found.append([np.asarray(curve)[:count] for curve in curves(explainer.variables, *padded)])
    deletion, insertion = (np.concatenate([pair[i] for pair in found]) for i in (0, 1))
    return deletion, insertion


def _enlarged(heat: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a map with as many rows and columns as the model's input."""
    if heat.shape == (height, width):
        return heat
    resized = Image.fromarray(heat.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def draw(comparison: Comparison, titles: dict[str, str]) -> "Figure":
    """Returns the average curves: deletion, the lower the better, beside insertion, the higher the better."""
    from jaxnets.figures import COLOURS, DIM, GREY, new_figure, style

    figure = new_figure(9.2, 3.6)
    rows = comparison.rows()
    share = np.linspace(0, 100, comparison.deletion.shape[2])
    colours = dict(zip(comparison.methods, [colour for colour in COLOURS if colour != GREY], strict=False))
    curves_of = {"deletion": comparison.deletion, "insertion": comparison.insertion}
    for place, (name, curves) in enumerate(curves_of.items(), 1):
        axes = figure.add_subplot(1, 2, place)
        for row in rows:
            method = row["method"]
            line: dict[str, Any] = {"color": DIM, "linestyle": "--"} if method == RANDOM else {"color": colours[method]}
            label = f"{titles.get(method, method)}  {row[name]:.3f}"
            axes.plot(share, curves[comparison.methods.index(method)].mean(0), label=label, **line)
        axes.set_title(f"{name.capitalize()}: {'lower' if name == 'deletion' else 'higher'} is better")
        axes.set_xlabel(f"pixels {'deleted' if name == 'deletion' else 'inserted'}, %")
        axes.set_ylabel("probability of the class")
        axes.set_ylim(bottom=0)
        with style():
            axes.legend(title="area below")
    return figure
