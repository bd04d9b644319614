"""Which changes an image may go through and still be known, and that others are not taken for it."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxnets.audit.align import agreement
from jaxnets.audit.descriptor import TURNS, describe, turn, turn_images
from jaxnets.audit.look import look
from tests.audit.made import scene


def scenes(count):
    rng = np.random.default_rng(0)
    return [scene(rng) for _ in range(count)]


def thumbnails(images):
    return np.stack([look(np.asarray(image)).thumbnail for image in images])


def coarse(image):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=20)
    return Image.open(buffer).convert("RGB")


def cropped(share, left=0.5, top=0.5):
    def crop(image):
        width, height = round(image.width * share), round(image.height * share)
        x, y = round((image.width - width) * left), round((image.height - height) * top)
        return image.crop((x, y, x + width, y + height))

    return crop


@pytest.mark.parametrize(
    "change",
    [
        coarse,
        lambda image: image.reduce(3),
        lambda image: image.resize((224, 224)),
        lambda image: image.convert("L").convert("RGB"),
        lambda image: image.point(lambda value: int(255 * (value / 255) ** 1.6)),
        cropped(0.95, 0, 1),
        cropped(0.85),
    ],
    ids=["coarse", "smaller", "squeezed", "grey", "gamma", "cropped by 5 %", "cropped by 15 %"],
)
def test_a_changed_image_agrees_with_its_original_and_with_no_other(change):
    images = scenes(30)
    originals, changed = thumbnails(images), thumbnails(map(change, images))
    assert agreement(changed, originals).likeness.min() > 0.9
    assert agreement(changed, np.roll(originals, 1, 0)).likeness.max() < 0.8


def test_how_much_a_crop_keeps_is_said_whichever_of_the_two_is_cropped():
    images = scenes(20)
    whole, cut = thumbnails(images), thumbnails(map(cropped(0.9), images))
    for first, second in ((whole, cut), (cut, whole)):
        assert np.median(agreement(first, second).kept) == pytest.approx(0.81, abs=0.05)


def test_an_image_of_its_own_agrees_fully():
    whole = thumbnails(scenes(3))
    assert agreement(whole, whole).likeness == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("way", range(len(TURNS)))
def test_descriptors_turn_as_their_images_do(way):
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32)).astype(np.uint8)
    np.testing.assert_allclose(turn(describe(images), way), describe(turn_images(images, way)), atol=1e-5)


def test_ways_are_called_as_they_turn():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    pillow = Image.fromarray(image)
    expected = {
        "mirrored": ImageOps.mirror(pillow),
        "upside down": ImageOps.flip(pillow),
        "rotated by 180°": pillow.rotate(180),
        "rotated by 90°": pillow.rotate(-90, expand=True),
        "rotated by 270°": pillow.rotate(90, expand=True),
    }
    for name, turned in expected.items():
        assert (turn_images(image[None], TURNS.index(name))[0] == np.asarray(turned)).all(), name
