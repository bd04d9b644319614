"""What the ONNX writer does with operations that no network here holds: it refuses them, or computes the same."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from jaxnets import UserError
from jaxnets.classifier import Classifier
from jaxnets.models.conv import conv2d
from jaxnets.models.layers import gelu
from jaxnets.models.per_channel import layer_norm
from tests.tiny import SEEN

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from jaxnets.engine.onnx_file import onnx_model  # noqa: E402
from jaxnets.engine.runtime import OnnxEngine  # noqa: E402
from jaxnets.engine.writer import Unwritable  # noqa: E402


class Odd(nn.Module):
    """A mean over the image and a dense layer, with an operation after it."""

    between: Callable[[jax.Array], jax.Array]
    early: bool = False  # the operation sees the image in place of the layer's output
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        x = self.between(x) if self.early else x
        x = nn.Dense(4, name="head")(x.mean((1, 2)))
        return x if self.early else self.between(x)


def odd(between: Callable[[jax.Array], jax.Array], early: bool = False, **options: Any) -> Classifier:
    model = Odd(between, early)
    return Classifier(
        name=options.pop("name", "odd"),
        model=model,
        variables=model.init(jax.random.key(0), np.zeros((1, SEEN.height, SEEN.width, 3), np.float32)),
        preprocess=SEEN,
        labels=("a", "b", "c", "d"),
        step=None,
        **options,
    )


UNKNOWN = {
    "cumsum": lambda x: jnp.cumsum(x, -1),
    "sort": lambda x: jnp.sort(x, -1),
    "two results": lambda x: lax.top_k(x, 4)[0],
    "erf_inv": lambda x: lax.erf_inv(x / 100),
    "scan": lambda x: lax.scan(lambda carry, _: (carry + x, None), x, length=2)[0],
    "while": lambda x: lax.fori_loop(0, x.shape[0], lambda i, y: y + 1.0, x),
    "cond": lambda x: lax.cond(x[0, 0] > 0, lambda y: y, lambda y: -y, x),
    "complex": lambda x: jnp.abs(jnp.fft.fft(x)),
    "gather": lambda x: x[:, jnp.argsort(x[0])],
    "integers": lambda x: x.astype(jnp.int32).astype(jnp.float32),
    "where": lambda x: jnp.where(x > 0, x, 2 * x),
    "half": lambda x: x.astype(jnp.bfloat16).astype(jnp.float32),
    "reversed": lambda x: x[:, ::-1],
    "reshaped": lambda x: x.reshape(-1, 2, 2).sum(-1).reshape(-1, 2).repeat(2, 1),
    "turned": lambda x: (x @ x.T)[:, :1] + x,
    "mean of the batch": lambda x: x - x.mean(0, keepdims=True),
    "joined batches": lambda x: jnp.concatenate([x[:1], x[1:]]),
    "number in the batch": lambda x: x + jnp.arange(x.shape[0], dtype=jnp.float32)[:, None],
}
KNOWN = {
    "scaled": lambda x: jnp.tanh(x * 3 - 1) / 2,
    "constant for all": lambda x: x + jnp.broadcast_to(jnp.arange(4.0), (x.shape[0], 4)),
    "cut": lambda x: jnp.pad(x[:, 1:3], ((0, 0), (1, 1)), constant_values=2.0),
    "clipped": lambda x: jnp.clip(x, 0, 1) + jnp.maximum(x, -1),
    "exact gelu": gelu,
    "approximate gelu": jax.nn.gelu,  # a function of that name in another library
    "normalised": lambda x: layer_norm(x, jnp.arange(1.0, 5.0), jnp.ones(4), 1e-3),
    "divided by its sum": lambda x: x / jnp.square(x).sum(-1, keepdims=True),
}
KNOWN_EARLY = {
    "normalised": lambda x: layer_norm(x, jnp.arange(1.0, 4.0), jnp.ones(3), 1e-3),
    "normalised and added": lambda x: 2 * x - layer_norm(x, jnp.ones(3), jnp.ones(3), 1e-3),
    "a dense layer of what is normalised": lambda x: (
        (layer_norm(x, jnp.ones(3), jnp.zeros(3), 1e-3) @ jnp.arange(6.0).reshape(3, 2) + 1) * jnp.array([2.0, 3.0])
    ),
    "gated, each place": lambda x: gelu(x)[..., :2] * jax.nn.sigmoid(x.mean((1, 2)))[:, None, None, :2],
    "gated, normalised": lambda x: (y := layer_norm(x, jnp.ones(3), jnp.ones(3), 1e-3)) * y.mean((1, 2))[:, None, None],
    "a convolution of what is normalised": lambda x: conv2d(
        layer_norm(x, jnp.ones(3), jnp.ones(3), 1e-3), jnp.ones((3, 2, 3, 4)), stride=(2, 2), padding=((1, 1), (0, 0))
    ),
}


@pytest.mark.parametrize("between", UNKNOWN.values(), ids=UNKNOWN)
def test_an_operation_without_a_counterpart_is_refused_and_never_left_out(between):
    made = odd(between)
    with pytest.raises(Unwritable, match=r"odd cannot be written as an ONNX graph.*--engine jax"):
        _write(made)


@pytest.mark.parametrize(
    "between", [lambda x: x[:, ::-1], lambda x: jnp.cumsum(x, 1), lambda x: x.transpose(0, 2, 1, 3)]
)
def test_an_operation_on_images_without_a_counterpart_is_refused(between):
    with pytest.raises(Unwritable):
        _write(odd(between, early=True))


@pytest.mark.parametrize("between", KNOWN.values(), ids=KNOWN)
def test_a_known_operation_computes_the_same_for_any_batch(between):
    made = odd(between)
    engine = OnnxEngine(_write(made).SerializeToString())
    fitted = np.random.default_rng(0).integers(0, 256, (5, SEEN.height, SEEN.width, 3), np.uint8)
    expected = odd(between, engine_name="jax").engine.probabilities(fitted)
    for count in (1, 5):
        np.testing.assert_allclose(engine.probabilities(fitted[:count]), expected[:count], atol=1e-5)


@pytest.mark.parametrize("between", KNOWN_EARLY.values(), ids=KNOWN_EARLY)
def test_a_known_operation_on_images_computes_the_same_wherever_the_channels_lie(between):
    made = odd(between, early=True)
    engine = OnnxEngine(_write(made).SerializeToString())
    fitted = np.random.default_rng(0).integers(0, 256, (3, SEEN.height, SEEN.width, 3), np.uint8)
    expected = odd(between, early=True, engine_name="jax").engine.probabilities(fitted)
    np.testing.assert_allclose(engine.probabilities(fitted), expected, atol=1e-5)


def test_several_labels_have_the_same_probabilities_by_both_engines(tmp_path):
    fitted = np.random.default_rng(0).integers(0, 256, (3, SEEN.height, SEEN.width, 3), np.uint8)
    options = {"activation": "sigmoid", "engine_folder": tmp_path}
    engines = [odd(lambda x: 9 * x, engine_name=name, **options).engine for name in ("jax", "onnx")]
    expected, found = (engine.probabilities(fitted) for engine in engines)
    assert np.abs(expected.sum(-1) - 1).min() > 0.01  # no shares of one whole
    np.testing.assert_allclose(found, expected, atol=1e-6)


def _write(made: Classifier) -> Any:
    return onnx_model(
        made.model,
        made.variables,
        made.preprocess,
        name=made.name,
        labels=made.labels,
        activation=made.activation,
        normalised_inside=True,
    )


def test_a_model_that_onnx_does_not_know_is_answered_by_jax_and_that_is_said_once(tmp_path, caplog):
    made = [odd(UNKNOWN["sort"], name="sorted", engine_folder=tmp_path) for _ in range(2)]
    assert [classifier.engine.name for classifier in made] == ["jax", "jax"]
    assert made[0].predict([np.zeros((20, 30, 3), np.uint8)]).shape == (1, 4)
    (said,) = [record.message for record in caplog.records if record.name.startswith("jaxnets")]
    assert "sorted is answered by JAX" in said
    assert "'sort'" in said
    assert not list(tmp_path.iterdir())


def test_a_writer_that_fails_in_any_way_leaves_the_model_to_jax(monkeypatch, tmp_path):
    from jaxnets.engine import operations

    def broken(writer, equation):
        raise KeyError("dimension_numbers")

    monkeypatch.setitem(operations.OPERATIONS, "dot_general", broken)
    assert odd(jnp.tanh, name="broken", engine_folder=tmp_path).engine.name == "jax"


def test_onnx_that_is_asked_for_and_cannot_be_is_one_message(tmp_path):
    with pytest.raises(UserError, match=r"no counterpart for the operation 'cumsum'.*--engine jax"):
        _ = odd(UNKNOWN["cumsum"], engine_name="onnx", engine_folder=tmp_path).engine


def test_an_operation_is_a_function_and_its_row(monkeypatch):
    from jaxnets.engine.operations import OPERATIONS, unary

    with pytest.raises(Unwritable, match="'abs'"):
        _write(odd(jnp.abs))
    monkeypatch.setitem(OPERATIONS, "abs", unary("Abs"))
    assert "Abs" in {node.op_type for node in _write(odd(jnp.abs)).graph.node}


def test_a_graph_asks_for_no_newer_version_than_its_nodes_need(monkeypatch):
    from jaxnets.engine import operations

    made = _write(odd(jnp.tanh))
    assert ([(entry.domain, entry.version) for entry in made.opset_import], made.ir_version) == ([("", 13)], 7)
    onnx.checker.check_model(made, full_check=True)

    def newer(writer, equation):
        x = writer.write(equation.first)
        return writer.emit("LayerNormalization", [x.name, writer.constant(np.ones(4))], equation.shape)

    monkeypatch.setitem(operations.OPERATIONS, "tanh", newer)
    made = _write(odd(jnp.tanh))
    assert ([(entry.domain, entry.version) for entry in made.opset_import], made.ir_version) == ([("", 17)], 8)


def test_activations_without_jax_are_those_of_the_models():
    from jaxnets.answer import activated
    from jaxnets.models.forward import ACTIVATIONS

    logits = np.array([[-200.0, 0.0, 3.0], [1.0, 90.0, 89.0]], np.float32)
    for name, activation in ACTIVATIONS.items():
        found = activated(logits, name)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, activation(logits), atol=1e-7)
