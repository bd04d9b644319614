"""The configuration: every key, its default, its unit and what it may be.

The frozen dataclasses below are the schema. `default_config` hands it out as an `ml_collections.ConfigDict` for
config files and flags to change; `resolve` turns that back into frozen specs, once, and refuses what cannot work.
"""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from ml_collections import ConfigDict, config_dict

from jaxnets.errors import UserError, nearest


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, the ends included unless said otherwise."""

    low: float
    high: float = math.inf
    without_low: bool = False
    without_high: bool = False

    def __contains__(self, x: object) -> bool:
        if not isinstance(x, int | float):
            return False
        above = x > self.low if self.without_low else x >= self.low
        below = x < self.high if self.without_high else x <= self.high
        return above and below and not math.isinf(x)

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.without_low else f"at least {self.low:g}"
        if math.isinf(self.high):
            return low
        return f"{low} and {'below' if self.without_high else 'at most'} {self.high:g}"


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, without_low=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1, without_high=True)]
Proportion = Annotated[float, Range(0, 1)]
Fraction = Annotated[float, Range(0, 1, without_low=True)]
Decay = Annotated[float, Range(0, 1, without_low=True, without_high=True)]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    name: str = "resnet20_cifar"  # one of jaxnets.list_models()
    shortcut: Literal["A", "B"] | None = None  # CIFAR networks: A has no parameters, B a 1×1 convolution; None: A
    pretrained: str | None = None  # weights to start from: a file, hf:OWNER/REPO, a run directory or a model's name
    dropout: Share | None = None  # share of features left out while training; None: the model's own
    stochastic_depth: Share | None = None  # share of examples that leave out the last block; None: the model's own
    remat_stages: Natural | None = None  # first ones that are computed again for the gradient, to need less memory
    zero_init_last_norm: bool | None = None  # scale of each block's last norm starts at 0; None: the model's own


@dataclass(frozen=True, kw_only=True)
class BatchNormConfig:
    group_size: Count | None = None  # examples whose statistics are taken together; None: the whole global batch
    decay: Decay | None = None  # weight of the old running value at each step; None: the model's own
    epsilon: Positive | None = None  # added to the variance; None: the model's own


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    source: str = "digits"  # digits, idx:DIR, folder:DIR, list:FILE or tfds:NAME
    image_size: Count | None = (
        None  # pixels, height and width; None: the pretrained model's, else the source's own size
    )
    channels: Literal[1, 3] | None = None  # grey or RGB; None: the source's own
    num_classes: Annotated[int, Range(2)] | None = None  # set, the source must have as many; None: whatever it has
    train_examples: Count | None = None  # for jaxnets.plan, which with this and num_classes opens no data
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None  # None: pretrained, else bilinear
    white_level: Annotated[int, Range(1, 65535)] = 65535  # of grey images of 16 bits: 4095 where 12 of them are used
    crop_fraction: Fraction | None = None  # of the shorter side, kept by the centre crop; None: pretrained, else 1
    mean: tuple[float, ...] | None = None  # per channel, of pixels as 0…1; None: pretrained, else of 4,096 of train
    std: tuple[float, ...] | None = None  # likewise
    validation: Share = 0.0  # share of the training examples held out to choose the best checkpoint
    test_share: Decay = 0.2  # share that becomes the test split where a source has none of its own
    crop_padding: Natural = 0  # pixels of black around a training image, before a random crop back to its size
    flip: bool = False  # mirror every other training image left to right, at random
    placement: Literal["auto", "device", "stream"] = "auto"  # auto: on the device where it fits, else streamed
    device_limit_mib: Natural = 2048  # MiB of uint8 images that auto holds on each device
    threads: Count | None = None  # that decode images; None: one for each core
    skip_corrupt: bool = False  # go on without the images that cannot be read (each is named) instead of stopping
    directory: str | None = None  # where tfds: keeps its data; None: TFDS's own default


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    name: Literal["sgd", "adamw"] = "sgd"  # sgd adds weight decay to the gradient, adamw keeps it apart
    learning_rate: Positive = 0.1  # at its peak, for the whole batch
    momentum: Share = 0.9  # sgd
    nesterov: bool = True  # sgd
    beta1: Share = 0.9  # adamw
    beta2: Share = 0.999  # adamw
    epsilon: Positive = 1e-8  # adamw
    weight_decay: NonNegative = 5e-4  # of the kernels alone: biases and norms are left out
    clip_norm: Positive | None = None  # largest global norm of the gradient; None: no limit


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    name: Literal["cosine", "linear", "step", "constant"] = "cosine"
    warmup_epochs: NonNegative = 0.0  # epochs of linear rise from 0
    final: Proportion = 0.0  # cosine, linear: share of the peak that is left at the end
    milestones: tuple[float, ...] = (0.5, 0.75)  # step: shares of the whole run at which the rate drops
    factor: Proportion = 0.1  # step: what the rate is multiplied by at each milestone


@dataclass(frozen=True, kw_only=True)
class DistributedConfig:
    coordinator: str | None = None  # HOST:PORT of process 0; None: found on TPU pods, SLURM, Open MPI, Kubernetes
    processes: Count | None = None  # of the run, one for each host as a rule; given together with coordinator
    process: Natural | None = None  # the number of this one, from 0; likewise


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    shard_parameters: bool = False  # split parameters and optimizer over the devices instead of a copy on each


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0  # of initialisation, order, augmentation and splits
    batch_size: Count = 128  # examples a step, over all devices
    # Parts of a batch that are computed one after the other, to need less memory; each draws its own dropout.
    accumulate_steps: Count = 1
    epochs: Positive = 30.0  # passes over the training examples
    steps: Count | None = None  # when set, replaces epochs
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"  # of the computation; float64 is for tests
    matmul_precision: Literal["default", "high", "highest"] = "default"  # passes that TPU and GPU spend on a product
    label_smoothing: Share = 0.0  # share of the target that is spread over all classes
    ema_decay: Decay | None = None  # weight of the old value in the averaged weights; None: no average is kept
    log_every_steps: Count = 50  # steps between rows of metrics.jsonl
    eval_every_steps: Count | None = None  # None: once an epoch
    eval_batch_size: Count | None = None  # examples; None: batch_size
    checkpoint_every_steps: Count | None = None  # None: at each evaluation
    max_hours: Positive | None = None  # of wall time for this session, saving included; None: no limit
    hang_minutes: Positive | None = 30.0  # without a finished step, after which a session gives up; None: never
    profile_steps: Natural = 0  # steps recorded by the profiler into tensorboard/, after the first ten; 0: none
    model: ModelConfig = field(default_factory=ModelConfig)
    batch_norm: BatchNormConfig = field(default_factory=BatchNormConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)


# What a run may change between its sessions: its length, its rate (the remedy for a loss that diverged) and what has no
# part in the training itself. A resumed run says what changed.
RESUMABLE = frozenset({
    "epochs", "steps", "log_every_steps", "eval_every_steps", "eval_batch_size", "checkpoint_every_steps",
    "max_hours", "hang_minutes", "profile_steps", "data.placement", "data.device_limit_mib", "data.threads",
    "data.directory", "data.skip_corrupt", "data.train_examples", "optimizer.learning_rate", "optimizer.clip_norm",
    "accumulate_steps", "model.remat_stages", "mesh.shard_parameters",
    "distributed.coordinator", "distributed.processes", "distributed.process",
})  # fmt: skip

_T = TypeVar("_T")


def default_config() -> ConfigDict:
    """Returns the schema with its defaults, locked: a config file changes values and cannot add keys."""
    return _to_config_dict(Config()).lock()


def resolve(config: ConfigDict | Mapping[str, Any]) -> Config:
    """Converts what a config file, the flags or config.json gave into frozen specs.

    Raises:
        UserError: for an unknown key, a value of the wrong type or out of range, or keys that contradict each other.
    """
    given = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    resolved = _to_spec(Config, given, prefix="")
    _refuse_contradictions(resolved)
    return resolved


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns `{"model.name": "resnet20_cifar", …}` for a spec, in the order of the schema."""
    flat: dict[str, Any] = {}
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{entry.name}.")
        else:
            flat[prefix + entry.name] = value
    return flat


