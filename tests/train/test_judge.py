"""Which evaluation of a run is the best, and runs that end for want of a better one."""

import io
import shutil
import signal

import numpy as np
import pytest
from rich.console import Console

from jaxnets.errors import UserError
from jaxnets.run.checkpoints import Progress, read_progress, steps
from jaxnets.train.display import Display
from jaxnets.train.evaluation import Evaluator
from jaxnets.train.feed import ResidentFeed
from jaxnets.train.judge import Judge
from jaxnets.train.loop import train
from tests.train.runs import assert_same_run, rows_of, short

# Accuracy and loss of the evaluations, one each two steps: the best is that of step 4, and then that of step 12.
FOUND = [(0.5, 1.0), (0.9, 0.6), (0.9, 0.6), (0.9, 0.8), (0.5, 0.1), (0.95, 0.5), (0.1, 3.0)]


def evaluate(evaluator, variables, examples, name):
    accuracy, loss = (0.1, 1.0) if name.endswith("test") else FOUND[int(name.split()[1]) // 2 - 1]
    sums = {"count": 100, "loss": 100 * loss, "correct": 100 * accuracy, "top5": 100}
    sums |= {"class_count": np.full(10, 10), "class_correct": np.full(10, 10 * accuracy)}
    return {key: np.asarray(value) for key, value in sums.items()}


@pytest.fixture(scope="module", autouse=True)
def figures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "__call__", evaluate)
        yield


def trained(workdir, mesh, **changed):
    console = Console(record=True, width=300, force_terminal=False, file=io.StringIO())
    return train(short(steps=14, eval_every_steps=2, **changed), workdir, Display(console), mesh), console.export_text()


@pytest.fixture(scope="module")
def ended(tmp_path_factory, one_device):
    """The directory, the outcome and the words of a run that ends after three evaluations without a better one."""
    workdir = tmp_path_factory.mktemp("judged") / "run"
    return workdir, *trained(workdir, one_device, patience=3)


def test_a_run_ends_after_as_many_evaluations_without_a_better_one_and_says_which_is_the_best(ended):
    workdir, outcome, said = ended
    assert (outcome.step, outcome.finished) == (10, True)
    assert "finished at step 10 of 14: the best is step 4, validation accuracy 90.00%" in said
    assert "not bettered in 3 evaluations (config.patience 3)" in said
    assert "test/accuracy" in rows_of(workdir)[-1]  # the test split is evaluated at the end, wherever that is
    assert read_progress(workdir / "checkpoints", 10).best["step"] == 4
    assert 4 in steps(workdir / "checkpoints")


def test_a_run_that_gave_up_is_finished_until_its_patience_is_raised(ended, tmp_path, one_device):
    workdir = shutil.copytree(ended[0], tmp_path / "run")
    outcome, said = trained(workdir, one_device, patience=3)
    assert outcome.finished
    assert "is finished: 10 of 14 steps are done" in said
    assert "raise --config.patience." in said
    outcome, said = trained(workdir, one_device, patience=4)
    assert outcome.step == 14
    assert "finished at step 14 of 14: the best is step 12, validation accuracy 95.00%" in said


def test_a_stopped_run_gives_up_where_the_uninterrupted_one_does(ended, tmp_path, one_device, monkeypatch):
    whole, parts, advance = ended[0], tmp_path / "run", ResidentFeed.advance

    def interrupted_steps(feed, state, step, count):
        signal.raise_signal(signal.SIGINT)
        return advance(feed, state, step, 1)

    def interrupted_evaluation(evaluator, variables, examples, name):
        if int(name.split()[1]) < 8:
            return evaluate(evaluator, variables, examples, name)
        return signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "__call__", interrupted_evaluation)
        assert trained(parts, one_device, patience=3)[0].step == 8
    with monkeypatch.context() as patch:
        patch.setattr(ResidentFeed, "advance", interrupted_steps)
        assert trained(parts, one_device, patience=3)[0].step == 9
    assert read_progress(parts / "checkpoints", 9).without_better == 2
    outcome, _ = trained(parts, one_device, patience=3)
    assert (outcome.step, outcome.finished) == (10, True)
    assert_same_run(whole, parts)
    kept = [read_progress(workdir / "checkpoints", 10) for workdir in (whole, parts)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize(
    ("accuracy", "raw", "count", "said"),
    [(0.6, 0.9, 400, True), (0.9, 0.6, 400, False), (0.85, 0.9, 100, False), (0.85, 0.9, 10000, True)],
)
def test_a_run_whose_average_is_clearly_worse_says_so(accuracy, raw, count, said):
    evaluation = {"split": "validation", "accuracy": accuracy, "loss": 1.0, "count": count}
    judge = Judge(figure=None, patience=None)
    text = judge.said_of_average({**evaluation, "raw_accuracy": raw, "raw_loss": 0.5})
    assert text == "" or f"have validation accuracy {accuracy:.2%} at the end, and the raw ones {raw:.2%}" in text
    assert bool(text) == said
    assert judge.said_of_average(evaluation) == ""


@pytest.mark.parametrize(
    ("figure", "better"),
    [("accuracy", 1), ("balanced_accuracy", 2), ("macro_f1", 3), ("loss", 0), (None, 1)],
)
def test_the_best_is_chosen_by_the_figure_that_was_asked_for(figure, better):
    names = ("loss", "accuracy", "balanced_accuracy", "macro_f1")
    rows = [{name: 0.2 if name == "loss" else 0.5 for name in names} for _ in names]
    for number, name in enumerate(names):
        rows[number][name] = 0.1 if name == "loss" else 0.6
    # Each is better in one figure, and between equals the first has the least loss.
    progress, judge = Progress(step=0), Judge(figure=figure, patience=None)
    for number, row in enumerate(rows):
        progress = judge.judged(progress, number, row)
    assert progress.best["step"] == better


def test_what_is_no_better_is_not_the_best_and_what_is_no_number_is_the_worst():
    judge, worst = Judge(figure="macro_f1", patience=2), {"macro_f1": float("nan"), "accuracy": 0.1, "loss": 0.1}
    progress = judge.judged(Progress(step=0), 1, worst)
    assert judge.judged(progress, 2, worst).without_better == 1
    better = judge.judged(progress, 2, {"macro_f1": 0.0, "accuracy": 0.1, "loss": float("nan")})
    assert better.best["step"] == 2
    assert judge.judged(better, 3, {"macro_f1": 0.0, "accuracy": 0.1, "loss": 9.0}).best["step"] == 3


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"patience": 3, "data": {"validation": 0.0}},
            "config.patience 3 needs a validation split.*data.validation=0.1",
        ),
        ({"best": "loss", "patience": 1, "data": {"validation": 0.0}}, "best loss and config.patience 1 need a valid"),
        ({"best": "mean_average_precision"}, "does not fit digits, whose images have one label each.*macro_f1"),
    ],
)
def test_what_the_data_cannot_judge_is_refused(tmp_path, one_device, changed, expected):
    with pytest.raises(UserError, match=expected):
        trained(tmp_path, one_device, **changed)


def test_what_is_evaluated_while_it_is_still_being_pruned_is_never_the_best():
    judge = Judge(figure=None, patience=2, from_step=10)
    progress = Progress(step=0)
    for step, accuracy in ((2, 0.99), (4, 0.5), (6, 0.5), (10, 0.8)):
        progress = judge.judged(progress, step, {"accuracy": accuracy, "loss": 1.0})
        assert not judge.gives_up(progress)
    assert progress.best == {"step": 10, "accuracy": 0.8, "loss": 1.0}
