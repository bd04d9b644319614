"""A model repository for Triton: what it is told is what the ONNX file is, and nothing is written over."""

import json
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from jaxnets.errors import UserError
from jaxnets.export.onnx_export import export_onnx
from jaxnets.export.triton import CONFIG, LABELS, MODEL, README, check_repository, repository, write_repository
from jaxnets.preprocess import Preprocess
from jaxnets.trust.refusal import Refusal
from tests import tiny
from tests.export.runs import run_on_digits

TYPES = {"tensor(float)": "TYPE_FP32", "tensor(uint8)": "TYPE_UINT8"}


@pytest.fixture(scope="module")
def plain():
    return tiny.classifier()


@pytest.fixture(scope="module")
def files(plain):
    """The files of models that differ in what Triton is told of them."""
    bounds = Refusal(probability=0.6, energy=1.0)
    several = replace(plain, activation="sigmoid", several_labels=True, thresholds=(0.5, 0.2, 0.9, 0.4, 0.6))
    refusing = replace(plain, refusal=bounds, temperature=1.5, labels=('"a"', "b\nb", "c\\n", "é", "a: b"))
    made = {"plain": export_onnx(plain, normalised_inside=False), "bytes": export_onnx(plain, normalised_inside=True)}
    made |= {"several": export_onnx(several, normalised_inside=False)}
    made |= {"refusing": export_onnx(refusing, normalised_inside=False)}
    return {name: repository(content, name) for name, content in made.items()}


def read(config: bytes):
    """Returns a configuration as Triton reads it."""
    model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    return text_format.Parse(config.decode(), model_config.ModelConfig())


@pytest.mark.parametrize("name", ["plain", "bytes", "several", "refusing"])
def test_the_configuration_s_tensors_are_those_of_the_file(files, name):
    config, model = read(files[name][CONFIG]), onnxruntime.InferenceSession(files[name][MODEL])
    assert (config.name, config.backend) == (name, "onnxruntime")
    assert config.max_batch_size > 0
    for said, there in ((config.input, model.get_inputs()), (config.output, model.get_outputs())):
        assert [tensor.name for tensor in said] == [tensor.name for tensor in there]
        for one, real in zip(said, there, strict=True):
            kinds = type(one).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
            assert kinds[one.data_type].name == TYPES[real.type]
            batch, *shape = real.shape
            assert isinstance(batch, str)  # any number of images: Triton puts them together
            # Its dims are those of one image. It has no empty ones: a number an image is [1], brought to the file's [].
            assert list(one.dims) == (shape or [1])
            assert one.HasField("reshape") == (not shape)
            assert list(one.reshape.shape) == []


def test_batches_are_gathered_up_to_the_most(files):
    config = read(files["plain"][CONFIG])
    preferred = list(config.dynamic_batching.preferred_batch_size)
    assert preferred == sorted(preferred)
    assert preferred[-1] == config.max_batch_size
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    [group] = config.instance_group
    assert (group.kind, group.count) == (type(group).KIND_AUTO, 1)
    answered = onnxruntime.InferenceSession(files["plain"][MODEL]).run(
        None, {"image": np.zeros((config.max_batch_size, *config.input[0].dims), np.float32)}
    )
    assert answered[0].shape == (config.max_batch_size, *config.output[0].dims)


def test_every_class_has_a_line_of_the_labels(files, plain):
    for name in files:
        config = read(files[name][CONFIG])
        assert [output.label_filename for output in config.output if output.name == "logits"] == [LABELS]
        assert len(files[name][LABELS].decode().split("\n")) - 1 == config.output[0].dims[0]
    assert files["plain"][LABELS].decode().splitlines() == list(plain.labels)
    assert files["refusing"][LABELS].decode().splitlines() == ['"a"', "b b", "c\\n", "é", "a: b"]


def test_what_a_client_must_know_is_in_the_parameters(files, plain):
    said = {name: {k: v.string_value for k, v in read(files[name][CONFIG]).parameters.items()} for name in files}
    assert Preprocess.from_json(json.loads(said["plain"]["preprocess"])) == plain.preprocess
    assert said["plain"].keys() == {"activation", "preprocess"}
    assert (said["several"]["activation"], len(json.loads(said["several"]["thresholds"]))) == ("sigmoid", 5)
    assert float(said["refusing"]["temperature"]) == 1.5
    assert json.loads(said["refusing"]["refusal"])["energy"] == 1.0


