import sys
from dataclasses import replace
from math import log10

import pytest

pytest.importorskip("optuna")

import jaxnets
from jaxnets.config import resolve
from jaxnets.config_files import read_config
from jaxnets.errors import Diverged, UserError
from jaxnets.run.checkpoints import steps
from jaxnets.run.directory import open_run
from jaxnets.run.storage import open_place
from jaxnets.sweep import choices, floats, ints
from jaxnets.sweep import run as sweeping
from jaxnets.sweep import trial as one_trial
from jaxnets.sweep.study import SharedStudy, state, values_of
from jaxnets.sweep.trial import Ended
from jaxnets.train import opened
from tests.train.runs import short

SPACE = {"optimizer.learning_rate": floats(0.01, 1.0, log=True), "optimizer.nesterov": choices(True, False)}


def test_real_trials_are_ordinary_runs_and_the_best_config_runs(tmp_path, monkeypatch, one_device, capsys):
    """One sweep of real trials: what each leaves, what is shared, and how the same call goes on."""
    times = []
    real_open, real_train = opened.open_dataset, one_trial.train
    monkeypatch.setattr(opened, "open_dataset", lambda *given: times.append(1) or real_open(*given))
    monkeypatch.setattr(one_trial, "train", lambda *given, **more: real_train(*given, mesh=one_device, **more))
    config = short(steps=4, eval_every_steps=2)
    space = {"optimizer.nesterov": choices(True, False)}
    found = jaxnets.sweep(config, space, tmp_path, trials=2)
    assert found.trials == 2
    assert len(times) == 1  # the data is opened once
    assert set(found.values) == {"optimizer.nesterov"}
    best, other = tmp_path / "trials" / str(found.best), tmp_path / "trials" / str(1 - found.best)
    assert steps(open_place(best / "checkpoints")) == [2, 4]
    assert not (other / "checkpoints").exists()
    assert (other / "metrics.jsonl").is_file()
    assert "test/accuracy" not in (best / "metrics.jsonl").read_text()  # the test split is left alone
    ran = open_run(best).read_config()
    assert resolve(read_config(str(found.config))) == replace(ran, drawings=config.drawings)
    page = found.page.read_text()
    assert page.count("<svg") >= 2
    assert "http" not in page.replace("http://www.w3.org", "")
    said = capsys.readouterr().out
    assert f"--config {tmp_path / 'best.py'}" in said
    assert "trial 1 (2/2)  nesterov" in said
    jaxnets.sweep(config, space, tmp_path, trials=2, quiet=True)  # there is nothing left to do
    assert len(list((tmp_path / "trials").iterdir())) == 2


@pytest.fixture
def trained(monkeypatch):
    """Has a trial train nothing: its accuracy is 1 − |log10(rate / 0.1)| / 2; notes the configs."""
    configs = []

    def run_trial(trial, config, folder, figure, opened, *, warns):
        configs.append(config)
        value = 1 - abs(log10(config.optimizer.learning_rate / 0.1)) / 2
        for number in range(1, 5):
            trial.report(value * number / 4, number)
            if trial.should_prune():
                return Ended("pruned", value * number / 4, number)
        return Ended("complete", value, 4)

    monkeypatch.setattr(sweeping, "run_trial", run_trial)
    return configs


def tried(folder, config=None, space=SPACE):
    study = SharedStudy(folder, config or short(), space, "accuracy", pruning=True)
    return [(state(trial), trial.params) for trial in study.trials()]


def test_the_configs_own_values_come_first_and_the_sampler_finds_better_ones(tmp_path, trained):
    config = short(optimizer={"learning_rate": 0.02})
    found = jaxnets.sweep(config, SPACE, tmp_path, trials=18, quiet=True)
    assert trained[0].optimizer.learning_rate == 0.02
    assert 0.05 < found.values["optimizer.learning_rate"] < 0.2
    assert len(trained) == found.trials == 18
    kinds = [how for how, _ in tried(tmp_path, config)]
    assert 2 < kinds.count("pruned") < 16


def test_a_sweep_that_is_killed_and_goes_on_is_the_one_that_was_not(tmp_path, trained, monkeypatch):
    jaxnets.sweep(short(), SPACE, tmp_path / "whole", trials=12, quiet=True)
    real = sweeping.run_trial
    left = []

    def dies(trial, *given, **more):
        if trial.number == 11 and not left:
            left.append(trial.params)
            folder = tmp_path / "killed" / "trials" / "11"
            folder.mkdir()
            (folder / "half").touch()
            raise KeyboardInterrupt
        return real(trial, *given, **more)

    monkeypatch.setattr(sweeping, "run_trial", dies)
    with pytest.raises(KeyboardInterrupt):
        jaxnets.sweep(short(), SPACE, tmp_path / "killed", trials=12, quiet=True)
    before = tried(tmp_path / "killed")
    assert before[-1] == ("running", left[0])
    jaxnets.sweep(short(), SPACE, tmp_path / "killed", trials=12, quiet=True)
    after = tried(tmp_path / "killed")
    assert after[:11] == before[:11]  # no finished trial is lost
    assert after[11] == ("lost", left[0])
    assert after[12][1] == left[0]  # the same values, again
    assert (tmp_path / "killed" / "trials" / "12" / "half").is_file()  # from where it was
    assert [trial for trial in after if trial[0] != "lost"] == tried(tmp_path / "whole")


