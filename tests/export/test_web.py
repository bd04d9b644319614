"""The page for browsers: its arithmetic is Python's, and what it is made of is what was asked for."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest

from jaxnets.answer import activated, as_json
from jaxnets.errors import UserError
from jaxnets.export.onnx_export import export_onnx
from jaxnets.export.web import runtime
from jaxnets.export.web.page import page
from jaxnets.preprocess import Preprocess
from jaxnets.trust.refusal import Refusal
from tests import tiny

NODE = shutil.which("node")
USUAL = Preprocess(height=20, width=20, channels=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2), crop_fraction=0.875)
SEEN = [
    *(replace(USUAL, interpolation=name) for name in ("nearest", "bilinear", "bicubic", "lanczos")),
    replace(USUAL, height=24, crop_fraction=1.0),
    replace(USUAL, fitting="pad", interpolation="bicubic"),
    replace(USUAL, fitting="squeeze"),
    replace(USUAL, channels=1, mean=(0.5,), std=(0.2,)),
]
SHAPES = [(20, 20), (23, 31), (64, 20), (7, 90), (150, 130), (5, 4)]


def run_in_node(script: str, given: object) -> object:
    """Returns what a script makes of `given`, with the page's functions at hand."""
    functions = "".join((files("jaxnets.export.web") / name).read_text() for name in ("fit.js", "answer.js"))
    read = 'const given = JSON.parse(require("fs").readFileSync(0, "utf8"));'
    said = subprocess.run(
        [NODE, "-e", f"{functions}{read}process.stdout.write(JSON.stringify({script}))"],
        input=json.dumps(given), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(said.stdout)


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_an_image_is_fitted_as_in_python():
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (*shape, 4), np.uint8) for shape in SHAPES]
    for image in images[::2]:
        image[..., 3] = 255
    cases = [(image, preprocess) for image in images for preprocess in SEEN]
    given = [[image.ravel().tolist(), *image.shape[:2], preprocess.to_json()] for image, preprocess in cases]
    found = run_in_node("given.map(([data, h, w, p]) => Array.from(fit(Uint8Array.from(data), h, w, p)))", given)
    for (image, preprocess), pixels in zip(cases, found, strict=True):
        expected = preprocess.fit(image).astype(int)
        apart = np.abs(expected.ravel() - pixels)
        assert apart.max() <= 1, (image.shape, preprocess)
        long = max(np.divide(preprocess.resized(*image.shape[:2]), 20)) > 2  # then Pillow's box is held in float32
        assert (apart > 0).mean() <= (0.03 if long else 0), (image.shape, preprocess)


@pytest.mark.skipif(NODE is None, reason="needs node")
@pytest.mark.parametrize("several", [False, True])
def test_logits_are_read_as_in_python(several):
    bounds = Refusal(probability=0.6, energy=1.0, distance=2.0)
    model = replace(
        tiny.classifier(),
        refusal=bounds,
        activation="sigmoid" if several else "softmax",
        several_labels=several,
        thresholds=(0.5, 0.2, 0.9, 0.4, 0.6) if several else None,
    )
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (40, 5))
    scores = np.abs(random.normal(0, 1.2, (40, 2)))
    scores[0] = np.nan
    card = {
        "labels": model.labels,
        "activation": model.activation,
        "thresholds": model.thresholds,
        "refusal": {"probability": 0.6, "energy": 1.0, "distance": 2.0},
    }
    rows = np.concatenate([activated(logits, model.activation), scores], 1)
    given = [[row.tolist(), None if np.isnan(s).any() else s.tolist()] for row, s in zip(logits, scores, strict=True)]
    scored = "{energy: s ? s[0] : NaN, distance: s ? s[1] : NaN}"
    found = run_in_node(f"given.rows.map(([x, s]) => answerOf(given.card, x, {scored}))", {"card": card, "rows": given})
    reasons = set()
    for row, said in zip(rows, found, strict=True):
        expected = as_json(model, row, 5)
        wanted = [each["label"] for each in expected["labels"]] if several else [expected["label"]]
        assert said["labels"] == [label for label in wanted if label is not None]
        assert [each["label"] for each in said["ranked"]] == [each["label"] for each in expected["top"]]
        np.testing.assert_allclose([each["probability"] for each in said["ranked"]], np.sort(row[:5])[::-1], rtol=1e-12)
        assert (said["reason"] is None) == (expected.get("reason") is None)
        reasons.add(None if said["reason"] is None else said["reason"].split(":")[0])
    assert reasons == {None, "unlike the training images"} | ({"unsure"} if not several else set())


def test_a_page_holds_the_graph_s_card_and_nothing_that_ends_it_early():
    model = replace(tiny.classifier(), labels=("</script>", "b", "c", "d", "é"), temperature=2.0)
    made = page(export_onnx(model, normalised_inside=True), runtime.Runtime(b"code", b"wasm")).decode()
    (card,) = re.findall(r'<script type="application/json" id="card">(.*?)</script>', made)
    assert json.loads(card)["labels"] == list(model.labels)
    assert json.loads(card)["preprocess"] == json.loads(json.dumps(model.preprocess.to_json()))
    assert made.count("</script>") == 5
    assert "{{" not in made
    assert "http" not in made.split("<script")[0]  # it needs nothing from elsewhere


def test_a_runtime_that_is_not_the_published_one_is_refused(tmp_path, monkeypatch):
    other = tmp_path / "onnxruntime-web.tgz"
    other.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"is not onnxruntime-web .* get it from https://"):
        runtime.open_runtime(other)
    with pytest.raises(UserError, match="cannot be read"):
        runtime.open_runtime(tmp_path / "none.tgz")
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:1")
    monkeypatch.setattr(runtime, "cache_directory", lambda: tmp_path)
    with pytest.raises(UserError, match="must be an https"):
        runtime.open_runtime()
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://127.0.0.1:1/")
    with pytest.raises(UserError, match="--web-runtime onnxruntime-web"):
        runtime.open_runtime()
