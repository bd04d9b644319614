import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import jaxnets
from jaxnets import UserError
from jaxnets.engine import runtime
from jaxnets.serve.memory import give_back
from tests.tiny import classifier, images


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A user's cache of this test's own: a graph that is there already is not made again."""
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    return path / "jaxnets" / "engines"


@pytest.fixture(scope="module")
def needs_onnx():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")


def test_both_engines_give_the_same_probabilities(needs_onnx, tmp_path):
    found = {name: classifier("tf_efficientnet", engine_name=name, engine_folder=tmp_path) for name in ("jax", "onnx")}
    answers = {name: made.predict(images(5)) for name, made in found.items()}
    assert [made.engine.name for made in found.values()] == ["jax", "onnx"]
    np.testing.assert_allclose(answers["onnx"], answers["jax"], atol=1e-4)


def test_auto_takes_onnx_runtime_on_a_cpu_and_keeps_the_graph(needs_onnx, tmp_path):
    made = classifier(engine_folder=tmp_path)
    assert made.engine.name == "onnx"
    [kept] = tmp_path.iterdir()
    before = kept.stat().st_mtime_ns
    assert classifier(engine_folder=tmp_path).engine.name == "onnx"
    assert kept.stat().st_mtime_ns == before


def test_other_weights_get_a_graph_of_their_own(needs_onnx, tmp_path):
    made = classifier(engine_folder=tmp_path)
    other = replace(made, variables={**made.variables, "params": _changed(made)})
    assert made.engine.name == other.engine.name == "onnx"
    assert len(list(tmp_path.iterdir())) == 2


def _changed(made):
    params = dict(made.variables["params"])
    params["head"] = {"kernel": params["head"]["kernel"] + 1, "bias": params["head"]["bias"]}
    return params


def test_a_folder_that_cannot_be_written_to_leaves_the_graph_in_the_users_cache(needs_onnx, tmp_path, cache):
    (tmp_path / "file").write_text("in the way")
    assert classifier(engine_folder=tmp_path / "file").engine.name == "onnx"
    assert len(list(cache.iterdir())) == 1


def test_a_kept_graph_that_is_damaged_is_made_anew(needs_onnx, tmp_path):
    assert classifier(engine_folder=tmp_path).engine.name == "onnx"
    [kept] = tmp_path.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    assert classifier(engine_folder=tmp_path).engine.name == "onnx"
    assert kept.read_bytes() == whole


def test_a_graph_that_can_be_kept_nowhere_answers_all_the_same(needs_onnx, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    made = classifier(engine_folder=tmp_path / "file")
    assert made.engine.name == "onnx"
    assert made.predict(images(1)).shape == (1, 5)


def test_without_onnx_runtime_jax_answers(monkeypatch):
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    assert classifier().engine.name == "jax"


def test_onnx_runtime_that_is_asked_for_and_missing_is_named(monkeypatch):
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"onnx is not installed.*pip install 'jaxnets\[export\]'"):
        _ = classifier(engine_name="onnx").engine


def test_an_unknown_engine_is_refused():
    with pytest.raises(UserError, match="auto, jax or onnx"):
        _ = classifier(engine_name="tpu").engine


@pytest.mark.parametrize("name", ["jax", "onnx"])
@pytest.mark.parametrize("asked", [{}, {"temperature": 2.5}, {"activation": "sigmoid"}])
def test_an_observed_model_answers_as_before_and_gives_energy_and_embedding(needs_onnx, tmp_path, name, asked):
    from jaxnets.trust.outliers import energy

    plain = classifier("cifar", engine_name=name, engine_folder=tmp_path, **asked)
    fitted = np.stack([plain.preprocess.fit(image) for image in images(4)])
    rows, energies, embeddings = plain.observing().rows_and_more(fitted)
    np.testing.assert_allclose(rows, plain.rows_of_fitted(fitted), atol=1e-6)
    np.testing.assert_allclose(embeddings, plain.embed_fitted(fitted), rtol=1e-4, atol=1e-4)
    logits = plain.engine.computed(fitted).logits
    np.testing.assert_allclose(energies, energy(logits, plain.activation, plain.temperature), rtol=1e-5)
    if name == "onnx":
        with pytest.raises(ValueError, match=r"ask observing\(\)"):
            plain.rows_and_more(fitted)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_what_a_large_batch_took_is_given_back(needs_onnx, tmp_path):
    made = jaxnets.load("efficientnet_lite0", engine="onnx").with_threads(1)
    size = made.preprocess
    many = np.random.default_rng(0).integers(0, 256, (16, size.height, size.width, size.channels), np.uint8)
    before = made.engine.probabilities(many[:1])
    made.engine.probabilities(many)
    full = resident()
    made.engine.shrink(many[:1])
    give_back()
    assert resident() < full - 80  # MiB; of 16 images it is some 200
    np.testing.assert_array_equal(made.engine.probabilities(many[:1]), before)


def resident() -> float:
    """Returns the MiB of this process."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
