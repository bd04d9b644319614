"""The optimizers that a config can name."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import optax

from jaxnets.models.family import Structure
from jaxnets.recipe.freeze import Freezing
from jaxnets.recipe.optimizer.clip import adaptive_clip
from jaxnets.recipe.optimizer.combine import apart
from jaxnets.recipe.optimizer.course import Course
from jaxnets.recipe.optimizer.decay import By, Decay, Form, On
from jaxnets.recipe.optimizer.lamb import Lamb
from jaxnets.recipe.optimizer.lars import Lars
from jaxnets.recipe.optimizer.lion import Lion
from jaxnets.recipe.optimizer.momentum import scheduled_adam, scheduled_trace
from jaxnets.recipe.optimizer.muon import Muon, muon_split
from jaxnets.recipe.optimizer.rmsprop import RmsProp
from jaxnets.recipe.optimizer.sam import Sam
from jaxnets.recipe.promotion import promoting
from jaxnets.recipe.schedule.table import Schedule
from jaxnets.schema import AboveZeroToOne, Count, NonNegative, Positive, ZeroToBelowOne

_LAMB_CLIP = 1.0  # timm's max_grad_norm
_COUPLED = ("sgd", "rmsprop", "lars")  # those whose decay is part of the gradient unless the config says otherwise


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Which optimizer, and the parameters of each; those after `sam_every` are groups of one each."""

    name: Literal["sgd", "adamw", "rmsprop", "lamb", "lars", "lion", "muon"] = "sgd"
    learning_rate: Positive | None = 0.1  # at its peak, for the whole batch; None: by learning_rate_per_256
    learning_rate_per_256: Positive | None = None  # the same for 256 examples; the rate grows with batch_size
    momentum: ZeroToBelowOne = 0.9  # sgd
    nesterov: bool = True  # sgd
    beta1: ZeroToBelowOne = 0.9  # adamw
    beta2: ZeroToBelowOne = 0.999  # adamw
    epsilon: Positive = 1e-8  # adamw
    weight_decay: NonNegative = 5e-4  # of the parameters that decay_on names
    # kernels; no_norms: and biases, but of no norm; no_scales: and those of norms (airbench); all: and scales.
    decay_on: On = "kernels"
    # coupled: part of the gradient (L2); decoupled: beside what the optimizer makes of it. Both times the rate.
    decay_form: Form | None = None  # None: the optimizer's own: sgd, rmsprop, lars coupled, adamw, lion decoupled
    # rate: decay times the rate; schedule: times the schedule's share of the peak alone, as in big_vision and airbench.
    decay_by: By = "rate"
    clip_norm: Positive | None = None  # largest global norm of the gradient; None: no limit, with lamb 1
    # Largest norm of a unit's gradient, as a share of that of its weights; the head is left out. 0.01 in the paper.
    adaptive_clip: Positive | None = None  # None: no limit
    layer_decay: AboveZeroToOne = 1.0  # what the rate is multiplied by for each group of layers before the head
    head_rate: Positive = 1.0  # what the head's rate is multiplied by: 10 for a new head on weights that are trained
    sam: Positive | None = None  # ρ of sharpness-aware minimisation: each step takes two gradients; None: one
    sam_every: Count = 1  # steps between those with two gradients: 10, with ρ ten times as large, costs a tenth
    rmsprop: RmsProp = field(default_factory=RmsProp)
    lamb: Lamb = field(default_factory=Lamb)
    lars: Lars = field(default_factory=Lars)
    lion: Lion = field(default_factory=Lion)
    muon: Muon = field(default_factory=Muon)

    def peak(self, batch_size: int) -> float:
        """Returns the rate at its peak, for batches of so many examples."""
        if self.learning_rate_per_256 is not None:
            return self.learning_rate_per_256 * batch_size / 256
        assert self.learning_rate is not None, "jaxnets.config refuses a config without either"
        return self.learning_rate

    @property
    def decay(self) -> Decay:
        form: Form = self.decay_form or ("coupled" if self.name in _COUPLED else "decoupled")
        return Decay(weight=self.weight_decay, on=self.decay_on, form=form, by=self.decay_by)


