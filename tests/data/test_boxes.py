import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from jaxnets.data.boxes import Box, cut_box, least_for
from jaxnets.data.decode import decode_reduced
from jaxnets.data.sources.base import Reduced


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return load_sample_image("china.jpg")  # 427 × 640


def cut(image: Reduced, box: Box, size: tuple[int, int, int]) -> np.ndarray:
    out = np.empty(size, np.uint8)
    cut_box(image, box, out)
    return out


def difference(found: np.ndarray, image: np.ndarray, box: Box, kernel: Image.Resampling) -> np.ndarray:
    height, width = image.shape[:2]
    left, top = box.left * width, box.top * height
    corners = (left, top, left + box.width * width, top + box.height * height)
    pixels = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    wanted = np.asarray(pixels.resize(found.shape[1::-1], kernel, box=corners)).reshape(found.shape)
    return np.abs(found.astype(int) - wanted)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_box_is_resized_as_pillow_does_it(photograph, channels):
    image = photograph[..., :channels].copy()
    whole = Reduced(image, image.shape[:2])
    for top, left, height, width in [(0, 0, 427, 640), (100, 50, 224, 300), (7, 11, 61, 45), (227, 340, 200, 300)]:
        bilinear = Box(top / 427, left / 640, height / 427, width / 640, bicubic=False)
        found = difference(cut(whole, bilinear, (224, 224, channels)), image, bilinear, Image.Resampling.BILINEAR)
        assert found.mean() < 2.0  # this photograph is sharp to the pixel; OpenCV's resize alone is 2.4 away
        assert np.percentile(found, 99) <= 13
        small = cut(whole, bilinear, (60, 90, channels))  # shrunk by more than three taps are for
        assert difference(small, image, bilinear, Image.Resampling.BILINEAR).mean() < 1.0
        bicubic = bilinear._replace(bicubic=True)
        found = difference(cut(whole, bicubic, (224, 200, channels)), image, bicubic, Image.Resampling.BICUBIC)
        assert found.max() <= 1


@pytest.mark.parametrize("side", [(1, 1), (2, 500), (500, 2)])
def test_images_of_a_pixel_s_width_are_cut(side):
    image = np.full((*side, 3), 77, np.uint8)
    for box in ((0, 0, 1, 1), (0.9, 0.9, 0.1, 0.1), (0.999, 0.0, 0.001, 1.0)):
        for bicubic in (False, True):
            assert (cut(Reduced(image, side), Box(*box, bicubic), (8, 8, 3)) == 77).all()


def test_a_large_jpeg_is_decoded_as_small_as_its_box_allows(photograph):
    content = io.BytesIO()
    large = Image.fromarray(photograph).resize((1280, 854))
    large.save(content, "JPEG", quality=95)
    decoded = decode_reduced(content, "it").image
    for box, by in (((0, 0, 1, 1), 4), ((0.2, 0.3, 0.5, 0.5), 2), ((0.1, 0.1, 0.3, 0.2), 1)):
        read = decode_reduced(content, "it", least=least_for(lambda aspect, box=box: Box(*box, False), 200, 200))
        assert (read.by, read.original) == (by, (854, 1280))
        found = cut(read, Box(*box, False), (200, 200, 3))
        assert difference(found, decoded, Box(*box, False), Image.Resampling.BILINEAR).mean() < 2.0
