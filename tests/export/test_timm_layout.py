"""timm's names, and its config.json; `python -m tools.check_timm` compares what timm answers."""

import json
import math
from dataclasses import replace

import pytest

import jaxnets
from jaxnets.classifier import Classifier
from jaxnets.errors import UserError
from jaxnets.export.timm_layout import Architecture, NotInTimm, architecture, export_folder, timm_config
from jaxnets.preprocess import Preprocess
from jaxnets.pretrained import hub_config
from tests.tiny import SEEN, classifier

GREY = Preprocess(height=32, width=32, channels=1, mean=(0.3,), std=(0.35,))


def named(name: str, **fields) -> Classifier:
    """Returns a classifier whose weights nobody asks for."""
    model = jaxnets.create_model(name, **{"num_classes": 3, **fields})
    return Classifier(name=name, model=model, variables={}, preprocess=GREY, labels=("a", "b", "c"), step=None)


def test_no_name_is_claimed_that_timm_has_not():
    claimed = {}
    for name in jaxnets.list_models():
        try:
            claimed[name] = architecture(named(name))
        except NotInTimm:
            claimed[name] = None
    assert {name for name, found in claimed.items() if found is None} == {
        *(f"resnet{depth}_cifar" for depth in (8, 20, 32, 44, 56, 110)),
        "wide_resnet28_10",
        "wide_resnet40_4",
        "airbench94",
        "airbench96",
        "airbench_small",
        "mlp",
        "vit_tiny_patch4_32",
    }
    renamed = {name: found for name, found in claimed.items() if found and found != Architecture(name)}
    arguments = {"pad_type": "", "bn_eps": 1e-5}
    assert renamed == {
        f"efficientnetv2_b{size}": Architecture(f"tf_efficientnetv2_b{size}", arguments) for size in range(4)
    }


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("efficientnet_b0", {"padding": "same", "norm_epsilon": 1e-3}, Architecture("tf_efficientnet_b0")),
        ("tf_efficientnet_b0", {"padding": "torch", "norm_epsilon": 1e-5}, Architecture("efficientnet_b0")),
        ("efficientnet_b0", {"norm_epsilon": 1e-3}, Architecture("efficientnet_b0", {"bn_eps": 1e-3})),
        ("efficientnetv2_b0", {}, Architecture("tf_efficientnetv2_b0", {"pad_type": "", "bn_eps": 1e-5})),
        ("efficientnetv2_b0", {"padding": "same", "norm_epsilon": 1e-3}, Architecture("tf_efficientnetv2_b0")),
        ("resnet50", {"dropout": 0.1, "norm_decay": 0.99, "zero_init_last_norm": False}, Architecture("resnet50")),
    ],
)
def test_the_name_is_that_of_the_padding_and_the_epsilon(name, fields, expected):
    made = named(name, **fields)
    assert architecture(made) == expected
    described = hub_config.network({"architecture": expected.name, "model_args": expected.arguments})
    assert described is not None
    again = jaxnets.create_model(described.name, **described.fields)
    if name.removeprefix("tf_").startswith("efficientnet"):
        assert (again.padding, again.norm_epsilon) == (made.model.padding, made.model.norm_epsilon)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("resnet18", {"norm_epsilon": 1e-3}),
        ("resnet50", {"shortcut": "D"}),
        ("efficientnet_b0", {"width": 1.1}),
        ("seresnet50", {"squeeze_reduction": 8}),
    ],
)
def test_a_network_that_was_changed_claims_no_name(name, fields):
    with pytest.raises(NotInTimm, match=f"is another network: this one has {next(iter(fields))}"):
        architecture(named(name, **fields))


