"""Compiles a config's training and evaluation steps for a topology, and says what bounds them."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from jaxnets.config import Config
from jaxnets.data.dataset import Dataset, open_dataset
from jaxnets.data.sources import ArraySplit, Source
from jaxnets.errors import UserError
from jaxnets.plan.compiled import Program, Refusal, compile_program
from jaxnets.plan.topology import Topology
from jaxnets.preprocess import Preprocess
from jaxnets.schema import sides
from jaxnets.terminal import without_warnings
from jaxnets.train.auto_batch import quantum_of
from jaxnets.train.build import build, steps_of
from jaxnets.train.evaluation import jit_eval_step
from jaxnets.train.feed import jit_train_step, resides
from jaxnets.train.largest import largest_batch
from jaxnets.train.mesh import batch_like, check_batch_size, make_mesh, over_data, round_up
from jaxnets.train.phases import Phases
from jaxnets.train.start import open_start
from jaxnets.train.step import TrainState

_log = logging.getLogger(__name__)

_PASSES = {"default": 1, "high": 3, "highest": 6}  # of bfloat16, that a TPU spends on a product of float32
_TRIES = 8  # programs compiled at most in search of the largest batch
_ROOM = 0.97  # share of the memory that a first guess at the largest batch would fill


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """One compiled step on a topology. Speeds are the least upper bounds that the chips' own numbers allow."""

    name: str  # "training step" or "evaluation step"
    topology: Topology
    batch_size: int
    outcome: Program | Refusal
    passes: int  # through the matrix unit, for each product
    held: int  # bytes of images that lie on each device beside the program

    @property
    def fits(self) -> bool:
        return isinstance(self.outcome, Program) and self.peak <= self.topology.memory

    @property
    def refusal(self) -> str | None:
        """Returns why it does not fit: the compiler's words, or our sum."""
        if isinstance(self.outcome, Refusal):
            return self.outcome.reason
        if self.fits:
            return None
        images = f", {self.held:,} bytes of images among them" if self.held else ""
        return f"it takes {self.peak:,} bytes where a device has {self.topology.memory:,}{images}"

    @property
    def peak(self) -> int:
        """Returns the bytes of memory in use at most."""
        return self.program.peak + self.held

    @property
    def program(self) -> Program:
        if isinstance(self.outcome, Refusal):
            raise ValueError(self.outcome.reason)
        return self.outcome

    @property
    def flops_per_image(self) -> float:
        return self.program.flops * len(self.topology.devices) / self.batch_size

    @property
    def bytes_per_image(self) -> float:
        return self.program.nbytes * len(self.topology.devices) / self.batch_size

    @property
    def seconds(self) -> dict[str, float]:
        """Returns the seconds that a step takes at least for its arithmetic, its memory and its interconnect."""
        chip, cores, devices = self.topology.chip, self.topology.cores, len(self.topology.devices)
        return {
            "compute": self.program.flops * self.passes / (chip.flops / cores),
            "memory": self.program.nbytes / (chip.bandwidth / cores),
            "interconnect": self.program.bytes_sent(devices) / (chip.interconnect / cores),
        }

    @property
    def bound(self) -> str:
        """Returns which of `seconds` binds."""
        return max(self.seconds, key=self.seconds.__getitem__)

    @property
    def images_per_second(self) -> float:
        """Returns the speed if all three ran at their full rate side by side."""
        return self.batch_size / max(self.seconds.values())


@dataclass(frozen=True, kw_only=True)
class StateSize:
    """Bytes on each device."""

    parameters: int  # their number, over all devices
    variables: int
    optimizer: int
    ema: int


