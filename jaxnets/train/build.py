"""The pure parts of a run, from its config: model, recipe, first state and steps."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
from flax import linen as nn

from jaxnets.config import Config
from jaxnets.data.batch import Batch
from jaxnets.data.boxes import Boxes
from jaxnets.data.dataset import Dataset
from jaxnets.errors import UserError
from jaxnets.metrics import table
from jaxnets.metrics.metric import Metric, Sums
from jaxnets.models.describe import describe
from jaxnets.models.family import Variables
from jaxnets.models.mode import trains
from jaxnets.models.registry import create_model, family_of, field_names, find_family, find_model
from jaxnets.models.statistics import Norm, check_statistics
from jaxnets.recipe.augment.check import refuse_misfits
from jaxnets.recipe.augment.random_resized_crop import HostCut
from jaxnets.recipe.augment.table import AugmentConfig, cut_and_ops
from jaxnets.recipe.distill import Distillation, DistillConfig
from jaxnets.recipe.ema import make_average
from jaxnets.recipe.freeze import Freezing, plan_freezing
from jaxnets.recipe.groups import layer_rates
from jaxnets.recipe.losses.table import check_threshold, find_loss
from jaxnets.recipe.mix import make_mix
from jaxnets.recipe.optimizer.check import CYCLED
from jaxnets.recipe.optimizer.table import make_optimizer, make_sam
from jaxnets.recipe.progressive import SizeStage, plan_sizes, strength
from jaxnets.recipe.prune import make_pruning
from jaxnets.recipe.recipe import Recipe
from jaxnets.recipe.schedule.table import make_momentum, make_schedule, total_steps, warmup_steps
from jaxnets.train.boxes import make_boxes
from jaxnets.train.imbalance import make_rebalance
from jaxnets.train.phases import Phase
from jaxnets.train.step import cut_number, init_state, make_eval_step, make_train_step
from jaxnets.train.teacher import Teacher

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Built:
    """What `build` returns."""

    model: nn.Module
    fields: dict[str, Any]  # of the model, as JSON values
    recipe: Recipe  # at the largest size, with what is frozen at first
    freezing: Freezing | None
    step_metrics: tuple[Metric, ...]
    phases: tuple[Phase, ...]  # ascending; in the last one the most trains
    boxes: Boxes | None  # of training images that the host cuts
    eval_step: Callable[[Variables, Batch], Sums]


def steps_of(config: Config, data: Dataset) -> int:
    """Returns how many steps the run has."""
    return total_steps(config.steps, config.epochs, len(data.training) / config.batch_size)


def build(
    config: Config,
    data: Dataset,
    own_fields: Mapping[str, Any] | None = None,
    sharding: jax.sharding.Sharding | None = None,
    teacher: Teacher | None = None,
) -> Built:
    """Returns the model, its recipe and the steps that a config describes.

    `own_fields` are what pretrained weights say of the model; what the config says goes before. `sharding` is that of
    the micro-batches `[n, b / n, …]`, where config.accumulate_steps asks for some. Without a `teacher` there is no
    distillation, whatever the config says.
    """
    p = data.training_preprocess
    fields_of_size = partial(find_family(config.model.name).fields_of_size, find_model(config.model.name).fields)
    fields = {**fields_of_size(p.height, p.width), **(own_fields or {}), **model_fields(config, len(data.class_names))}
    model = create_model(config.model.name, preprocess=data.preprocess, **fields)
    recipe, freezing = make_recipe(config, data, model, teacher), freezing_of(config, data, model)
    sizes = plan_sizes(
        config.progressive, p.height, p.width, steps_of(config, data), len(data.training) / config.batch_size
    )
    tested = (data.preprocess.height, data.preprocess.width)
    if family_of(model).structure(model).one_size and {tested} != {(stage.height, stage.width) for stage in sizes}:
        raise UserError(
            f"{config.model.name} takes images of one size, and this run has several: leave config.data.test_size and "
            f"config.progressive.sizes out, or take another model"
        )
    fields_of_size(*tested)  # may refuse images of that size
    for height, width in {(stage.height, stage.width) for stage in sizes}:
        norms = [norm for norm in _norms(model, height, width, p.channels) if _follows(norm, freezing)]
        if norms and config.accumulate_steps > 1 and config.batch_norm.group_size is None:
            size = config.batch_size // config.accumulate_steps
            raise UserError(
                f"config.accumulate_steps {config.accumulate_steps} makes micro-batches of {size} examples, and "
                f"BatchNorm cannot average over more than one: set config.batch_norm.group_size to a divisor of "
                f"{size}, found None"
            )
        if warning := check_statistics(norms, config.batch_norm.group_size or config.batch_size):
            _log.warning("%s", warning)
    if freezing:
        _check_thaws(config, freezing, steps_of(config, data))
    _check_sizes(config, sizes, steps_of(config, data))
    if config.augment.policy.name and p.channels == 1:
        _log.warning(
            "config.augment.policy.name is %s and the images are grey: its ops that change colours leave them as they "
            "are, all others work as on coloured ones",
            config.augment.policy.name,
        )
    if recipe.mix is not None and config.batch_size % 2:
        _log.warning(
            "config.batch_size %d is odd: the image in the middle of a batch has no partner and is not mixed",
            config.batch_size,
        )
    step_metrics = tuple(table.OF_A_STEP[name] for name in config.train_metrics)
    step_metrics += (recipe.pruning.metric,) if recipe.pruning else ()
    thaws = freezing.starts if freezing else (0,)

    def phase(start: int) -> Phase:
        stage = next(stage for stage in reversed(sizes) if stage.start <= start)
        own_model, of_stage = model, recipe
        if len(sizes) > 1:
            own_model, of_stage = at_stage(config, data, model, stage, teacher)
        of_phase = replace(of_stage, frozen=freezing.at(start) if freezing else None)
        step = make_train_step(
            own_model,
            data.preprocess,
            of_phase,
            seed=config.seed,
            micro_batches=config.accumulate_steps,
            sharding=sharding,
            metrics=step_metrics,
        )
        fresh_state = partial(init_state, model, data.preprocess, of_phase, config.seed)
        changes = ["more layers train"] if start in thaws else []
        changes += [f"images of {stage.height}×{stage.width}"] if start == stage.start else []
        return Phase(start=start, fresh_state=fresh_state, step=step, change=" and ".join(changes), recipe=of_phase)

    return Built(
        model=model,
        fields=fields,
        recipe=recipe,
        freezing=freezing,
        step_metrics=step_metrics,
        phases=tuple(phase(start) for start in sorted({*thaws, *(stage.start for stage in sizes)})),
        boxes=make_boxes(recipe.cut, cut_number(recipe), config.seed),
        eval_step=make_eval_step(model, data.preprocess, recipe.loss),
    )


def at_stage(
    config: Config, data: Dataset, model: nn.Module, stage: SizeStage, teacher: Teacher | None = None
) -> tuple[nn.Module, Recipe]:
    """Returns the model and the recipe of a stage of a run that resizes progressively.

    Raises:
        UserError: as `make_recipe`, and for a strength that the model does not have.
    """
    spec, whole = config.progressive, data.training_preprocess
    mix = config.mix
    if mix.mixup:
        mix = replace(mix, mixup=strength(spec.mixup_from, mix.mixup, stage.progress))
    if mix.cutmix:
        mix = replace(mix, cutmix=strength(spec.cutmix_from, mix.cutmix, stage.progress))
    own = replace(config, mix=mix)
    if spec.magnitude_from is not None:
        own = replace(own, augment=_at_magnitude(config.augment, spec.magnitude_from, stage))
    if spec.dropout_from is not None:
        if not hasattr(model, "dropout"):
            raise UserError(
                f"config.progressive.dropout_from is {spec.dropout_from:g}, but {config.model.name} has no dropout: "
                f"leave it out, or take another model"
            )
        model = model.clone(dropout=strength(spec.dropout_from, model.dropout, stage.progress))
    seen = replace(whole, height=stage.height, width=stage.width)
    at_size = replace(data, training_preprocess=seen, canvas_is_input=data.canvas_is_input and seen == whole)
    recipe = make_recipe(own, at_size, model, teacher)
    if isinstance(recipe.cut, HostCut) and seen != whole:  # what the host cuts is of the run's size
        random = replace(recipe.cut.random, height=whole.height, width=whole.width)
        recipe = replace(recipe, cut=HostCut(random=random, height=stage.height, width=stage.width))
    return model, recipe


def _at_magnitude(augment: AugmentConfig, first: float, stage: SizeStage) -> AugmentConfig:
    name = augment.policy.name
    policy = None if name is None else getattr(augment.policy, name)
    if not isinstance(last := getattr(policy, "magnitude", None), float):  # TorchVision's are whole bins
        raise UserError(
            f"config.progressive.magnitude_from is {first:g}, and config.augment.policy.name {name} has no magnitude "
            f"that could rise to: leave it out, or take timm_rand_augment or tensorflow_rand_augment"
        )
    at_stage: Any = {str(name): replace(policy, magnitude=strength(first, last, stage.progress))}  # type: ignore[type-var]
    return replace(augment, policy=replace(augment.policy, **at_stage))


def _norms(model: nn.Module, height: int, width: int, channels: int) -> tuple[Norm, ...]:
    try:
        norms = describe(model, height, width, channels).norms
    except (ArithmeticError, TypeError, ValueError) as error:
        raise _too_small(model, height, width) from error
    if any(norm.height < 1 or norm.width < 1 for norm in norms):
        raise _too_small(model, height, width)
    return norms


def _too_small(model: nn.Module, height: int, width: int) -> UserError:
    return UserError(
        f"images of {height}×{width} pixels are too small for this {type(model).__name__}, which has none left at its "
        f"end: train at larger ones (config.data.image_size, config.progressive.sizes)"
    )


def make_recipe(config: Config, data: Dataset, model: nn.Module, teacher: Teacher | None = None) -> Recipe:
    """Returns the recipe of a config.

    Raises:
        UserError: if it fits neither the data nor the model.
    """
    seen = data.training_preprocess
    padding, shortest = config.augment.pad_and_crop.padding, min(seen.height, seen.width)
    if padding >= shortest:
        raise UserError(
            f"config.augment.pad_and_crop.padding {padding} would crop images of {shortest} pixels that are all black: "
            f"give less than {shortest}, an eighth of it as a rule"
        )
    if config.augment.quarter_turn.probability and seen.height != seen.width:
        raise UserError(
            f"config.augment.quarter_turn turns images by 90°, and those of {seen.height}×{seen.width} are not square: "
            f"leave it out, or set config.data.image_size to one number"
        )
    if config.data.repeats > 1 and config.augment == AugmentConfig():
        _log.warning(
            "config.data.repeats %d shows each image that often in a batch, and config.augment changes none of them",
            config.data.repeats,
        )
    refuse_misfits(config.augment, seen)
    cut, ops = cut_and_ops(config.augment, seen, canvas_is_input=data.canvas_is_input, cut_by_host=data.cut_by_host)
    loss = find_loss(config.loss, several_labels=data.several_labels)
    if config.model.single_output and loss.activation != "softmax":
        raise UserError(
            f"config.model.single_output gives one class the logit 0, so that two classes share one whole, and "
            f"{config.loss.name} decides each by itself: leave it out, or take config.loss.name=softmax_cross_entropy, "
            f"which is the binary cross-entropy of a single output"
        )
    check_threshold(config.loss, len(data.class_names), several_labels=data.several_labels)
    steps_per_epoch = len(data.training) / config.batch_size
    peak, steps = config.optimizer.peak(config.batch_size), steps_of(config, data)
    schedule = make_schedule(config.schedule, peak, steps, steps_per_epoch)
    momentum = make_momentum(config.schedule, steps, steps_per_epoch) if config.optimizer.name in CYCLED else None
    structure = family_of(model).structure(model)
    rates = layer_rates(structure.groups(), config.optimizer.layer_decay, config.optimizer.head_rate)
    freezing = freezing_of(config, data, model)
    return Recipe(
        cut=cut,
        ops=ops,
        mix=make_mix(config.mix, steps_per_epoch),
        loss=loss,
        label_smoothing=config.loss.label_smoothing,
        rebalance=make_rebalance(config, data),
        optimizer=make_optimizer(
            config.optimizer, schedule, rates, freezing, peak=peak, momentum=momentum, structure=structure
        ),
        schedule=schedule,
        momentum=momentum,
        sam=make_sam(config.optimizer),
        average=make_average(
            config.ema,
            batch_size=config.batch_size,
            epochs=steps / steps_per_epoch,
            warmup_steps=warmup_steps(config.schedule, steps_per_epoch),
        ),
        distillation=_distillation(config.distill, teacher),
        pruning=make_pruning(config.compress, structure, steps),
        frozen=freezing.at(0) if freezing else None,
    )


def _distillation(spec: DistillConfig, teacher: Teacher | None) -> Distillation | None:
    if teacher is None:
        return None
    return Distillation(
        logits=teacher.logits, temperature=spec.temperature, weight=spec.weight, task_weight=spec.task_weight
    )


def _follows(norm: Norm, freezing: Freezing | None) -> bool:
    """Tells whether a norm uses the statistics of the batches it sees, at the latest when all has thawed."""
    last = freezing.at(freezing.starts[-1]) if freezing else None
    return last is None or trains(last.mode, norm.layer.split("/"))


def _check_thaws(config: Config, freezing: Freezing, steps: int) -> None:
    """Refuses a first thaw that the run's epochs do not reach; where its steps were given, warns of it."""
    if len(freezing.starts) == 1 or (first := freezing.starts[1]) < steps:
        return
    text = f"config.freeze would thaw its first layers after step {first}, and the run ends at step {steps}"
    if config.steps is None:
        raise UserError(f"{text}: thaw them earlier, train for longer, or leave thaw_epoch and stage_epochs out")
    _log.warning("%s: they stay frozen", text)


