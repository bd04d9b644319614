import json

import jax
import numpy as np
import pytest
from PIL import Image

import jaxnets
from jaxnets.config import Config
from jaxnets.errors import UserError
from jaxnets.evaluate.run import evaluate_run
from jaxnets.finetune.memo import read_memo
from jaxnets.finetune.run import finetune
from jaxnets.run.checkpoints import read_item, read_progress, steps
from jaxnets.run.directory import RunDirectory
from jaxnets.train.display import Display
from jaxnets.train.mesh import make_mesh
from tests.finetune.conftest import make_images
from tests.train.runs import rows_of


class Heard(Display):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines += text.splitlines()

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def tuned(config: Config, workdir, **options) -> str:
    """Fine-tunes; returns what was said."""
    display = Heard()
    assert finetune(config, workdir, display, make_mesh(jax.devices()[:1]), **options).finished
    return display.text


def test_a_head_is_an_ordinary_run(config, tmp_path, images):
    text = tuned(config(), tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    assert [row["step"] for row in rows] == [0, 0]
    assert rows[0]["eval/accuracy"] > 0.8
    for split, figures in (("validation", "eval"), ("test", "test")):
        report = evaluate_run(RunDirectory(tmp_path / "run"), split=split)
        row = next(row for row in rows if f"{figures}/accuracy" in row)
        assert report["accuracy"] == row[f"{figures}/accuracy"]
        assert report["loss"] == pytest.approx(row[f"{figures}/loss"], abs=1e-4)
        assert f"{split}: accuracy {report['accuracy']:.2%}" in text
    classifier = jaxnets.load(tmp_path / "run")
    assert classifier.labels == ("a", "b", "c")
    photo = images / "b" / "1.png"
    by_jax = jaxnets.load(tmp_path / "run", engine="jax").predict(photo)
    np.testing.assert_allclose(classifier.predict(photo), by_jax, atol=1e-5)
    for command in ("jaxnets.evaluate --workdir", "jaxnets.predict --model", "demo/app.py --model"):
        assert f"{command} {tmp_path / 'run'}" in text


def test_a_finished_run_says_so_and_is_left_alone(config, tmp_path):
    first = tuned(config(), tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    text = tuned(config(), tmp_path / "run")
    assert f"{tmp_path / 'run'} is finished" in text
    assert first.splitlines()[-4:] == text.splitlines()[-4:]
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


def test_a_second_run_with_another_head_computes_no_features(config, tmp_path):
    tuned(config(), tmp_path / "one")
    text = tuned(config(finetune__solver="ridge", finetune__regularisation=64.0), tmp_path / "two")
    assert "head: ridge, regularisation 64 (as asked)" in text
    kept = [line for line in text.splitlines() if line.startswith("features of")]
    assert len(kept) == 3
    assert all(line.split()[3].strip(",") == line.split()[6] for line in kept)


def test_a_workdir_that_holds_another_run_is_refused(config, tmp_path, weights):
    tuned(config(), tmp_path / "run")
    with pytest.raises(UserError, match=r"holds another run:\n  config.finetune.views: 2 there, 1 now"):
        tuned(config(finetune__views=1), tmp_path / "run")
    with pytest.raises(UserError, match=r"that config.finetune.method did not begin"):
        tuned(config(), jaxnets.run.storage.open_place(weights))


def test_other_images_in_a_workdir_are_refused(config, tmp_path, images):
    tuned(config(), tmp_path / "run")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(images / "a" / "new.png")
    with pytest.raises(UserError, match=r"holds another run:\n  data: "):
        tuned(config(), tmp_path / "run")


def test_one_class_and_weights_of_another_family_are_refused(config, tmp_path, weights):
    alone = make_images(tmp_path / "alone", {"a": 4})
    with pytest.raises(UserError, match=r"two or more class folders"):
        tuned(config(data__source=f"folder:{alone}"), tmp_path / "run")
    with pytest.raises(UserError, match=r"holds a resnet8_cifar, but config.model.name is efficientnet_lite0"):
        tuned(config(model__name="efficientnet_lite0"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_few_images_and_a_class_of_one_are_survived(config, tmp_path, caplog):
    few = make_images(tmp_path / "few", {"a": 4, "b": 3, "alone": 1})
    text = tuned(config(data__source=f"folder:{few}"), tmp_path / "run")
    assert "head: ridge" in text
    for split in ("validation", "test"):
        assert f"the {split} split has no image of alone" in caplog.text
    assert "there are 2 validation images to choose and to judge by" in caplog.text
    assert jaxnets.load(tmp_path / "run").labels == ("a", "alone", "b")


def test_the_training_after_starts_from_the_head_and_is_never_worse_on_validation(config, tmp_path):
    ruinous = config(finetune__method="all", optimizer__learning_rate=30.0, epochs=2.0, schedule__warmup_epochs=0.1)
    tuned(ruinous, tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    newest = max(steps(run.checkpoints))
    assert newest > 0
    assert read_progress(run.checkpoints, newest).best["step"] == 0
    memo = read_memo(run)
    assert memo.result["step"] == 0
    rows = rows_of(run.path)
    assert [row["step"] for row in rows if "test/accuracy" in row] == [0]
    assert evaluate_run(run)["accuracy"] == memo.result["test"]["accuracy"]
    before = read_item(run.checkpoints / "0" / "variables")["params"]["head"]["kernel"]
    np.testing.assert_array_equal(jaxnets.load(run.path).variables["params"]["head"]["kernel"], before)


def test_the_last_stages_train_in_the_time_that_is_given_and_the_rest_stays(config, tmp_path, weights):
    first = tuned(config(), tmp_path / "run")
    assert "--config.finetune.minutes=30" in first
    given = config(finetune__minutes=30.0, epochs=2.0, finetune__last_stages=1, schedule__warmup_epochs=0.2)
    tuned(given, tmp_path / "run")  # goes on from the head that is there
    run = RunDirectory(tmp_path / "run")
    assert run.read_config().freeze.before == "stage3"
    newest = max(steps(run.checkpoints))
    old = read_item(run.checkpoints / "0" / "variables")["params"]
    new = read_item(run.checkpoints / str(newest) / "variables")["params"]
    stem = next(name for name in old if "stem" in name or name == "conv1")
    assert all(np.array_equal(old[stem][leaf], new[stem][leaf]) for leaf in old[stem])
    assert not np.array_equal(old["head"]["kernel"], new["head"]["kernel"])
    assert "is finished" in tuned(given, tmp_path / "run")


def test_a_session_that_was_stopped_goes_on(config, tmp_path, monkeypatch):
    display = Heard()
    outcome = finetune(config(max_hours=1e-9), tmp_path / "run", display)
    assert not outcome.finished
    assert "the same command goes on" in display.text
    text = tuned(config(), tmp_path / "run")
    assert "is finished" not in text
    assert json.loads((tmp_path / "run" / "finetune.json").read_text())["result"]["test"]["count"] > 0


def test_the_regularisation_decides_how_sure_the_head_is(config, tmp_path):
    for name, strength in (("weak", 1e-3), ("strong", 1e3)):
        tuned(config(finetune__regularisation=strength), tmp_path / name)
    weak, strong = (rows_of(tmp_path / name)[0]["eval/loss"] for name in ("weak", "strong"))
    assert strong == pytest.approx(np.log(3), abs=0.05)
    assert weak < strong


def test_a_head_that_knows_little_answers_with_the_class_that_counts_most(config, tmp_path, images):
    weights = tmp_path / "weights.csv"
    weights.write_text("a,1\nb,1\nc,20\n")
    tuned(config(finetune__regularisation=1e3, loss__class_weights=str(weights)), tmp_path / "run")
    classifier = jaxnets.load(tmp_path / "run")
    assert {int(classifier.predict(images / name / "1.png").argmax()) for name in "abc"} == {2}


def test_images_of_several_labels_get_a_head_that_decides_each_by_itself(config, tmp_path, images):
    lines = ["file,labels"]
    for path in sorted(images.rglob("*.png")):
        lines.append(f"{path.relative_to(images)},{path.parent.name}" + ("|d" if int(path.stem) % 2 else ""))
    table = images / "labels.csv"
    table.write_text("\n".join(lines))
    text = tuned(config(data__source=f"csv:{table}", data__table__separator="|"), tmp_path / "run")
    assert "sigmoid_cross_entropy" in text
    assert "mean_average_precision" in text
    answers = jaxnets.load(tmp_path / "run").predict(images / "a" / "1.png")
    assert answers.shape == (1, 4)
    assert not np.isclose(answers.sum(), 1)