def test_a_trial_of_a_process_that_lives_is_left_to_it_and_counts(tmp_path, trained):
    one = SharedStudy(tmp_path, short(), SPACE, "accuracy", pruning=True)
    with one.next_trial(3) as mine:
        found = jaxnets.sweep(short(), SPACE, tmp_path, trials=3, quiet=True)
        assert found.trials == 2
        assert mine.number == 0
        one.tell(mine, "complete", 0.99)
    found = jaxnets.sweep(short(), SPACE, tmp_path, trials=3, quiet=True)
    assert (found.trials, found.best, found.value) == (3, 0, 0.99)


def test_a_study_of_another_config_or_space_is_refused(tmp_path, trained):
    jaxnets.sweep(short(), SPACE, tmp_path, trials=1, quiet=True)
    wider = {**SPACE, "optimizer.learning_rate": floats(0.001, 1.0, log=True)}
    with pytest.raises(UserError, match=r"space: optimizer.learning_rate: 0.01 to 1, by its logarithm there, 0.001 to"):
        jaxnets.sweep(short(), wider, tmp_path, trials=2, quiet=True)
    with pytest.raises(UserError, match=r"config.steps: 4 there, 5 now(\n.*)+Give another --out"):
        jaxnets.sweep(short(steps=5), SPACE, tmp_path, trials=2, quiet=True)
    jaxnets.sweep(short(max_hours=3.0), SPACE, tmp_path, trials=2, quiet=True)  # no part of what is measured
    assert len(tried(tmp_path)) == 2


def test_values_that_cannot_be_trained_with_are_told_and_the_sweep_goes_on(tmp_path, trained, capsys):
    space = {**SPACE, "accumulate_steps": choices(1, 3)}
    config = short()
    found = jaxnets.sweep(config, space, tmp_path, trials=6)
    kinds = [how for how, _ in tried(tmp_path, config, space)]
    assert kinds.count("refused") >= 1
    assert found.trials == 6
    assert "config.accumulate_steps 3 does not divide config.batch_size 16" in capsys.readouterr().out
    assert "does not divide" in found.page.read_text()


def test_a_trial_whose_loss_diverges_is_one_that_was_left(tmp_path, monkeypatch):
    def diverges(*given, **more):
        raise Diverged("the loss of step 3 is nan")

    monkeypatch.setattr(one_trial, "train", diverges)
    found = jaxnets.sweep(short(), SPACE, tmp_path, trials=2, quiet=True)
    assert (found.trials, found.best, found.config) == (2, None, None)
    assert [how for how, _ in tried(tmp_path)] == ["pruned"] * 2


def test_errors_in_a_row_end_a_sweep(tmp_path, monkeypatch):
    def fails(*given, **more):
        raise UserError("the disk is full")

    monkeypatch.setattr(one_trial, "train", fails)
    with pytest.raises(UserError, match="3 trials in a row could not be run: the disk is full"):
        jaxnets.sweep(short(), SPACE, tmp_path, trials=9, quiet=True)


@pytest.mark.parametrize(
    ("config", "trials", "message"),
    [
        (
            short(data={"validation": 0.0}),
            2,
            r"on a validation split.*--config.data.validation=0.1",
        ),
        (short(), 0, "a sweep needs a trial or more, found 0"),
        (short(finetune={"method": "head"}), 2, "set it to None"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_anything_is_written(tmp_path, config, trials, message):
    with pytest.raises(UserError, match=message):
        jaxnets.sweep(config, SPACE, tmp_path / "a", trials=trials, quiet=True)
    assert not (tmp_path / "a").exists()


def test_without_optuna_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'jaxnets\[sweep\]'"):
        jaxnets.sweep(short(), SPACE, tmp_path / "a", trials=2, quiet=True)
    assert not (tmp_path / "a").exists()


def test_a_file_that_is_no_study_is_named(tmp_path):
    (tmp_path / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match="cannot be opened as a study"):
        jaxnets.sweep(short(), SPACE, tmp_path, trials=2, quiet=True)


def test_a_choice_is_the_value_that_was_given_and_not_its_text():
    space = {"a": choices(None, True, 3, (0.5,)), "b": ints(1, 3)}
    assert values_of(space, {"a": "None", "b": 2}) == {"a": None, "b": 2}
    assert values_of(space, {"a": "true"}) == {"a": True}
    assert values_of(space, {"a": "0.5,"}) == {"a": (0.5,)}
