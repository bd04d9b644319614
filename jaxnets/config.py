"""The configuration: every key, its default, its unit and what it may be.

The frozen dataclasses below are the schema. `default_config` hands it out as an `ml_collections.ConfigDict` for
config files and flags to change; `resolve` turns that back into frozen specs, once, and refuses what cannot work.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Literal

from ml_collections import ConfigDict

from jaxnets.errors import UserError, nearest
from jaxnets.metrics.table import OF_A_STEP
from jaxnets.recipe.augment import check
from jaxnets.recipe.augment.table import AugmentConfig
from jaxnets.recipe.compress import CompressConfig
from jaxnets.recipe.distill import DistillConfig
from jaxnets.recipe.ema import EmaConfig
from jaxnets.recipe.finetune import FinetuneConfig
from jaxnets.recipe.freeze import FreezeConfig
from jaxnets.recipe.losses.table import BALANCED, LossConfig
from jaxnets.recipe.mix import MixConfig
from jaxnets.recipe.optimizer import check as optimizer_check
from jaxnets.recipe.optimizer.table import OptimizerConfig
from jaxnets.recipe.progressive import ProgressiveConfig, refuse_contradictions
from jaxnets.recipe.schedule import check as schedule_check
from jaxnets.recipe.schedule.table import ScheduleConfig
from jaxnets.schema import (
    AboveZeroToOne,
    BetweenZeroAndOne,
    Count,
    Natural,
    Pixels,
    Positive,
    Range,
    ZeroToBelowOne,
    ZeroToOne,
    flatten,
    to_config_dict,
    to_spec,
    written,
)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    name: str = "resnet20_cifar"  # one of jaxnets.list_models()
    shortcut: Literal["A", "B"] | None = None  # CIFAR networks: A has no parameters, B a 1×1 convolution; None: A
    pretrained: str | None = None  # weights to start from: a file, hf:OWNER/REPO, a run directory or a model's name
    dropout: ZeroToBelowOne | None = None  # share of features left out while training; None: the model's own
    stochastic_depth: ZeroToBelowOne | None = (
        None  # share of examples that leave out the last block; None: the model's own
    )
    remat_stages: Natural | None = None  # first ones that are computed again for the gradient, to need less memory
    single_output: bool = False  # of two classes: one output, the log-odds of the second, in place of two
    zero_init_last_norm: bool | None = None  # scale of each block's last norm starts at 0; None: the model's own


@dataclass(frozen=True, kw_only=True)
class BatchNormConfig:
    group_size: Count | None = None  # examples whose statistics are taken together; None: the whole global batch
    decay: BetweenZeroAndOne | None = None  # weight of the old running value at each step; None: the model's own
    epsilon: Positive | None = None  # added to the variance; None: the model's own


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    # Column of csv:, parquet: or hf: with the images, or their paths, and feature of tfrecord:; None: by its name.
    image: str | None = None
    label: str | None = None  # column with their classes (of tar:, key of the JSON beside each); None: by its name
    label_offset: int = 0  # of tfrecord:, what is taken off each number: 1 where they count from 1, as ImageNet's do
    classes: str | None = None  # of tfrecord:, a file that names the classes of the numbers, one a line
    labels: tuple[str, ...] = ()  # instead: columns of 0 and 1, one for each label of images that may have several
    separator: str | None = None  # between the labels of one cell, where an image may have several; None: it has one
    split: str | None = None  # column that says train, val or test; None: by its name; "": none
    group: str | None = None  # column whose groups no drawn split tears apart; None: by its name; "": none
    skip_missing: bool = False  # leave out rows whose image or label is missing (they are counted), instead of stopping


Cutter = Literal["device", "host"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    # digits, idx:DIR, folder:DIR, list:FILE, csv:FILE, parquet:FILE, tar:GLOB, hf:NAME, tfrecord:GLOB,
    # tfds:NAME or prepared:DIR
    source: str = "digits"
    # Pixels, one number for a square or HEIGHTxWIDTH; None: the pretrained model's, else the source's own size.
    image_size: Pixels | None = None
    test_size: Pixels | None = None  # pixels, at which the model is evaluated and used; None: image_size
    # Of a whole image: crop: its centre; pad: all of it, between bars (letterbox); squeeze: all, at the model's aspect.
    fit: Literal["crop", "pad", "squeeze"] | None = None  # None: pretrained, else crop
    # Pixels, at which training images are kept whole before the crop; None: their own where they have one size that
    # is not far above the model's, else a quarter more than evaluation resizes to.
    canvas_size: Pixels | None = None
    # What cuts random resized crops: device: of canvases; host: of images as it decodes them, quicker where they are
    # streamed. None: host where they are decoded for every batch, else device.
    cut: Cutter | None = None
    channels: Literal[1, 3] | None = None  # grey or RGB; None: the source's own
    num_classes: Annotated[int, Range(2)] | None = None  # set, the source must have as many; None: whatever it has
    train_examples: Count | None = None  # for jaxnets.plan, which with this and num_classes opens no data
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None  # None: pretrained, else bilinear
    white_level: Annotated[int, Range(1, 65535)] = 65535  # of grey images of 16 bits: 4095 where 12 of them are used
    # Of the shorter side, that the centre crop keeps; None: pretrained, else 1.
    crop_fraction: AboveZeroToOne | None = None
    mean: tuple[float, ...] | None = None  # per channel, of pixels as 0…1; None: pretrained, else of 4,096 of train
    std: tuple[float, ...] | None = None  # likewise
    validation: ZeroToBelowOne = 0.0  # share of the training examples held out to choose the best checkpoint
    folds: Annotated[int, Range(2)] | None = None  # parts of train, of which one is validation; None: as above
    fold: Natural = 0  # which of them, from 0
    shots: Count | None = None  # training examples of each class that are used; None: all
    balance: ZeroToOne = 0.0  # of the classes in an epoch: 0: as they are, 1: every class equally often
    # Times that each image of a batch is in it, augmented anew each time. An epoch stays as many examples as there are
    # training images, and so shows a part of them alone: as many epochs as repeats show them all.
    repeats: Count = 1
    test_share: BetweenZeroAndOne = 0.2  # share that becomes the test split where a source has none of its own
    placement: Literal["auto", "device", "stream"] = "auto"  # auto: on the device where it fits, else streamed
    device_limit_mib: Natural = 2048  # MiB of uint8 images that auto holds on each device
    threads: Natural | None = None  # that make batches; None: one for each core; 0: each is made when it is wanted
    skip_corrupt: bool = False  # go on without the images that cannot be read (each is named) instead of stopping
    directory: str | None = None  # where tfds: and hf: keep their data; None: their own default
    root: str | None = None  # folder that the paths of csv: and parquet: are relative to; None: that of the file
    table: TableConfig = field(default_factory=TableConfig)


@dataclass(frozen=True, kw_only=True)
class DistributedConfig:
    coordinator: str | None = None  # HOST:PORT of process 0; None: found on TPU pods, SLURM, Open MPI, Kubernetes
    processes: Count | None = None  # of the run, one for each host as a rule; given together with coordinator
    process: Natural | None = None  # the number of this one, from 0; likewise
    start_minutes: Positive = 2.0  # in which all of them must have met, after which a session gives up


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    shard_parameters: bool = False  # split parameters and optimizer over the devices instead of a copy on each


@dataclass(frozen=True, kw_only=True)
class TrackConfig:
    # URI of MLflow: http://HOST:PORT, sqlite:///FILE, postgresql://…, databricks; None: the run is not tracked there.
    mlflow: str | None = None
    experiment: str | None = None  # of MLflow; None: MLFLOW_EXPERIMENT_NAME, else jaxnets
    # PROJECT or ENTITY/PROJECT of Weights & Biases, whose WANDB_MODE may be offline; None: not tracked there.
    wandb: str | None = None
    name: str | None = None  # of the run in both; None: that of the run directory


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0  # of initialisation, order, augmentation and splits
    batch_size: Count = 128  # examples a step, over all devices
    accumulate_steps: Count = 1  # micro-batches of a batch, one after the other, to need less memory
    epochs: Positive = 30.0  # passes over the training examples
    steps: Count | None = None  # when set, replaces epochs
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"  # of the computation; float64 is for tests
    matmul_precision: Literal["default", "high", "highest"] = "default"  # passes that TPU and GPU spend on a product
    train_metrics: tuple[str, ...] = ()  # of each step, beside loss and accuracy: gradient_norm
    log_every_steps: Count = 50  # steps between rows of metrics.jsonl
    eval_every_steps: Count | None = None  # None: once an epoch
    eval_batch_size: Count | None = None  # examples; None: batch_size
    checkpoint_every_steps: Count | None = None  # None: at each evaluation
    keep_checkpoints: Annotated[int, Range(2)] = 2  # newest ones that stay, beside the best
    # Figure of the validation split that says which weights are best, between equals the loss; None: accuracy, and of
    # several labels mean_average_precision.
    best: Literal["accuracy", "balanced_accuracy", "macro_f1", "mean_average_precision", "loss"] | None = None
    patience: Count | None = None  # evaluations without a better one, after which the run ends; None: it never does
    max_hours: Positive | None = None  # of wall time for this session, saving included; None: no limit
    hang_minutes: Positive | None = 30.0  # without a finished step, after which a session gives up; None: never
    profile_steps: Natural = 0  # steps recorded by the profiler into tensorboard/, after the first ten; 0: none
    drawings: bool = True  # curves.png and first_batch.png, in the run directory and in TensorBoard
    model: ModelConfig = field(default_factory=ModelConfig)
    batch_norm: BatchNormConfig = field(default_factory=BatchNormConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    mix: MixConfig = field(default_factory=MixConfig)
    progressive: ProgressiveConfig = field(default_factory=ProgressiveConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    freeze: FreezeConfig = field(default_factory=FreezeConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    compress: CompressConfig = field(default_factory=CompressConfig)


# What a run may change between its sessions: its length, its rate (the remedy for a loss that diverged) and what has no
# part in the training itself. A resumed run says what changed.
RESUMABLE = frozenset({
    "epochs", "steps", "log_every_steps", "eval_every_steps", "eval_batch_size", "checkpoint_every_steps",
    "keep_checkpoints", "patience", "max_hours", "hang_minutes", "profile_steps", "drawings", "data.placement",
    "data.device_limit_mib", "data.threads", "data.directory", "data.root", "data.skip_corrupt", "data.train_examples",
    "optimizer.learning_rate", "optimizer.learning_rate_per_256", "optimizer.clip_norm", "optimizer.adaptive_clip",
    "finetune.minutes", "accumulate_steps", "model.remat_stages", "mesh.shard_parameters",
    "distributed.coordinator", "distributed.processes", "distributed.process", "distributed.start_minutes",
    "track.mlflow", "track.experiment", "track.wandb", "track.name",
})  # fmt: skip


_MOVED = {"ema_decay": "ema.decay (beside its warm-up, config.ema.warmup)"}  # keys of earlier versions


def default_config() -> ConfigDict:
    """Returns the schema with its defaults, locked: a config file changes values and cannot add keys."""
    return to_config_dict(Config()).lock()


def resolve(config: ConfigDict | Mapping[str, Any]) -> Config:
    """Converts what a config file, the flags or config.json gave into frozen specs.

    Raises:
        UserError: for an unknown key, a value of the wrong type or out of range, or keys that contradict each other.
    """
    given = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    for key in given.keys() & _MOVED.keys():
        raise UserError(f"config.{key} is config.{_MOVED[key]} now")
    resolved = to_spec(Config, given)
    _refuse_contradictions(resolved)
    return resolved


def with_changes(values: dict[str, Any], changes: Mapping[str, Any]) -> Config:
    """Returns the config of nested values, which are changed on the way by others under their full names.

    Raises:
        UserError: as `resolve`, and for a name that is no key.
    """
    for name, value in changes.items():
        *above, last = name.split(".")
        group: Any = values
        for part in above:
            group = group.get(part) if isinstance(group, dict) else None
        if not isinstance(group, dict) or last not in group or isinstance(group[last], dict):
            raise UserError(f"config.{name} is not a key{nearest(name, flatten(Config()))}")
        group[last] = value
    return resolve(values)


def without_effect(config: Config) -> list[str]:
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
        ("freeze.batch_norm", config.freeze.freezes, "nothing is frozen"),
        *optimizer_check.effects(config.optimizer),
        *schedule_check.effects(config.schedule, optimizer_check.CYCLED, config.optimizer.name),
        *((f"ema.{key}", averages, "config.ema.decay is not set") for key in ("warmup", "every_steps", "timm.")),
        ("ema.timm.", not averages or config.ema.warmup == "timm", f"ema.warmup is {config.ema.warmup}"),
        ("distill.", config.distill.teacher is not None, "config.distill.teacher is not set"),
        ("finetune.", config.finetune.method is not None, "config.finetune.method is not set"),
        ("track.experiment", config.track.mlflow is not None, "config.track.mlflow is not set"),
        ("track.name", config.track.mlflow or config.track.wandb, "the run is not tracked"),
        ("compress.", config.compress.method is not None, "config.compress.method is not set"),
        *(
            (f"compress.{key}", config.compress.method in (None, "magnitude"), "config.compress.method is channels")
            for key in ("layers", "ramp", "every_steps")
        ),
        ("data.table.", source in _TABLES, f"data.source is {source}"),
        ("data.cut", augment.random_resized_crop.area is not None, "nothing is cut at random"),
        ("data.root", source in ("csv", "parquet"), f"data.source is {source}"),
        ("data.directory", source in ("tfds", "hf"), f"data.source is {source}"),
    ]
    defaults = flatten(Config())
    changed = [key for key, value in flatten(config).items() if value != defaults[key]]
    return [
        f"config.{key} has no effect: {why}"
        for key in changed
        for start, has_effect, why in rules
        if key.startswith(start) and not has_effect
    ]


def _mixing(config: Config) -> list[tuple[str, bool, str]]:
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
            ("mix.", config.batch_size > 1, "config.batch_size is 1, so that no image has a partner"),
            ("mix.", mix.probability > 0, "config.mix.probability is 0"),
        ]
    if mix.until_epoch is not None and config.steps is None:
        rules.append(("mix.until_epoch", mix.until_epoch < config.epochs, "the run ends before"))
    return rules


_TABLES = ("csv", "parquet", "hf", "tar", "tfrecord")


def _refuse_contradictions(config: Config) -> None:
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
    refuse_contradictions(config.progressive)
    check_tracking(config.track)


def _refuse_thaws_of_nothing(config: Config) -> None:
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


def check_tracking(track: TrackConfig, prefix: str = "config.track.") -> None:
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


def check_distributed(hosts: DistributedConfig, prefix: str = "config.distributed.") -> None:
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