class Planner:
    """A config on a topology; each question compiles a program, which takes from seconds to minutes."""

    def __init__(self, config: Config, topology: Topology, say: Callable[[str], None]) -> None:
        jax.config.update("jax_enable_x64", config.dtype == "float64")
        jax.config.update("jax_default_matmul_precision", config.matmul_precision)
        # What the classes are weighted by are constants of the program, of no account here, and may need the data.
        config = replace(config, loss=replace(config.loss, class_weights=None, logit_adjustment=0.0))
        if config.distill.teacher is not None:
            _log.warning("the teacher of config.distill is not counted: its memory and its time come on top")
        self.config, self.topology, self._say = config, topology, say
        self.mesh = make_mesh(topology.devices)
        self._check("config.batch_size", config.batch_size)
        start = open_start(config)
        self.data = _data(config, start.preprocess if start else None)
        training = self.data.training
        self.train_examples = len(training)
        self.steps = steps_of(config, self.data)
        self.held = training.nbytes if resides(config.data, training) else 0
        fields = start.fields if start else None
        # Of a run that thaws layers, the last phase: no other takes as much memory.
        self._built = build(config, self.data, fields, over_data(self.mesh, axis=1))
        self._phase = self._built.phases[-1]
        self._micro = build(replace(config, accumulate_steps=1), self.data, fields).phases[-1]

    @cached_property
    def state(self) -> TrainState:
        """Shapes and shardings of the training state."""
        return Phases(self._built.phases, self.mesh, split=self.config.mesh.shard_parameters).like(self._phase)

    @property
    def state_size(self) -> StateSize:
        return StateSize(
            parameters=sum(math.prod(x.shape) for x in jax.tree.leaves(self.state.variables["params"])),
            variables=_bytes_on_a_device(self.state.variables),
            optimizer=_bytes_on_a_device(self.state.opt_state),
            ema=_bytes_on_a_device(self.state.ema),
        )

    def train(self, batch_size: int) -> StepPlan:
        """Plans the training step.

        XLA counts the operations and bytes of a loop once. Those of config.accumulate_steps micro-batches are therefore
        a step's on one, times their number: the optimizer's stand for those of adding up the gradients.
        Memory and collectives are the step's own.
        """
        plan, count = self.train_memory(batch_size), self.config.accumulate_steps
        if count == 1 or isinstance(plan.outcome, Refusal):
            return plan
        step = jit_train_step(self._micro.step, self.state, self.mesh)
        outcome = self._plan("training step on a micro-batch", step, self.state, batch_size // count).outcome
        if isinstance(outcome, Program):
            outcome = replace(plan.outcome, flops=count * outcome.flops, nbytes=count * outcome.nbytes)
        return replace(plan, outcome=outcome)

    def train_memory(self, batch_size: int) -> StepPlan:
        """Plans the training step; of several micro-batches the operations and bytes are not all counted."""
        self._check("--batch-sizes", batch_size)
        step = jit_train_step(self._phase.step, self.state, self.mesh)
        return self._plan("training step", step, self.state, batch_size, rounds=self.config.accumulate_steps)

    def evaluate(self, batch_size: int) -> StepPlan:
        step = jit_eval_step(self._built.eval_step, self.mesh)
        return self._plan("evaluation step", step, self.state.variables, round_up(batch_size, self.mesh))

    def largest(self, first: int) -> tuple[StepPlan | None, StepPlan | None]:
        """Returns the largest batch found that fits with a copy of the state, and the smallest that does not.

        The copy is what is made to save it; either is None where none was found. They are sought as a run does that
        begins with config.batch_size auto, from a `first` batch on.
        """
        plans: dict[int, StepPlan] = {}
        size = self.state_size
        copied = size.variables + size.optimizer + size.ema

        def need(batch_size: int) -> int | None:
            with without_warnings():  # of sizes that are only tried
                plan = plans[batch_size] = self.train_memory(batch_size)
            return plan.peak + copied if isinstance(plan.outcome, Program) else None

        quantum = quantum_of(self.config, len(self.topology.devices))
        room = _ROOM * self.topology.memory
        found = largest_batch(
            need, room, fixed=2 * copied + self.held, quantum=quantum, first=first, most=self.train_examples
        )
        return (
            None if found.size is None else plans[found.size],
            None if found.refused is None else plans[found.refused],
        )

    def search(self, seen: Sequence[StepPlan]) -> tuple[StepPlan | None, StepPlan | None]:
        """Returns the largest batch found that fits and the smallest found that the compiler refuses.

        They are neighbours, in steps of the smallest batch of which every device has an equal share of whole groups of
        BatchNorm in each micro-batch, or of a sixteenth of the batch, unless the tries run out before.
        """
        tried = list(seen)
        for batch_size in self._candidates(tried):
            tried.append(self.train_memory(batch_size))
        return bracket(tried)

    def _candidates(self, tried: list[StepPlan]) -> Iterator[int]:
        share = math.lcm(len(self.topology.devices), self.config.batch_norm.group_size or 1)
        quantum = self.config.accumulate_steps * share
        for attempt in range(_TRIES):
            fit, refused = bracket(tried)
            low, high = fit.batch_size if fit else 0, refused.batch_size if refused else None
            grain = max(quantum, low // 16 // quantum * quantum)
            if high is None and fit:
                candidate = self._guess(fit) // grain * grain if attempt == 0 else low + max(grain, low // 4)
                candidate = max(candidate // quantum * quantum, low + grain)
            elif high is not None and high - low > grain:
                candidate = max((low + high) // 2 // grain * grain, low + quantum)
            else:
                return
            yield candidate

    def _guess(self, known: StepPlan) -> int:
        """Returns the batch that would fill the memory if all but the state grew with the batch."""
        size = self.state_size
        fixed = size.variables + size.optimizer + size.ema
        growing = max(known.program.peak - fixed, 1)
        return int(known.batch_size * (_ROOM * self.topology.memory - fixed - self.held) / growing)

    def _check(self, key: str, batch_size: int) -> None:
        """Refuses a batch that training refuses."""
        count, group = self.config.accumulate_steps, self.config.batch_norm.group_size
        if batch_size % count:
            raise UserError(f"config.accumulate_steps {count} does not divide {key} {batch_size}")
        micro_batch = batch_size // count
        if count > 1:
            key += " / config.accumulate_steps"
        check_batch_size(key, micro_batch, self.mesh)
        if group is not None and micro_batch % group:
            raise UserError(f"config.batch_norm.group_size {group} does not divide {key} {micro_batch}")

    def _plan(self, what: str, step: Any, first: Any, batch_size: int, rounds: int = 1) -> StepPlan:
        self._say(f"compiling the {what} for {self.topology.name}, batch {batch_size:,}")
        p = self.data.preprocess
        shape = (p.height, p.width, p.channels) if what == "evaluation step" else self.data.training.shape
        lowered = step.lower(first, batch_like(batch_size, shape, self.mesh))
        outcome = compile_program(lowered, rounds)
        exact = self.config.dtype == "float32"
        passes = _PASSES[self.config.matmul_precision] if exact else 1
        held = self.held if what == "training step" else 0
        return StepPlan(
            name=what, topology=self.topology, batch_size=batch_size, outcome=outcome, passes=passes, held=held
        )


def bracket(tried: Sequence[StepPlan]) -> tuple[StepPlan | None, StepPlan | None]:
    """Returns the largest of the batches that fits and the smallest that does not, where there are such."""
    fit = max((plan for plan in tried if plan.fits), key=lambda plan: plan.batch_size, default=None)
    refused = min((plan for plan in tried if not plan.fits), key=lambda plan: plan.batch_size, default=None)
    return fit, refused


def _bytes_on_a_device(tree: Any) -> int:
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * jax.numpy.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree)
    )


def _data(config: Config, pretrained: Preprocess | None) -> Dataset:
    """Opens the config's data, or puts black images in its place where the config says how many there are."""
    data = config.data
    if data.num_classes is None or data.train_examples is None:
        try:
            return open_dataset(config, pretrained=pretrained)
        except UserError as error:
            raise UserError(
                f"{error}. To plan without the data, set config.data.num_classes, config.data.train_examples and "
                f"config.data.image_size"
            ) from error
    channels = data.channels or 3
    image = np.zeros((*(sides(data.image_size) if data.image_size else (1, 1)), channels), np.uint8)

    def split(count: int) -> ArraySplit:
        return ArraySplit(np.broadcast_to(image, (count, *image.shape)), np.zeros(count, np.int32))

    source = Source(
        description=data.source,
        class_names=tuple(f"class {i}" for i in range(data.num_classes)),
        splits={"train": split(data.train_examples), "test": split(1)},
        image_size=None,  # as of photographs: training cuts its images out of a canvas
        channels=channels,
    )
    # What they are normalised by is a constant of the program, of no account here.
    mean, std = data.mean, data.std
    if mean is None and pretrained is None:
        mean, std = (0.0,) * channels, (1.0,) * channels
    shown = replace(config, data=replace(data, validation=0.0, mean=mean, std=std))
    return open_dataset(shown, pretrained=pretrained, source=source)
