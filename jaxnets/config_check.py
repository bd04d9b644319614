"""What a config may not have together, and what does nothing beside the rest of it."""

import math
import re
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

from jaxnets.errors import UserError, nearest
from jaxnets.metrics.table import OF_A_STEP
from jaxnets.recipe import progressive
from jaxnets.recipe.augment import check
from jaxnets.recipe.losses.table import BALANCED, LossConfig
from jaxnets.recipe.optimizer import check as optimizer_check
from jaxnets.recipe.schedule import check as schedule_check
from jaxnets.schema import AUTO, flatten, written

if TYPE_CHECKING:
    from jaxnets.config import Config, DistributedConfig, TrackConfig


def without_effect(config: "Config") -> list[str]:
    """Returns a sentence for each group of keys that were changed and do nothing beside the others."""
    augment, source = config.augment, config.data.source.partition(":")[0]
    losses = [group.name for group in fields(LossConfig) if is_dataclass(getattr(config.loss, group.name))]
    thresholds = config.loss.sigmoid_cross_entropy.threshold if config.loss.name == "sigmoid_cross_entropy" else None
    averages = config.ema.decay is not None
    rules = [  # what begins so, whether it has an effect, why not
        *check.without_effect(augment),
        *_mixing(config),
        ("progressive.", len(config.progressive.sizes) > 1, "config.progressive.sizes has no two sizes"),
        ("progressive.mixup_from", config.mix.mixup > 0, "config.mix.mixup is 0"),
        ("progressive.cutmix_from", config.mix.cutmix > 0, "config.mix.cutmix is 0"),
        ("loss.class_weight_power", config.loss.class_weights == BALANCED, "loss.class_weights is not balanced"),
        *((f"loss.{name}.", config.loss.name == name, f"loss.name is {config.loss.name}") for name in losses),
        ("loss.label_smoothing", thresholds is None, "loss.sigmoid_cross_entropy.threshold makes targets 0 or 1 again"),
        ("memory_limit_mib", config.batch_size == AUTO, f"config.batch_size is {config.batch_size}"),
        ("freeze.batch_norm", config.freeze.freezes, "nothing is frozen"),
        *optimizer_check.effects(config.optimizer),
        *schedule_check.effects(config.schedule, optimizer_check.CYCLED, config.optimizer.name),
        *((f"ema.{key}", averages, "config.ema.decay is not set") for key in ("warmup", "every_steps", "timm.")),
        ("ema.timm.", not averages or config.ema.warmup == "timm", f"ema.warmup is {config.ema.warmup}"),
        ("distill.", config.distill.teacher is not None, "config.distill.teacher is not set"),
        ("finetune.", config.finetune.method is not None, "config.finetune.method is not set"),
        ("compress.", config.compress.method is not None, "config.compress.method is not set"),
        *(
            (
                f"compress.{key}",
                config.compress.method in (None, "magnitude"),
                "config.compress.method is not magnitude",
            )
            for key in ("layers", "ramp", "every_steps")
        ),
        ("compress.keep", config.compress.method != "qat", "config.compress.method is qat"),
        ("track.experiment", config.track.mlflow is not None, "config.track.mlflow is not set"),
        ("track.name", config.track.mlflow or config.track.wandb, "the run is not tracked"),
        ("data.table.", source in _TABLES, f"data.source is {source}"),
        ("data.cut", augment.random_resized_crop.area is not None, "nothing is cut at random"),
        ("data.root", source in ("csv", "parquet"), f"data.source is {source}"),
        ("data.directory", source in ("tfds", "hf"), f"data.source is {source}"),
    ]
    defaults = flatten(type(config)())
    changed = [key for key, value in flatten(config).items() if value != defaults[key]]
    return [
        f"config.{key} has no effect: {why}"
        for key in changed
        for start, has_effect, why in rules
        if key.startswith(start) and not has_effect
    ]


def _mixing(config: "Config") -> list[tuple[str, bool, str]]:
    """Returns the rules for config.mix."""
    mix = config.mix
    mixes, both = bool(mix.mixup or mix.cutmix), bool(mix.mixup and mix.cutmix)
    rules = [
        ("mix.", mixes, "neither config.mix.mixup nor config.mix.cutmix is above 0"),
        ("mix.switch", both or not mixes, "only one of config.mix.mixup and config.mix.cutmix is above 0"),
        ("mix.switch", mix.mode != "automl", "config.mix.mode is automl, which cuts the second half of each batch"),
    ]
    if mixes:
        rules += [
            ("mix.", config.batch_size != 1, "config.batch_size is 1, so that no image has a partner"),
            ("mix.", mix.probability > 0, "config.mix.probability is 0"),
        ]
    if mix.until_epoch is not None and config.steps is None:
        rules.append(("mix.until_epoch", mix.until_epoch < config.epochs, "the run ends before"))
    return rules