def _to_config_dict(spec: Any) -> ConfigDict:
    config = ConfigDict()
    for name, kind, _ in _schema(type(spec)):
        value = getattr(spec, name)
        if dataclasses.is_dataclass(value):
            value = _to_config_dict(value)
        elif value is None:
            value = config_dict.placeholder(kind)
        config[name] = value
    return config


def _schema(spec_type: type) -> Iterator[tuple[str, type, Any]]:
    """Yields each key's name, its plain type and what restrains it: None, a Range or the tuple of its choices."""
    for name, hint in typing.get_type_hints(spec_type, include_extras=True).items():
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
            hint = next(option for option in typing.get_args(hint) if option is not type(None))
        restraint: Any = None
        if typing.get_origin(hint) is Annotated:
            hint, restraint = typing.get_args(hint)
        elif typing.get_origin(hint) is Literal:
            restraint = typing.get_args(hint)
            hint = type(restraint[0])
        yield name, typing.get_origin(hint) or hint, restraint


def _to_spec(spec_type: type[_T], given: Mapping[str, Any], prefix: str) -> _T:
    schema = {name: (kind, restraint) for name, kind, restraint in _schema(spec_type)}
    for key in given:
        if key not in schema:
            raise UserError(f"config.{prefix}{key} is not a key{nearest(key, schema)}; valid are {', '.join(schema)}")
    defaults = spec_type()
    values: dict[str, Any] = {}
    for name, value in given.items():
        kind, restraint = schema[name]
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise UserError(f"config.{prefix}{name} is a group of keys, found {value!r}")
            values[name] = _to_spec(kind, value, f"{prefix}{name}.")
        elif value is None and getattr(defaults, name) is None:
            values[name] = None
        else:
            values[name] = _check(f"config.{prefix}{name}", value, kind, restraint)
    return spec_type(**values)


