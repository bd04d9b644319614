"""Images that may have several labels, from the source to the answer."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

import jaxnets.data.dataset
from jaxnets import predict
from jaxnets.data.canvas import Canvas
from jaxnets.data.dataset import open_dataset
from jaxnets.data.examples import Examples
from jaxnets.data.order import Order
from jaxnets.data.pipeline import evaluation_batches, train_stream
from jaxnets.data.sources import ArraySplit, Source, Subset, classes_by_rarity
from jaxnets.data.split import hold_out
from jaxnets.errors import UserError
from jaxnets.evaluate.ask import evaluate
from jaxnets.export.onnx_export import export_onnx, onnx_logits
from jaxnets.loading import load
from jaxnets.models.forward import forward
from jaxnets.recipe.losses.cross_entropy import SigmoidCrossEntropy
from jaxnets.run.checkpoints import read_progress
from jaxnets.run.directory import RunDirectory
from jaxnets.serve.app import make_app
from jaxnets.serve.limits import Limits
from jaxnets.serve.models import Models
from jaxnets.serve.source import Source as Served
from jaxnets.train.build import build
from jaxnets.train.display import Display
from jaxnets.train.feed import Draws, ResidentFeed, StreamFeed
from jaxnets.train.hosts import Hosts
from jaxnets.train.loop import set_up, train
from jaxnets.train.mesh import over_data, replicated
from tests.serve.fakes import ask
from tests.train import test_step
from tests.train.runs import rows_of, short

NAMES = ("left", "middle", "right")


def made(count: int, seed: int) -> ArraySplit:
    """Returns grey images of which each third may be bright, in any combination: a label for each."""
    random = np.random.default_rng(seed)
    targets = (random.random((count, 3)) < 0.5).astype(np.uint8)
    images = random.integers(0, 60, (count, 8, 9, 1), np.uint8) + 190 * np.repeat(targets, 3, axis=1)[:, None, :, None]
    labels = targets.argmax(1).astype(np.int32)
    return ArraySplit(images.astype(np.uint8), labels, f"made{seed}", targets=targets)


@pytest.fixture
def source(monkeypatch):
    """Opens the made set instead of what a config names."""
    splits = {"train": made(64, 0), "test": made(32, 1), "validation": made(24, 2)}
    opened = Source(description="made", class_names=NAMES, splits=splits, image_size=(8, 9), channels=1)
    monkeypatch.setattr(jaxnets.data.dataset, "open_source", lambda data, seed: opened)
    return opened


def several(**changed):
    data = {"validation": 0.0, **changed.pop("data", {})}
    return short(**{"loss": {"name": "sigmoid_cross_entropy"}, "data": data, "augment": {}, **changed})


@pytest.mark.parametrize("kind", [ResidentFeed, StreamFeed])
def test_steps_with_several_labels_in_one_go_and_in_two_give_the_same_bits(one_device, kind):
    step, state = test_step.setup(recipe={"loss": SigmoidCrossEntropy(), "cut": None, "ops": ()})
    split = made(40, 0)
    wide = ArraySplit(split.images[:, :, :8], split.labels, targets=np.c_[split.targets, split.targets[:, :1]])
    examples = Examples(wide, np.arange(40), test_step.PREPROCESS, skip_corrupt=False)
    draws = Draws(order=Order(0, split.labels), batch_size=16, stop_step=4)

    def feed():
        hosts = () if kind is StreamFeed else (Hosts(),)
        opened = kind(examples, draws, step, 1, one_device, *hosts)
        opened.compile(jax.device_put(state, replicated(one_device)))
        return opened

    def advance(feed, state, start, count):
        return feed.advance(jax.device_put(jax.tree.map(np.asarray, state), replicated(one_device)), start, count)[0]

    whole = advance(feed(), state, 0, 4)
    halves = advance(feed(), advance(feed(), state, 0, 2), 2, 2)
    for x, y in zip(jax.tree.leaves(whole), jax.tree.leaves(halves), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_batch_holds_each_images_labels_as_numbers_of_32_bits():
    split = made(20, 0)
    examples = Examples(split, np.arange(20), Canvas(height=8, width=9, channels=1), skip_corrupt=False)
    (batch,) = train_stream(examples, order=Order(0, split.labels), batch_size=8, start_step=1, stop_step=2, threads=1)
    assert batch.label.dtype == np.float32
    np.testing.assert_array_equal(batch.label, split.targets[batch.index])
    last = list(evaluation_batches(examples, batch_size=8, threads=1))[-1]
    assert last.label.shape == (8, 3)
    np.testing.assert_array_equal(last.label[last.mask], split.targets[16:])


def test_a_step_with_several_labels_agrees_on_one_and_eight_devices(one_device, eight_devices):
    step, state = test_step.setup(recipe={"loss": SigmoidCrossEntropy(), "optimizer": optax.sgd(0.1)})
    batch = test_step.batch_at(0)
    batch = batch.replace(label=np.maximum(np.eye(4, dtype=np.float32)[batch.label], np.float32([0, 0, 0, 1])))

    def on(mesh):
        compiled = jax.jit(step, out_shardings=replicated(mesh))
        return compiled(jax.device_put(state, replicated(mesh)), jax.device_put(batch, over_data(mesh)))

    one, eight = on(one_device), on(eight_devices)
    assert one[1]["label_count"] == 16 * 4
    test_step.assert_close(one[0].params, eight[0].params, 1e-5)
    test_step.assert_close(one[1], eight[1], 1e-5)


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("name", ["softmax_cross_entropy", "focal"])
def test_a_loss_that_wants_one_class_to_be_right_is_refused_at_the_start(tmp_path, one_device, name):
    with pytest.raises(UserError, match=r"several labels.*--config\.loss\.name=sigmoid_cross_entropy"):
        train(several(loss={"name": name}), tmp_path / "run", Display(quiet=True), one_device)
    assert not (tmp_path / "run" / "model.json").exists()


def test_images_of_one_label_may_be_trained_with_sigmoids(tmp_path):
    config = short(loss={"name": "sigmoid_cross_entropy"})
    assert build(config, open_dataset(config)).recipe.loss.activation == "sigmoid"
    card = set_up(config, RunDirectory(tmp_path / "none"), Hosts()).card
    assert (card.activation, card.several_labels) == ("softmax", False)  # probabilities of which one it is


def test_no_class_is_missing_on_either_side_of_a_split():
    targets = np.zeros((200, 3), np.uint8)
    targets[:150, 0] = 1
    targets[100:103, 1] = 1  # beside the first
    targets[[3, 7], 2] = 1  # likewise
    split = ArraySplit(np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1), targets.argmax(1).astype(np.int32))
    split = ArraySplit(split.images, split.labels, targets=targets)
    np.testing.assert_array_equal(np.bincount(classes_by_rarity(targets)), [145, 3, 2, 50])
    for seed in range(5):
        kept, held_out = hold_out(split.identities, classes_by_rarity(targets), 0.1, seed, "validation")
        assert targets[kept].any(0).all()
        assert targets[held_out].any(0).all()


def test_labels_that_count_another_model_s_classes_are_renumbered():
    split = made(20, 0)
    subset = Subset(split, np.arange(5, 15), np.array([3, 0, 1], np.int32), 4)
    np.testing.assert_array_equal(subset.targets[:, [3, 0, 1]], split.targets[5:15])
    assert not subset.targets[:, 2].any()


def test_a_label_that_is_added_is_noticed(source):
    before = open_dataset(several()).fingerprint()
    source.splits["train"].targets[0] ^= 1
    assert open_dataset(several()).fingerprint()["labels_crc32"] != before["labels_crc32"]


@pytest.mark.usefixtures("source")
def test_each_split_s_notes_count_the_images_of_each_label():
    targets = made(64, 0).targets
    counts = ", ".join(f"{name} ({count})" for name, count in zip(NAMES, targets.sum(0), strict=True))
    assert f"train: {counts}" in open_dataset(several(data={"balance": 0.5})).notes


@pytest.fixture(scope="module")
def trained(tmp_path_factory, one_device):
    """A run on a table of the made set, with a threshold for each label, and the table's folder."""
    folder = tmp_path_factory.mktemp("tags")
    splits = {"train": made(64, 0), "test": made(32, 1), "val": made(24, 2)}
    rows = ["file,labels,split"]
    for split, examples in splits.items():
        for number, (image, target) in enumerate(zip(examples.images, examples.targets, strict=True)):
            Image.fromarray(image[..., 0]).save(folder / f"{split}{number}.png")
            labels = "|".join(name for name, bit in zip(NAMES, target, strict=True) if bit)
            rows.append(f"{split}{number}.png,{labels},{split}")
    (folder / "tags.csv").write_text("\n".join(rows))
    for steps in (20, 40):  # in two sessions
        train(tabled(folder, steps=steps), folder / "run", Display(quiet=True), one_device)
        assert RunDirectory(folder / "run").read_model().thresholds
    return folder