def make_optimizer(
    spec: OptimizerConfig,
    schedule: Schedule,
    rates: Mapping[str, float] | None = None,
    freezing: Freezing | None = None,
    *,
    peak: float | None = None,
    momentum: Schedule | None = None,
    structure: Structure | None = None,
) -> optax.GradientTransformation:
    """Returns what takes a gradient to the change of the parameters: clipping, decay, the rule, the rate.

    Args:
        spec: which rule, with its parameters, and how weight decay goes with it.
        schedule: the learning rate at each step.
        rates: what each layer's rate is multiplied by, its decoupled decay with it.
        freezing: what thaws later begins there with a state of its own: moments of zero, and Adam's bias correction
            (Kingma & Ba 2015, algorithm 1) counts the steps since. The limit of the global norm is one for all.
        peak: the largest rate of the schedule, for decay by the schedule; by default the spec's.
        momentum: that of sgd, or adamw's β₁, at each step, in place of the spec's.
        structure: which layers are the stem and the head; without, none is.
    """
    course = Course(
        rate=schedule,
        peak=spec.learning_rate or 1.0 if peak is None else peak,
        momentum=momentum,
        by_layer=rates,
    )
    clip = _clip(spec, structure.head if structure else None)
    if freezing is None or len(freezing.starts) == 1:
        return optax.chain(clip, *_rules(spec, course, structure))
    own = {f"from_{start}": optax.chain(*_rules(spec, course.since(start), structure)) for start in freezing.starts}

    def cohorts(params: Any) -> dict[str, Any]:
        return {f"from_{start}": some for start, some in freezing.cohorts(params).items()}

    return optax.chain(clip, apart(own, cohorts))


def make_sam(spec: OptimizerConfig) -> Sam | None:
    """Returns how the gradient is taken beside; None where it is that at the parameters themselves."""
    return None if spec.sam is None else Sam(radius=spec.sam, every=spec.sam_every)


def _clip(spec: OptimizerConfig, head: str | None) -> optax.GradientTransformation:
    limit = spec.clip_norm or (_LAMB_CLIP if spec.name == "lamb" else None)
    by_norm = optax.identity() if limit is None else optax.clip_by_global_norm(limit)
    return by_norm if spec.adaptive_clip is None else optax.chain(adaptive_clip(spec.adaptive_clip, head), by_norm)


def _rules(spec: OptimizerConfig, course: Course, structure: Structure | None) -> list[optax.GradientTransformation]:
    decay = spec.decay
    if spec.name == "sgd":
        return _sgd(spec, course, decay)
    if spec.name == "adamw":
        return _adamw(spec, course, decay)
    if spec.name == "muon":
        fallback = replace(spec, name=spec.muon.fallback, decay_form=None)
        slower = replace(course, factor=spec.muon.fallback_rate)
        own = {
            "matrices": spec.muon.matrices(course, decay),
            "rest": optax.chain(*_rules(fallback, slower, structure)),
        }
        return [apart(own, lambda params: muon_split(params, structure))]
    rule: RmsProp | Lamb | Lars | Lion = getattr(spec, spec.name)
    return rule.rules(course, decay)


def _sgd(spec: OptimizerConfig, course: Course, decay: Decay) -> list[optax.GradientTransformation]:
    """Returns SGD with (Nesterov) momentum (Sutskever et al. 2013, equations 3 and 4), as torch's."""
    nesterov = spec.nesterov and (spec.momentum > 0 or course.momentum is not None)
    if course.momentum is not None:
        trace = scheduled_trace(course.momentum, nesterov=nesterov)
    else:
        trace = optax.trace(spec.momentum, nesterov) if spec.momentum else optax.identity()
    if decay.coupled:
        return [decay.along(course), optax.chain(trace, course.by_rate()), *course.layer_rates()]
    return [optax.chain(trace, decay.along(course), course.by_rate()), *course.layer_rates()]


def _adamw(spec: OptimizerConfig, course: Course, decay: Decay) -> list[optax.GradientTransformation]:
    """Returns Adam with decoupled decay (Loshchilov & Hutter 2019, algorithm 2), or with the L2 penalty."""
    if course.momentum is not None:
        adam = scheduled_adam(course.momentum, spec.beta2, spec.epsilon)
    else:
        own = optax.scale_by_adam(b1=spec.beta1, b2=spec.beta2, eps=spec.epsilon)
        adam = own._replace(update=promoting(own.update))
    if decay.coupled:
        return [decay.along(course), optax.chain(adam, course.by_rate()), *course.layer_rates()]
    return [optax.chain(adam, decay.along(course), course.by_rate()), *course.layer_rates()]
