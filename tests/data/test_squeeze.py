"""Training images are squeezed nearly as Pillow's bilinear filter does it, and quicker."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxnets.data.canvas import Canvas
from jaxnets.data.decode import decode_reduced


def photo(height, width, channels=3):
    """Returns what is smooth in places and sharp in others, as a photograph is."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 9, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    fine = rng.normal(0, 6, (height, width, 3)) + 40 * (np.indices((height, width)).sum(0) % 37 < 3)[..., None]
    return np.clip(np.asarray(coarse) + fine, 0, 255).astype(np.uint8)[..., :channels]


def canvas(side, channels=3):
    return Canvas(height=side, width=side, channels=channels)


def pillow(image, side):
    squeezed = Image.fromarray(image.squeeze()).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(squeezed).reshape(side, side, -1).astype(int)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("height", "width"), [(150, 140), (150, 70), (200, 199), (60, 60), (100, 199), (128, 100)], ids=str
)
def test_a_squeezed_image_is_near_what_pillow_makes_of_it(height, width, channels):
    image = photo(height, width, channels)
    error = np.abs(canvas(100, channels).fit(image).astype(int) - pillow(image, 100))
    assert error.mean() < 0.8
    assert np.quantile(error, 0.99) <= 6


def test_without_the_taps_it_would_not_be():
    import cv2

    image = photo(190, 190)
    plain = cv2.resize(image, (100, 100), interpolation=cv2.INTER_LINEAR)
    assert np.abs(plain.astype(int) - pillow(image, 100)).mean() > 1.2


@pytest.mark.parametrize("shape", [(201, 100), (40, 350), (500, 500)], ids=str)
def test_an_image_of_more_than_twice_a_side_is_pillow_s_to_the_bit(shape):
    image = photo(*shape)
    across = Image.fromarray(image).resize((100, shape[0]), Image.Resampling.BILINEAR, box=(0, 0, shape[1], shape[0]))
    np.testing.assert_array_equal(canvas(100).fit(image), across.resize((100, 100), Image.Resampling.BILINEAR))


def test_an_image_of_the_canvas_s_size_stays_as_it_is():
    image = photo(100, 100)
    np.testing.assert_array_equal(canvas(100).fit(image), image)


@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_a_plain_image_stays_plain(value):
    assert (canvas(100).fit(np.full((171, 133, 3), value, np.uint8)) == value).all()


@pytest.mark.parametrize("shape", [(150, 140, 3), (150, 140), (100, 100, 1), (300, 80, 4)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_written_into_its_row_and_no_other(shape, channels):
    rows = np.full((3, 100, 100, channels), 7, np.uint8)
    image = np.random.default_rng(0).integers(50, 200, shape, np.uint8)
    canvas(100, channels).squeeze(image, rows[1])
    assert (rows[[0, 2]] == 7).all()
    np.testing.assert_array_equal(rows[1], canvas(100, channels).fit(image))
    assert rows[1].min() >= 40


@pytest.mark.parametrize(("height", "width"), [(201, 223), (333, 207), (401, 403), (805, 801)], ids=str)
def test_an_image_that_was_decoded_smaller_comes_near_the_whole_one_and_is_not_shifted(height, width):
    ramps = np.add.outer(np.arange(height) * 90 / height, np.arange(width) * 130 / width)
    stored = io.BytesIO()
    Image.fromarray((20 + ramps).astype(np.uint8)).save(stored, "JPEG", quality=98)
    read = decode_reduced(stored, "x", least=(100, 100))
    assert read.by == min(height, width) // 100
    out = np.empty((100, 100, 1), np.uint8)
    canvas(100, 1).squeeze_reduced(read, out)
    whole = canvas(100, 1).fit(decode_reduced(stored, "x").image)
    error = out.astype(int) - whole
    assert np.abs(error).mean() < 0.6
    assert abs(error[-20:, -20:].mean()) < 0.4  # a pixel too far would be 1.3 levels here


def test_a_long_thin_image_does_not_fill_the_memory():
    out = canvas(64).fit(np.full((1, 10**6, 3), 9, np.uint8))
    assert (out == 9).all()
    assert (canvas(64).fit(np.full((10**6, 1, 3), 9, np.uint8)) == 9).all()
