import jax
import jax.numpy as jnp
import pytest

from jaxnets import create_model, list_models
from jaxnets.models.describe import multiply_adds, parameters, size
from jaxnets.models.efficientnet.network import EfficientNet
from jaxnets.models.efficientnet.variants import b_stages, v2_stages
from jaxnets.models.registry import MODELS
from jaxnets.models.resnet.network import ResNet, Stage

# As many as timm 1.0.31 and torchvision count for the same names; for the CIFAR networks as the papers'
# architecture gives (see test_resnet.py). The tf_ networks pad differently and have no parameters of their own.
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
STAGES = (Stage(blocks=1, features=64, stride=1), Stage(blocks=1, features=128, stride=2))
SMALL = {
    "resnet": ResNet(stages=STAGES, block="basic", stem="cifar", stem_features=8, num_classes=5, squeeze_reduction=16),
    "resnext": ResNet(
        stages=STAGES,
        block="bottleneck",
        stem="deep",
        shortcut="D",
        stem_features=64,
        num_classes=5,
        groups=32,
        group_width=4,
        preactivation=True,
    ),
    "efficientnet": EfficientNet(
        stages=b_stages(0.25)[:3], stem_features=16, top_features=40, num_classes=3, padding="torch"
    ),
    "efficientnetv2": EfficientNet(
        stages=v2_stages((1, 1, 1, 1, 1, 1), (8, 8, 16, 16, 24, 24)), stem_features=8, top_features=40, num_classes=3
    ),
}


def test_every_registered_model_has_a_stated_number_of_parameters():
    assert {name.removeprefix("tf_") for name in list_models()} == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_exactly_as_many_as_the_originals(name):
    assert parameters(create_model(name)) == PARAMETERS[name]


@pytest.mark.parametrize("name", [name for name in list_models() if name.startswith("tf_")])
def test_the_tf_networks_differ_in_conventions_alone(name):
    conventions = {"padding", "norm_epsilon", "norm_decay"}
    ours, theirs = MODELS[name].fields, MODELS[name.removeprefix("tf_")].fields
    assert {field for field in ours.keys() | theirs.keys() if ours.get(field) != theirs.get(field)} <= conventions


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_count_is_that_of_the_arrays_that_init_makes(name, channels):
    x = jnp.zeros((1, 33, 47, channels))
    variables = jax.eval_shape(lambda: SMALL[name].init(jax.random.key(0), x))
    leaves = jax.tree.leaves(variables["params"])
    assert size(SMALL[name], 33, 47, channels).parameters == sum(leaf.size for leaf in leaves)


def test_multiply_adds_are_places_times_kernel_times_channels_times_features():
    model = ResNet(
        stages=(Stage(blocks=1, features=4, stride=2),), block="basic", stem="cifar", stem_features=2, num_classes=5
    )
    stem = 6 * 8 * (9 * 3 * 2)
    block = 3 * 4 * (9 * 2 * 4 + 9 * 4 * 4 + 2 * 4)  # two 3×3, the first of stride 2, and the shortcut's 1×1
    assert multiply_adds(model, 6, 8) == stem + block + 4 * 5


# To the digits that the papers print; docs/models.md says where and why others differ.
@pytest.mark.parametrize(
    ("name", "pixels", "expected"),
    [
        ("resnet18", 224, 1_814_073_344),  # 1.8 B (He et al. 2016a, table 1)
        ("resnet50", 224, 4_089_184_256),  # 3.8 B there, 4.1 B with the stride on the 3×3
        ("resnext50_32x4d", 224, 4_230_479_872),  # 4.2 B (Xie et al. 2017, table 1)
        ("resnet50d", 224, 4_328_824_832),  # 4.3 B (He et al. 2019, table 5)
        ("efficientnet_b0", 224, 385_814_752),  # 0.39 B (Tan & Le 2019, table 2)
        ("efficientnet_b6", 528, 19_067_593_536),  # 19 B
        ("tf_efficientnetv2_b3", 300, 3_011_458_816),  # 3.0 B (google/automl)
    ],
)
def test_multiply_adds_match_the_papers(name, pixels, expected):
    assert multiply_adds(create_model(name), pixels, pixels) == expected
