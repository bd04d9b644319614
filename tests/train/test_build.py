import logging
from contextlib import nullcontext
from types import SimpleNamespace

import jax
import pytest

from jaxnets import Preprocess, UserError
from jaxnets.data.dataset import open_dataset
from jaxnets.train.build import build
from tests.train.runs import short


def built(height: int, width: int, **config):
    """Builds a run on 32 grey images of a size: resnet8_cifar halves them twice."""
    preprocess = Preprocess(height=height, width=width, channels=1, mean=(0.5,), std=(0.5,))
    data = SimpleNamespace(
        preprocess=preprocess,
        training_preprocess=preprocess,
        class_names=("a", "b"),
        training=range(32),
        canvas_is_input=True,
        cut_by_host=False,
        several_labels=False,
    )
    return build(short(**config), data)


@pytest.mark.parametrize(
    ("size", "config"),
    [
        ((4, 4), {"batch_size": 1}),
        ((4, 3), {"batch_size": 8, "batch_norm": {"group_size": 1}}),
        ((4, 4), {"batch_size": 8, "accumulate_steps": 8, "batch_norm": {"group_size": 1}}),
        ((2, 4), {"batch_size": 8, "accumulate_steps": 2, "batch_norm": {"group_size": 1}}),
    ],
)
def test_a_norm_that_would_see_one_value_is_refused_before_the_first_step(size, config):
    with pytest.raises(UserError, match=r"stage3_block1/norm1 would see one value"):
        built(*size, **config)


@pytest.mark.parametrize(
    ("size", "config", "values"),
    [
        ((4, 4), {"batch_size": 8, "accumulate_steps": 2, "batch_norm": {"group_size": 4}}, 4),
        ((8, 8), {"batch_size": 8, "batch_norm": {"group_size": 2}}, 8),
        ((8, 5), {"batch_size": 1}, 4),
        ((16, 16), {"batch_size": 1}, None),
        ((4, 4), {"batch_size": 16}, None),
    ],
)
def test_norms_that_see_few_values_are_warned_of_once(size, config, values, caplog):
    with caplog.at_level(logging.WARNING):
        built(*size, **config)
    said = [record.getMessage() for record in caplog.records if "mean and variance" in record.getMessage()]
    assert len(said) == (values is not None)
    assert values is None or f"sees {values} values of each channel" in said[0]


@pytest.mark.parametrize(
    ("config", "refused"),
    [
        ({}, True),
        ({"batch_norm": {"group_size": 2}}, False),
        ({"freeze": {"before": "head"}}, False),
        ({"model": {"name": "mlp"}}, False),
    ],
)
def test_micro_batches_need_groups_where_a_norm_averages_over_images(config, refused):
    said = "BatchNorm cannot average over more than one: set config.batch_norm.group_size to a divisor of 4, found None"
    with pytest.raises(UserError, match=said) if refused else nullcontext():
        built(16, 16, batch_size=8, accumulate_steps=2, **config)


@pytest.mark.parametrize("key", ["group_size", "decay", "epsilon"])
def test_keys_of_batch_normalisation_are_refused_where_there_is_none(key):
    value = 2 if key == "group_size" else 0.5
    with pytest.raises(UserError, match=rf"config.batch_norm.{key} is {value}, but mlp has no batch normalisation"):
        built(16, 16, model={"name": "mlp"}, batch_norm={key: value})


def test_images_of_which_a_network_leaves_nothing_are_refused():
    with pytest.raises(UserError, match="images of 31×40 pixels are too small for this ConvNeXt"):
        built(31, 40, model={"name": "convnext_atto"})


def test_a_policy_on_grey_images_is_warned_of(caplog):
    built(8, 8, augment={"policy": {"name": "trivial_augment_wide"}})
    assert "trivial_augment_wide and the images are grey" in caplog.text


