"""Networks that compute as in 8 bits."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import jaxnets
from jaxnets.errors import UserError
from jaxnets.models.forward import forward
from jaxnets.models.quantised.grid import grid_of, kernel_and_bias, on_grid
from jaxnets.models.quantised.network import RANGES
from tests.tiny import FAMILIES, SEEN, live

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from jaxnets.engine.onnx_file import onnx_model  # noqa: E402

IMAGES = np.random.default_rng(1).integers(0, 256, (16, 33, 32, 3), np.uint8)
# Branches of identities and of convolutions, plain and grouped; gates; norms that do not follow a convolution.
ABLE = [
    "cifar",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnext", "gated", "preactivated", "resnet-d")),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("efficientnet", "convnext")),
    "lite",
]


@cache
def network(family):
    """Returns a network in 8 bits with live variables, whose ranges are those of some images."""
    name, fields = FAMILIES[family]
    model = jaxnets.create_model(name, num_classes=5, preprocess=SEEN, quantised=True, **fields)
    fresh = live(model, SEEN)
    of_float = live(model.in_float(), SEEN)
    statistics = {**of_float.get("batch_stats", {}), RANGES: fresh["batch_stats"][RANGES]}
    variables = {"params": of_float["params"], "batch_stats": statistics}
    return model, {**variables, "batch_stats": trained(model.follower(), variables)}


def trained(model, variables):
    """Returns the statistics after one step of training."""
    x = SEEN.normalise(jnp.asarray(IMAGES), jnp.float32)
    step = jax.jit(lambda variables, x: model.apply(variables, x, train=True, mutable=["batch_stats"])[1])
    return step(variables, x)["batch_stats"]


@cache
def file(family, inside):
    model, variables = network(family)
    labels = tuple("abcde")
    options = {"name": family, "labels": labels, "activation": "softmax", "normalised_inside": inside}
    return onnx_model(model, variables, SEEN, **options)


@pytest.mark.parametrize("inside", [False, True], ids=["normalised outside", "normalised inside"])
@pytest.mark.parametrize("family", ABLE)
def test_onnx_runtime_in_8_bits_agrees_within_steps_of_the_logits_range(family, inside):
    """A sum in float32 that lies at a half is rounded otherwise now and then, and in networks so small that is seen."""
    model, variables = network(family)
    session = onnxruntime.InferenceSession(file(family, inside).SerializeToString())
    other = np.random.default_rng(2).integers(0, 256, (24, 33, 32, 3), np.uint8)
    x = np.asarray(SEEN.normalise(jnp.asarray(other), jnp.float32)).transpose(0, 3, 1, 2)
    (found,) = session.run(None, {"image": other if inside else x})
    expected, whole = (
        np.asarray(jax.jit(partial(forward, each, SEEN))(variables, other)) for each in (model, model.in_float())
    )
    step = np.ptp(expected) / 255
    assert np.abs(found - expected).max() < 3 * step
    assert np.median(np.abs(found - expected)) < 0.1 * step
    assert step < np.abs(whole - expected).max() < 25 * step  # 8 bits are not float32, and not far from it


@pytest.mark.parametrize("family", ["cifar", "lite"])
def test_onnx_runtime_computes_every_convolution_and_sum_in_8_bits(family, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(file(family, False).SerializeToString(), options)
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    written = [node.op_type for node in file(family, False).graph.node]
    assert "Conv" not in kinds
    assert "Add" not in kinds
    assert kinds.count("QLinearConv") == written.count("Conv") > 5
    assert kinds.count("QLinearAdd") == written.count("Add") > 2
    weights = [array for array in file(family, False).graph.initializer if array.data_type == onnx.TensorProto.INT8]
    assert sum(len(array.dims) == 4 for array in weights) == written.count("Conv")


def test_ranges_follow_the_batch_as_an_average_and_all_else_stays():
    model, variables = network("cifar")
    before, seen = (flatten_dict(each) for each in (variables["batch_stats"], trained(model.follower(), variables)))
    moved = {path: x + 1 if path[0] == RANGES else x for path, x in before.items()}
    after = flatten_dict(trained(model, {**variables, "batch_stats": unflatten_dict(moved)}))
    for path, x in after.items():
        if path[0] != RANGES:
            np.testing.assert_array_equal(x, before[path])
    image = (RANGES, "image")
    np.testing.assert_allclose(after[image], 0.99 * moved[image] + 0.01 * seen[image], rtol=1e-6)
    x = SEEN.normalise(jnp.asarray(IMAGES), jnp.float32)
    np.testing.assert_allclose(seen[image], [x.min(), x.max()], rtol=1e-6)


def test_the_shortcut_that_appends_zeros_has_the_range_of_what_it_moves():
    _, variables = network("cifar")
    assert {path[-1] for path in flatten_dict(variables["batch_stats"][RANGES])} == {"image", "output", "sum"}


def test_numbers_lie_where_quantize_linear_puts_them():
    grid = grid_of(jnp.array([-1.3, 2.2]))
    x = np.random.default_rng(0).uniform(-2, 3, 20_000).astype(np.float32)
    helper, kind = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.asarray(grid.scale), "scale"),
        onnx.numpy_helper.from_array(np.asarray(grid.zero).astype(np.uint8), "zero"),
    ]
    io = [[helper.make_tensor_value_info(name, kind.FLOAT, [20_000])] for name in "xy"]
    graph = helper.make_graph(nodes, "grid", *io, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (expected,) = onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"x": x})
    np.testing.assert_array_equal(on_grid(x, *grid), expected)
    assert len(np.unique(expected)) == 256
    assert 0 in np.unique(expected)


def test_gradients_pass_where_a_number_is_on_the_grid_and_not_beyond():
    grid = grid_of(jnp.array([-1.0, 1]))
    slope = jax.vmap(jax.grad(lambda x: 3 * on_grid(x, *grid)))(jnp.array([-1.5, -0.7, 0, 0.31, 0.99, 1.2]))
    np.testing.assert_array_equal(slope, [0, 3, 3, 3, 3, 0])


def test_weights_have_127_steps_to_each_side_for_each_feature_and_biases_fit_32_bits():
    random = np.random.default_rng(0)
    kernel = jnp.asarray(random.normal(size=(3, 3, 4, 6)) * 10.0 ** np.arange(-3, 3), jnp.float32)
    kernel = kernel.at[..., 0].set(0)
    bias = jnp.asarray([5.0, 0, 1, -2, 3, 1e4], jnp.float32)
    rounded, shifted = kernel_and_bias(kernel, bias, jnp.float32(0.01))
    steps = np.abs(kernel).max((0, 1, 2)) / 127
    assert (np.abs(rounded - kernel) <= steps / 2 * 1.001).all()
    for feature in range(1, 6):
        assert np.abs(np.asarray(rounded[..., feature])).max() == pytest.approx(127 * steps[feature], rel=1e-6)
    assert (np.abs(shifted - bias) <= 0.01 * steps / 2 + 1e-6 * np.abs(bias)).all()  # of one without weights too
    assert np.array_equal(rounded[..., 0], np.zeros((3, 3, 4)))
    np.testing.assert_array_equal(jax.grad(lambda k: kernel_and_bias(k, None, jnp.float32(1))[0].sum())(kernel), 1)


def test_the_network_in_float_is_the_one_that_was_trained():
    model, _ = network("lite")
    name, fields = FAMILIES["lite"]
    assert model.in_float() == jaxnets.create_model(name, num_classes=5, preprocess=SEEN, **fields)
    assert model.quantised
    assert not model.in_float().quantised


def test_ranges_of_another_version_are_refused():
    model, variables = network("cifar")
    ranges = {name: x for name, x in variables["batch_stats"][RANGES].items() if name != "image"}
    lacking = {**variables, "batch_stats": {**variables["batch_stats"], RANGES: ranges}}
    with pytest.raises(UserError, match=r"have no range of image.*jaxnets\.compress --method qat"):
        jax.eval_shape(model.apply, lacking, jnp.zeros((1, 33, 32, 3)))