def _check_sizes(config: Config, sizes: Sequence[SizeStage], steps: int) -> None:
    """Refuses sizes that the run's epochs do not reach; where its steps were given, warns of it."""
    last = sizes[-1]
    if last.start < steps:
        return
    text = (
        f"config.progressive.until_epochs ends the stage before the last at step {last.start}, and the run ends at "
        f"step {steps}"
    )
    if config.steps is None:
        raise UserError(f"{text}, so that it never trains at {last.height} pixels: end it earlier, or train for longer")
    _log.warning("%s: it never trains at %d pixels", text, last.height)


def freezing_of(config: Config, data: Dataset, model: nn.Module) -> Freezing | None:
    """Returns what a config freezes of a model, and until when."""
    structure = family_of(model).structure(model)
    return plan_freezing(config.freeze, structure, len(data.training) / config.batch_size)


def model_fields(config: Config, classes: int) -> dict[str, Any]:
    """Returns the fields that the config gives the model, as JSON values.

    Raises:
        UserError: for a key of config.model that the model has no field for.
    """
    known = field_names(config.model.name)
    for key, value in vars(config.model).items():
        if key not in ("name", "pretrained", *known) and value is not None:
            raise UserError(
                f"config.model.{key} is {value!r}, but {config.model.name} has no such field: leave it out "
                f"(None), or take another model"
            )
    for key, value in vars(config.batch_norm).items():
        if value is not None and f"norm_{key}" not in known:
            raise UserError(
                f"config.batch_norm.{key} is {value!r}, but {config.model.name} has no batch normalisation with it: "
                f"leave it out (None), or take another model"
            )
    fields: dict[str, Any] = {
        "num_classes": classes,
        "dtype": config.dtype,
        "norm_decay": config.batch_norm.decay,
        "norm_epsilon": config.batch_norm.epsilon,
        "shortcut": config.model.shortcut,
        "dropout": config.model.dropout,
        "stochastic_depth": config.model.stochastic_depth,
        "zero_init_last_norm": config.model.zero_init_last_norm,
    }
    own = {name: value for name, value in fields.items() if value is not None}
    # These are of the training and not of the weights, so that None means none, whatever the weights came with.
    of_training = {
        "norm_group_size": config.batch_norm.group_size,
        "remat_stages": config.model.remat_stages or 0,
        "single_output": config.model.single_output,
    }
    return own | {name: value for name, value in of_training.items() if name in known}
