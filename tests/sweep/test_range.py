import json
import sys

import numpy as np
import pytest

import jaxnets
from jaxnets import figures
from jaxnets.errors import UserError
from jaxnets.recipe.schedule.table import make_schedule
from jaxnets.sweep import __main__ as command
from jaxnets.sweep.drawing import draw_range
from jaxnets.sweep.range_test import RangeTest, _growing, find_rate
from jaxnets.sweep.rules import growing
from tests.train.runs import short


def test_the_schedule_of_the_test_is_at_the_growing_rates_and_nothing_else_changes():
    config = short(schedule={"name": "cosine", "warmup_steps": 2}, optimizer={"weight_decay": 0.1})
    test = _growing(config, 1e-5, 2.0, 60)
    rate = make_schedule(test.schedule, test.optimizer.peak(16), 60, 80.0)
    np.testing.assert_allclose([float(rate(step)) for step in range(60)], growing(1e-5, 2.0, 60), rtol=1e-4)
    assert test.optimizer.weight_decay == 0.1
    assert (test.model, test.augment, test.data, test.batch_size) == (
        *(config.model, config.augment, config.data, config.batch_size),
    )


def test_the_real_step_is_taken_until_the_loss_diverges(one_device):
    found = find_rate(short(optimizer={"weight_decay": 0.0}), low=1e-4, high=1e4, steps=80, mesh=one_device)
    assert found.diverged
    assert 20 < len(found.losses) == len(found.rates) < 80
    np.testing.assert_allclose(found.rates, growing(1e-4, 1e4, 80)[: len(found.rates)])
    assert abs(found.losses[0] - np.log(10)) < 0.5  # of ten classes, before anything is learned
    assert min(found.losses) < found.losses[0]
    assert found.suggestion == found.suggestions["steepest"]
    assert found.option == f"--config.optimizer.learning_rate={found.suggestion:.2g}"
    again = find_rate(short(optimizer={"weight_decay": 0.0}), low=1e-4, high=1e4, steps=80, mesh=one_device)
    assert again == found


def ended(**changed):
    given = {
        "rates": tuple(growing(1e-4, 1.0, 40)),
        "losses": tuple(np.linspace(2, 1, 40)),
        "suggestions": {"steepest": 0.1, "minimum / 10": 0.02},
        "diverged": False,
        "batch_size": 64,
        "per_256": False,
    }
    return RangeTest(**{**given, **changed})


def test_the_suggestion_is_in_the_unit_of_the_config():
    assert ended().option == "--config.optimizer.learning_rate=0.1"
    assert ended(per_256=True).option == "--config.optimizer.learning_rate_per_256=0.4"
    assert "the loss did not diverge" in ended().lines()[-1]
    nothing = ended(suggestions={"steepest": None, "minimum / 10": None})
    assert nothing.option is None
    assert "the loss falls nowhere" in nothing.lines()[-1]


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["jaxnets.sweep", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        command.main()
    return left.value.code


@pytest.fixture
def in_process(monkeypatch):
    """Has the end of a command be an exception, and not that of the process."""
    monkeypatch.setattr("jaxnets.exit.end", sys.exit)


@pytest.mark.usefixtures("in_process")
def test_the_command_writes_a_drawing_and_the_numbers_and_prints_what_to_add(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("jaxnets.sweep.range_test.find_rate", lambda config, **given: ended())
    assert run(monkeypatch, "--range", "--config", "digits", "--out", tmp_path / "a") == 0
    written = json.loads((tmp_path / "a" / "range.json").read_text())
    assert written["suggestions"] == {"steepest": 0.1, "minimum / 10": 0.02}
    assert len(written["rates"]) == len(written["losses"]) == len(written["smoothed"]) == 40
    assert (tmp_path / "a" / "range.png").read_bytes()[:4] == b"\x89PNG"
    assert "--config.optimizer.learning_rate=0.1" in capsys.readouterr().out


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--range --space x.py", "--range and --space are two questions"),
        ("", "give --range for a learning-rate range test, or --space FILE"),
        ("--range --trials 3", "--trials does not go with --range"),
        ("--space x.py --to 3", "--to does not go with --space"),
        ("--range --from 1 --to 0.1", "from a number above 0 to a larger one, found 1 to 0.1"),
        ("--range --from 0", "from a number above 0 to a larger one, found 0 to 10"),
        ("--range --steps 5", "needs 40 steps or more to show a curve, found 5"),
        ("--range --config.finetune.method=head", "solves the head without a learning rate"),
        ("--space nowhere.py", "there is no file 'nowhere.py'"),
    ],
)
def test_a_command_that_cannot_be_meant_gets_one_message(monkeypatch, tmp_path, capsys, arguments, message):
    out = tmp_path / "out"
    assert run(monkeypatch, "--config", "digits", "--out", out, *arguments.split()) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.usefixtures("in_process")
def test_a_run_directory_is_left_alone(monkeypatch, tmp_path, capsys):
    for name in ("config.json", "model.json"):
        (tmp_path / name).write_text("{}")
    assert run(monkeypatch, "--range", "--config", "digits", "--out", tmp_path) == 1
    assert "is a run directory, which a range test leaves alone" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.json"]


def test_a_loss_that_is_lost_is_drawn_as_far_as_it_is_one():
    losses = (*np.linspace(2, 1, 39), float("nan"))
    assert b"PNG" in figures.png(draw_range(ended(losses=losses), "a title with a $ in it"), 40)


def test_the_function_is_one_of_the_package():
    assert jaxnets.find_rate is find_rate
    with pytest.raises(UserError, match="there is no config file 'digit'"):
        jaxnets.find_rate("digit")