def tabled(folder, **changed):
    data = {"source": f"csv:{folder}/tags.csv", "table": {"separator": "|"}, "channels": 1, "image_size": "8x9"}
    return several(**{"log_every_steps": 20, "eval_every_steps": 20, "data": data, **changed})


def test_a_made_set_is_learned_and_evaluated_and_answers_with_a_probability_for_each_label(trained):
    workdir = trained / "run"
    rows = rows_of(workdir)
    assert [row["train/loss"] for row in rows if "train/loss" in row][-1] < 0.3
    card = RunDirectory(workdir).read_model()
    assert (card.activation, card.several_labels) == ("sigmoid", True)
    best = read_progress(workdir / "checkpoints", 40).best
    assert best["mean_average_precision"] == max(
        r["eval/mean_average_precision"] for r in rows if r.get("eval/split") == "validation"
    )
    report = evaluate(workdir)
    assert report["mean_average_precision"] > 0.95
    assert report["label_accuracy"] > 0.9
    assert report["per_class"].keys() == set(NAMES)
    assert all(row["f1"] > 0.8 for row in report["per_class"].values())
    json.dumps(report, allow_nan=False)
    test = made(32, 1)
    probabilities = load(workdir, engine="jax").predict(test.images)
    assert probabilities.sum(1).max() > 1.5  # each label's own, and no shares of one
    expected = average_precision_score(test.targets, probabilities, average="macro")
    assert report["mean_average_precision"] == pytest.approx(expected, rel=1e-6)