def test_the_readme_says_what_is_left_to_the_client(files):
    text = {name: files[name][README].decode() for name in files}
    assert "`[b, 3, 33, 32]`" in text["plain"]
    assert "subtract [0.5, 0.4, 0.3]" in text["plain"]
    assert "`[b, 33, 32, 3]`" in text["bytes"]
    assert "subtract" not in text["bytes"]
    assert "sigmoid" in text["several"]
    assert "`energy`, float32 `[b, 1]`" in text["refusing"]
    assert "divided by the temperature already" in text["refusing"]


@pytest.mark.parametrize("fitting", ["crop", "pad", "squeeze"])
def test_the_readme_names_the_way_an_image_is_fitted(plain, fitting):
    model = replace(plain, preprocess=replace(plain.preprocess, fitting=fitting, crop_fraction=1.0))
    said = repository(export_onnx(model, normalised_inside=True), "it")[README].decode()
    assert {"crop": "just covers 33 × 32", "pad": "just fits into 33 × 32", "squeeze": "whatever its aspect"}[
        fitting
    ] in said


def test_a_run_becomes_a_repository_and_another_lies_beside_it(export, tmp_path):
    run, out = run_on_digits(tmp_path / "digits"), tmp_path / "models"
    status, said = export("--model", run, "--format", "triton", "--out", out)
    assert status == 0, said
    assert f"{out / 'digits'}: Triton's" in said
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {
        f"digits/{name}" for name in (CONFIG, LABELS, README, MODEL)
    }
    before = (out / "digits" / MODEL).read_bytes()
    status, said = export("--model", run, "--format", "triton", "--out", out)
    assert status == 1
    assert "digits is there already" in said
    arguments = ("--format", "triton", "--preprocessing-inside", "--out", out)
    status, said = export("--model", f"second={run}", *arguments)
    assert status == 0, said
    assert sorted(path.name for path in out.iterdir()) == ["digits", "second"]
    assert (out / "digits" / MODEL).read_bytes() == before
    status, said = export("--model", f"small={run}", "--format", "triton", "--int8", "--max-loss", 0.5, "--out", out)
    assert status == 0, said
    assert "Triton's, with ONNX in int8" in said


def test_a_place_where_triton_would_find_no_model_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    check_repository(tmp_path / "new", "it")
    for folder, name, said in (
        (tmp_path / "file", "it", "is a file"),
        (tmp_path / "photos", "it", r"holds folders that are no models of Triton's \(cats\)"),
        (tmp_path / "photos", "cats", "is there already"),
        *((tmp_path / "new", name, "letters, digits") for name in ("", "..", ".x", "a b", "a/b", "é", "x" * 101)),
    ):
        with pytest.raises(UserError, match=said):
            check_repository(folder, name)


def test_what_cannot_be_written_whole_leaves_nothing(plain, tmp_path, monkeypatch):
    content = export_onnx(plain, normalised_inside=True)
    (tmp_path / "models" / "it").mkdir(parents=True)
    (tmp_path / "models" / "it" / "kept").write_text("")
    with pytest.raises(UserError, match="cannot be written"):  # it came while the model was made
        write_repository(tmp_path / "models", content, "it")
    assert [path.name for path in (tmp_path / "models").rglob("*")] == ["it", "kept"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--register", "it"), "--register is for --format onnx, found --format triton"),
        (("--web-runtime", "x.tgz"), "--web-runtime is for --format web, found --format triton"),
        (("--int8", "--dtype", "float16"), "two precisions"),
        (("--calibration", "x"), "add --int8"),
        (("--keep-float", "3"), "add --int8"),
        (("--private",), "--push-to"),
    ],
)
def test_options_that_do_not_go_with_it_are_refused(export, tmp_path, options, said):
    arguments = ("--model", "efficientnet_lite0", "--format", "triton", "--out", tmp_path / "models", *options)
    status, printed = export(*arguments)
    assert (status, said in printed) == (1, True), printed
    assert not (tmp_path / "models").exists()
