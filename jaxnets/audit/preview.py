"""What the model will be fed: the first batches of a run, stage by stage, by the functions of the train step."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from jaxnets.config import Config
from jaxnets.data.dataset import Dataset
from jaxnets.data.pipeline import train_stream
from jaxnets.models.registry import create_model
from jaxnets.recipe.augment.op import Keys
from jaxnets.recipe.recipe import Recipe
from jaxnets.schema import AUTO
from jaxnets.train.build import make_recipe, model_fields
from jaxnets.train.first_batch import describe_target as describe_target
from jaxnets.train.first_batch import smoothing_floor
from jaxnets.train.step import make_prepare


@dataclass(frozen=True, kw_only=True)
class Fed:
    """One batch as the model sees it, and how it came about."""

    step: int
    stages: dict[str, UInt8[np.ndarray, "b _ _ c"]]  # in their order; the last is what the model is fed
    target: Float[np.ndarray, "b classes"]
    floor: float  # of the target, what label smoothing gives every class
    index: np.ndarray  # of each image in the training split

    @property
    def images(self) -> UInt8[np.ndarray, "b h w c"]:
        return list(self.stages.values())[-1]


def feed(config: Config, data: Dataset, batches: int, images: int) -> Iterator[Fed]:
    """Yields the first batches of the run that the config describes, at most so many images of each.

    Each stage is the train step's own `prepare`, with a recipe that ends there.
    """
    if config.batch_size == AUTO:
        config = replace(config, batch_size=Config().batch_size)
    classes = len(data.class_names)
    model = create_model(config.model.name, preprocess=data.preprocess, **model_fields(config, classes))
    recipe = make_recipe(config, data, model)
    prepares = {
        name: jax.jit(make_prepare(shortened, classes, config.seed)) for name, shortened in _stages(recipe).items()
    }
    floor = smoothing_floor(classes, recipe.label_smoothing, several_labels=data.several_labels)
    stream = train_stream(
        data.training,
        order=data.order,
        batch_size=config.batch_size,
        start_step=0,
        stop_step=batches,
        threads=data.threads,
    )
    for step, batch in enumerate(stream):
        prepared = {name: prepare(batch, step) for name, prepare in prepares.items()}
        *_, last = prepared.values()
        yield Fed(
            step=step,
            stages={
                "canvas": np.asarray(batch.image[:images]),
                **{name: np.asarray(each.image[:images]) for name, each in prepared.items()},
            },
            target=np.asarray(last.target[:images]),
            floor=floor,
            index=np.asarray(batch.index[:images]),
        )


def _leave(keys: Keys, images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
    """An op that changes nothing."""
    return images


def _stages(recipe: Recipe) -> dict[str, Recipe]:
    """Returns the recipe up to each stage that changes something, by the stage's name."""
    stages = {}
    if recipe.cut is not None:
        # As many ops as there are, for what is drawn depends on their number.
        stages["cut"] = replace(recipe, ops=(_leave,) * len(recipe.ops), mix=None)
    if recipe.ops:
        stages["augmented"] = replace(recipe, mix=None)
    stages["mixed" if recipe.mix is not None else "fed"] = recipe
    return stages
