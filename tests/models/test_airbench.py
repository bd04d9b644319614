"""The networks of speed runs: how they begin, and what of them trains."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import create_model
from jaxnets.models.airbench.network import dirac
from jaxnets.models.airbench.whitening import whitening_filters
from jaxnets.models.describe import parameters
from jaxnets.models.layers import BatchNorm, gelu, max_of_tiles


def patches(images):
    shifted = [images[:, i : i + images.shape[1] - 1, j : j + images.shape[2] - 1] for i in (0, 1) for j in (0, 1)]
    return np.concatenate(shifted, -1).reshape(-1, 4 * images.shape[3])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_filters_whiten_the_patches_and_their_negatives_follow(channels):
    """Second moments λ / (λ + ε) of what each filter answers, the largest first, and none of two together."""
    random = np.random.default_rng(0)
    images = np.cumsum(random.normal(size=(20, 9, 8, channels)), 1).astype(np.float32)  # neighbours are alike
    filters = whitening_filters(images, epsilon=0.01)
    assert filters.shape == (2, 2, channels, 8 * channels)
    flat = filters.reshape(4 * channels, -1)
    np.testing.assert_array_equal(flat[:, : 4 * channels], -flat[:, 4 * channels :])
    x = patches(images).astype(np.float64)
    answers = x @ flat[:, : 4 * channels]
    values = np.linalg.eigvalsh(x.T @ x / len(x))[::-1]
    np.testing.assert_allclose(answers.T @ answers / len(x), np.diag(values / (values + 0.01)), atol=1e-9)


def test_images_without_any_variation_give_finite_filters():
    assert np.isfinite(whitening_filters(np.zeros((2, 4, 4, 3), np.float32))).all()


@pytest.mark.parametrize(("channels", "features"), [(4, 7), (7, 4), (5, 5)])
def test_a_convolution_begins_as_the_identity_of_its_first_features(channels, features):
    kernel = np.asarray(dirac(jax.random.key(0), (3, 3, channels, features)))
    same, bound = min(channels, features), (9 * channels) ** -0.5
    centre = np.zeros((3, 3, channels, same))
    centre[1, 1, np.arange(same), np.arange(same)] = 1
    np.testing.assert_array_equal(kernel[..., :same], centre)
    rest = kernel[..., same:]
    assert rest.size == 0 or (np.abs(rest).max() <= bound and np.abs(rest).max() > 0.9 * bound)


# Counted by hand from the authors' code; here is a bias of the head beside them.
@pytest.mark.parametrize(
    ("name", "whitening", "convolutions", "norms", "last"),
    [
        ("airbench94", 312, 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256), 2 * (64 + 256 + 256), 256),
        (
            "airbench96",
            312,
            9 * (24 * 128 + 2 * 128**2 + 128 * 384 + 2 * 384**2 + 384 * 512 + 2 * 512**2),
            3 * (128 + 384 + 512),
            512,
        ),
    ],
)
def test_parameters_are_as_many_as_the_authors_networks_have(name, whitening, convolutions, norms, last):
    theirs = whitening + convolutions + norms + 10 * last
    assert parameters(create_model(name)) == theirs + 10


def test_a_norm_whose_scale_is_not_learned_has_a_bias_alone():
    norm = BatchNorm(train=True, learned_scale=False)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 2, 3)), jnp.float32)
    variables = norm.init(jax.random.key(0), x)
    learned = BatchNorm(train=True).init(jax.random.key(0), x)
    assert set(variables["params"]) == {"bias"}
    mine, theirs = (
        BatchNorm(train=True, learned_scale=some is learned).apply(some, x, mutable=["batch_stats"])[0]
        for some in (variables, learned)
    )
    np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("shape", [(6, 4), (7, 5), (1, 4), (1, 1), (2, 3)])
def test_the_largest_of_each_tile_is_taken_and_what_reaches_over_is_left_out(shape):
    x = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)
    rows, columns = (min(2, n) for n in shape)
    height, width = shape[0] // rows, shape[1] // columns
    expected = x[:, : height * rows, : width * columns].reshape(2, height, rows, width, columns, 3).max((2, 4))
    np.testing.assert_array_equal(max_of_tiles(jnp.asarray(x), 2), expected)


@pytest.mark.usefixtures("enable_x64")
def test_gelu_is_the_input_times_its_normal_probability():
    x = np.linspace(-6, 6, 41)
    np.testing.assert_allclose(gelu(jnp.asarray(x)), [v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x], atol=1e-14)
