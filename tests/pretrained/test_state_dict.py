"""Under which prefix the network's keys lie."""

import pytest

from jaxnets.errors import UserError
from jaxnets.pretrained.state_dict import Weights, without_prefix

MARKS = ["layer1.0.conv1.weight", "conv_stem.weight"]
KEYS = ["conv1.weight", "layer1.0.conv1.weight", "fc.weight"]


def stripped(keys: list[str], weights: Weights = "ema") -> dict[str, str]:
    return without_prefix({key: key for key in keys}, MARKS, "a file", weights)


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "model.", "net.", "backbone.", "timm_model.", "encoder.", "_orig_mod.", "module._orig_mod.",
     "_orig_mod.module.", "model._orig_mod.", "student.backbone.", "_fsdp_wrapped_module.model."],
)  # fmt: skip
def test_the_prefix_of_the_network_is_taken_off(prefix):
    assert list(stripped([prefix + key for key in KEYS])) == KEYS


def test_wrappers_of_inner_modules_are_taken_out():
    keys = ["conv1.weight", "layer1._orig_mod.0._checkpoint_wrapped_module.conv1.weight", "fc.weight"]
    assert list(stripped(keys)) == KEYS


def test_keys_that_only_a_wrapper_tells_apart_are_refused():
    with pytest.raises(UserError, match="_orig_mod"):
        stripped([*KEYS, "_orig_mod.fc.weight"])


def test_the_counter_of_an_average_is_no_weight(caplog):
    assert list(stripped(["n_averaged", *(f"module.{key}" for key in KEYS)])) == KEYS
    assert not caplog.text


def test_what_lies_beside_the_network_is_left_out_and_named(caplog):
    assert list(stripped([*(f"model.{key}" for key in KEYS), "criterion.weight", "metric.total"])) == KEYS
    assert "'criterion.weight', 'metric.total'" in caplog.text


def test_a_surplus_key_within_the_network_stays():
    assert "gate.weight" in stripped([*(f"model.{key}" for key in KEYS), "model.gate.weight"])


@pytest.mark.parametrize("averaged", ["ema.", "model_ema.module.", "ema_model.", "net_ema."])
def test_of_a_network_and_its_average_the_average_is_taken_unless_the_other_is_asked_for(averaged, caplog):
    caplog.set_level("INFO")
    keys = [f"model.{key}" for key in KEYS] + [averaged + key for key in KEYS]
    assert stripped(keys)["fc.weight"] == f"{averaged}fc.weight"
    assert f"'{averaged}'" in caplog.text
    assert stripped(keys, "raw")["fc.weight"] == "model.fc.weight"


def test_a_name_that_merely_holds_the_letters_is_no_average():
    keys = [f"{prefix}.{key}" for key in KEYS for prefix in ("schema", "model")]
    with pytest.raises(UserError, match=r"several networks, under 'model\.', 'schema\.'"):
        stripped(keys)


def test_several_networks_are_refused_with_their_prefixes():
    with pytest.raises(UserError, match=r"several networks, under 'student\.', 'teacher\.'"):
        stripped([f"{prefix}.{key}" for key in KEYS for prefix in ("student", "teacher")])


def test_a_longer_name_that_ends_as_a_mark_is_none():
    assert list(stripped(["my_conv_stem.weight", "a.b"])) == ["my_conv_stem.weight", "a.b"]


def test_the_head_that_openmmlab_keeps_beside_its_backbone_is_the_network_s(caplog):
    keys = ["backbone.conv1.weight", "backbone.layer1.0.conv1.weight", "head.fc.weight"]
    assert list(stripped(keys)) == KEYS
    assert not caplog.text