@pytest.mark.parametrize(
    ("freeze", "refused"), [({}, False), ({"thaw_epoch": 0.1}, True), ({"batch_norm": "train"}, True)]
)
def test_frozen_norms_need_no_batch_to_average_over(freeze, refused, caplog):
    config = {"batch_size": 1, "freeze": {"before": "head", **freeze}}
    with pytest.raises(UserError, match="would see one value") if refused else nullcontext():
        built(4, 4, **config)
    assert not [record for record in caplog.records if "mean and variance" in record.getMessage()]


def test_a_thaw_after_the_given_steps_is_warned_of_and_one_after_the_epochs_refused(caplog):
    freeze = {"before": "head", "thaw_epoch": 2.09}  # of two steps each
    assert len(built(16, 16, epochs=3.0, steps=None, freeze=freeze).phases) == 2
    built(16, 16, steps=4, freeze=freeze)
    assert "thaw its first layers after step 5, and the run ends at step 4: they stay frozen" in caplog.text
    with pytest.raises(UserError, match=r"after step 5, and the run ends at step 5: thaw them earlier"):
        built(16, 16, epochs=2.1, steps=None, freeze=freeze)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"augment": {"pad_and_crop": {"padding": 8}}}, "padding 8 would crop images of 8 pixels that are all black"),
        ({"augment": {"quarter_turn": {"probability": 0.5}}, "data": {"image_size": "8x9"}}, "8×9 are not square"),
        ({"augment": {"random_resized_crop": {"area": (0.5,)}}}, "two shares of the image, the least first"),
        ({"augment": {"random_resized_crop": {"area": (1.0, 0.08)}}}, "two shares of the image, the least first"),
        ({"augment": {"random_resized_crop": {"area": (0.0, 1.0)}}}, "above 0 and at most 1"),
        ({"augment": {"random_resized_crop": {"aspect": (2.0, 0.5)}}}, "two numbers, width / height"),
        ({"data": {"canvas_size": 7}}, "canvas_size 7×7 is smaller than the images of 8×8 that are trained on"),
        ({"data": {"canvas_size": "9x4"}}, "canvas_size 9×4 is smaller than the images of 8×8 that are trained on"),
    ],
)
def test_what_would_spoil_the_training_images_is_refused(changed, said):
    def build_run() -> None:
        config = short(**changed)
        build(config, open_dataset(config))

    with pytest.raises(UserError, match=said):
        build_run()


def test_a_single_output_has_two_classes_and_no_loss_that_decides_each_by_itself():
    made = built(8, 8, model={"single_output": True})
    assert made.fields["single_output"]
    assert jax.eval_shape(made.phases[0].fresh_state).params["head"]["kernel"].shape == (64, 1)
    with pytest.raises(UserError, match=r"single_output gives one class the logit 0.*sigmoid_cross_entropy decides"):
        built(8, 8, model={"single_output": True}, loss={"name": "sigmoid_cross_entropy"})


@pytest.mark.parametrize(
    ("augment", "said"),
    [
        ({"grey": {"probability": 0.2}}, "grey.probability is for images with colours, and these are grey"),
        ({"color_jitter": {"hue": 0.1, "saturation": 0.1}}, "saturation and .*hue are for images with colours"),
        ({"cutout": {"side": 8}}, "cutout.side 8 would leave nothing of images of 8 pixels"),
    ],
)
def test_augmentation_that_the_images_cannot_have_is_refused(augment, said):
    with pytest.raises(UserError, match=said):
        built(8, 9, augment=augment)


def test_mixing_an_odd_batch_is_warned_of(caplog):
    for size in (15, 16):
        built(8, 8, batch_size=size, mix={"mixup": 0.2, "mode": "pair"})
    said = [record.getMessage() for record in caplog.records if "is odd" in record.getMessage()]
    assert said == ["config.batch_size 15 is odd: the image in the middle of a batch has no partner and is not mixed"]


def test_mixing_ends_at_an_epoch_in_steps():
    made = built(8, 8, batch_size=12, mix={"cutmix": 1.0, "until_epoch": 1.5})
    assert made.recipe.mix.until_step == 4  # 1.5 · 32 / 12
