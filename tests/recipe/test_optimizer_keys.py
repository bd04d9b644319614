"""What config.optimizer and config.schedule may not say, and what they say in vain."""

import pytest

from jaxnets.config import resolve
from jaxnets.config_check import without_effect
from jaxnets.errors import UserError

PIECES = {"epochs": (0.0, 2.0, 30.0), "shares": (0.1, 1.0, 0.0)}


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ({"learning_rate": 0.4, "learning_rate_per_256": 0.1}, "0.4 and config.optimizer.learning_rate_per_256 0.1"),
        ({"learning_rate": None}, "learning_rate is None: give it, or config.optimizer.learning_rate_per_256"),
        ({"name": "lamb", "weight_decay": 0.0}, "with config.optimizer.weight_decay 0 there are none"),
        ({"name": "lars", "weight_decay": 0.0}, "set config.optimizer.lars.always_adapt"),
        ({"name": "rmsprob"}, "found 'rmsprob' (did you mean 'rmsprop'?)"),
        (
            {"decay_on": "biases"},
            "config.optimizer.decay_on must be one of kernels, no_norms, no_scales, all, found 'biases'",
        ),
        ({"sam": 0.0}, "config.optimizer.sam must be above 0, found 0.0"),
        ({"sam": 0.05, "sam_every": 0}, "config.optimizer.sam_every must be at least 1, found 0"),
        ({"muon": {"form": "keller"}}, "config.optimizer.muon.form must be one of airbench, keller_jordan"),
        ({"rmsprop": {"rho": 0.9}}, "config.optimizer.rmsprop.rho is not a key"),
        ({"rmsprop": {"decay": 1.0}}, "config.optimizer.rmsprop.decay must be above 0 and below 1"),
        ({"adaptive_clip": -1.0}, "config.optimizer.adaptive_clip must be above 0"),
    ],
)
def test_what_an_optimizer_cannot_be_is_refused(optimizer, expected):
    with pytest.raises(UserError) as error:
        resolve({"optimizer": optimizer})
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"warmup_epochs": 5.0, "warmup_steps": 100}, "warmup_steps 100 and config.schedule.warmup_epochs 5 both say"),
        ({"warmup_epochs": 30.0}, "warmup_epochs 30 leaves nothing of config.epochs 30"),
        ({"name": "one_cycle", "warmup_epochs": 1.0}, "config.schedule.name one_cycle both say how the rate rises"),
        ({"name": "piecewise", "warmup_steps": 9, "piecewise": PIECES}, "config.schedule.warmup_steps 9 and"),
        ({"per_epoch": True, "warmup_epochs": 1.0}, "would train the whole first epoch at a rate of 0"),
        ({"name": "step", "milestones": (0.2,), "milestone_epochs": (3.0,)}, "milestones 0.2, both say when the rate"),
        ({"name": "step", "milestone_epochs": (30.0, 3.0)}, "must be rising epochs above 0 (30,60,80), found 30,3"),
        ({"name": "step", "milestone_epochs": (float("inf"),)}, "must be rising epochs above 0"),
        ({"name": "step", "milestones": (30.0, 60.0)}, "for epochs there is config.schedule.milestone_epochs"),
        (
            {"name": "exponential", "exponential": {"every_epochs": 2.0, "every_steps": 50}},
            "exponential.every_steps 50 and config.schedule.exponential.every_epochs 2 both say how often",
        ),
        ({"name": "one_cycle", "one_cycle": {"momentum": (0.9,)}}, "must be two numbers of at least 0 and below 1"),
        ({"name": "one_cycle", "one_cycle": {"momentum": (0.9, 1.0)}}, "must be two numbers of at least 0 and below 1"),
        ({"name": "one_cycle", "one_cycle": {"rise": 1.5}}, "one_cycle.rise must be at least 0 and at most 1"),
        ({"name": "piecewise"}, "needs config.schedule.piecewise.epochs (or steps) and shares"),
        ({"name": "piecewise", "piecewise": {**PIECES, "steps": (1.0,)}}, "both say where the points lie"),
        ({"name": "piecewise", "piecewise": {**PIECES, "shares": (1.0, 0.0)}}, "need as many numbers each, found 3"),
        ({"name": "piecewise", "piecewise": {**PIECES, "epochs": (0.0, 9.0, 9.0)}}, "must rise from 0 or more"),
        ({"name": "piecewise", "piecewise": {**PIECES, "shares": (0.1, 0.4, 3.0)}}, "0 to 1, found 0.1,0.4,3"),
        ({"name": "cosin"}, "found 'cosin' (did you mean 'cosine'?)"),
        ({"warmup_steps": -1}, "config.schedule.warmup_steps must be at least 0, found -1"),
    ],
)
def test_what_a_schedule_cannot_be_is_refused(schedule, expected):
    with pytest.raises(UserError) as error:
        resolve({"schedule": schedule})
    assert expected in str(error.value)


