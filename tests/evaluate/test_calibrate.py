"""A run that was trained on the digits: what is fitted to it counts wherever it answers, and only where it may."""

import asyncio
import io
import json
import shutil
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxnets
from jaxnets.answer import as_json
from jaxnets.classifier import Classifier
from jaxnets.data.dataset import open_dataset
from jaxnets.errors import UserError
from jaxnets.evaluate.calibrate import Wanted
from jaxnets.run.build import build_model
from jaxnets.run.checkpoints import Progress
from jaxnets.run.directory import ModelCard, RunDirectory
from jaxnets.serve.app import make_app
from jaxnets.serve.limits import Limits
from jaxnets.serve.models import Models
from jaxnets.serve.source import Source
from jaxnets.train.saver import Checkpointer
from jaxnets.train.step import TrainState
from jaxnets.trust.conformal import fit_quantile, sizes_and_hits
from jaxnets.trust.temperature import log_loss
from tests.serve.fakes import client_of
from tests.tiny import live
from tests.train.runs import SMALL, short

FITTED = {"calibrate": True, "familiar": 0.98, "precision": 0.8, "conformal": 0.9}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run as training leaves it: the head of a random network was fitted to the digits, and is far too sure."""
    from sklearn.linear_model import LogisticRegression

    run = RunDirectory(tmp_path_factory.mktemp("calibrate") / "plain")
    run.create()
    config = short(data={"validation": 0.25})
    data = open_dataset(config)
    fields = {"num_classes": 10, "dtype": "float32"}
    card = ModelCard(
        name=SMALL,
        fields=fields,
        class_names=data.class_names,
        preprocess=data.preprocess,
        data=data.fingerprint(),
    )
    run.write(config, card)
    model = build_model(card)
    variables = live(model, card.preprocess)
    random = Classifier(SMALL, model, variables, card.preprocess, card.class_names, step=None)
    train = data.split("train")
    vectors = random.embed_fitted(np.stack([train.read(i).image for i in range(len(train))]))
    mean, scale = vectors.mean(0), vectors.std(0) + 1e-6
    head = LogisticRegression(C=0.01, max_iter=50).fit((vectors - mean) / scale, train.labels)
    kernel = head.coef_.T / scale[:, None]
    bias = head.intercept_ - mean @ kernel
    params = {**variables["params"], "head": {"kernel": jnp.float32(6 * kernel), "bias": jnp.float32(6 * bias)}}
    saver = Checkpointer(run.checkpoints)
    state = TrainState(step=jnp.int32(150), params=params, batch_stats=variables["batch_stats"], opt_state={}, ema=None)
    saver.save(state, Progress(step=150))
    saver.close()
    return run.path


@pytest.fixture(scope="module")
def fitted(plain, tmp_path_factory):
    """The run with all that can be fitted, and what its evaluation said."""
    workdir = shutil.copytree(plain, tmp_path_factory.mktemp("calibrate") / "fitted")
    return workdir, jaxnets.evaluate(workdir, **FITTED)


def test_calibration_lowers_the_error_on_the_test_split_and_is_fitted_on_validation(plain, fitted):
    workdir, report = fitted
    before = jaxnets.evaluate(plain)
    assert report["accuracy"] == before["accuracy"]
    assert report["uncalibrated"]["ece"] == pytest.approx(before["ece"], abs=1e-6)
    assert report["uncalibrated"]["log_loss"] == pytest.approx(before["log_loss"], rel=1e-5)
    assert report["ece"] < before["ece"]
    assert report["log_loss"] < before["log_loss"]
    card = RunDirectory(workdir).read_model()
    assert card.temperature == report["temperature"] != 1
    assert (card.fitted_on.split, card.fitted_on.step) == ("validation", 150)


def test_a_promised_precision_and_coverage_hold_on_the_test_split(fitted):
    refused, sets = fitted[1]["refused"], fitted[1]["sets"]
    assert refused["answered"] + refused["unlike"] + refused["unsure"] == 360
    assert refused["high"] >= 0.8
    assert refused["answered"] > 180
    assert refused["unlike"] < 0.08 * 360
    assert sets["high"] >= 0.9
    assert 1 <= sets["mean_size"] < 5


def kinds() -> dict[str, np.ndarray]:
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(0)
    return {
        "noise": random.integers(0, 256, (64, 64, 3), np.uint8),
        "blank": np.full((50, 40), 255, np.uint8),
        "photograph": load_sample_images().images[0],
    }


def digits(count: int) -> list[np.ndarray]:
    from sklearn.datasets import load_digits

    return list((load_digits().images[:count] * 15.9).astype(np.uint8))


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def asked_of_the_service(workdir, images: list[np.ndarray]) -> list[dict]:
    source = Source(name="digits", path=str(workdir))
    models = Models([source], open_=lambda path, checkpoint: jaxnets.load(path, checkpoint), limits=Limits(timeout=30))
    app = make_app(models, models.limits)

    async def ask() -> list[dict]:
        async with client_of(app) as client:
            described = (await client.get("/v1/models")).json()["models"][0]
            shares = {key: described["refusal"][key] for key in ("familiar", "precision", "coverage")}
            assert shares == {"familiar": 0.98, "precision": 0.8, "coverage": None}
            files = [("files", ("x.png", png(image), "image/png")) for image in images]
            return (await client.post("/v1/models/digits/predict?top=10", files=files)).json()["predictions"]

    return asyncio.run(ask())


def test_an_image_of_another_kind_is_none_of_these_by_service_demo_and_library(fitted, monkeypatch):
    from tests.demo.conftest import ROOT

    monkeypatch.syspath_prepend(ROOT / "demo")
    from images import headline, open_shown

    workdir, _ = fitted
    images = list(kinds().values())
    for answer in asked_of_the_service(workdir, images):
        assert answer["label"] is None
        assert answer["reason"].startswith("unlike the training images: ")
        assert answer["scores"].keys() == {"energy", "distance"}
        assert len(answer["top"]) == 10
    shown = open_shown(str(workdir), engine="jax")
    assert {headline(shown, row) for row in shown.rows(images)} == {"none of these: unlike the training images"}
    assert [answer.label for answer in shown.classifier.answer(images)] == [None] * 3
    answered = [answer.label for answer in shown.classifier.answer(digits(50))]
    assert answered.count(None) < 15


def test_probabilities_are_the_same_by_library_predict_service_onnx_and_stablehlo(
    fitted, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("onnxruntime")
    from jaxnets.evaluate.asked import open_onnx
    from jaxnets.export.onnx_export import export_onnx, onnx_logits
    from jaxnets.export.stablehlo import export_stablehlo, stablehlo_logits

    workdir, _ = fitted
    images = digits(6)
    in_jax, in_onnx = (jaxnets.load(workdir, engine=name) for name in ("jax", "onnx"))
    assert in_onnx.engine.name == "onnx"
    expected = in_jax.rows(images)
    assert expected.shape == (6, 12)
    np.testing.assert_allclose(in_jax.predict(images), expected[:, :10], atol=1e-5)
    np.testing.assert_allclose(in_onnx.rows(images), expected, rtol=1e-4, atol=1e-5)

    def probabilities(answers: list[dict]) -> np.ndarray:
        return np.array(
            [[{e["label"]: e["probability"] for e in a["top"]}[str(i)] for i in range(10)] for a in answers]
        )

    np.testing.assert_allclose(probabilities(asked_of_the_service(workdir, images)), expected[:, :10], atol=1e-5)
    for number, image in enumerate(images):
        (tmp_path / f"{number}.png").write_bytes(png(image))
    said = predicted(monkeypatch, capsys, "--model", workdir, "--json", "--top", 10, tmp_path)
    np.testing.assert_allclose(probabilities(said), expected[:, :10], atol=1e-5)

    seen = np.stack([in_jax.preprocess.fit(image) for image in images])
    content = export_onnx(in_jax, normalised_inside=True)
    for logits in (onnx_logits(content, in_jax), stablehlo_logits(export_stablehlo(in_jax))):
        powers = np.exp(logits(seen))
        np.testing.assert_allclose(powers / powers.sum(1, keepdims=True), expected[:, :10], atol=1e-5)
    (tmp_path / "model.onnx").write_bytes(content)
    file = open_onnx(tmp_path / "model.onnx")
    assert (file.temperature, file.refusal) == (in_jax.temperature, in_jax.refusal)
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    energy, distance = session.run(["energy", "distance"], {"image": seen})
    np.testing.assert_allclose(np.stack([energy, distance], 1), expected[:, 10:], rtol=1e-4)


def predicted(monkeypatch, capsys, *arguments) -> list[dict]:
    from jaxnets import predict

    monkeypatch.setattr("sys.argv", ["predict", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        predict.main()
    assert not ended.value.code
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_report_of_an_onnx_file_is_that_of_its_run(fitted, tmp_path):
    pytest.importorskip("onnxruntime")
    from jaxnets.export.onnx_export import export_onnx

    workdir, report = fitted
    (tmp_path / "m.onnx").write_bytes(export_onnx(jaxnets.load(workdir), normalised_inside=False))
    found = jaxnets.evaluate(workdir, model=tmp_path / "m.onnx")
    assert found["log_loss"] == pytest.approx(report["log_loss"], rel=1e-4)
    assert found["refused"] == report["refused"]


def test_a_run_without_a_temperature_answers_as_before_to_the_bit(plain):
    card = RunDirectory(plain).read_model()
    assert not card.is_fitted
    made = jaxnets.load(plain, engine="jax")
    (row,) = made.rows(digits(1))
    np.testing.assert_array_equal(row, made.predict(digits(1))[0])
    assert as_json(made, row, 2).keys() == {"top"}
    assert replace(made, temperature=1.0).predict(digits(3)).tolist() == made.predict(digits(3)).tolist()


def test_what_was_fitted_counts_for_no_other_checkpoint_and_is_fitted_anew(fitted, tmp_path, caplog):
    workdir = shutil.copytree(fitted[0], tmp_path / "run")
    run = RunDirectory(workdir)
    card = run.read_model()
    run.write_model(replace(card, fitted_on=replace(card.fitted_on, step=149)))
    found = jaxnets.load(workdir)
    assert (found.temperature, found.refusal) == (None, None)
    assert "fitted to step 149" in caplog.text
    report = jaxnets.evaluate(workdir, conformal=0.9)
    assert any("fitted anew as it was wanted before: " in note for note in report["notes"])
    again = run.read_model()
    assert again.temperature == pytest.approx(card.temperature)
    assert again.refusal.probability == pytest.approx(card.refusal.probability)


def test_a_damaged_file_of_the_training_images_is_said(fitted, tmp_path):
    workdir = shutil.copytree(fitted[0], tmp_path / "run")
    spread = RunDirectory(workdir).spread
    content = spread.read_bytes()
    for damaged in (content[:-9], b"", b"x" * 100):
        spread.write_bytes(damaged)
        with pytest.raises(UserError, match=r"spread\.safetensors cannot be read"):
            jaxnets.load(workdir)
    spread.unlink()
    with pytest.raises(UserError, match=r"spread\.safetensors cannot be read"):
        jaxnets.load(workdir)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"precision": 95}, "--precision must be a share between 0 and 1, found 95"),
        ({"conformal": 1.0}, "--conformal must be a share"),
        ({"familiar": float("nan")}, "--familiar must be a share"),
        ({"precision": 0.9, "coverage": 0.9}, "choose the same bound"),
        ({"calibrate": True, "fit_on": "test"}, "fitted on the test split would look better"),
        ({"calibrate": True, "fit_on": "valid"}, r"no split 'valid' here \(.*validation"),
        ({"calibrate": True, "tta": "mirror"}, "--tta asks for others"),
        ({"precision": 0.9999}, "cannot be promised"),
        ({"conformal": 0.9999}, "need at least 9999 held-out images"),
    ],
)
def test_what_cannot_be_fitted_is_refused_and_the_run_stays(fitted, wanted, expected):
    before = RunDirectory(fitted[0]).model.read_bytes()
    with pytest.raises(UserError, match=expected):
        jaxnets.evaluate(fitted[0], **wanted)
    assert RunDirectory(fitted[0]).model.read_bytes() == before


def test_held_out_images_of_one_class_are_refused(plain):
    from jaxnets.evaluate.calibrate import check

    run = RunDirectory(plain)
    data = open_dataset(run.read_config(), run.read_model().preprocess)
    data.splits["validation"].labels[:] = 3
    with pytest.raises(UserError, match=r"all of one class \(3\)"):
        check(run, run.read_model(), data, Wanted(temperature=True), None)


def test_costs_are_judged_and_other_classes_are_refused(fitted, tmp_path):
    costs = 1 - np.eye(10)
    costs[3] *= 20
    rows = [["", *range(10)], *([i, *costs[i]] for i in range(10))]
    text = "\n".join(",".join(map(str, row)) for row in rows)
    (tmp_path / "costs.csv").write_text(text)
    (tmp_path / "other.csv").write_text(text.replace("9", "nine"))
    found = jaxnets.evaluate(fitted[0], costs=tmp_path / "costs.csv")["costs"]
    assert found["mean"] < found["most_probable"] < found["constant"]
    assert found["changed"] == pytest.approx(sum(found["decisions"].values()) - 360 + found["changed"])
    with pytest.raises(UserError, match="'nine', which is no class"):
        jaxnets.evaluate(fitted[0], costs=tmp_path / "other.csv")


def test_sets_cover_over_ten_splits_of_the_digits():
    """A linear model of the digits, so that each split has a model of its own."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    images, labels = load_digits(return_X_y=True)
    covered = []
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(labels))
        for_model, held_out, new = np.split(order, [200, 900])
        model = LogisticRegression(max_iter=30, C=0.02).fit(images[for_model] / 16, labels[for_model])
        held, fresh = (model.predict_proba(images[rows] / 16).astype(np.float32) for rows in (held_out, new))
        assert log_loss(np.log(held), labels[held_out]) < 2.3
        quantile = fit_quantile(held, labels[held_out], 0.9)
        covered.append(sizes_and_hits(fresh, labels[new], quantile)[1].mean())
    assert np.mean(covered) == pytest.approx(0.9, abs=0.02)
    assert min(covered) > 0.85
