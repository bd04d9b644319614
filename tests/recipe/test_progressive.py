"""The stages of a run that resizes progressively."""

import numpy as np
import pytest

from jaxnets.config import Config, resolve
from jaxnets.config_check import without_effect
from jaxnets.errors import UserError
from jaxnets.recipe.progressive import ProgressiveConfig, plan_sizes, strength


def stages(sizes, size, steps, until=(), steps_per_epoch=10.0, width=None):
    spec = ProgressiveConfig(sizes=sizes, until_epochs=until)
    return plan_sizes(spec, size, width or size, steps, steps_per_epoch)


def test_efficientnetv2_s_has_four_stages_of_equal_steps():
    """As its main.py cuts a run, for the steps of 350 epochs at a batch of 4,096."""
    steps = int(350 * 1281167 / 4096)
    sizes = tuple(int(128 + (300 - 128) * (stage + 1) / 4) for stage in range(4))
    assert sizes == (171, 214, 257, 300)
    found = stages(sizes, 300, steps)
    assert [stage.start for stage in found] == [0, 27368, 54737, 82105]
    assert steps == 109474
    magnitudes = [strength(5.0, 10.0, stage.progress) for stage in found]
    np.testing.assert_allclose(magnitudes, np.linspace(5, 10, 4))


def test_ffcvs_ramp_is_two_sizes_with_a_breakpoint():
    def ffcv(epoch):  # get_resolution of train_imagenet.py with rn50_88_epochs.yaml
        return int(np.round(np.interp(epoch, [65, 76], [160, 192]) / 32)) * 32

    found = stages((160, 192), 192, 88 * 10, (71.0,))
    for epoch in range(88):
        ours = next(stage.height for stage in reversed(found) if stage.start <= 10 * epoch)
        assert ours == ffcv(epoch), epoch


def test_without_sizes_a_run_is_one_stage_at_its_own():
    (only,) = stages((), 32, 7)
    assert (only.start, only.height, only.width, only.progress) == (0, 32, 32, 1.0)


def test_the_width_keeps_the_images_aspect():
    assert [(s.height, s.width) for s in stages((24, 48), 48, 9, width=96)] == [(24, 48), (48, 96)]


@pytest.mark.parametrize(
    ("sizes", "until", "steps", "message"),
    [
        ((16, 24), (), 10, r"must end with the size that is trained at, 32 .*, found 16,24"),
        ((48, 32), (), 10, r"images of 48 pixels, larger than the 32"),
        ((8, 16, 32), (), 2, r"has 3 stages, and the run 2 steps"),
        ((8, 16, 32), (2.0, 1.0), 99, r"must be rising numbers above 0, .* found 2,1"),
        ((8, 16, 32), (0.01, 1.0), 99, r"at least a step apart, found 0.01,1, which are the steps 0,10"),
    ],
)
def test_stages_that_are_not_those_of_a_run_are_refused(sizes, until, steps, message):
    with pytest.raises(UserError, match=message):
        stages(sizes, 32, steps, until)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"progressive": {"sizes": [0, 32]}}, r"sizes must be pixels, at least 1, found 0,32"),
        ({"progressive": {"sizes": [-8, 32]}}, r"sizes must be pixels, at least 1, found -8,32"),
        ({"progressive": {"sizes": [16.5, 32]}}, r"sizes must be tuple of whole numbers"),
        ({"progressive": {"sizes": "16,32"}}, r"sizes must be tuple of whole numbers, found .16,32."),
        ({"progressive": {"sizes": [16, 32], "until_epochs": [1, 2]}}, r"found 2 for 2 sizes"),
        ({"progressive": {"until_epochs": [1.0]}}, r"found 1 for 0 sizes"),
        ({"progressive": {"sizes": [16, 32], "dropout_from": 1.0}}, r"dropout_from must be at least 0 and below 1"),
        ({"batch_size": 32, "data": {"repeats": 3}}, r"repeats 3 does not divide config.batch_size 32"),
        ({"data": {"repeats": 0}}, r"repeats must be at least 1"),
        ({"batch_size": 32, "data": {"repeats": 64}}, r"repeats 64 does not divide"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(changed, message):
    with pytest.raises(UserError, match=message):
        resolve(changed)


def test_keys_that_do_nothing_are_named():
    config = resolve({"progressive": {"sizes": [8], "dropout_from": 0.1}})
    assert without_effect(config) == [
        "config.progressive.sizes has no effect: config.progressive.sizes has no two sizes",
        "config.progressive.dropout_from has no effect: config.progressive.sizes has no two sizes",
    ]
    config = resolve({"progressive": {"sizes": [4, 8], "mixup_from": 0.1}})
    assert without_effect(config) == ["config.progressive.mixup_from has no effect: config.mix.mixup is 0"]
    assert without_effect(Config()) == []
