from functools import cache

import jax
import numpy as np
import pytest

from jaxnets.models.forward import forward
from tests.tiny import FAMILIES, SEEN, classifier, images

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from jaxnets.export.check import check, jax_logits, largest_difference  # noqa: E402
from jaxnets.export.onnx_export import export_onnx, onnx_logits  # noqa: E402

FITTED = np.stack([SEEN.fit(image) for image in images(3)])


@cache
def exported(family: str, *, inside: bool) -> bytes:
    return export_onnx(classifier(family), normalised_inside=inside)


@cache
def expected(family: str) -> np.ndarray:
    """What JAX says of the images."""
    made = classifier(family)
    logits = jax.jit(lambda variables, images: forward(made.model, made.preprocess, variables, images))
    return np.asarray(logits(made.variables, FITTED))


@pytest.mark.parametrize("inside", [False, True], ids=["normalised outside", "normalised inside"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_agrees_with_jax_in_onnx_runtime_for_any_batch(family, inside):
    logits = onnx_logits(exported(family, inside=inside), classifier(family))
    truth = expected(family)
    assert np.abs(truth[0] - truth[1]).max() > 0.01 * np.abs(truth).max()  # the network is live
    assert largest_difference(truth, logits(FITTED)) < 1e-4
    assert largest_difference(truth[:1], logits(FITTED[:1])) < 1e-4


def test_no_norm_and_no_transpose_is_left_after_convolutions():
    graph = onnx.load_from_string(exported("lite", inside=False)).graph
    kinds = {node.op_type for node in graph.node}
    assert kinds <= {"Conv", "Relu", "Clip", "Add", "GlobalAveragePool", "Flatten", "Gemm", "Mul", "Sigmoid", "Reshape"}
    of_gates = sum(node.op_type == "Sigmoid" for node in graph.node)
    assert sum(node.op_type == "Mul" for node in graph.node) == of_gates


@pytest.mark.parametrize("family", FAMILIES)
def test_nodes_are_called_after_the_layers_that_they_come_from(family):
    graph = onnx.load_from_string(exported(family, inside=True)).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    for node in graph.node:
        layer, _, kind = node.name.rpartition("/")
        assert kind.split("_")[0] == node.op_type
        within = classifier(family).variables["params"]
        if node.op_type in ("Conv", "Gemm"):  # whose layer has a kernel of its own
            for name in layer.split("/"):
                within = within[name]
            assert "kernel" in within


@pytest.mark.parametrize("family", FAMILIES)
def test_every_node_and_every_constant_is_read(family):
    graph = onnx.load_from_string(exported(family, inside=True)).graph
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    assert {name for node in graph.node for name in node.output} <= read
    assert {constant.name for constant in graph.initializer} <= read


@pytest.mark.parametrize("family", ["cifar", "resnet-d", "gated", "tf_efficientnet"])
def test_opencv_agrees_with_jax(family, tmp_path):
    cv2 = pytest.importorskip("cv2")
    from jaxnets.export.onnx_export import channels_first

    (tmp_path / "model.onnx").write_bytes(exported(family, inside=False))
    net = cv2.dnn.readNetFromONNX(str(tmp_path / "model.onnx"))
    net.setInput(channels_first(classifier(family), FITTED))
    assert largest_difference(expected(family), net.forward()) < 1e-4


def test_preprocessing_inside_takes_uint8_images():
    graph = onnx.load_from_string(exported("lite", inside=True)).graph
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_the_file_names_its_classes_and_its_preprocessing():
    import json

    made = classifier("cifar")
    written = onnx.load_from_string(exported("cifar", inside=False))
    kept = {entry.key: entry.value for entry in written.metadata_props}
    assert kept["activation"] == "softmax"
    assert json.loads(kept["labels"]) == list(made.labels)
    assert json.loads(kept["preprocess"])["mean"] == list(made.preprocess.mean)


def test_an_export_that_is_wrong_is_refused():
    from jaxnets import UserError

    made = classifier("cifar")
    with pytest.raises(UserError, match="was not written"):
        check(made, lambda images: jax_logits(made)(images) * 1.01)


def test_a_convnext_has_one_node_for_each_of_its_norms_and_activations_and_two_transposes_a_block():
    written = onnx.load_from_string(exported("convnext", inside=False))
    kinds = [node.op_type for node in written.graph.node]
    blocks = 3
    assert kinds.count("Gelu") == blocks
    assert kinds.count("LayerNormalization") == blocks + 3  # after the stem, before the second stage, before the head
    assert kinds.count("Transpose") == 2 * blocks + 4  # around the norms after the stem and before the second stage too
    assert kinds.count("Mul") == 0  # LayerScale is part of the dense layers' weights
    onnx.checker.check_model(written, full_check=True)


@pytest.mark.parametrize("family", ["cifar", "gated", "preactivated", "lite", "convnextv2"])
def test_profiles_and_logits_agree_with_jax_and_the_logits_are_those_of_the_graph_alone(family, tmp_path):
    from jaxnets.trust.refusal import Refusal

    engines = [
        classifier(family, engine_name=name, engine_folder=tmp_path, refusal=Refusal(distance=1.0)).engine
        for name in ("jax", "onnx")
    ]
    (logits, profiles, _), (of_graph, in_graph, _) = (engine.computed(FITTED) for engine in engines)
    assert largest_difference(logits, of_graph) < 1e-4
    assert largest_difference(profiles, in_graph) < 1e-4
    assert profiles.shape[1] % 2 == 0
    assert (profiles[:, 1:].std(0) > 0).mean() > 0.9
    np.testing.assert_array_equal(engines[1].outputs(FITTED), of_graph)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_scores_are_those_of_jax_in_a_graph_of_a_newer_version_too(activation, tmp_path):
    import onnxruntime

    from jaxnets.trust.outliers import Spread, energy
    from jaxnets.trust.refusal import Refusal

    plain = classifier("convnextv2", engine_name="jax", refusal=Refusal(distance=1.0))
    logits, profiles, _ = plain.engine.computed(FITTED)
    spread = Spread.of(profiles + np.random.default_rng(0).normal(size=profiles.shape))
    asked = {"refusal": Refusal(energy=0.0, distance=1.0), "spread": spread, "activation": activation}
    content = export_onnx(classifier("convnextv2", **asked), normalised_inside=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = session.run(["energy", "distance"], {"image": FITTED})
    np.testing.assert_allclose(found[0], energy(logits, activation), rtol=1e-4)
    np.testing.assert_allclose(found[1], spread.distances(profiles), rtol=1e-3)
    assert onnx.load_from_string(content).opset_import[0].version == 20
