import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import UserError, create_model
from jaxnets.models import resnet
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.describe import parameters
from jaxnets.models.resnet.network import ResNet, Stage

# As many as timm 1.0.31 and torchvision count for the same names; for the CIFAR networks as the papers'
# architecture gives.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet50d": 25_576_264,
    "resnet101d": 44_568_392,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    "seresnet50": 28_088_024,
    "resnetv2_50": 25_549_352,
    "resnetv2_101": 44_541_480,
    "resnet8_cifar": 75_290,
    "resnet20_cifar": 269_722,
    "resnet32_cifar": 464_154,
    "resnet44_cifar": 658_586,
    "resnet56_cifar": 853_018,
    "resnet110_cifar": 1_727_962,
    "wide_resnet28_10": 36_479_194,
    "wide_resnet40_4": 8_949_210,
}
SMALL = {
    "stages": (Stage(blocks=1, features=8, stride=1), Stage(blocks=2, features=16, stride=2)),
    "stem_features": 8,
    "num_classes": 5,
}
X = np.random.default_rng(0).normal(size=(4, 9, 14, 2)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def plainly():
    """The plain form of convolutions compiles fastest; test_conv.py compares the others with it."""
    with plain_convolutions():
        yield


def init(model):
    return jax.jit(model.init)(jax.random.key(0), X)


def test_every_registered_model_has_a_stated_number_of_parameters():
    assert set(resnet.FAMILY.entries) == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_exactly_as_many_as_the_originals(name):
    assert parameters(create_model(name)) == PARAMETERS[name]


def test_timm_has_the_networks_for_imagenet():
    for name, entry in resnet.FAMILY.entries.items():
        assert entry.timm_name == (name if entry.preprocess else None)


@pytest.mark.parametrize("depth", [8, 20, 32, 44, 56, 110])
def test_parameters_are_exactly_as_many_as_in_the_paper(depth):
    """He et al. 2016a, for 10 classes with option A and n blocks a stage.

    Beside stem and head there are, for each stage, 2n convolutions of 9·c² with their norms; the first of the later
    stages has half as many channels before as after it.
    """
    n = (depth - 2) // 6
    stages = 2 * n * (9 * 16**2 + 32)
    stages += sum((2 * n - 1) * 9 * c**2 + 9 * c**2 // 2 + 2 * n * 2 * c for c in (32, 64))
    assert PARAMETERS[f"resnet{depth}_cifar"] == (27 * 16 + 32) + stages + 650


def test_option_b_adds_the_two_projections():
    projections = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    with_b = create_model("resnet20_cifar", shortcut="B")
    assert parameters(with_b) == PARAMETERS["resnet20_cifar"] + projections


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_features_are_the_named_stages_at_any_input_size_and_channels(block, stem, shortcut):
    model = ResNet(**SMALL, block=block, stem=stem, shortcut=shortcut)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), X))
    features = jax.eval_shape(lambda v: model.apply(v, X, method="features"), variables)
    size = (9, 14) if stem == "cifar" else (3, 4)
    wide = 4 if block == "bottleneck" else 1
    assert {name: x.shape for name, x in features.items()} == {
        "stem": (4, *size, 8),
        "stage1": (4, *size, 8 * wide),
        "stage2": (4, -(-size[0] // 2), -(-size[1] // 2), 16 * wide),
    }


def test_the_shortcut_of_option_a_subsamples_and_appends_zeros():
    model = ResNet(**SMALL, block="basic", stem="cifar", shortcut="A", zero_init_last_norm=True)
    features = jax.jit(lambda v: model.apply(v, X, method="features"))(init(model))
    # With the last norms at zero each block is its shortcut, after the ReLU that changes nothing here.
    np.testing.assert_array_equal(features["stage1"], features["stem"])
    np.testing.assert_array_equal(features["stage2"][..., :8], features["stage1"][:, ::2, ::2])
    np.testing.assert_array_equal(features["stage2"][..., 8:], 0)


def test_logits_are_float32_under_bfloat16_and_close_to_those_of_float32():
    exact = ResNet(**SMALL, block="basic", stem="cifar")
    rough = ResNet(**SMALL, block="basic", stem="cifar", dtype=jnp.bfloat16)
    variables = init(exact)
    expected, found = (jax.jit(lambda v, model=model: model.apply(v, X))(variables) for model in (exact, rough))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=2e-2 * np.abs(expected).max())


def test_every_parameter_is_reached_by_a_finite_gradient_that_is_not_zero():
    model = ResNet(**SMALL, block="bottleneck", stem="imagenet")
    variables = init(model)

    def loss(params):
        logits, _ = model.apply({**variables, "params": params}, X, train=True, mutable=["batch_stats"])
        return jnp.square(logits - 1).sum()

    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(variables["params"])):
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path


def test_parameter_names_are_the_written_ones():
    model = ResNet(**SMALL, block="bottleneck", stem="imagenet")
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), X))["params"]
    assert shapes["stage1_block1"]["shortcut"]["conv"]["kernel"].shape == (1, 1, 8, 32)
    assert shapes["stage2_block2"]["conv2"]["kernel"].shape == (3, 3, 16, 16)
    assert set(shapes["stage2_block1"]) == {"conv1", "norm1", "conv2", "norm2", "conv3", "norm3", "shortcut"}
    assert {"stem_conv", "stem_norm", "head"} <= set(shapes)


def test_an_unknown_model_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"no model 'resnet51' \(did you mean 'resnet50'\?\)"):
        create_model("resnet51")


def test_an_unknown_field_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"no field 'num_class' \(did you mean 'num_classes'\?\)"):
        create_model("resnet50", num_class=3)
