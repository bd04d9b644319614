"""The teacher of a distillation: any model that jaxnets opens, brought to the images and classes of the student."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from jaxnets.config import Config
from jaxnets.dtypes import widest
from jaxnets.errors import UserError, quoted
from jaxnets.models.family import Variables
from jaxnets.models.forward import forward
from jaxnets.models.quantised.network import in_float
from jaxnets.models.registry import create_model
from jaxnets.preprocess import Preprocess
from jaxnets.pretrained.load import open_pretrained
from jaxnets.recipe.distill import DistillConfig
from jaxnets.run.checkpoints import choose, read_variables
from jaxnets.run.directory import open_run
from jaxnets.run.resolve import resolve
from jaxnets.train.mesh import put, replicated

_METHODS = {"nearest": "nearest", "bilinear": "linear", "bicubic": "cubic", "lanczos": "lanczos3"}  # of jax.image


@dataclass(frozen=True, kw_only=True)
class Teacher:
    model: nn.Module
    variables: Variables  # on the host
    preprocess: Preprocess
    order: tuple[int, ...]  # the number that each of the student's classes has in it
    said: str  # in a few words, what it is

    def logits(self, variables: Variables, image: UInt8[Array, "b h w c"]) -> Float[Array, "b classes"]:
        """Returns its logits of images as the student sees them, in the order of the student's classes."""
        found = forward(self.model, self.preprocess, variables, brought(image, self.preprocess))
        in_order = self.order == tuple(range(found.shape[-1]))
        return found if in_order else found[:, np.asarray(self.order)]

    def placed(self, mesh: Mesh) -> Variables:
        """Returns its variables on each device of a mesh."""
        return jax.tree.map(lambda x: put(x, replicated(mesh)), self.variables)

    @property
    def checksum(self) -> str:
        """What tells its weights from others."""
        total = 0
        for path, x in jax.tree_util.tree_leaves_with_path(self.variables):
            total = zlib.crc32(jax.tree_util.keystr(path).encode(), total)
            total = zlib.crc32(x.tobytes(), total)
        return f"{total:08x}"


def brought(image: UInt8[Array, "b h w c"], preprocess: Preprocess) -> UInt8[Array, "b h2 w2 c2"]:
    """Returns images with the channels and at the size of another model, resized whole by its own filter."""
    if image.shape[-1] != preprocess.channels:
        image = jnp.repeat(image, 3, -1) if preprocess.channels == 3 else _luma(image)
    size = (preprocess.height, preprocess.width)
    if image.shape[1:3] == size:
        return image
    shape, method = (image.shape[0], *size, image.shape[-1]), _METHODS[preprocess.interpolation]
    resized = jax.image.resize(image.astype(jnp.float32), shape, method)
    return jnp.clip(jnp.round(resized), 0, 255).astype(jnp.uint8)


def _luma(image: UInt8[Array, "b h w 3"]) -> UInt8[Array, "b h w 1"]:
    """Returns images as grey, as Pillow converts them, to the bit."""
    weighted = image.astype(jnp.int32) * jnp.array([19595, 38470, 7471], jnp.int32)
    return ((weighted.sum(-1, keepdims=True) + 2**15) >> 16).astype(jnp.uint8)


def open_teacher(config: Config, class_names: Sequence[str], *, several_labels: bool = False) -> Teacher | None:
    """Opens config.distill.teacher; None where it is not set.

    Raises:
        UserError: if it cannot be opened, has other classes, or is not what an earlier session learned from.
    """
    spec = config.distill
    if spec.teacher is None:
        return None
    asked = f"config.distill.teacher {spec.teacher}"
    if several_labels:
        raise UserError(
            f"{asked} teaches which one of the classes is right, and {config.data.source} has images with several "
            f"labels: leave config.distill out"
        )
    try:
        name, fields, labels, preprocess, variables, said, fits = _open(spec.teacher)
    except UserError as error:
        raise UserError(
            f"{asked} cannot be opened: {error}. A run needs its teacher until its last step: put it back, or say "
            f"where it lies now"
        ) from error
    if not fits:
        raise UserError(f"{asked} does not say which one of its classes is right: give a classifier of one label")
    if preprocess is None:
        raise UserError(f"{asked} does not say how it wants its images: give one that does, as a run directory")
    fields, variables = in_float(fields, variables)
    model = create_model(name, preprocess=preprocess, **{**fields, "dtype": config.dtype})
    wide = widest(config.dtype)
    teacher = Teacher(
        model=model,
        variables=jax.tree.map(lambda x: np.asarray(x, wide), variables),
        preprocess=preprocess,
        order=_order(spec, tuple(labels), tuple(class_names), asked),
        said=said,
    )
    if spec.teacher_weights not in (None, teacher.checksum):
        raise UserError(
            f"{asked} has other weights ({teacher.checksum}) than config.distill.teacher_weights "
            f"({spec.teacher_weights}): give the teacher that they are of"
        )
    return teacher


def _open(source: str) -> tuple[str, dict[str, Any], Sequence[str], Preprocess | None, Variables, str, bool]:
    """Returns name, fields, classes, preprocessing, variables, words, and whether one of the classes is right."""
    meant = resolve(source)
    if not meant.is_run:
        found = open_pretrained(meant.location if meant.kind == "known" else None, meant)
        fits = found.activation is not None and not found.several_labels
        return found.name, found.fields, found.labels, found.preprocess, found.variables, found.name, fits
    run = open_run(meant.location)
    card, step = run.read_model(), choose(run.checkpoints, "best")
    variables = read_variables(run.checkpoints, step, "ema")
    said = f"{card.name}, step {step} of {source}"
    return card.name, dict(card.fields), card.class_names, card.preprocess, variables, said, not card.several_labels


def _order(spec: DistillConfig, theirs: tuple[str, ...], ours: tuple[str, ...], asked: str) -> tuple[int, ...]:
    """Returns the number that each of our classes has among theirs."""
    if theirs == ours or (spec.classes == "order" and len(theirs) == len(ours)):
        return tuple(range(len(ours)))
    if spec.classes == "names" and sorted(theirs) == sorted(ours) and len(set(ours)) == len(ours):
        return tuple(theirs.index(name) for name in ours)
    counts = f"it has {len(theirs)} and the data {len(ours)}"
    if spec.classes == "order":
        raise UserError(f"{asked} has other classes than the data: {counts}. Give a teacher of the data's classes")
    unknown = next((name for name in (*ours, *theirs) if (name in ours) != (name in theirs)), None)
    if unknown is None:
        twice = next(name for name in theirs if theirs.count(name) > 1)
        which = f"several of the teacher's are called {quoted(twice)}"
    elif unknown in ours:
        number = ours.index(unknown)
        other = f", where its class {number} is {quoted(theirs[number])}" if number < len(theirs) else ""
        which = f"the data's class {number}, {quoted(unknown)}, is none of the teacher's{other}"
    else:
        which = f"the teacher's class {theirs.index(unknown)}, {quoted(unknown)}, is none of the data's"
    same = " If they are the same under other names, in one order: --config.distill.classes=order."
    raise UserError(
        f"{asked} has other classes than the data ({counts}): {which}. Give a teacher of the data's classes."
        + (same if len(theirs) == len(ours) else "")
    )