def named(**changed):
    return {sentence.split()[0].removeprefix("config.") for sentence in without_effect(resolve(changed))}


@pytest.mark.parametrize(
    ("optimizer", "vain"),
    [
        ({"name": "rmsprop", "momentum": 0.8, "beta2": 0.9, "rmsprop": {"decay": 0.8}}, {"momentum", "beta2"}),
        ({"name": "muon", "epsilon": 1e-6, "nesterov": False, "decay_form": "coupled"}, {"nesterov", "decay_form"}),
        ({"name": "muon", "momentum": 0.85, "muon": {"fallback": "sgd"}}, set()),
        ({"name": "lamb", "decay_by": "schedule", "lion": {"beta1": 0.8}}, {"decay_by", "lion.beta1"}),
        ({"weight_decay": 0.0, "decay_on": "all", "sam_every": 2}, {"decay_on", "sam_every"}),
        ({"sam": 0.05, "sam_every": 2, "decay_form": "decoupled", "decay_on": "all", "adaptive_clip": 0.1}, set()),
    ],
)
def test_keys_of_an_optimizer_that_do_nothing_are_named(optimizer, vain):
    assert named(optimizer=optimizer) == {f"optimizer.{key}" for key in vain}


@pytest.mark.parametrize(
    ("schedule", "vain"),
    [
        ({"name": "exponential", "final": 0.1, "factor": 0.2}, {"final", "factor"}),
        ({"warmup_start": 0.1, "counts_from": "start", "factor": 0.2}, {"warmup_start", "counts_from", "factor"}),
        ({"milestone_epochs": (1.0,)}, {"milestone_epochs"}),
        ({"warmup_start": 0.1, "counts_from": "start", "warmup_steps": 5, "per_epoch": True}, set()),
        ({"name": "constant", "per_epoch": True, "one_cycle": {"rise": 0.2}}, {"per_epoch", "one_cycle.rise"}),
        ({"name": "step", "milestone_epochs": (1.0,), "exponential": {"factor": 0.9}}, {"exponential.factor"}),
    ],
)
def test_keys_of_a_schedule_that_do_nothing_are_named(schedule, vain):
    assert named(schedule=schedule) == {f"schedule.{key}" for key in vain}


def test_a_momentum_that_the_schedule_cannot_change_is_named():
    given = {"name": "one_cycle", "one_cycle": {"momentum": (0.9, 0.8)}}
    assert named(schedule=given, optimizer={"name": "lion"}) == {"schedule.one_cycle.momentum"}
    assert named(schedule=given, optimizer={"name": "adamw"}) == set()


def test_the_rate_per_256_grows_with_the_batch():
    spec = resolve({"batch_size": 1024, "optimizer": {"learning_rate_per_256": 0.1}}).optimizer
    assert spec.peak(1024) == pytest.approx(0.4)
    assert resolve({"optimizer": {"learning_rate": None, "learning_rate_per_256": 0.016}}).optimizer.peak(64) == 0.004
