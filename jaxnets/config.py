"""The configuration: every key, its default, its unit and what it may be.

The frozen dataclasses below are the schema. `default_config` hands it out as an `ml_collections.ConfigDict` for
config files and flags to change; `resolve` turns that back into frozen specs, once, and refuses what cannot work.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ml_collections import ConfigDict

from jaxnets.config_check import refuse_contradictions
from jaxnets.errors import UserError, nearest
from jaxnets.recipe.augment.table import AugmentConfig
from jaxnets.recipe.compress import CompressConfig
from jaxnets.recipe.distill import DistillConfig
from jaxnets.recipe.ema import EmaConfig
from jaxnets.recipe.finetune import FinetuneConfig
from jaxnets.recipe.freeze import FreezeConfig
from jaxnets.recipe.losses.table import LossConfig
from jaxnets.recipe.mix import MixConfig
from jaxnets.recipe.optimizer.table import OptimizerConfig
from jaxnets.recipe.progressive import ProgressiveConfig
from jaxnets.recipe.schedule.table import ScheduleConfig
from jaxnets.schema import (
    AboveZeroToOne,
    BatchSize,
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
    # Examples a step, over all devices. auto: as many as fit into memory, by the compiler's account when a run begins.
    batch_size: BatchSize = 128
    # MiB that batch_size auto may fill: of each accelerator, or on a CPU of the whole process; None: what there is.
    memory_limit_mib: Count | None = None
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
    compress: CompressConfig = field(default_factory=CompressConfig)
    track: TrackConfig = field(default_factory=TrackConfig)


# What a run may change between its sessions: its length, its rate (the remedy for a loss that diverged) and what has no
# part in the training itself. A resumed run says what changed.
RESUMABLE = frozenset({
    "epochs", "steps", "log_every_steps", "eval_every_steps", "eval_batch_size", "checkpoint_every_steps",
    "keep_checkpoints", "patience", "max_hours", "hang_minutes", "profile_steps", "drawings", "data.placement",
    "data.device_limit_mib", "data.threads", "data.directory", "data.root", "data.skip_corrupt", "data.train_examples",
    "optimizer.learning_rate", "optimizer.learning_rate_per_256", "optimizer.clip_norm", "optimizer.adaptive_clip",
    "memory_limit_mib", "finetune.minutes", "accumulate_steps", "model.remat_stages", "mesh.shard_parameters",
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
    refuse_contradictions(resolved)
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
