import numpy as np
import pytest

from tests.tiny import FAMILIES, classifier, images

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from jaxnets.export.check import check, jax_logits, largest_difference  # noqa: E402
from jaxnets.export.onnx_export import export_onnx, onnx_logits  # noqa: E402


@pytest.fixture(params=FAMILIES)
def made(request):
    return classifier(request.param)


def fitted(of, count=3):
    return np.stack([of.preprocess.fit(image) for image in images(count)])


def test_every_family_agrees_with_jax_in_onnx_runtime_for_any_batch(made):
    logits = onnx_logits(export_onnx(made, normalised_inside=False), made)
    images = fitted(made)
    expected = jax_logits(made)(images)
    assert np.abs(expected[0] - expected[1]).max() > 0.01 * np.abs(expected).max()  # the network is live
    assert largest_difference(expected, logits(images)) < 1e-4
    assert largest_difference(expected[:1], logits(images[:1])) < 1e-4


def test_no_norm_and_no_transpose_is_left_after_convolutions():
    graph = onnx.load_from_string(export_onnx(classifier("lite"), normalised_inside=False)).graph
    kinds = {node.op_type for node in graph.node}
    assert kinds <= {"Conv", "Relu", "Clip", "Add", "GlobalAveragePool", "Flatten", "Gemm", "Mul", "Sigmoid", "Reshape"}
    of_gates = sum(node.op_type == "Sigmoid" for node in graph.node)
    assert sum(node.op_type == "Mul" for node in graph.node) == of_gates


def test_every_node_and_every_constant_is_read(made):
    graph = onnx.load_from_string(export_onnx(made, normalised_inside=True)).graph
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    assert {name for node in graph.node for name in node.output} <= read
    assert {constant.name for constant in graph.initializer} <= read


@pytest.mark.parametrize("family", ["cifar", "resnet-d", "gated", "tf_efficientnet"])
def test_opencv_agrees_with_jax(family, tmp_path):
    cv2 = pytest.importorskip("cv2")
    from jaxnets.export.onnx_export import channels_first

    made = classifier(family)
    (tmp_path / "model.onnx").write_bytes(export_onnx(made, normalised_inside=False))
    net = cv2.dnn.readNetFromONNX(str(tmp_path / "model.onnx"))
    images = fitted(made)
    net.setInput(channels_first(made, images))
    assert largest_difference(jax_logits(made)(images), net.forward()) < 1e-4


def test_preprocessing_inside_takes_uint8_images():
    made = classifier("lite")
    content = export_onnx(made, normalised_inside=True)
    assert onnx.load_from_string(content).graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    images = fitted(made)
    assert largest_difference(jax_logits(made)(images), onnx_logits(content, made)(images)) < 1e-4


def test_the_file_names_its_classes_and_its_preprocessing():
    import json

    made = classifier("cifar")
    written = onnx.load_from_string(export_onnx(made, normalised_inside=False))
    kept = {entry.key: entry.value for entry in written.metadata_props}
    assert json.loads(kept["labels"]) == list(made.labels)
    assert json.loads(kept["preprocess"])["mean"] == list(made.preprocess.mean)


def test_an_export_that_is_wrong_is_refused():
    from jaxnets import UserError

    made = classifier("cifar")
    with pytest.raises(UserError, match="was not written"):
        check(made, lambda images: jax_logits(made)(images) * 1.01)
