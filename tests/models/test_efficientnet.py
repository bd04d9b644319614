from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import create_model
from jaxnets.models import efficientnet
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.describe import parameters
from jaxnets.models.efficientnet.network import EfficientNet, Stage, compound_scaling, scale_features

# As many as timm 1.0.31 and torchvision count for the same names. The tf_ networks pad differently and have no
# parameters of their own.
PARAMETERS = {
    "efficientnet_b0": 5_288_548,
    "efficientnet_b1": 7_794_184,
    "efficientnet_b2": 9_109_994,
    "efficientnet_b3": 12_233_232,
    "efficientnet_b4": 19_341_616,
    "efficientnet_b5": 30_389_784,
    "efficientnet_b6": 43_040_704,
    "efficientnet_b7": 66_347_960,
    "efficientnet_b8": 87_413_142,
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "efficientnet_lite3": 8_197_096,
    "efficientnet_lite4": 13_006_568,
    "efficientnetv2_s": 21_458_488,
    "efficientnetv2_m": 54_139_356,
    "efficientnetv2_l": 118_515_272,
    "efficientnetv2_xl": 208_119_808,
    "efficientnetv2_b0": 7_139_704,
    "efficientnetv2_b1": 8_141_052,
    "efficientnetv2_b2": 10_096_086,
    "efficientnetv2_b3": 14_358_406,
}
X = np.random.default_rng(0).normal(size=(4, 33, 47, 1)).astype(np.float32)

plain = partial(Stage, kernel=3, repeats=1, stride=1, expand=1, features=8)
ENDS = {"stem_features": 8, "top_features": 16, "num_classes": 3, "dropout": 0.0, "stochastic_depth": 0.0}
NETWORKS = {
    "gated": EfficientNet(
        stages=(plain(squeeze=0.25), plain(kernel=5, repeats=2, stride=2, expand=2, features=16, squeeze=0.25)),
        **ENDS,
    ),
    "lite": EfficientNet(
        stages=(plain(), plain(repeats=2, stride=2, expand=2)),
        activation="relu6",
        scaled_ends=False,
        padding="torch",
        **ENDS,
    ),
    "fused": EfficientNet(stages=(plain(fused=True), plain(fused=True, repeats=2, stride=2, expand=2)), **ENDS),
}


@pytest.fixture(scope="module", autouse=True)
def plainly():
    """The plain form of convolutions compiles fastest; test_conv.py compares the others with it."""
    with plain_convolutions():
        yield


@pytest.fixture(scope="module")
def model():
    return NETWORKS["gated"]


@pytest.fixture(scope="module")
def variables(model):
    return jax.jit(model.init)(jax.random.key(0), X)


@partial(jax.jit, static_argnums=0)
def in_training(model, variables, seed: int) -> np.ndarray:
    rngs = {"dropout": jax.random.key(seed)}
    return model.apply(variables, X, train=True, rngs=rngs, mutable=["batch_stats"])[0]


def test_every_registered_model_has_a_stated_number_of_parameters():
    assert {name.removeprefix("tf_") for name in efficientnet.FAMILY.entries} == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_exactly_as_many_as_the_originals(name):
    assert parameters(create_model(name)) == PARAMETERS[name]


def test_timm_has_all_but_the_v2_b_networks_without_tf():
    for name, entry in efficientnet.FAMILY.entries.items():
        assert entry.timm_name == (None if name.startswith("efficientnetv2_b") else name)


def test_the_tf_networks_differ_in_conventions_alone():
    conventions = {"padding", "norm_epsilon", "norm_decay"}
    for name in PARAMETERS:
        ours, theirs = (efficientnet.FAMILY.entries[found].fields for found in (name, f"tf_{name}"))
        assert {field for field in ours if ours[field] != theirs[field]} == conventions
        assert ours.keys() == theirs.keys()


