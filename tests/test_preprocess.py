from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from jaxnets.preprocess import Preprocess

GREY = Preprocess(height=8, width=8, channels=1, mean=(0.5,), std=(0.25,))
RGB = Preprocess(height=8, width=8, channels=3, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (30, 9), (5, 7, 3), (9, 40, 4), (1, 1, 3), (300, 2, 1)])
@pytest.mark.parametrize("preprocess", [GREY, RGB])
def test_images_of_any_shape_are_fitted(preprocess, shape):
    fitted = preprocess.fit(noise(*shape))
    assert fitted.shape == (8, 8, preprocess.channels)
    assert fitted.dtype == np.uint8


def test_a_image_of_the_right_size_is_left_alone():
    image = noise(8, 8, 3)
    np.testing.assert_array_equal(RGB.fit(image), image)


FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
FRACTIONS = [0.875, 0.95, 1.0, 0.904, 0.922, 224 / 232]


def square(size: int, channels: int, crop_fraction: float, interpolation: str) -> Preprocess:
    return Preprocess(
        height=size,
        width=size,
        channels=channels,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        crop_fraction=crop_fraction,
        interpolation=interpolation,
    )


def whole_then_crop(image: np.ndarray, size: int, crop_fraction: float, steps: str, method: str) -> np.ndarray:
    """The plain way of torchvision and timm: the shorter side to size / crop_fraction, then the centre."""
    height, width = image.shape[:2]
    shorter = int(size / crop_fraction + 1e-6)
    if width <= height:
        height, width = int(shorter * height / width), shorter
    else:
        height, width = shorter, int(shorter * width / height)
    resizing = Image.fromarray(image)
    if steps == "across, then down":
        resizing = resizing.resize((width, resizing.height), FILTERS[method])
    resizing = resizing.resize((width, height), FILTERS[method])
    top, left = round((height - size) / 2), round((width - size) / 2)
    return np.asarray(resizing.crop((left, top, left + size, top + size)))


def assert_alike(found: np.ndarray, expected: np.ndarray) -> None:
    """Within one grey level, but for one pixel in a thousand: across and down are each rounded, here as there."""
    difference = np.abs(found.astype(int) - expected.reshape(found.shape))
    assert difference.max() <= 2
    assert (difference > 1).mean() < 1e-3


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("crop_fraction", FRACTIONS)
@pytest.mark.parametrize("shape", [(375, 500), (500, 375, 3), (256, 256), (427, 640, 3), (7, 5, 3), (2, 3)])
def test_a_image_is_resized_whole_and_cropped_to_the_bit(shape, crop_fraction, interpolation):
    image = noise(*shape)
    found = square(64, 3 if len(shape) == 3 else 1, crop_fraction, interpolation).fit(image)
    expected = whole_then_crop(image, 64, crop_fraction, "at once", interpolation)
    np.testing.assert_array_equal(found, expected.reshape(found.shape))


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("crop_fraction", FRACTIONS)
@pytest.mark.parametrize("shape", [(30, 700), (100, 250, 3), (3, 2000)])
def test_a_wide_image_is_as_if_it_were_resized_whole(shape, crop_fraction, interpolation):
    image = noise(*shape)
    found = square(64, 3 if len(shape) == 3 else 1, crop_fraction, interpolation).fit(image)
    assert_alike(found, whole_then_crop(image, 64, crop_fraction, "at once", interpolation))


@pytest.mark.parametrize("interpolation", FILTERS)
def test_images_of_random_sizes_are_resized_across_and_then_down(interpolation):
    rng = np.random.default_rng(0)
    for _ in range(60):
        # From 2 to 400 pixels, small ones as often as large ones: landscapes, portraits, threads.
        height, width = np.exp(rng.uniform(np.log(2), np.log(400), 2)).astype(int)
        size, crop_fraction = int(rng.integers(4, 100)), float(rng.choice(FRACTIONS))
        image = rng.integers(0, 256, (height, width), np.uint8)
        expected = whole_then_crop(image, size, crop_fraction, "across, then down", interpolation)
        assert_alike(square(size, 1, crop_fraction, interpolation).fit(image), expected)


@pytest.mark.parametrize("size", [40, 224, 300, 380])
def test_a_crop_of_so_many_pixels_from_so_many_is_exact(size):
    for resized in range(size, 2 * size):
        assert square(size, 3, size / resized, "bicubic").resized(resized, resized) == (resized, resized)


@pytest.mark.parametrize(
    ("image", "resized"),
    [((375, 500), (256, 341)), ((500, 375), (341, 256)), ((512, 512), (256, 256)), ((1, 3), (256, 768))],
)
def test_the_longer_side_is_rounded_down(image, resized):
    assert square(224, 3, 0.875, "bicubic").resized(*image) == resized


