import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from flax import linen as nn

from jaxnets.models.conv import _tpu, conv2d
from jaxnets.models.layers import BatchNorm, Conv
from jaxnets.models.normalise import lean_project_and_normalise, project_and_normalise

RNG = np.random.default_rng(0)


def convolve_by_hand(x, kernel, stride, padding):
    x = np.pad(x, ((0, 0), *padding, (0, 0)))
    i, j = kernel.shape[:2]
    rows, columns = (x.shape[1] - i) // stride[0] + 1, (x.shape[2] - j) // stride[1] + 1
    y = np.zeros((len(x), rows, columns, kernel.shape[3]))
    for r in range(rows):
        for c in range(columns):
            patch = x[:, r * stride[0] : r * stride[0] + i, c * stride[1] : c * stride[1] + j]
            y[:, r, c] = np.einsum("bijc,ijcf->bf", patch, kernel)
    return y


CASES = [
    ((3, 3), (1, 1), ((1, 1), (1, 1))),
    ((3, 3), (2, 2), ((1, 1), (1, 1))),
    ((3, 3), (2, 2), ((0, 1), (0, 1))),
    ((1, 1), (1, 1), ((0, 0), (0, 0))),
    ((1, 1), (2, 2), ((0, 0), (0, 0))),
    ((7, 7), (2, 2), ((3, 3), (3, 3))),
    ((5, 3), (1, 2), ((2, 1), (0, 3))),
]


# Images, channels and features for each way that a CPU takes: one block of images or several, by one lane or two;
# Winograd (32 channels and more); one channel; one feature.
SIZES = [(2, 3, 4), (16, 32, 40), (24, 8, 8), (7, 8, 8), (32, 1, 8), (8, 33, 1)]


@pytest.mark.parametrize(("kernel", "stride", "padding"), CASES)
def test_conv2d_is_the_sum_over_the_window(kernel, stride, padding):
    x, k = RNG.normal(size=(2, 9, 10, 3)), RNG.normal(size=(*kernel, 3, 4))
    y = conv2d(x.astype(np.float32), k.astype(np.float32), stride=stride, padding=padding)
    np.testing.assert_allclose(y, convolve_by_hand(x, k, stride, padding), rtol=1e-4, atol=1e-4)


def plain(x, kernel, stride, padding):
    return jax.lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.usefixtures("enable_x64")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel", "stride", "padding"), CASES)
def test_conv2d_and_its_gradients_are_those_of_the_plain_convolution(kernel, stride, padding, size):
    images, channels, features = size
    x, k = RNG.normal(size=(images, 9, 10, channels)), RNG.normal(size=(*kernel, channels, features))

    def both(x, k):
        ours, pull_ours = jax.vjp(lambda x, k: conv2d(x, k, stride=stride, padding=padding), x, k)
        theirs, pull_theirs = jax.vjp(lambda x, k: plain(x, k, stride, padding), x, k)
        change = jax.random.normal(jax.random.key(0), ours.shape, ours.dtype)
        return (ours, *pull_ours(change)), (theirs, *pull_theirs(change))

    for a, b in zip(*jax.jit(both)(x, k), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


@pytest.mark.parametrize(("kernel", "stride", "padding"), CASES[:2])
def test_the_gradients_of_a_bfloat16_convolution_are_close_to_the_exact_ones(kernel, stride, padding):
    x, k = (RNG.normal(size=size).astype(np.float32) for size in ((16, 9, 10, 32), (*kernel, 32, 40)))

    def gradients(dtype):
        def loss(x, k):
            return jnp.square(conv2d(x.astype(dtype), k.astype(dtype), stride=stride, padding=padding)).mean()

        return jax.jit(jax.grad(loss, (0, 1)))(x, k)

    for rough, exact in zip(gradients(jnp.bfloat16), gradients(jnp.float32), strict=True):
        np.testing.assert_allclose(rough, exact, atol=1e-2 * np.abs(exact).max())


def batch_norm(x, **fields):
    norm = BatchNorm(train=True, **fields)
    variables = jax.jit(norm.init)(jax.random.key(0), x)
    y, changed = jax.jit(lambda v, x: norm.apply(v, x, mutable=["batch_stats"]))(variables, x)
    return y, changed["batch_stats"]


def test_batch_norm_normalises_over_the_whole_batch():
    x = (RNG.normal(size=(8, 5, 4, 3)) * 3 + 2).astype(np.float32)
    y, stats = batch_norm(x, decay=0.9)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), atol=1e-5)
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var, rtol=1e-5)


def test_groups_are_normalised_each_by_themselves_and_their_variances_averaged():
    x = RNG.normal(size=(8, 5, 4, 3)).astype(np.float32)
    y, stats = batch_norm(x, group_size=4)
    halves = [batch_norm(x[:4]), batch_norm(x[4:])]
    np.testing.assert_allclose(y, np.concatenate([half[0] for half in halves]), atol=1e-5)
    for name in ("mean", "var"):
        np.testing.assert_allclose(stats[name], np.mean([half[1][name] for half in halves], 0), rtol=1e-5)


