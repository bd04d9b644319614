import re
import sys
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets
from jaxnets.engine.onnx_file import check_writable
from jaxnets.errors import UserError
from jaxnets.export import stablehlo
from jaxnets.export.check import jax_logits, largest_difference, sample_images
from jaxnets.export.timm_layout import export_safetensors, timm_arrays, timm_name
from jaxnets.pretrained.layouts import recognise
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from tests.tiny import classifier
from tests.train.runs import short


@pytest.fixture(scope="module")
def digits(tmp_path_factory, one_device):
    workdir = tmp_path_factory.mktemp("run") / "digits"
    train(short(steps=60, eval_every_steps=60, batch_size=64), workdir, Display(), one_device)
    return workdir


@pytest.fixture
def export(monkeypatch, capsys):
    """Runs the command in this process and returns its status and what it printed."""
    from jaxnets.export.__main__ import main

    def export(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    return export


def test_a_run_becomes_an_onnx_file(digits, export, tmp_path):
    pytest.importorskip("onnxruntime")
    status, said = export("--model", digits, "--format", "onnx", "--out", tmp_path / "new" / "digits.onnx")
    assert status == 0, said
    assert float(re.search(r"off JAX by (\S+) of", said)[1]) < 1e-4
    assert (tmp_path / "new" / "digits.onnx").stat().st_size > 4 * 75_002  # all of the weights


def test_int8_is_calibrated_on_the_runs_data_and_measured_on_its_test_split(digits, export, tmp_path):
    pytest.importorskip("onnxruntime")
    arguments = ("--model", digits, "--format", "onnx", "--int8", "--out", tmp_path / "small.onnx")
    status, said = export(*arguments, "--max-loss", 0.5)
    assert status == 0, said
    assert re.search(r"test accuracy of 360 images: \d+\.\d+% in float32, \d+\.\d+% in int8", said)
    assert (tmp_path / "small.onnx").stat().st_size < 5e5


def test_int8_that_loses_too_much_is_not_written(digits, export, tmp_path):
    pytest.importorskip("onnxruntime")
    arguments = ("--model", digits, "--format", "onnx", "--int8", "--out", tmp_path / "small.onnx")
    status, said = export(*arguments, "--max-loss", -1)
    assert status == 1
    assert "more than --max-loss -1" in said
    assert not (tmp_path / "small.onnx").exists()


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


def test_a_safetensors_export_opens_again_with_the_same_logits(tmp_path):
    made = jaxnets.load("efficientnet_lite0", engine="jax")
    path = tmp_path / "lite0.safetensors"
    path.write_bytes(export_safetensors(made))
    model, variables = jaxnets.load_pretrained(timm_name(made), path)
    assert timm_name(made) == "tf_efficientnet_lite0"
    kept = zip(_leaves(variables), _leaves(made.variables), strict=True)
    assert all(np.array_equal(a, b) for a, b in kept)
    assert (model.padding, model.norm_epsilon) == (made.model.padding, made.model.norm_epsilon)


def test_a_path_that_cannot_be_written_is_refused_before_the_work(export, tmp_path):
    (tmp_path / "file").write_text("in the way")
    arguments = ("--model", "efficientnet_lite0", "--format", "onnx")
    status, said = export(*arguments, "--out", tmp_path / "file" / "model.onnx")
    assert status == 1
    assert "cannot be written" in said
    with pytest.raises(UserError, match="is a folder"):
        check_writable(tmp_path)


def test_options_of_onnx_are_refused_with_other_formats(export, tmp_path):
    status, said = export("--model", "x", "--format", "safetensors", "--int8", "--out", tmp_path / "x")
    assert status == 1
    assert "are for --format onnx" in said
