"""Convolutions in groups, and of few channels; tests/models/test_layers.py has the others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.models.conv import conv2d
from jaxnets.models.cpu import conv as full
from jaxnets.models.cpu import depthwise

RNG = np.random.default_rng(0)

# Kernel, stride, and padding: PyTorch's and TensorFlow's at an odd and an even size, uneven, cropping, and a stride
# that leaves pixels out.
CASES = [
    ((3, 3), (1, 1), ((1, 1), (1, 1))),
    ((3, 3), (2, 2), ((1, 1), (0, 1))),
    ((5, 5), (2, 2), ((2, 2), (1, 2))),
    ((7, 7), (1, 1), ((3, 3), (3, 3))),
    ((5, 3), (1, 2), ((2, 1), (0, 3))),
    ((3, 3), (3, 2), ((-1, 0), (1, -1))),
    ((1, 1), (2, 2), ((0, 0), (0, 0))),
]
# Channels, features and groups: depthwise, with two features for each channel, groups of several channels (all in one
# product, and in two), and few channels in one group.
SIZES = [(6, 6, 6), (4, 8, 4), (8, 12, 4), (48, 32, 8), (3, 5, 1)]


# Depthwise in each case, the others in two.
EXAMPLES = [(case, SIZES[0]) for case in CASES] + [(case, size) for case in CASES[1:3] for size in SIZES[1:]]


def plain(x, kernel, *, stride, padding, groups):
    order = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=order, feature_group_count=groups)


def example(case, size, dtype, images=2):
    (kernel, stride, padding), (channels, features, groups) = case, size
    options = {"stride": stride, "padding": padding, "groups": groups}
    x = jnp.asarray(RNG.normal(size=(images, 9, 10, channels)), dtype)
    k = jnp.asarray(RNG.normal(size=(*kernel, channels // groups, features)), dtype)
    y = jax.eval_shape(lambda x, k: plain(x, k, **options), x, k)
    return x, k, jnp.asarray(RNG.normal(size=y.shape), dtype), options


def with_gradients(convolve, options):
    def compute(x, k, dy):
        y, pull = jax.vjp(lambda x, k: convolve(x, k, **options), x, k)
        return y, *pull(dy)

    return compute


def forward_and_backward(convolve, x, k, dy, options):
    return jax.jit(with_gradients(convolve, options))(x, k, dy)


@pytest.mark.usefixtures("enable_x64")
@pytest.mark.parametrize(("case", "size"), EXAMPLES)
def test_a_convolution_and_its_gradients_are_those_of_the_plain_form(case, size):
    *arrays, options = example(case, size, jnp.float64)
    ours, theirs = (forward_and_backward(f, *arrays, options) for f in (conv2d, plain))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 1e-2)])
@pytest.mark.parametrize("size", SIZES)
def test_low_precision_is_close_to_the_plain_form_in_float32(size, dtype, tolerance):
    *arrays, options = example(CASES[1], size, dtype)
    ours = forward_and_backward(conv2d, *arrays, options)
    exact = forward_and_backward(plain, *[a.astype(jnp.float32) for a in arrays], options)
    for a, b in zip(ours, exact, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=tolerance, atol=tolerance * np.abs(b).max())


@pytest.mark.usefixtures("enable_x64")
@pytest.mark.parametrize("numbers", [1, 500])  # dy has 540 for each image, or 150
@pytest.mark.parametrize("case", CASES[:2])
def test_a_depthwise_kernels_gradient_does_not_depend_on_the_blocks_it_is_summed_in(monkeypatch, case, numbers):
    *arrays, options = example(case, SIZES[0], jnp.float64, images=6)
    at_once = forward_and_backward(conv2d, *arrays, options)[2]
    monkeypatch.setattr(depthwise, "_CACHED", numbers)
    np.testing.assert_allclose(forward_and_backward(conv2d, *arrays, options)[2], at_once, rtol=1e-11, atol=1e-11)


@pytest.mark.usefixtures("enable_x64")
@pytest.mark.parametrize(("images", "numbers"), [(6, 2 * 90 * 32), (5, 4 * 90 * 32), (7, 90)])  # 2 at a time, 1, 1
def test_a_convolution_of_many_channels_does_not_depend_on_how_many_images_are_taken_at_a_time(
    monkeypatch, images, numbers
):
    *arrays, options = example(CASES[0], (32, 32, 1), jnp.float64, images=images)
    at_once = forward_and_backward(conv2d, *arrays, options)
    monkeypatch.setattr(full, "_CACHED", numbers)
    monkeypatch.setattr(full, "_LARGE", 0)
    for some, everything in zip(forward_and_backward(conv2d, *arrays, options), at_once, strict=True):
        np.testing.assert_allclose(some, everything, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("platform", "convolutions"), [("cpu", 0), ("tpu", 3), ("cuda", 3)])
@pytest.mark.parametrize("size", SIZES[:4])
def test_only_accelerators_are_given_convolutions_in_groups(platform, convolutions, size):
    *arrays, options = example(CASES[1], size, jnp.float32)
    program = jax.jit(with_gradients(conv2d, options)).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()
    assert program.count("stablehlo.convolution(") == convolutions