_TABLES = ("csv", "parquet", "hf", "tar", "tfrecord")


def refuse_contradictions(config: "Config") -> None:
    data, group = config.data, config.batch_norm.group_size
    if group is not None and config.batch_size % group:
        raise UserError(
            f"config.batch_norm.group_size {group} does not divide config.batch_size {config.batch_size}: "
            f"take a divisor of it, or leave it out to average over the whole batch"
        )
    micro_batches, size = config.accumulate_steps, config.batch_size // config.accumulate_steps
    if config.batch_size % micro_batches:
        raise UserError(
            f"config.accumulate_steps {micro_batches} does not divide config.batch_size {config.batch_size}"
        )
    if group is not None and size % group:
        raise UserError(
            f"config.accumulate_steps {micro_batches} makes micro-batches of {size} examples, which "
            f"config.batch_norm.group_size {group} does not divide: take a divisor of {size}"
        )
    if config.batch_size == AUTO and config.finetune.method is not None:
        raise UserError(
            f"config.batch_size auto is found for a training from its first step, and config.finetune.method "
            f"{config.finetune.method} begins with a head: give a number"
        )
    check_distributed(config.distributed)
    for name in config.train_metrics:
        if name not in OF_A_STEP:
            raise UserError(
                f"config.train_metrics must be of {', '.join(OF_A_STEP)}, found {name!r}{nearest(name, OF_A_STEP)}"
            )
    if data.folds is not None and data.validation:
        raise UserError(
            f"config.data.folds {data.folds} and config.data.validation {data.validation:g} both hold out validation "
            f"examples: leave one of them out"
        )
    if data.cut == "host" and data.placement == "device":
        raise UserError(
            "config.data.cut host makes new images in every epoch, which cannot lie on the device: leave it out, or "
            "set config.data.placement to stream"
        )
    if data.cut == "host" and data.canvas_size is not None:
        raise UserError("config.data.cut host makes no canvases: leave it out, or config.data.canvas_size")
    if config.batch_size % data.repeats:
        raise UserError(
            f"config.data.repeats {data.repeats} does not divide config.batch_size {config.batch_size}, so that a "
            f"batch cannot hold each of its images {data.repeats} times: take a divisor of it, or another batch_size"
        )
    if data.fold and (data.folds is None or data.fold >= data.folds):
        raise UserError(
            f"config.data.fold {data.fold} is not one of config.data.folds {data.folds or 'None'}, which count from 0"
        )
    if (data.mean is None) != (data.std is None):
        raise UserError("config.data.mean and config.data.std are given together or not at all, found only one")
    if data.mean is not None and data.std is not None:
        if len(data.mean) != len(data.std) or (data.channels and data.channels != len(data.mean)):
            raise UserError(
                f"config.data.mean and config.data.std need one number per channel, found {len(data.mean)} and "
                f"{len(data.std)}" + (f" for {data.channels} channels" if data.channels else "")
            )
        if min(data.std) <= 0 or max(*data.std, *data.mean) > 1 or min(data.mean) < 0:
            raise UserError(
                f"config.data.mean and config.data.std are of pixels scaled to 0…1, std above 0, found {data.mean} and "
                f"{data.std}: divide them by 255 if they are of pixels 0…255"
            )
    if data.test_size is not None and data.image_size is None:
        raise UserError(
            f"config.data.test_size {written(data.test_size)} goes with config.data.image_size, what is trained at: "
            f"give both, or image_size alone to train and test at one size"
        )
    if config.augment.flip.alternate and not config.augment.flip.horizontal:
        raise UserError(
            "config.augment.flip.alternate would mirror all images of every second epoch: set "
            "config.augment.flip.horizontal to 0.5 with it, so that half of them begin mirrored"
        )
    check.refuse_contradictions(config.augment, data.channels)
    crop = config.augment.random_resized_crop
    if crop.area is not None and not (len(crop.area) == 2 and 0 < crop.area[0] <= crop.area[1] <= 1):
        raise UserError(
            f"config.augment.random_resized_crop.area must be two shares of the image, the least first, above 0 and at "
            f"most 1 (0.08,1), found {crop.area}"
        )
    if not (len(crop.aspect) == 2 and 0 < crop.aspect[0] <= crop.aspect[1] < math.inf):
        raise UserError(
            f"config.augment.random_resized_crop.aspect must be two numbers, width / height, the least first and above "
            f"0 (0.75,1.3333), found {crop.aspect}"
        )
    optimizer_check.check_optimizer(config.optimizer)
    schedule_check.check_schedule(config.schedule, config.epochs, config.steps)
    if config.distill.teacher is not None and not config.distill.weight:
        raise UserError(
            "config.distill.weight 0 learns nothing from config.distill.teacher: give a weight above 0, or leave the "
            "teacher out"
        )
    _refuse_thaws_of_nothing(config)
    if config.compress.method is not None and config.finetune.method is not None:
        raise UserError(
            f"config.compress.method {config.compress.method} makes a trained network smaller, and "
            f"config.finetune.method {config.finetune.method} trains one: fine-tune first, and then compress the run "
            f"(python -m jaxnets.compress)"
        )
    if config.compress.method == "magnitude" and config.freeze.freezes:
        raise UserError(
            "config.compress.method magnitude prunes layers while they train, and config.freeze keeps some as they "
            "are: leave one of them out"
        )
    progressive.refuse_contradictions(config.progressive)
    check_tracking(config.track)