def _check(key: str, value: Any, kind: type, restraint: Any) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is tuple and isinstance(value, (list, tuple)) and all(isinstance(x, (int, float)) for x in value):
        value = tuple(float(x) for x in value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        wanted = "tuple of numbers" if kind is tuple else kind.__name__
        raise UserError(f"{key} must be {wanted}, found {value!r} ({type(value).__name__})")
    if isinstance(restraint, Range) and value not in restraint:
        raise UserError(f"{key} must be {restraint}, found {value}")
    if isinstance(restraint, tuple) and value not in restraint:
        valid = ", ".join(str(choice) for choice in restraint)
        raise UserError(f"{key} must be one of {valid}, found {value!r}{nearest(str(value), map(str, restraint))}")
    return value


def _refuse_contradictions(config: Config) -> None:
    data, schedule, group = config.data, config.schedule, config.batch_norm.group_size
    if group is not None and config.batch_size % group:
        raise UserError(
            f"config.batch_norm.group_size {group} does not divide config.batch_size {config.batch_size}: "
            f"take a divisor of it, or leave it out to average over the whole batch"
        )
    parts, part = config.accumulate_steps, config.batch_size // config.accumulate_steps
    if config.batch_size % parts:
        raise UserError(f"config.accumulate_steps {parts} does not divide config.batch_size {config.batch_size}")
    if parts > 1 and (group is None or part % group):
        raise UserError(
            f"config.accumulate_steps {parts} makes parts of {part} examples, and BatchNorm cannot average over more "
            f"than one: set config.batch_norm.group_size to a divisor of {part}, found {group}"
        )
    check_distributed(config.distributed)
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
    if schedule.name == "step" and not _rising(schedule.milestones):
        raise UserError(
            f"config.schedule.milestones must be rising shares of the run between 0 and 1, found {schedule.milestones}"
        )
    if config.steps is None and schedule.warmup_epochs >= config.epochs:
        raise UserError(
            f"config.schedule.warmup_epochs {schedule.warmup_epochs:g} leaves nothing of config.epochs "
            f"{config.epochs:g}: warm up for less, or train for longer"
        )


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


def _rising(shares: tuple[float, ...]) -> bool:
    return list(shares) == sorted(set(shares)) and all(0 < share < 1 for share in shares)
