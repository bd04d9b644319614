"""What a model says of every image of a split: all that an evaluation's figures follow from.

`Predictions` is arrays alone; whatever is computed from it needs NumPy and no accelerator. `collect` makes one, with a
single pass of the model over the images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, Int64

from jaxnets.answer import activated
from jaxnets.errors import UserError

if TYPE_CHECKING:
    from jaxnets.data.examples import Examples
    from jaxnets.evaluate.asked import Asked
    from jaxnets.evaluate.views import Views
    from jaxnets.models.forward import Activation

_ROWS = 2048  # turned into probabilities at a time, in float64


@dataclass(frozen=True, repr=False, kw_only=True)
class Predictions:
    """The logits of each image that could be read, and what it is.

    Raises:
        UserError: if a logit is not a number.
        ValueError: if the arrays do not fit each other.
    """

    class_names: tuple[str, ...]
    labels: Int32[np.ndarray, " n"] | Bool[np.ndarray, "n classes"]  # the class; or those that an image has
    logits: Float[np.ndarray, "n classes"]  # float32, as the network gives them: no temperature has divided them
    paths: tuple[str, ...]  # what names each image: its path in its source, or "test[7]" where it has none
    split: str
    activation: "Activation" = "softmax"
    several_labels: bool = False
    groups: np.ndarray | None = None  # text `[n]`: the source's group of each, such as a patient; None: it has none
    index: Int64[np.ndarray, " n"] | None = None  # of each in its split (`Examples`); None: they are 0 … n − 1

    def __post_init__(self) -> None:
        n, classes = self.logits.shape
        shape = (n, classes) if self.several_labels else (n,)
        if len(self.class_names) != classes or self.labels.shape != shape or len(self.paths) != n:
            raise ValueError(
                f"expected {len(self.class_names)} classes, labels {list(shape)} and {n} paths for logits "
                f"{[n, classes]}, found labels {list(self.labels.shape)} and {len(self.paths)} paths"
            )
        refuse_not_finite(self.logits, self.paths)

    def __len__(self) -> int:
        return len(self.logits)

    def __repr__(self) -> str:
        return f"Predictions({len(self)} images of {self.split}, {len(self.class_names)} classes)"

    @property
    def targets(self) -> Bool[np.ndarray, "n classes"]:
        """Of each image and class, whether it has it."""
        if self.several_labels:
            return self.labels
        found = np.zeros(self.logits.shape, bool)
        found[np.arange(len(self)), self.labels] = True
        return found

    @property
    def said(self) -> Int32[np.ndarray, " n"]:
        """The most probable class of each image; of equal ones the first."""
        return self.logits.argmax(1).astype(np.int32)

    def probabilities(self, temperature: float = 1.0) -> Float32[np.ndarray, "n classes"]:
        """Returns activation(logits / temperature), computed in float64."""
        found = np.empty(self.logits.shape, np.float32)
        for start in range(0, len(self), _ROWS):
            rows = slice(start, start + _ROWS)
            found[rows] = activated(self.logits[rows].astype(np.float64), self.activation, temperature)
        return found

    def take(self, chosen: Int64[np.ndarray, " m"] | Bool[np.ndarray, " n"]) -> "Predictions":
        """Returns the predictions of some of the images, by their numbers or a mask."""
        numbers = np.arange(len(self))[chosen]
        return replace(
            self,
            labels=self.labels[numbers],
            logits=self.logits[numbers],
            paths=tuple(self.paths[i] for i in numbers.tolist()),
            groups=None if self.groups is None else self.groups[numbers],
            index=numbers if self.index is None else self.index[numbers],
        )


def refuse_not_finite(logits: Float32[np.ndarray, "n classes"], paths: Sequence[str]) -> None:
    """Refuses logits that are not numbers: every figure that followed from them would be wrong without a word.

    Raises:
        UserError: that says of how many images, and names the first.
    """
    finite = np.isfinite(logits).all(1)
    if not finite.all():
        first = int(np.flatnonzero(~finite)[0])
        raise UserError(
            f"the model answers {int((~finite).sum())} of {len(finite)} images with what is no number (NaN or infinite "
            f"logits; the first is {paths[first]}): its weights have diverged or are damaged. Evaluate an earlier "
            "--checkpoint, or train again with a lower rate or config.clip_norm"
        )


def collect(
    asked: "Asked",
    examples: "Examples",
    *,
    split: str,
    batch_size: int = 64,
    threads: int = 1,
    views: "Views | None" = None,
) -> Predictions:
    """Returns what a model says of every example of a split, each asked once; images that cannot be read are left out.

    Args:
        asked: a `Classifier`, which answers in JAX over all devices, or what `jaxnets.evaluate.asked.open_onnx` makes
            of an ONNX file.
        examples: fitted to the model's input, or to what `views` cut it out of.
        split: its name.
        batch_size: examples at a time; changes the speed, not the result.
        threads: that decode.
        views: of each image, whose logits are averaged (test-time augmentation).

    Raises:
        UserError: if an image is corrupt and such are not skipped, if none can be read, or if the model's answer is no
            number.
    """
    from jaxnets.evaluate.asked import logits_of

    logits, readable = logits_of(asked, examples, batch_size=batch_size, threads=threads, views=views)
    if not readable.any():
        raise UserError(f"none of the {len(examples)} {split} images can be read: look at the source")
    source, chosen = examples.stored
    index = np.flatnonzero(readable)
    kept = chosen[index]
    groups = source.groups
    return Predictions(
        class_names=tuple(asked.labels),
        labels=examples.labels[index].astype(bool if examples.several_labels else np.int32),
        logits=logits if readable.all() else logits[index],
        paths=tuple(source.name(i) for i in kept.tolist()),
        groups=None if groups is None else np.array([f"{group:016x}" for group in groups[kept].tolist()]),
        split=split,
        activation=asked.activation,
        several_labels=examples.several_labels,
        index=index,
    )