def _refuse_thaws_of_nothing(config: "Config") -> None:
    for key in ("thaw_epoch", "stage_epochs"):
        epochs = getattr(config.freeze, key)
        if epochs is None:
            continue
        if not config.freeze.freezes:
            raise UserError(
                f"config.freeze.{key} {epochs:g} says when what is frozen begins to train, and nothing is frozen: set "
                f"config.freeze.before as well (head: all but the head), or leave it out"
            )
        if config.steps is None and epochs >= config.epochs:
            raise UserError(
                f"config.freeze.{key} {epochs:g} is not before the end, config.epochs {config.epochs:g}, so that what "
                f"is frozen would never train: thaw it earlier, train for longer, or leave it out to keep it frozen"
            )


_STORES = re.compile(
    r"https?://[^/].*|sqlite(\+\w+)?:///.+|(postgresql|mysql|mssql)(\+\w+)?://.+|databricks(-uc)?(://.+)?|file:.+"
)
_PROJECT = re.compile(r"([^/\\#?%:\s]+/)?[^/\\#?%:]{1,128}")


def check_tracking(track: "TrackConfig", prefix: str = "config.track.") -> None:
    """Refuses what names no place; whether there is such a place shows when it is reached."""
    if track.mlflow is not None and not _STORES.fullmatch(track.mlflow):
        raise UserError(
            f"{prefix}mlflow must be the URI of MLflow: http://HOST:PORT of a server, sqlite:///FILE, or that of "
            f"another database; found {track.mlflow!r}"
        )
    if track.mlflow is not None and re.match(r"https?://[^/]*:[^/]*@", track.mlflow):
        raise UserError(
            f"{prefix}mlflow would write its password into config.json: leave it out, and set "
            f"MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if track.wandb is not None and not _PROJECT.fullmatch(track.wandb):
        raise UserError(
            f"{prefix}wandb must be PROJECT or ENTITY/PROJECT of Weights & Biases, without / \\ # ? % : in their "
            f"names, found {track.wandb!r}"
        )
    for key in ("experiment", "name"):
        if (given := getattr(track, key)) is not None and not given.strip():
            raise UserError(f"{prefix}{key} is empty: give a name, or leave it out")


def check_distributed(hosts: "DistributedConfig", prefix: str = "config.distributed.") -> None:
    """Refuses addresses of processes that are not all there; `prefix` is what the user gave them with."""
    if len({value is None for value in (hosts.coordinator, hosts.processes, hosts.process)}) > 1:
        raise UserError(
            f"{prefix}coordinator, {prefix}processes and {prefix}process are given together or not at all, found "
            f"{hosts.coordinator}, {hosts.processes} and {hosts.process}"
        )
    if hosts.coordinator is not None and not re.fullmatch(r".+:\d+", hosts.coordinator):
        raise UserError(f"{prefix}coordinator must be HOST:PORT, found {hosts.coordinator!r}")
    if hosts.process is not None and hosts.processes is not None and not 0 <= hosts.process < hosts.processes:
        raise UserError(f"{prefix}process {hosts.process} is not one of {hosts.processes} processes: they count from 0")