@pytest.mark.parametrize(
    ("phi", "name"),
    [(0.0, "b0"), (0.5, "b1"), (1.0, "b2"), (2.0, "b3"), (3.5, "b4"), (5.0, "b5"), (6.0, "b6"), (7.0, "b7")],
)
def test_compound_scaling_is_near_the_published_networks(phi, name):
    published = create_model(f"efficientnet_{name}")
    width, depth, resolution = compound_scaling(phi)
    assert width == pytest.approx(published.width, rel=0.07)
    assert depth == pytest.approx(published.depth, rel=0.16)
    assert resolution == pytest.approx(published.preprocess.height, rel=0.07)


def test_compound_scaling_multiplies_the_work_by_two_for_each_phi():
    # Tan & Le 2019, equation 3: α · β² · γ² ≈ 2, for depth, width and resolution.
    width, depth, _ = compound_scaling(1.0)
    assert depth * width**2 * 1.15**2 == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize(
    ("name", "stem", "features", "top"),
    [
        ("efficientnet_b0", 32, (16, 24, 40, 80, 112, 192, 320), 1280),
        ("efficientnet_b2", 32, (16, 24, 48, 88, 120, 208, 352), 1408),
        ("efficientnet_b3", 40, (24, 32, 48, 96, 136, 232, 384), 1536),
        ("efficientnet_b7", 64, (32, 48, 80, 160, 224, 384, 640), 2560),
        ("efficientnetv2_b3", 40, (16, 40, 56, 112, 136, 232), 1536),
    ],
)
def test_features_are_rounded_as_in_the_published_networks(name, stem, features, top):
    model = create_model(name)
    assert scale_features(model.stem_features, model.width, keep=model.keep_features) == stem
    assert tuple(stage.features for stage in model.scaled_stages) == features
    assert scale_features(model.top_features, model.width, keep=model.keep_features) == top


def test_rounding_leaves_at_least_nine_tenths():
    assert scale_features(16, 0.7) == 16  # 11.2 rounds to 8, less than nine tenths
    assert scale_features(16, 0.7, keep=0.0) == 8
    assert scale_features(1, 0.1) == 8


def test_the_lite_networks_keep_their_ends():
    stages = create_model("efficientnet_lite4").scaled_stages
    assert [stage.repeats for stage in stages] == [1, 4, 4, 6, 6, 8, 1]
    assert [stage.repeats for stage in create_model("efficientnet_b4").scaled_stages] == [2, 4, 4, 6, 6, 8, 2]


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_the_named_stages_at_any_input_size_and_channels(name):
    model = NETWORKS[name]
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), X))
    features = jax.eval_shape(lambda v: model.apply(v, X, method="features"), variables)
    wide = model.stages[1].features
    assert {name: x.shape for name, x in features.items()} == {
        "stem": (4, 17, 24, 8),
        "stage1": (4, 17, 24, 8),
        "stage2": (4, 9, 12, wide),
        "top": (4, 9, 12, 16),
    }


def test_only_training_is_random(model, variables):
    noisy = model.clone(dropout=0.5, stochastic_depth=0.5)
    quiet = jax.jit(lambda v, m: m.apply(v, X), static_argnums=1)
    np.testing.assert_array_equal(quiet(variables, noisy), quiet(variables, model))


@pytest.mark.parametrize("field", ["dropout", "stochastic_depth"])
def test_noise_in_training_follows_the_seed(field, model, variables):
    noisy = model.clone(**{field: 0.5})
    first = in_training(noisy, variables, 0)
    np.testing.assert_array_equal(in_training(noisy, variables, 0), first)
    assert np.abs(in_training(noisy, variables, 1) - first).max() > 0


def test_logits_are_float32_under_bfloat16_and_close_to_those_of_float32(model, variables):
    rough = model.clone(dtype=jnp.bfloat16)
    apply = jax.jit(lambda v, m: m.apply(v, X), static_argnums=1)
    expected, found = apply(variables, model), apply(variables, rough)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=2e-2 * np.abs(expected).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_is_reached_by_a_finite_gradient_that_is_not_zero(name):
    model = NETWORKS[name]
    variables = jax.jit(model.init)(jax.random.key(0), X)

    def loss(params):
        logits, _ = model.apply({**variables, "params": params}, X, train=True, mutable=["batch_stats"])
        return jnp.square(logits - 1).sum()

    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(variables["params"])):
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path
