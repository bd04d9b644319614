"""The first training batch as the network sees it, as a sheet: cut, augmented and mixed, with its targets."""

import dataclasses
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int64, Key, UInt8
from PIL import Image

from jaxnets.data.boxes import Boxes
from jaxnets.data.examples import Examples
from jaxnets.data.order import Order
from jaxnets.data.pipeline import train_stream
from jaxnets.recipe.losses.loss import soft_target
from jaxnets.recipe.mix import Draw, Mix
from jaxnets.recipe.recipe import Recipe
from jaxnets.sheet import grid, thumbnail
from jaxnets.train.step import make_prepare

SHOWN = 24  # images of a batch, at most: from its two ends, where partners are that are mixed
_NAMED = 6  # classes of a target, at most


@dataclass(frozen=True, kw_only=True)
class FirstBatch:
    """Rows of the batch of step 1, as the train step's own functions prepare them."""

    rows: Int64[np.ndarray, " n"]  # of the batch
    batch_size: int
    index: np.ndarray  # of each image in the training split
    image: UInt8[np.ndarray, "n h w c"]
    target: Float[np.ndarray, "n classes"]
    floor: float  # of the target, what label smoothing gives every class

    def sheet(self, class_names: tuple[str, ...]) -> Image.Image:
        """Returns the images in rows, below each its target."""
        cells = [
            (thumbnail(image), (describe_target(target, self.floor, class_names),))
            for image, target in zip(self.image, self.target, strict=True)
        ]
        height, width = self.image.shape[1:3]
        count = "all" if len(self.rows) == self.batch_size else f"{len(self.rows)} of"
        title = f"the first batch as the network sees it: {count} {self.batch_size} images, {height}x{width} pixels"
        return grid(cells, title)


def first_batch(
    recipe: Recipe,
    examples: Examples,
    order: Order,
    boxes: Boxes | None,
    *,
    classes: int,
    batch_size: int,
    seed: int,
) -> FirstBatch:
    """Returns what a run's first step is trained on, of which few rows are read and prepared.

    What an example becomes does not depend on the others in its batch but for its partner, which is shown with it; what
    is drawn for the batch is drawn for the whole of it.
    """
    mix = recipe.mix
    halves = mix is not None and mix.mode == "automl" and mix.mixup > 0 and mix.cutmix > 0
    rows = shown_rows(batch_size, halves=halves)
    if mix is not None:
        own = {field.name: getattr(mix, field.name) for field in dataclasses.fields(mix)}
        recipe = replace(recipe, mix=MixOfRows(**own, rows=tuple(rows.tolist()), size=batch_size))
    stream = train_stream(
        examples, order=order, batch_size=batch_size, start_step=0, stop_step=1, threads=0, rows=rows, boxes=boxes
    )
    batch = next(stream)
    prepared = jax.device_get(jax.jit(make_prepare(recipe, classes, seed))(batch, 0))
    return FirstBatch(
        rows=rows,
        batch_size=batch_size,
        index=np.asarray(batch.index),
        image=prepared.image,
        target=prepared.target,
        floor=smoothing_floor(classes, recipe.label_smoothing, several_labels=examples.several_labels),
    )


@dataclass(frozen=True, kw_only=True)
class MixOfRows(Mix):
    """Mixes some rows of a batch as they are mixed in the whole: each of them with its partner among them."""

    rows: tuple[int, ...]  # as `shown_rows` chooses them
    size: int  # of the batch

    def draw(self, key: Key[Array, ""], size: int, height: int, width: int) -> Draw:
        whole = super().draw(key, self.size, height, width)
        chosen = {"batch": (0,), "pair": self.rows[: (len(self.rows) + 1) // 2]}.get(self.mode, self.rows)
        return Draw(*(x[jnp.asarray(chosen)] for x in whole))


def shown_rows(size: int, *, halves: bool = False) -> Int64[np.ndarray, " n"]:
    """Returns rows of a batch from its two ends, ascending, so that each one's partner is among them.

    With `halves` partners are the ends of each half (`Mix`, mode automl).
    """
    if size <= SHOWN:
        return np.arange(size)
    half = size // 2
    each = SHOWN // 4 if halves else SHOWN // 2
    starts = (0, half - each, half, size - each) if halves else (0, size - each)
    return np.concatenate([np.arange(start, start + each) for start in starts])


def smoothing_floor(classes: int, smoothing: float, *, several_labels: bool) -> float:
    """Returns what label smoothing gives to a class that an image does not have."""
    # Of all but the first class, or of all where there may be several.
    label = jnp.zeros((1, classes)) if several_labels else jnp.zeros(1, jnp.int32)
    return float(soft_target(label, classes, smoothing).min())


def describe_target(target: Float[np.ndarray, " classes"], floor: float, class_names: tuple[str, ...]) -> str:
    """Returns the classes of a target with their weights, the heaviest first; the smoothing's share is left out."""
    order = np.argsort(-target, kind="stable")[:_NAMED]
    shown = [i for i in order if target[i] > floor + 1e-3]
    return " + ".join(f"{class_names[i]} {target[i]:.0%}" for i in shown) or "no class"
