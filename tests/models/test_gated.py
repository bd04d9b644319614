import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from flax import linen as nn

from jaxnets.models.gated import gated_projection, lean_gated_projection
from jaxnets.models.layers import ACTIVATIONS, BatchNorm, Conv, SqueezeExcite, gate_and_project

RNG = np.random.default_rng(0)
GROUPS, IMAGES, CHANNELS, SQUEEZED, FEATURES = 3, 4, 12, 3, 5


def gates(params, averages):
    return jax.nn.sigmoid(jnp.tanh(averages.astype(params["down"].dtype) @ params["down"]) @ params["up"])


def arrays():
    x = RNG.normal(size=(GROUPS, IMAGES, 5, 2, CHANNELS)) * 2 + 1
    scale, bias = RNG.normal(size=(2, CHANNELS))
    kernel = RNG.normal(size=(1, 1, CHANNELS, FEATURES))
    params = {"down": RNG.normal(size=(CHANNELS, SQUEEZED)), "up": RNG.normal(size=(SQUEEZED, CHANNELS))}
    return x, scale, bias, kernel, params


def results(lean, activation, x, scale, bias, kernel, params, compiled=jax.jit):
    """Returns the sum of the weighted results with the statistics, and its gradient in all five."""
    weights = np.random.default_rng(1).normal(size=(*x.shape[:-1], FEATURES))
    act = ACTIVATIONS[activation]

    def loss(x, scale, bias, kernel, params):
        if lean:
            y, *statistics = lean_gated_projection(act, gates, 1e-5, x, scale, bias, kernel, params)
        else:
            y, *statistics = gated_projection(
                x, scale, bias, 1e-5, kernel=kernel, params=params, activation=act, gates=gates
            )
        return (y.astype(scale.dtype) * weights).sum(), statistics

    return compiled(jax.value_and_grad(loss, range(5), has_aux=True))(x, scale, bias, kernel, params)


@pytest.mark.usefixtures("enable_x64")
@pytest.mark.parametrize("activation", ["silu", "relu6"])
def test_the_lean_gradient_of_a_gated_projection_is_the_plain_one(activation):
    given = arrays()
    lean, plain = (jax.tree.leaves(results(lean, activation, *given)) for lean in (True, False))
    for a, b in zip(lean, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("enable_x64")
def test_the_gradient_of_a_gated_projection_is_that_of_finite_differences():
    given = arrays()

    def loss(*given):
        return lean_gated_projection(jax.nn.silu, gates, 1e-5, *given)[0]

    jax.test_util.check_grads(loss, given, order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_the_lean_gradient_is_as_exact_in_bfloat16_as_the_plain_one():
    x, scale, bias, kernel, params = exact = jax.tree.map(lambda v: v.astype(np.float32), arrays())
    x, kernel, params = jax.tree.map(lambda v: v.astype(jnp.bfloat16), (x, kernel, params))

    wanted = results(False, "silu", *exact)[1]

    def errors(lean):
        # Not compiled: the compiler leaves out some of the roundings to bfloat16.
        found = results(lean, "silu", x, scale, bias, kernel, params, compiled=lambda function: function)[1]
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
        return [np.abs(a.astype(np.float32) - b).max() for a, b in pairs]

    for lean, plain in zip(errors(True), errors(False), strict=True):
        assert lean <= 1.25 * plain


def test_joined_layers_give_what_they_give_one_after_the_other():
    x = RNG.normal(size=(8, 5, 4, 3)).astype(np.float32)

    class Tail(nn.Module):
        train: bool
        group_size: int | None
        joined: bool = True

        @nn.compact
        def __call__(self, x):
            norm = BatchNorm(train=self.train, group_size=self.group_size, name="norm")
            gate, project = SqueezeExcite(2, name="gate"), Conv(6, (1, 1), name="project")
            if self.joined:
                return gate_and_project(x, norm, jax.nn.silu, gate, project)
            return project(gate(jax.nn.silu(norm(x))))

    variables = Tail(False, 4).init(jax.random.key(0), x)
    for train, group_size in ((True, 4), (True, None), (False, 4)):
        tails = [Tail(train, group_size, joined) for joined in (True, False)]
        one, other = jax.jit(lambda v, tails=tails: [tail.apply(v, x, mutable=["batch_stats"]) for tail in tails])(
            variables
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, other)