def test_a_group_size_that_does_not_divide_the_batch_is_refused():
    with pytest.raises(ValueError, match="group_size 3 does not divide the batch of 8"):
        batch_norm(np.zeros((8, 2, 2, 1), np.float32), group_size=3)


def test_evaluation_uses_the_running_statistics_and_leaves_them_alone():
    x = RNG.normal(size=(4, 2, 2, 3)).astype(np.float32)
    variables = {
        "params": {"scale": jnp.array([1.0, 2.0, 3.0]), "bias": jnp.array([0.0, 1.0, -1.0])},
        "batch_stats": {"mean": jnp.array([0.5, 0.0, -0.5]), "var": jnp.array([4.0, 1.0, 0.25])},
    }
    y = BatchNorm(train=False).apply(variables, x)
    stats, params = variables["batch_stats"], variables["params"]
    expected = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.usefixtures("enable_x64")
@pytest.mark.parametrize("group_size", [None, 4])
def test_the_gradient_of_batch_norm_is_that_of_finite_differences(group_size):
    x, weights = RNG.normal(size=(8, 2, 2, 3)), RNG.normal(size=(8, 2, 2, 3))
    norm = BatchNorm(train=True, group_size=group_size, dtype=jnp.float64, param_dtype=jnp.float64)
    variables = norm.init(jax.random.key(0), x)

    def f(x, scale):
        changed = {**variables, "params": {**variables["params"], "scale": scale}}
        return (norm.apply(changed, x, mutable=["batch_stats"])[0] * weights).sum()

    jax.test_util.check_grads(jax.jit(f), (x, RNG.normal(size=3)), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.usefixtures("enable_x64")
def test_the_lean_gradient_of_a_normalised_projection_is_the_plain_one():
    x, kernel = RNG.normal(size=(3, 4, 3, 2, 5)), RNG.normal(size=(1, 1, 5, 12))
    scale, bias, weights = RNG.normal(size=12), RNG.normal(size=12), RNG.normal(size=(3, 4, 3, 2, 12))

    def results(function):
        def loss(*arrays):
            y, *statistics = function(*arrays, 1e-5)
            return (y * weights).sum(), statistics

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3), has_aux=True))(x, kernel, scale, bias)

    for lean, plain in zip(
        *(jax.tree.leaves(results(f)) for f in (lean_project_and_normalise, project_and_normalise)), strict=True
    ):
        np.testing.assert_allclose(lean, plain, rtol=1e-11, atol=1e-11)


def test_the_lean_gradient_is_as_exact_in_bfloat16():
    x, kernel = RNG.normal(size=(2, 8, 4, 4, 16)), RNG.normal(size=(1, 1, 16, 64))
    scale, bias, weights = RNG.normal(size=64), RNG.normal(size=64), RNG.normal(size=(2, 8, 4, 4, 64))

    def gradients(function, dtype):
        def loss(x, kernel):
            y = function(x, kernel, scale.astype(np.float32), bias.astype(np.float32), 1e-5)[0]
            return (y.astype(jnp.float32) * weights).sum()

        return jax.jit(jax.grad(loss, (0, 1)))(jnp.asarray(x, dtype), jnp.asarray(kernel, dtype))

    for rough, exact in zip(
        gradients(lean_project_and_normalise, jnp.bfloat16),
        gradients(project_and_normalise, jnp.float32),
        strict=True,
    ):
        np.testing.assert_allclose(rough, exact, atol=1e-2 * np.abs(exact).max())


def test_a_norm_that_is_handed_to_a_convolution_gives_what_it_gives_after_it():
    x = RNG.normal(size=(8, 5, 4, 3)).astype(np.float32)

    class Pair(nn.Module):
        together: bool
        train: bool

        @nn.compact
        def __call__(self, x):
            conv = Conv(12, (1, 1), name="conv")
            norm = BatchNorm(train=self.train, group_size=4, name="norm")
            return conv(x, norm) if self.together else norm(conv(x))

    variables = Pair(True, False).init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(
        jnp.shape, Pair(False, False).init(jax.random.key(0), x)
    )  # fmt: skip
    for train in (True, False):
        pairs = [Pair(together, train) for together in (True, False)]
        one, other = jax.jit(lambda v, pairs=pairs: [pair.apply(v, x, mutable=["batch_stats"]) for pair in pairs])(
            variables
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, other)


def test_a_strided_projection_is_on_a_tpu_what_it_is_elsewhere():
    x, kernel = RNG.normal(size=(2, 7, 8, 3)).astype(np.float32), RNG.normal(size=(1, 1, 3, 4)).astype(np.float32)
    given = ((2, 2), ((0, 0), (0, 0)))
    np.testing.assert_allclose(_tpu(x, kernel, *given, 1), plain(x, kernel, *given), rtol=1e-6, atol=1e-6)
