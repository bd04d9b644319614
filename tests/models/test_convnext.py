from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import create_model
from jaxnets.models import convnext
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.convnext.network import ConvNeXt, ResponseNorm, Stage
from jaxnets.models.describe import size
from jaxnets.models.layers import depth_rates

# Parameters, and multiply-adds of convolutions and dense layers at 224×224, as counted in timm 1.0.31's networks.
SIZES: dict[str, tuple[int, int]] = {
    "convnext_atto": (3_695_520, 547_332_480),
    "convnext_femto": (5_217_784, 779_629_824),
    "convnext_pico": (9_045_672, 1_367_055_360),
    "convnext_nano": (15_593_560, 2_445_528_320),
    "convnext_tiny": (28_589_128, 4_455_531_264),
    "convnext_small": (50_223_688, 8_683_712_256),
    "convnext_base": (88_591_464, 15_354_729_472),
    "convnext_large": (197_767_336, 34_361_433_600),
    "convnextv2_atto": (3_708_400, 547_332_480),
    "convnextv2_femto": (5_233_240, 779_629_824),
    "convnextv2_pico": (9_066_280, 1_367_055_360),
    "convnextv2_nano": (15_623_800, 2_445_528_320),
    "convnextv2_tiny": (28_635_496, 4_455_531_264),
    "convnextv2_small": (50_318_440, 8_683_712_256),
    "convnextv2_base": (88_717_800, 15_354_729_472),
    "convnextv2_large": (197_956_840, 34_361_433_600),
}
X = np.random.default_rng(0).normal(size=(4, 37, 27, 1)).astype(np.float32)

STAGES = (Stage(blocks=1, features=8), Stage(blocks=1, features=16))
NETWORKS = {
    "v1": ConvNeXt(stages=STAGES, num_classes=3, layer_scale=0.5),
    "v2": ConvNeXt(stages=STAGES, num_classes=3, layer_scale=None, response_norm=True),
}


@pytest.fixture(scope="module", autouse=True)
def plainly():
    """The plain form of convolutions compiles fastest; test_conv.py compares the others with it."""
    with plain_convolutions():
        yield


@pytest.fixture(scope="module")
def variables():
    return {name: jax.jit(model.init)(jax.random.key(0), X) for name, model in NETWORKS.items()}


def test_every_registered_model_has_a_stated_size():
    assert set(convnext.FAMILY.entries) == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_parameters_and_multiply_adds_are_exactly_those_of_the_originals(name):
    assert tuple(size(create_model(name), 224, 224)) == SIZES[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_the_named_stages_and_what_fills_no_patch_is_left_out(name, variables):
    features = jax.eval_shape(lambda v: NETWORKS[name].apply(v, X, method="features"), variables[name])
    assert {name: x.shape for name, x in features.items()} == {
        "stem": (4, 9, 6, 8),  # of 37×27 pixels in patches of 4
        "stage1": (4, 9, 6, 8),
        "stage2": (4, 4, 3, 16),
    }


def test_response_norm_is_algorithm_1_of_its_paper_and_begins_as_the_identity():
    random = np.random.default_rng(0)
    x, scale, bias = (random.normal(size=shape).astype(np.float32) for shape in ((2, 3, 4, 5), (5,), (5,)))
    norms = np.sqrt((x.astype(np.float64) ** 2).sum((1, 2)))
    n = norms / (norms.mean(1, keepdims=True) + 1e-6)
    expected = scale * (x * n[:, None, None]) + bias + x
    found = ResponseNorm().apply({"params": {"scale": scale, "bias": bias}}, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    fresh = ResponseNorm().init(jax.random.key(0), x)
    np.testing.assert_array_equal(ResponseNorm().apply(fresh, x), x)


def test_a_channel_that_is_0_everywhere_has_a_finite_gradient():
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype(np.float32) * [1, 0, 1, 1]
    params = {"params": {"scale": np.ones(4, np.float32), "bias": np.ones(4, np.float32)}}
    gradient = jax.grad(lambda x: jnp.square(ResponseNorm().apply(params, x)).sum())(x.astype(np.float32))
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[..., 1]).max() > 0  # x itself


def test_stochastic_depth_rises_from_0_where_it_does_in_the_original():
    assert depth_rates(0.5, 3, from_zero=True) == [0.0, 0.25, 0.5]  # timm's calculate_drop_path_rates(0.5, [3])
    assert depth_rates(0.5, 1, from_zero=True) == [0.0]


def test_layer_scale_leaves_a_new_network_near_its_shortcuts():
    model = create_model("convnext_tiny", stages=STAGES, num_classes=3)
    variables = jax.jit(model.init)(jax.random.key(0), X)
    features = jax.jit(partial(model.apply, method="features"))(variables, X)
    np.testing.assert_allclose(features["stage1"], features["stem"], atol=1e-5)
    assert np.abs(features["stem"]).max() > 1


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_is_reached_by_a_finite_gradient_that_is_not_zero(name, variables):
    params = variables[name]["params"]
    if name == "v2":  # whose scales are 0 at first
        params = jax.tree.map(lambda x: x + 0.1, params)

    def loss(model, params):
        return jnp.square(model.apply({"params": params}, X, train=True) - 1).sum()

    plainly = jax.jit(jax.grad(partial(loss, NETWORKS[name])))(params)
    for path, gradient in jax.tree_util.tree_leaves_with_path(plainly):
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path
    if name == "v2":
        again = jax.jit(jax.grad(partial(loss, NETWORKS[name].clone(remat_stages=2))))(params)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), again, plainly)


def test_noise_in_training_follows_the_seed_and_is_absent_without(variables):
    noisy = NETWORKS["v1"].clone(dropout=0.5, stochastic_depth=0.5)

    @partial(jax.jit, static_argnums=1)
    def logits(seed, train):
        return noisy.apply(variables["v1"], X, train=train, rngs={"dropout": jax.random.key(seed)})

    assert np.abs(logits(0, True) - logits(1, True)).max() > 0
    np.testing.assert_array_equal(logits(0, True), logits(0, True))
    np.testing.assert_array_equal(logits(0, False), logits(1, False))


def test_logits_are_float32_under_bfloat16_and_close_to_those_of_float32(variables):
    rough = NETWORKS["v2"].clone(dtype=jnp.bfloat16)
    expected, found = (jax.jit(model.apply)(variables["v2"], X) for model in (NETWORKS["v2"], rough))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=3e-2 * np.abs(expected).max())


def test_images_of_which_no_pixel_is_left_are_refused():
    with pytest.raises(ValueError, match="finds no place in"):
        size(create_model("convnext_atto"), 31, 64)
    assert size(create_model("convnext_atto"), 32, 32).multiply_adds > 0


def test_an_image_trains_alike_in_any_company(variables):
    """So micro-batches need no groups."""
    model, train = NETWORKS["v2"], jax.jit(partial(NETWORKS["v2"].apply, train=True))
    assert model.dropout == model.stochastic_depth == 0
    whole = train(variables["v2"], X)
    np.testing.assert_allclose(
        np.concatenate([train(variables["v2"], part) for part in (X[:2], X[2:])]), whole, atol=1e-5
    )
