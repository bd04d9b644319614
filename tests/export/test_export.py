import json
import re
import shutil
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets
from jaxnets.engine.onnx_file import check_writable
from jaxnets.errors import UserError
from jaxnets.export import stablehlo
from jaxnets.export.check import jax_logits, largest_difference, sample_images
from jaxnets.export.timm_layout import export_folder, timm_arrays
from jaxnets.pretrained.layouts import recognise
from tests.export.runs import run_on_digits
from tests.tiny import classifier


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return run_on_digits(tmp_path_factory.mktemp("run") / "digits")


def test_a_run_becomes_an_onnx_file(digits, export, tmp_path):
    pytest.importorskip("onnxruntime")
    status, said = export("--model", digits, "--format", "onnx", "--out", tmp_path / "new" / "digits.onnx")
    assert status == 0, said
    assert float(re.search(r"off JAX by (\S+) of", said)[1]) < 1e-4
    assert (tmp_path / "new" / "digits.onnx").stat().st_size > 4 * 75_002  # all of the weights


def test_int8_is_calibrated_on_the_runs_data_and_measured_on_its_test_split(digits, export, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    arguments = ("--model", digits, "--format", "onnx", "--int8", "--out", tmp_path / "small.onnx")
    status, said = export(*arguments, "--max-loss", 0.5)
    assert status == 0, said
    assert "calibrating on 256 images of the training split" in said
    assert re.search(r"test accuracy of \d{3} images: \d+\.\d+% in float32, \d+\.\d+% in int8", said)
    assert (tmp_path / "small.onnx").stat().st_size < 5e5
    # ONNX Runtime 1.15 refuses a file for any import that it does not know, be it used or not.
    written = onnx.load(tmp_path / "small.onnx")
    assert {node.op_type for node in written.graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
    assert [(entry.domain, entry.version) for entry in written.opset_import] == [("", 13)]
    assert written.ir_version == 7
    onnx.checker.check_model(written, full_check=True)


def test_int8_that_loses_too_much_is_not_written(digits, export, tmp_path):
    pytest.importorskip("onnxruntime")
    arguments = ("--model", digits, "--format", "onnx", "--int8", "--out", tmp_path / "small.onnx")
    status, said = export(*arguments, "--max-loss", -1)
    assert status == 1
    assert "more than --max-loss -1" in said
    assert not (tmp_path / "small.onnx").exists()


def test_int8_of_a_folder_says_on_which_images_it_was_measured(digits, export, tmp_path, caplog):
    pytest.importorskip("onnxruntime")
    from PIL import Image

    from tests.export.runs import digit_images

    (tmp_path / "images").mkdir()
    for i, pixels in enumerate(digit_images(20)):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "images" / "copy.png").write_bytes((tmp_path / "images" / "0.png").read_bytes())
    (tmp_path / "images" / "damaged.png").write_bytes(b"no image")
    shutil.move(digits / "config.json", tmp_path / "kept.json")  # the run's data cannot be found
    config = json.loads((tmp_path / "kept.json").read_text())
    config["data"]["source"] = f"folder:{tmp_path}/gone"
    (digits / "config.json").write_text(json.dumps(config))
    arguments = ("--model", digits, "--format", "onnx", "--int8", "--out", tmp_path / "small.onnx", "--max-loss", 0.9)
    try:
        status, said = export(*arguments, "--calibration", tmp_path / "images")
        without, refusal = export(*arguments)
    finally:
        shutil.move(tmp_path / "kept.json", digits / "config.json")
    assert status == 0, said
    assert f"calibrating on 15 images of {tmp_path}/images (1 could not be read, 1 is a copy of another)" in said
    assert "agreement with float32 on 5 other images: " in said
    assert "calibrated on 15 different images" in caplog.text
    assert "not measured on the run's test split" in caplog.text
    assert without == 1
    assert "gone" in refusal
    assert "--calibration" in refusal


def test_int8_without_images_is_refused(export, tmp_path):
    arguments = ("--model", "efficientnet_lite0", "--format", "onnx", "--int8", "--out", tmp_path / "small.onnx")
    status, said = export(*arguments)
    assert status == 1
    assert "int8 needs images" in said


def test_one_stablehlo_file_serves_any_batch():
    made = classifier("efficientnet")
    logits = stablehlo.stablehlo_logits(stablehlo.export_stablehlo(made))
    images = sample_images(made)
    expected = jax_logits(made)(images)
    for count in (1, len(images)):
        assert largest_difference(expected[:count], logits(images[:count])) < 1e-5


def test_stablehlo_of_a_bfloat16_model_computes_in_float32():
    made = classifier("cifar")
    made = replace(made, model=made.model.clone(dtype=jnp.bfloat16))
    images = sample_images(made)
    logits = stablehlo.stablehlo_logits(stablehlo.export_stablehlo(made))
    assert largest_difference(jax_logits(made)(images), logits(images)) < 1e-5


@pytest.mark.parametrize("family", ["imagenet", "gated", "preactivated", "lite"])
def test_timms_layout_is_recognised_again_and_complete(family):
    made = classifier(family)
    arrays = timm_arrays(made)
    assert "timm" in {layout.name for _, layout in recognise(arrays, "an export")}
    assert sum(x.size for x in arrays.values()) == sum(leaf.size for leaf in _leaves(made.variables))


def _leaves(tree):
    import jax

    return jax.tree.leaves(tree)


def test_a_folder_for_timm_opens_here_as_the_model_that_it_was(tmp_path):
    several = {"activation": "sigmoid", "several_labels": True, "thresholds": (0.25,) * 1000}
    made = replace(jaxnets.load("efficientnet_lite0", engine="jax"), **several)
    export_folder(made, tmp_path / "model.safetensors")
    found = jaxnets.load(tmp_path, engine="jax")
    assert (found.name, found.labels, found.activation) == ("tf_efficientnet_lite0", made.labels, made.activation)
    assert (found.several_labels, found.thresholds) == (True, made.thresholds)
    assert found.preprocess == made.preprocess
    kept = zip(_leaves(found.variables), _leaves(made.variables), strict=True)
    assert all(np.array_equal(a, b) for a, b in kept)
    assert (found.model.padding, found.model.norm_epsilon) == (made.model.padding, made.model.norm_epsilon)


def test_a_path_that_cannot_be_written_is_refused_before_the_work(export, tmp_path):
    (tmp_path / "file").write_text("in the way")
    arguments = ("--model", "efficientnet_lite0", "--format", "onnx")
    status, said = export(*arguments, "--out", tmp_path / "file" / "model.onnx")
    assert status == 1
    assert "cannot be written" in said
    with pytest.raises(UserError, match="is a folder"):
        check_writable(tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["safetensors", "--int8"], "--int8 is for --format onnx, web and triton, found --format safetensors"),
        (
            ["web", "--preprocessing-inside"],
            "--preprocessing-inside is for --format onnx and triton, found --format web",
        ),
        (["onnx", "--web-runtime", "x"], "--web-runtime is for --format web, found --format onnx"),
        (["onnx", "--layers"], "--layers is of int8"),
        (["web", "--keep-float", "3"], "--keep-float is of int8"),
        (["onnx", "--int8", "--keep-float", "0"], "one whole number above 0"),
        (["onnx", "--int8", "--dtype", "float16"], "--dtype float16 and --int8 are two precisions"),
        (["web", "--dtype", "float16"], "--int8 makes a page smaller"),
        (["stablehlo", "--dtype", "bfloat16"], "--dtype is for --format onnx and triton, found --format stablehlo"),
    ],
)
def test_options_of_other_formats_are_refused(export, tmp_path, given, said):
    status, found = export("--model", "x", "--out", tmp_path / "x", "--format", *given)
    assert status == 1
    assert said in found
