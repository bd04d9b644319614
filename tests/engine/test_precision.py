"""Graphs in 16 bits: they agree with JAX, and take and give what those in float32 do."""

import numpy as np
import pytest

from jaxnets.evaluate.asked import open_onnx
from tests.engine.test_graph import FITTED, expected
from tests.tiny import classifier

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from jaxnets.answer import activated  # noqa: E402
from jaxnets.engine.runtime import OnnxEngine  # noqa: E402
from jaxnets.export.check import TOLERANCES, largest_difference  # noqa: E402
from jaxnets.export.onnx_export import export_onnx, onnx_logits  # noqa: E402

FLOAT, HALF, BRAIN = (getattr(onnx.TensorProto, name) for name in ("FLOAT", "FLOAT16", "BFLOAT16"))


def kinds(model) -> dict[str, int]:
    return {constant.name: constant.data_type for constant in model.graph.initializer}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("family", ["lite", "convnextv2", "vit", "cifar"])
def test_every_kind_of_network_agrees_with_jax_in_16_bits(family, dtype):
    made = classifier(family)
    for inside in (False, True):
        content = export_onnx(made, normalised_inside=inside, dtype=dtype)
        onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
        found = onnx_logits(content, made)(FITTED)
        assert found.dtype == np.float32
        difference = largest_difference(expected(family), found)
        assert 1e-6 < difference < TOLERANCES[dtype]  # it is rounded, and no more than that


def test_float16_is_what_the_network_computes_in_and_float32_what_is_around_it():
    made = onnx.load_from_string(export_onnx(classifier("lite"), normalised_inside=True, dtype="float16"))
    typed = onnx.shape_inference.infer_shapes(made).graph
    of = {value.name: value.type.tensor_type.elem_type for value in (*typed.value_info, *typed.output, *typed.input)}
    convolutions = [node for node in made.graph.node if node.op_type in ("Conv", "Gemm")]
    assert {of.get(node.output[0]) for node in convolutions} == {HALF}
    assert {kinds(made)[node.input[1]] for node in convolutions} == {HALF}
    assert of["image"] == onnx.TensorProto.UINT8
    assert of["logits"] == FLOAT
    (first,) = [node for node in made.graph.node if node.name == "Mul"]
    assert of[first.output[0]] == FLOAT  # the normalisation


def test_layers_that_square_stay_in_float32():
    made = onnx.load_from_string(export_onnx(classifier("convnextv2"), normalised_inside=False, dtype="float16"))
    constants = kinds(made)
    seen = [node for node in made.graph.node if "/response_norm/" in node.name]
    assert seen
    assert HALF not in {constants.get(name) for node in seen for name in node.input}


def test_bfloat16_is_how_weights_are_kept_but_those_of_depthwise_convolutions():
    made = onnx.load_from_string(export_onnx(classifier("lite"), normalised_inside=False, dtype="bfloat16"))
    constants = {constant.name: constant for constant in made.graph.initializer}
    cast = {node.output[0]: node.input[0] for node in made.graph.node if node.op_type == "Cast"}
    for node in made.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            weight = constants[cast.get(node.input[1], node.input[1])]
            assert weight.data_type == (FLOAT if "depthwise" in node.name else BRAIN)
            assert constants[node.input[2]].data_type == FLOAT


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_evaluation_and_service_open_such_files(dtype, tmp_path):
    made = classifier("cifar")
    path = tmp_path / "model.onnx"
    path.write_bytes(export_onnx(made, normalised_inside=True, dtype=dtype))
    bound = TOLERANCES[dtype]
    assert largest_difference(expected("cifar"), open_onnx(path).logits(FITTED)) < bound
    np.testing.assert_allclose(
        OnnxEngine(path).probabilities(FITTED), activated(expected("cifar"), "softmax"), atol=bound
    )
