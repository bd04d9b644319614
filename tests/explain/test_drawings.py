"""Overlays, sheets with scales, filters and feature maps."""

import numpy as np
import pytest

from jaxnets import UserError
from jaxnets.explain.features import feature_sheet, filter_sheet, find_features, first_filters
from jaxnets.explain.overlay import Panel, drawable, overlay, sheet
from jaxnets.explain.place import to_image
from tests.tiny import SEEN, classifier, images


def test_the_overlay_grows_lighter_with_the_map():
    grey = np.full((1, 5, 3), 100, np.uint8)
    drawn = overlay(grey, np.linspace(0, 1, 5, dtype=np.float32)[None])
    luma = drawn[0].astype(float) @ [0.299, 0.587, 0.114]
    assert (drawn[0, 0] == 100).all()
    assert (np.diff(luma[1:]) > 0).all()


def test_what_speaks_against_a_class_is_blue_and_what_speaks_for_it_is_not():
    grey = np.full((1, 3, 3), 100, np.uint8)
    against, nothing, for_it = overlay(grey, np.array([[-1.0, 0.0, 1.0]]), signed=True)[0].astype(int)
    assert against[2] > against[0] + 50
    assert (nothing == 100).all()
    assert for_it[0] > for_it[2] + 50


@pytest.mark.parametrize("size", [(8, 8), (40, 50), (1200, 900), (5, 300)])
@pytest.mark.parametrize("count", [1, 4, 7])
def test_a_sheet_holds_an_image_of_any_size(size, count):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (*size, 3), np.uint8)
    heat = random.uniform(-1, 1, size).astype(np.float32)
    panels = [Panel(heat, ("a", "b"), unit="logits", signed=True, fine=bool(i % 2)) for i in range(count)]
    page = sheet(image, panels, (0, 0, *size))
    assert 288 <= page.width <= 4 * 790
    assert page.height <= 3 * 900


def test_a_frame_shows_what_the_model_sees():
    image = np.full((300, 400, 3), 90, np.uint8)
    panel = Panel(np.zeros((300, 400), np.float32), ("a",))
    whole, cut = (np.asarray(sheet(image, [panel], seen)) for seen in (None, (20, 50, 280, 350)))
    rows, columns = np.nonzero((whole != cut).any(-1)[:, :408])
    assert (np.ptp(rows), np.ptp(columns)) == (259, 299)


def test_a_fine_map_is_cut_where_a_hundredth_reaches_further():
    heat = np.zeros((100, 100), np.float32)
    heat[:50] = 0.1
    heat[3, 3] = 1
    drawn, top = drawable(heat)
    assert top == pytest.approx(0.1, rel=0.3)
    assert drawn.max() == 1
    assert not drawable(np.zeros((4, 4)))[0].any()


def test_a_map_keeps_its_sign_and_its_peak_in_the_image():
    heat = np.zeros((33, 32), np.float32)
    heat[10:20, 10:20], heat[25:30, 25:30] = -4, 2
    found = to_image(heat, SEEN, 66, 64)
    assert found.shape == (66, 64)
    assert found.min() == pytest.approx(-1, abs=1e-3)
    assert found.max() == pytest.approx(0.5, abs=1e-3)


def test_the_filters_are_the_kernel_that_sees_the_image():
    made = classifier(engine_name="jax")
    kernel = first_filters(made.model, made.variables)
    np.testing.assert_array_equal(kernel, made.variables["params"]["stem_conv"]["kernel"])
    drawn = np.asarray(filter_sheet(kernel))
    largest = np.abs(kernel[..., 0]).max()
    assert drawn[40, 14].tolist() == np.round(127.5 * (1 + kernel[0, 0, :, 0] / largest)).astype(int).tolist()
    with pytest.raises(UserError, match="1 or 3 channels"):
        filter_sheet(np.zeros((3, 3, 2, 4)))


def test_the_feature_maps_of_each_stage_can_be_drawn():
    made = classifier(engine_name="jax")
    found = made.features(images(1)[0])
    assert set(found) == {"stem", "stage1", "stage2"}
    for stage, expected in (("stem", "stem"), (None, "stage1"), ("stage2", "stage2")):
        name, features = find_features(found, stage)
        assert name == expected
        assert feature_sheet(features, name).width > 100
    with pytest.raises(UserError, match="no stage 'stage3'"):
        find_features(found, "stage3")
