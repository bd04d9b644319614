import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.models.activated import activated_convolution
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.layers import ACTIVATIONS

RNG = np.random.default_rng(0)
GROUPS, IMAGES, CHANNELS, FEATURES = 2, 3, 6, 4
FORMS = {  # kernel, and what goes with it
    "point": ((1, 1, CHANNELS, FEATURES), {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "groups": 1}),
    "full": ((3, 3, CHANNELS, FEATURES), {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "groups": 1}),
    "depthwise": ((3, 3, 1, CHANNELS), {"stride": (2, 2), "padding": ((1, 1), (0, 1)), "groups": CHANNELS}),
    "grouped": ((3, 3, CHANNELS // 2, FEATURES), {"stride": (2, 2), "padding": ((1, 1), (1, 1)), "groups": 2}),
}


def arrays(form):
    x = RNG.normal(size=(GROUPS, IMAGES, 5, 8, CHANNELS)) * 2 + 1
    return x, RNG.normal(size=CHANNELS), RNG.normal(size=CHANNELS), RNG.normal(size=FORMS[form][0])


def convolution(form, activation):
    def convolve(x, scale, bias, kernel):
        return activated_convolution(
            x, scale, bias, 1e-5, kernel=kernel, activation=ACTIVATIONS[activation], **FORMS[form][1]
        )

    return convolve


@pytest.mark.usefixtures("enable_x64")
@pytest.mark.parametrize(("form", "activation"), [(form, "relu6") for form in FORMS] + [("depthwise", "silu")])
def test_what_an_activated_convolution_computes_again_gives_the_plain_gradient(form, activation):
    given, convolve = arrays(form), convolution(form, activation)

    def loss(*given):
        y, *statistics = convolve(*given)
        return jnp.sin(y).sum(), (y, statistics)

    lean = jax.jit(jax.value_and_grad(loss, range(4), has_aux=True))(*given)
    with plain_convolutions():
        plain = jax.value_and_grad(loss, range(4), has_aux=True)(*given)
    for a, b in zip(jax.tree.leaves(lean), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_an_activated_convolution_keeps_of_the_large_arrays_its_input_alone():
    given = [jnp.asarray(array, jnp.float32) for array in arrays("depthwise")]

    def kept():
        pull = jax.vjp(convolution("depthwise", "relu6"), *given)[1]
        return sum(leaf.size == given[0].size for leaf in jax.tree.leaves(pull))

    assert kept() == 1
    with plain_convolutions():
        assert kept() > 1


@pytest.mark.usefixtures("enable_x64")
def test_an_activated_convolution_of_a_gradient_that_is_no_number_has_none():
    given = arrays("point")
    (y, *_), pull = jax.vjp(convolution("point", "relu6"), *given)
    gradient = jax.jit(lambda dy: pull((dy, *(jnp.zeros((GROUPS, CHANNELS)) for _ in range(2)))))(y * jnp.nan)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(gradient))
