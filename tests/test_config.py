import json
from dataclasses import asdict

import pytest

from jaxnets.config import RESUMABLE, Config, default_config, resolve
from jaxnets.config_check import without_effect
from jaxnets.errors import UserError
from jaxnets.schema import flatten


def test_defaults_survive_the_way_through_config_dict_and_json():
    assert resolve(default_config()) == Config()
    assert resolve(json.loads(json.dumps(asdict(Config())))) == Config()


def test_a_config_dict_keeps_the_type_of_each_key():
    config = default_config()
    config.steps = 10
    config.data.mean = (0.5,)
    config.data.std = (0.25,)
    assert resolve(config).steps == 10
    assert resolve(config).data.mean == (0.5,)
    with pytest.raises(TypeError):
        config.steps = "ten"


def test_an_integer_is_accepted_where_a_float_is_meant():
    assert resolve({"epochs": 3}).epochs == 3.0


def test_resumable_keys_exist():
    assert set(flatten(Config())) >= RESUMABLE


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"bach_size": 1}, "config.bach_size is not a key (did you mean 'batch_size'?)"),
        ({"data": {"sourc": "digits"}}, "config.data.sourc is not a key (did you mean 'source'?)"),
        ({"batch_size": "64"}, "config.batch_size must be a whole number, at least 1, or auto, found '64'"),
        ({"steps": True}, "config.steps must be int, found True (bool)"),
        *(
            ({"data": {"image_size": size}}, "config.data.image_size must be pixels")
            for size in ("16x", "x16", "16 20")
        ),
        ({"accumulate_steps": None}, "config.accumulate_steps must be int, found None (NoneType)"),
        ({"accumulate_steps": 0}, "config.accumulate_steps must be at least 1, found 0"),
        ({"epochs": 0.0}, "config.epochs must be above 0, found 0.0"),
        ({"epochs": float("nan")}, "config.epochs must be above 0, found nan"),
        ({"data": {"validation": 1.0}}, "config.data.validation must be at least 0 and below 1, found 1.0"),
        ({"data": {"mean": "grey"}}, "config.data.mean must be tuple of numbers, found 'grey' (str)"),
        ({"dtype": "bfloat"}, "config.dtype must be one of float32, bfloat16, float64, found 'bfloat'"),
        ({"model": "resnet18"}, "config.model is a group of keys, found 'resnet18'"),
        ({"batch_size": 64, "batch_norm": {"group_size": 48}}, "group_size 48 does not divide config.batch_size 64"),
        ({"data": {"mean": [0.5]}}, "config.data.mean and config.data.std are given together"),
        ({"data": {"mean": [0.5], "std": [0.0]}}, "of pixels scaled to 0…1, std above 0"),
        ({"data": {"mean": [0.5], "std": [0.5], "channels": 3}}, "one number per channel"),
        ({"schedule": {"name": "step", "milestones": [0.8, 0.2]}}, "rising shares of the run"),
        ({"accumulate_steps": 3}, "config.accumulate_steps 3 does not divide config.batch_size 128"),
        ({"accumulate_steps": 4, "batch_norm": {"group_size": 64}}, "64 does not divide: take a divisor of 32"),
        ({"max_hours": 0.0}, "config.max_hours must be above 0, found 0.0"),
        ({"distributed": {"coordinator": "a:1"}}, "are given together or not at all, found a:1, None and None"),
        ({"distributed": {"coordinator": "a", "processes": 2, "process": 0}}, "must be HOST:PORT, found 'a'"),
        ({"distributed": {"coordinator": "a:1", "processes": 2, "process": 2}}, "process 2 is not one of 2 processes"),
        ({"augment": {"flip": {"alternate": True}}}, "would mirror all images of every second epoch"),
        ({"epochs": 5.0, "schedule": {"warmup_epochs": 5.0}}, "leaves nothing of config.epochs"),
        ({"ema_decay": 0.9}, "config.ema_decay is config.ema.decay (beside its warm-up, config.ema.warmup) now"),
        ({"ema": 0.9}, "config.ema is a group of keys, found 0.9"),
        ({"ema": {"decay": 1.0}}, "config.ema.decay must be above 0 and below 1, found 1.0"),
        ({"ema": {"warmup": "tf"}}, "config.ema.warmup must be one of tensorflow, timm, torchvision, none"),
        ({"distill": {"teacher": "x", "weight": 0.0}}, "config.distill.weight 0 learns nothing from"),
        ({"distill": {"temperature": 0.0}}, "config.distill.temperature must be above 0"),
        ({"keep_checkpoints": 1}, "config.keep_checkpoints must be at least 2, found 1"),
        ({"augment": {"erasing": {"area": (0.3, 0.1)}}}, "erasing.area must be two shares of the image"),
        ({"augment": {"erasing": {"area": (0.02, 1.0)}}}, "the least first, above 0 and below 1"),
        ({"augment": {"erasing": {"aspect": (0.0, 1.0)}}}, "erasing.aspect must be two numbers, height / width"),
        ({"augment": {"cutout": {"side": 8, "share": 0.5}}}, "both say how large the square is"),
        ({"augment": {"color_jitter": {"hue": 0.6}}}, "hue must be at least 0 and at most 0.5, found 0.6"),
        ({"mix": {"mode": "elem"}}, "config.mix.mode must be one of batch, pair, element, automl, found 'elem'"),
        ({"mix": {"until_epoch": 0}}, "config.mix.until_epoch must be above 0"),
        *(
            ({"data": {"channels": 1}, "augment": augment}, "for images with colours, and these are grey")
            for augment in (
                {"grey": {"probability": 0.2}},
                {"three_augment": {"probability": 1}},
                {"color_jitter": {"saturation": 0.4, "brightness": 0.4}},
                {"color_jitter": {"hue": 0.1}},
            )
        ),
    ],
)
def test_what_cannot_work_is_refused_with_its_key(given, expected):
    with pytest.raises(UserError) as error:
        resolve(given)
    assert expected in str(error.value)