def test_a_label_s_threshold_is_chosen_on_validation_images_and_kept_for_the_best_checkpoint(trained):
    card = RunDirectory(trained / "run").read_model()
    best = read_progress(trained / "run" / "checkpoints", 40).best
    assert card.thresholds == tuple(best["thresholds"])
    assert len(set(card.thresholds) - {0.5}) == 3
    assert load(trained / "run").thresholds == card.thresholds
    report = evaluate(trained / "run", split="validation")
    assert report["macro_f1"] >= report["macro_f1_at_half"]


def test_thresholds_are_chosen_anew_as_they_were(trained, tmp_path):
    run = RunDirectory(shutil.copytree(trained / "run", tmp_path / "run"))
    card = run.read_model()
    run.write_model(replace(card, thresholds=None))
    before = evaluate(run.path)
    assert "macro_f1_at_half" not in before
    after = evaluate(run.path, thresholds="validation")
    assert run.read_model() == card
    assert after["macro_f1_at_half"] == before["macro_f1"]
    with pytest.raises(UserError, match="no split 'valid': give one of train, test, validation"):
        evaluate(run.path, thresholds="valid")
    run.write_model(replace(card, several_labels=False))
    with pytest.raises(UserError, match="this run's have one"):
        evaluate(run.path, thresholds="validation")


def test_the_service_and_predict_answer_with_the_set_of_the_library(trained, monkeypatch, capsys):
    monkeypatch.setattr("jaxnets.serve.batcher._LARGEST", 2)
    classifier = load(trained / "run", engine="jax")
    limits = Limits(timeout=60, latency=10)
    source = Served.parse(f"tags={trained / 'run'}", "best")
    models = Models([source], open_=lambda path, step: load(path, step, engine="jax"), limits=limits)
    app = make_app(models, limits)
    answers = classifier.labels_of(classifier.predict(made(32, 1).images))
    numbers = {len(names): number for number, names in enumerate(answers)}  # an image of each number of labels
    assert numbers.keys() > {0, 2}
    files = [trained / f"test{number}.png" for number in numbers.values()]
    expected = [list(answers[number]) for number in numbers.values()]
    forms = [("files", (file.name, file.read_bytes())) for file in files]
    answer = ask(app, "POST", "/v1/models/tags/predict?top=1", files=forms).json()
    assert [[row["label"] for row in found["labels"]] for found in answer["predictions"]] == expected
    (described,) = ask(app, "GET", "/v1/models").json()["models"]
    assert described["thresholds"] == list(classifier.thresholds)
    call = ["predict", "--model", str(trained / "run"), *map(str, files), "--engine", "jax"]
    monkeypatch.setattr("sys.argv", call)
    with pytest.raises(SystemExit):
        predict.main()
    lines = [line.split(": ")[1] for line in capsys.readouterr().out.splitlines() if line.startswith("  labels: ")]
    assert lines == [", ".join(names) or "none" for names in expected]


def test_an_onnx_file_says_with_its_thresholds_what_the_library_does(trained):
    onnx, _ = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    classifier = load(trained / "run", engine="jax")
    content = export_onnx(classifier, normalised_inside=True)
    kept = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
    images = made(32, 1).images
    found = 1 / (1 + np.exp(-onnx_logits(content, classifier)(images))) > json.loads(kept["thresholds"])
    names = [tuple(sorted(np.array(json.loads(kept["labels"]))[row])) for row in found]
    assert names == [tuple(sorted(each)) for each in classifier.labels_of(classifier.predict(images))]


