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
def test_pictures_of_any_shape_are_fitted(preprocess, shape):
    fitted = preprocess.fit(noise(*shape))
    assert fitted.shape == (8, 8, preprocess.channels)
    assert fitted.dtype == np.uint8


def test_a_picture_of_the_right_size_is_left_alone():
    picture = noise(8, 8, 3)
    np.testing.assert_array_equal(RGB.fit(picture), picture)


def test_the_shorter_side_is_resized_and_the_centre_cropped_as_pillow_does():
    picture = noise(20, 40, 3)
    fitted = Preprocess(height=8, width=8, channels=3, mean=RGB.mean, std=RGB.std, crop_fraction=0.8).fit(picture)
    resized = np.asarray(Image.fromarray(picture).resize((20, 10), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(fitted, resized[1:9, 6:14])


def test_a_transparent_picture_is_laid_over_white():
    picture = np.zeros((8, 8, 4), np.uint8)
    assert (RGB.fit(picture) == 255).all()


def test_grey_becomes_rgb_by_repetition():
    picture = noise(8, 8)
    np.testing.assert_array_equal(RGB.fit(picture), np.stack([picture] * 3, -1))


@pytest.mark.parametrize("wrong", [np.zeros((8, 8, 2), np.uint8), np.zeros((8, 8)), np.zeros((0, 8), np.uint8)])
def test_what_is_no_picture_is_refused_with_its_shape(wrong):
    with pytest.raises(ValueError, match=r"a picture is uint8 .* found"):
        GREY.fit(wrong)


def test_normalise_follows_its_formula():
    image = noise(2, 8, 8, 3)
    expected = (image / 255 - np.array(RGB.mean)) / np.array(RGB.std)
    np.testing.assert_allclose(RGB.normalise(image, np.float32), expected, rtol=1e-5, atol=1e-6)


def test_json_gives_the_same_preprocess_back():
    assert Preprocess.from_json(RGB.to_json()) == RGB


def test_a_long_thin_picture_does_not_fill_the_memory():
    assert RGB.fit(np.zeros((1, 3_000_000, 3), np.uint8)).shape == (8, 8, 3)
