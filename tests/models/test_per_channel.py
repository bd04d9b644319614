import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.models.per_channel import LayerNorm, LayerScale, layer_norm
from jaxnets.models.steps import PREFIX, one_step

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 7), (2, 3, 4, 7)])
@pytest.mark.parametrize("epsilon", [1e-6, 1e-2])
def test_layer_norm_takes_off_each_places_mean_and_divides_by_its_deviation(shape, epsilon):
    x = RANDOM.normal(100, 0.5, shape).astype(np.float32)  # whose mean of squares would keep few of its digits
    scale, bias = RANDOM.normal(size=(2, 7)).astype(np.float32)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + epsilon) * scale + bias
    found = LayerNorm(epsilon).apply({"params": {"scale": scale, "bias": bias}}, x)
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_layer_norm_computes_wide_whatever_it_is_given():
    x = RANDOM.normal(size=(4, 64)).astype(np.float32)
    ones, zeros = np.ones(64, np.float32), np.zeros(64, np.float32)
    found = layer_norm(x.astype(jnp.bfloat16), ones, zeros, 1e-6)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(np.float32), layer_norm(x, ones, zeros, 1e-6), atol=0.04)


@pytest.mark.usefixtures("enable_x64")
def test_layer_norm_in_float64_stays_there():
    x = RANDOM.normal(size=(4, 64))
    found = layer_norm(x, np.ones(64), np.zeros(64), 1e-6)
    expected = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_layer_scale_begins_small_and_learns_one_number_a_channel():
    x = RANDOM.normal(size=(2, 3, 3, 5)).astype(np.float32)
    variables = LayerScale(0.25).init(jax.random.key(0), x)
    assert jax.tree.map(np.shape, variables) == {"params": {"scale": (5,)}}
    np.testing.assert_array_equal(LayerScale(0.25).apply(variables, x), x / 4)


def test_a_step_is_called_by_a_name_of_its_own():
    @one_step
    def doubled(x):
        return 2 * x

    (called,) = jax.make_jaxpr(lambda x: doubled(x))(1.0).eqns
    assert called.params["name"] == f"{PREFIX}doubled"
    assert doubled(2.0) == 4