@pytest.mark.parametrize(
    ("image", "resized"),
    [((100, 400), (160, 640)), ((400, 400), (320, 320)), ((300, 500), (192, 320)), ((299, 500), (191, 320))],
)
def test_a_crop_that_is_no_square_is_covered(image, resized):
    wide = Preprocess(height=160, width=320, channels=3, mean=RGB.mean, std=RGB.std)
    assert wide.resized(*image) == resized


def test_without_its_aspect_the_whole_image_is_squeezed():
    image = noise(20, 40, 3)
    squeezed = Preprocess(height=8, width=8, channels=3, mean=RGB.mean, std=RGB.std, fitting="squeeze")
    expected = np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(squeezed.fit(image), expected)


@pytest.mark.parametrize(
    ("image", "resized"), [((20, 40), (8, 16)), ((40, 20), (16, 8)), ((7, 7), (16, 16)), ((1, 900), (1, 16))]
)
def test_a_padded_image_is_whole_and_between_bars_of_the_mean_colour(image, resized):
    letterbox = Preprocess(height=16, width=16, channels=3, mean=RGB.mean, std=RGB.std, fitting="pad")
    pixels = noise(*image, 3)
    assert letterbox.resized(*image) == resized
    expected = np.empty((16, 16, 3), np.uint8)
    expected[:] = np.round(np.array(RGB.mean) * 255)
    top, left = (16 - resized[0]) // 2, (16 - resized[1]) // 2
    whole = Image.fromarray(pixels).resize((resized[1], image[0]), Image.Resampling.BILINEAR)
    whole = whole.resize((resized[1], resized[0]), Image.Resampling.BILINEAR)
    expected[top : top + resized[0], left : left + resized[1]] = np.asarray(whole)
    np.testing.assert_array_equal(letterbox.fit(pixels), expected)


def test_a_padded_image_that_is_cropped_loses_its_margin():
    pixels = noise(32, 32, 3)
    cropped, padded = (
        Preprocess(height=8, width=8, channels=3, mean=RGB.mean, std=RGB.std, crop_fraction=0.5, fitting=fitting)
        for fitting in ("crop", "pad")
    )
    np.testing.assert_array_equal(padded.fit(pixels), cropped.fit(pixels))


def test_a_transparent_image_is_laid_over_white():
    image = np.zeros((8, 8, 4), np.uint8)
    assert (RGB.fit(image) == 255).all()


def test_grey_becomes_rgb_by_repetition():
    image = noise(8, 8)
    np.testing.assert_array_equal(RGB.fit(image), np.stack([image] * 3, -1))


@pytest.mark.parametrize("wrong", [np.zeros((8, 8, 2), np.uint8), np.zeros((8, 8)), np.zeros((0, 8), np.uint8)])
def test_what_is_no_image_is_refused_with_its_shape(wrong):
    with pytest.raises(ValueError, match=r"an image is uint8 .* found"):
        GREY.fit(wrong)


def test_normalise_follows_its_formula():
    image = noise(2, 8, 8, 3)
    expected = (image / 255 - np.array(RGB.mean)) / np.array(RGB.std)
    np.testing.assert_allclose(RGB.normalise(image, np.float32), expected, rtol=1e-5, atol=1e-6)


def test_json_gives_the_same_preprocess_back():
    assert Preprocess.from_json(RGB.to_json()) == RGB


@pytest.mark.parametrize(
    ("said", "fitting"), [({}, "crop"), ({"keep_aspect": True}, "crop"), ({"keep_aspect": False}, "squeeze")]
)
def test_how_an_image_is_fitted_is_read_as_it_was_saved_before(said, fitting):
    saved = RGB.to_json()
    del saved["fitting"]
    assert Preprocess.from_json({**saved, **said}) == replace(RGB, fitting=fitting)


def test_grey_and_rgb_share_their_average():
    grey = RGB.for_channels(1)
    np.testing.assert_allclose((grey.mean, grey.std), ([0.2], [0.5]))
    assert RGB.for_channels(3) is RGB
    with pytest.raises(ValueError, match=r"1 channel .* or 3"):
        RGB.for_channels(4)


def test_a_long_thin_image_does_not_fill_the_memory():
    preprocess = square(224, 3, 0.875, "bicubic")  # resized whole it would have 600 GB
    assert preprocess.fit(np.zeros((1, 3_000_000, 3), np.uint8)).shape == (224, 224, 3)
    assert preprocess.fit(np.zeros((3_000_000, 1, 3), np.uint8)).shape == (224, 224, 3)