def test_keys_without_effect_are_named():
    changed = {
        "augment": {"random_resized_crop": {"aspect": (0.5, 2.0)}, "pad_and_crop": {"mode": "edge"}},
        "loss": {"focal": {"gamma": 3.0}},
        "schedule": {"name": "step", "final": 0.1},
        "optimizer": {"name": "adamw", "momentum": 0.5},
        "data": {"root": "images", "table": {"label": "breed"}},
        "ema": {"every_steps": 2, "timm": {"gamma": 2.0}},
        "distill": {"temperature": 2.0},
    }
    named = {sentence.split()[0] for sentence in without_effect(resolve(changed))}
    assert named == {
        "config.augment.random_resized_crop.aspect",
        "config.augment.pad_and_crop.mode",
        "config.loss.focal.gamma",
        "config.schedule.final",
        "config.optimizer.momentum",
        "config.data.root",
        "config.data.table.label",
        "config.ema.every_steps",
        "config.ema.timm.gamma",
        "config.distill.temperature",
    }
    smoothed = {"name": "sigmoid_cross_entropy", "label_smoothing": 0.1, "sigmoid_cross_entropy": {"threshold": 0.2}}
    (sentence,) = without_effect(resolve({"loss": smoothed}))
    assert sentence.startswith("config.loss.label_smoothing has no effect")
    (sentence,) = without_effect(resolve({"ema": {"decay": 0.9, "timm": {"gamma": 2.0}}}))
    assert sentence == "config.ema.timm.gamma has no effect: ema.warmup is tensorflow"


def test_keys_that_have_an_effect_are_not_named():
    changed = {
        "augment": {"random_resized_crop": {"area": (0.5, 1.0), "aspect": (0.5, 2.0)}, "pad_and_crop": {"padding": 1}},
        "loss": {"name": "focal", "focal": {"gamma": 3.0}},
        "schedule": {"name": "step", "milestones": (0.5,)},
        "optimizer": {"momentum": 0.5},
        "data": {"source": "csv:labels.csv", "root": "images", "table": {"label": "breed"}},
        "ema": {"decay": 0.9, "warmup": "timm", "timm": {"gamma": 2.0}},
        "distill": {"teacher": "runs/x", "temperature": 2.0},
    }
    assert without_effect(resolve(changed)) == []


def test_colours_of_grey_images_are_not_refused_where_they_do_nothing():
    jitter = {"brightness": 0.4, "contrast": 0.4, "hue": 0.1, "probability": 0.0}
    given = resolve({"data": {"channels": 1}, "augment": {"color_jitter": jitter}})
    assert len(without_effect(given)) == 3  # the three amounts


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"mix": {"mode": "pair"}}, {"mix.mode": "neither config.mix.mixup nor config.mix.cutmix is above 0"}),
        ({"mix": {"mixup": 0.2, "switch": 0.1}}, {"mix.switch": "only one of config.mix.mixup"}),
        ({"mix": {"mixup": 0.2, "cutmix": 1.0, "switch": 0.1, "mode": "automl"}}, {"mix.switch": "mode is automl"}),
        ({"batch_size": 1, "mix": {"mixup": 0.2}}, {"mix.mixup": "no image has a partner"}),
        ({"epochs": 9, "mix": {"mixup": 0.2, "until_epoch": 9.0}}, {"mix.until_epoch": "the run ends before"}),
        ({"augment": {"erasing": {"fill": "noise"}}}, {"augment.erasing.fill": "its probability is 0"}),
        ({"augment": {"cutout": {"whole": True}}}, {"augment.cutout.whole": "its side and its share are 0"}),
        ({"augment": {"color_jitter": {"probability": 0.5}}}, {"augment.color_jitter.probability": "are all 0"}),
        ({"mix": {"mixup": 0.2, "cutmix": 1.0, "switch": 0.1, "mode": "pair", "until_epoch": 5.0}}, {}),
        (
            {"augment": {"color_jitter": {"hue": 0.5, "probability": 0.5}, "cutout": {"share": 0.5, "fill": "noise"}}},
            {},
        ),
    ],
)
def test_keys_of_mixing_and_augmentation_without_effect_are_named(given, expected):
    sentences = without_effect(resolve(given))
    assert len(sentences) == len(expected)
    for sentence, (key, why) in zip(sentences, expected.items(), strict=True):
        assert sentence.startswith(f"config.{key} has no effect")
        assert why in sentence


def test_a_metric_of_a_step_that_there_is_not_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"found 'gradient_nrm' .did you mean 'gradient_norm'"):
        resolve({"train_metrics": ("gradient_nrm",)})
