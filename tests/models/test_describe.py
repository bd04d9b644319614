import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from jaxnets import create_model
from jaxnets.models.describe import _by_shapes, _by_tracing, multiply_adds, size
from jaxnets.models.efficientnet.network import EfficientNet
from jaxnets.models.efficientnet.variants import b_stages, v2_stages
from jaxnets.models.resnet.network import ResNet, Stage

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


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_count_is_that_of_the_arrays_that_init_makes(name, channels):
    x = jnp.zeros((1, 33, 47, channels))
    variables = jax.eval_shape(lambda: SMALL[name].init(jax.random.key(0), x))
    leaves = jax.tree.leaves(variables["params"])
    assert size(SMALL[name], 33, 47, channels).parameters == sum(leaf.size for leaf in leaves)


@pytest.mark.parametrize("name", SMALL)
def test_a_network_that_is_traced_as_it_is_gives_the_same_description(name):
    image = jax.ShapeDtypeStruct((1, 33, 47, 2), jnp.float32)
    assert _by_tracing(SMALL[name], image) == _by_shapes(SMALL[name], image)


class Mixer(nn.Module):
    """Layers of Flax's own, one of them called in a loop, and a parameter of the network's."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(8, (4, 4), (4, 4), name="patches")(x)
        x = x.reshape(len(x), -1, 8) + self.param("position", nn.initializers.zeros, (6, 8))
        x, _ = nn.scan(
            lambda layer, x, _: (layer(x), None),
            variable_broadcast="params",
            split_rngs={"params": False},
            length=3,
        )(nn.Dense(8, name="mixed"), x, None)
        return nn.Dense(5, use_bias=False, name="head")(x.mean(1))


def test_layers_that_are_not_known_are_counted_too():
    found = size(Mixer(), 8, 12)
    assert found.parameters == (16 * 3 * 8 + 8) + 6 * 8 + (8 * 8 + 8) + 8 * 5
    assert found.multiply_adds == 6 * (16 * 3 * 8) + 3 * 6 * 8 * 8 + 8 * 5


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