@pytest.mark.parametrize(
    "seen",
    [
        SEEN,
        GREY,
        replace(SEEN, crop_fraction=40 / 53, height=40, width=40, interpolation="lanczos"),
        replace(SEEN, fitting="squeeze"),
        replace(SEEN, fitting="pad"),
    ],
)
def test_timms_config_is_read_back_as_it_was(seen):
    made = classifier("imagenet", preprocess=seen)
    config = json.loads(timm_config(made, Architecture("resnet18"), "model.safetensors"))
    recognised = hub_config.network(config)
    assert recognised is not None
    assert recognised.name == "resnet18"
    assert hub_config.labels(config) == made.labels
    found = hub_config.preprocess(config, {})
    assert replace(found, crop_fraction=1.0) == replace(seen, crop_fraction=1.0)
    assert found.resized(100, 130) == seen.resized(100, 130)
    assert config["num_features"] == 16
    assert (config["pretrained_cfg"]["first_conv"], config["pretrained_cfg"]["classifier"]) == ("conv1", "fc")


@pytest.mark.parametrize(
    ("fields", "several", "thresholds"),
    [
        ({}, False, None),
        ({"activation": "sigmoid"}, False, None),
        ({"activation": "sigmoid", "several_labels": True}, True, None),
        ({"activation": "sigmoid", "several_labels": True, "thresholds": (0.1, 0.2, 0.3, 0.4, 0.5)}, True, 5),
    ],
)
def test_how_an_answer_is_read_is_kept_in_timms_config(fields, several, thresholds):
    made = classifier("imagenet", **fields)
    config = json.loads(timm_config(made, Architecture("resnet18"), "model.safetensors"))
    assert hub_config.activation(config) == made.activation
    assert hub_config.several_labels(config) is several
    assert hub_config.thresholds(config) == made.thresholds
    if thresholds:
        with pytest.raises(UserError, match="a threshold for each of its 5 classes, found 4"):
            hub_config.thresholds(config | {"thresholds": config["thresholds"][1:]})


@pytest.mark.parametrize("resized", range(32, 80, 3))
def test_timm_which_rounds_down_comes_to_the_same_size(resized):
    for share in (32 / resized, round(32 / resized, 7)):
        seen = replace(GREY, crop_fraction=share)
        config = json.loads(timm_config(classifier("imagenet", preprocess=seen), Architecture("resnet18"), "x"))
        found = config["pretrained_cfg"]["crop_pct"]
        assert math.floor(32 / found) == seen.resized(32, 32)[0]
        assert found == pytest.approx(share, rel=1e-6)


@pytest.fixture
def known(monkeypatch):
    """The small network, as one that timm has."""
    monkeypatch.setattr("jaxnets.export.timm_layout.architecture", lambda classifier: Architecture("resnet18"))


def test_an_export_is_replaced_by_another_of_the_same_file(known, tmp_path):
    made = classifier("imagenet")
    for labels in (made.labels, tuple("vwxyz")):
        _, said = export_folder(replace(made, labels=labels), tmp_path / "model.safetensors")
        assert f"timm.create_model('local-dir:{tmp_path}', pretrained=True)" in said
        config = json.loads((tmp_path / "config.json").read_text())
        assert config["label_names"] == list(labels)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    "content", ['{"format": 1}', '{"written_by": "jaxnets", "weights": "other.safetensors"}', "[", "[]"]
)
def test_another_config_is_never_overwritten_nor_left_to_be_taken_for_these_weights(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    for made in (classifier("imagenet"), classifier("cifar")):
        with pytest.raises(UserError, match=r"belongs to something else.*give a folder of its own"):
            export_folder(made, tmp_path / "model.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == content


def test_weights_of_another_model_are_not_given_this_ones_config(known, tmp_path):
    (tmp_path / "other.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="holds other weights"):
        export_folder(classifier("imagenet"), tmp_path / "model.safetensors")


def test_weights_that_timm_has_no_network_for_come_without_a_config(tmp_path):
    from safetensors import safe_open

    (tmp_path / "config.json").write_text('{"written_by": "jaxnets", "weights": "model.safetensors"}')
    made = classifier("cifar")
    _, said = export_folder(made, tmp_path / "model.safetensors")
    assert "without a config.json" in said
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    with safe_open(tmp_path / "model.safetensors", "numpy") as file:
        metadata = file.metadata()
    assert "architecture" not in metadata
    assert metadata["model"] == "resnet20_cifar"
    assert json.loads(metadata["labels"]) == list(made.labels)
    assert Preprocess.from_json(json.loads(metadata["preprocess"])) == SEEN