def logits_of(classifier, images):
    return np.asarray(forward(classifier.model, classifier.preprocess, classifier.variables, images), np.float64)


@pytest.fixture(scope="module")
def calibrated(trained, tmp_path_factory):
    """The run, with a temperature fitted on validation images of which some labels are wrong; and what was said."""
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("calibrated") / "tags")
    head, *rows = (folder / "tags.csv").read_text().splitlines()
    for number, row in enumerate(rows):
        file, labels, split = row.split(",")
        if split == "val" and number % 4 == 0:
            labels = "|".join(name for name in NAMES if (name in labels) != (name == NAMES[number // 4 % 3]))
        rows[number] = f"{file},{labels},{split}"
    (folder / "tags.csv").write_text("\n".join([head, *rows]))
    run = folder / "run"
    config = json.loads((run / "config.json").read_text())
    source = f"csv:{folder}/tags.csv"
    (run / "config.json").write_text(json.dumps(config).replace(f"csv:{trained}/tags.csv", source))
    return run, evaluate(run, source=source, calibrate=True, familiar=0.9), source


def test_the_temperature_of_several_labels_is_that_of_the_least_cross_entropy_on_validation(calibrated):
    from scipy.optimize import minimize_scalar

    workdir, report, source = calibrated
    logits = logits_of(load(workdir, engine="jax"), made(24, 2).images)
    rows = csv.DictReader(Path(source.partition(":")[2]).read_text().splitlines())
    has = np.array([[name in row["labels"] for name in NAMES] for row in rows if row["split"] == "val"])
    loss = lambda t: np.logaddexp(0, np.where(has, -1, 1) * logits / t).mean()  # noqa: E731
    expected = minimize_scalar(loss, bounds=(0.05, 50), method="bounded", options={"xatol": 1e-8}).x
    assert report["temperature"] == pytest.approx(expected, rel=1e-4)
    assert expected > 1.2
    assert RunDirectory(workdir).read_model().temperature == report["temperature"]
    on_validation = evaluate(workdir, source=source, split="validation")
    assert on_validation["log_loss"] == pytest.approx(loss(expected), rel=1e-5)
    assert on_validation["log_loss"] < on_validation["uncalibrated"]["log_loss"] == pytest.approx(loss(1), rel=1e-5)


def test_a_temperature_of_several_labels_changes_probabilities_and_no_label(trained, calibrated):
    before, after = load(trained / "run", engine="jax"), load(calibrated[0], engine="jax")
    images = made(32, 1).images
    expected = 1 / (1 + np.exp(-logits_of(before, images) / after.temperature))
    np.testing.assert_allclose(after.predict(images), expected, atol=1e-5)
    assert after.labels_of(after.predict(images)) == before.labels_of(before.predict(images))
    report, plain = calibrated[1], evaluate(trained / "run")
    for key in ("accuracy", "macro_f1", "micro_f1", "hamming_loss", "mean_average_precision", "loss"):
        assert report[key] == pytest.approx(plain[key], rel=1e-6), key
    assert report["uncalibrated"]["ece"] == pytest.approx(plain["ece"], abs=1e-6)
    rows = zip(report["per_class"].values(), before.thresholds, strict=True)
    for row, threshold in rows:
        kept = np.log(threshold / (1 - threshold))
        assert np.log(row["threshold"] / (1 - row["threshold"])) == pytest.approx(kept / after.temperature, rel=1e-5)


def test_calibrated_labels_are_the_same_by_library_predict_service_demo_and_exports(
    calibrated, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("onnxruntime")
    from jaxnets.evaluate.asked import open_onnx
    from jaxnets.export.hub_folder import hub_folder
    from jaxnets.export.stablehlo import export_stablehlo, stablehlo_logits
    from tests.demo.conftest import ROOT

    workdir = calibrated[0]
    classifier = load(workdir, engine="jax")
    images = made(32, 1).images[:6]
    noise = np.random.default_rng(3).integers(0, 256, (1, 8, 9, 1)).astype(np.uint8)
    images = np.concatenate([images, noise])
    expected = classifier.rows(images)
    answers = classifier.answer(images)
    assert answers[-1].reason.startswith("unlike the training images")
    assert any(len(answer.labels) > 1 for answer in answers)

    def same(rows, names, thresholds=classifier.thresholds):
        np.testing.assert_allclose(rows, expected[:, :3], atol=1e-5)
        assert [set(each) for each in names] == [set(answer.labels) for answer in answers]
        assert list(thresholds) == pytest.approx(list(classifier.thresholds), rel=1e-6)

    onnx = load(workdir, engine="onnx")
    assert onnx.engine.name == "onnx"
    np.testing.assert_allclose(onnx.rows(images), expected, rtol=1e-4, atol=1e-5)
    same(onnx.predict(images), [answer.labels for answer in onnx.answer(images)])

    hub_folder(str(workdir), "owner/tags")[0].write(tmp_path / "hub")
    again = load(tmp_path / "hub", engine="jax")
    same(again.predict(images), [answer.labels for answer in again.answer(images)], again.thresholds)

    files = []
    for number, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{number}.png")
        files.append(tmp_path / f"{number}.png")

    def read(found):
        rows = [[{row["label"]: row["probability"] for row in each["top"]}[name] for name in NAMES] for each in found]
        return rows, [[row["label"] for row in each["labels"]] for each in found]

    models = Models([Served.parse(f"tags={workdir}", "best")], limits=Limits(timeout=60), open_=load)
    app = make_app(models, models.limits)
    forms = [("files", (file.name, file.read_bytes())) for file in files]
    found = ask(app, "POST", "/v1/models/tags/predict?top=3", files=forms).json()["predictions"]
    same(*read(found))
    assert found[-1]["reason"].startswith("unlike the training images")
    (described,) = ask(app, "GET", "/v1/models").json()["models"]
    assert described["temperature"] == classifier.temperature
    same(*read(found), described["thresholds"])

    monkeypatch.setattr("sys.argv", ["predict", "--model", str(workdir), "--json", "--top", "3", *map(str, files)])
    with pytest.raises(SystemExit):
        predict.main()
    same(*read([json.loads(line) for line in capsys.readouterr().out.splitlines()]))

    monkeypatch.syspath_prepend(ROOT / "demo")
    from images import answer, open_shown

    shown = open_shown(str(workdir), engine="jax")
    rows = shown.rows(list(images))
    same(rows[:, :3], [answer(shown, row) for row in rows])

    seen = np.stack([classifier.preprocess.fit(image) for image in images])
    content = export_onnx(classifier, normalised_inside=True)
    (tmp_path / "tags.onnx").write_bytes(content)
    file = open_onnx(tmp_path / "tags.onnx")
    assert (file.temperature, file.refusal) == (classifier.temperature, classifier.refusal)
    for logits in (onnx_logits(content, classifier), stablehlo_logits(export_stablehlo(classifier))):
        p = 1 / (1 + np.exp(-logits(seen)))
        names = [np.array(NAMES)[row > np.array(file.thresholds)] for row in p]
        names[-1] = []  # its energy and distance are outputs of their own
        same(p, names, file.thresholds)
    judged = evaluate(workdir, source=calibrated[2], model=tmp_path / "tags.onnx")
    assert judged["log_loss"] == pytest.approx(calibrated[1]["log_loss"], rel=1e-4)
    assert judged["macro_f1"] == calibrated[1]["macro_f1"]


def test_thresholds_chosen_after_a_temperature_are_those_chosen_before_it(calibrated, tmp_path):
    workdir, _, source = calibrated
    run = RunDirectory(shutil.copytree(workdir, tmp_path / "run"))
    card = run.read_model()
    evaluate(run.path, source=source, thresholds="validation")
    with_temperature = run.read_model().thresholds
    run.write_model(replace(card, temperature=None, refusal=None, fitted_on=None))
    evaluate(run.path, source=source, thresholds="validation")
    assert run.read_model().thresholds == with_temperature


def test_each_label_that_is_said_is_explained_and_where_none_is_the_most_probable(trained):
    classifier = load(trained / "run", engine="jax")
    images = made(32, 1).images
    answers = classifier.labels_of(classifier.predict(images))
    both, none = (next(i for i, names in enumerate(answers) if len(names) == count) for count in (2, 0))
    explained = classifier.explain_answer(images[both])
    assert [classifier.labels[found.label] for found in explained] == list(answers[both])
    assert {found.remark for found in explained} == {""}
    (found,) = classifier.explain_answer(images[none])
    assert (found.label, found.remark) == (classifier.predict(images[none])[0].argmax(), ", not said")


def test_thresholds_of_other_classes_in_a_run_are_refused(trained, tmp_path):
    run = RunDirectory(shutil.copytree(trained / "run", tmp_path / "run"))
    saved = json.loads(run.model.read_text())
    run.model.write_text(json.dumps(saved | {"thresholds": [0.5, 0.5]}))
    with pytest.raises(
        UserError, match=r"model\.json must have a threshold for each of its 3 classes, found 2: .*null"
    ):
        load(run.path)
