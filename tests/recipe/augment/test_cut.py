import numpy as np
import pytest
from PIL import Image

from jaxnets.data.canvas import Canvas, choose_canvas
from jaxnets.preprocess import Preprocess
from jaxnets.recipe.augment.cut import CentreCut, cut_out

SQUARE = Preprocess(height=128, width=128, channels=3, mean=(0.5,) * 3, std=(0.2,) * 3)


def smooth(height: int, width: int) -> np.ndarray:
    """An image without detail finer than its sixth part, which every canvas holds."""
    y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    waves = np.sin(6 * y + np.array([0, 1, 2])) * np.cos(5 * x + np.array([2, 0, 1]))
    return np.round(127 + 100 * waves).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(240, 240), (240, 480), (600, 200), (133, 389), (100, 120)])
@pytest.mark.parametrize(
    "fields", [{}, {"crop_fraction": 0.875}, {"keep_aspect": False, "crop_fraction": 0.8}, {"height": 96, "width": 192}]
)
def test_the_centre_cut_of_a_canvas_is_what_evaluation_sees(height, width, fields):
    preprocess = Preprocess(**{**SQUARE.to_json(), **fields})
    image, canvas = smooth(height, width), choose_canvas(preprocess, None, None)
    found = CentreCut.of(preprocess)(canvas.fit(image)[None], np.array([width / height], np.float32))
    difference = np.abs(np.asarray(found)[0].astype(int) - preprocess.fit(image))
    assert difference.mean() < 1.0  # level of 256: evaluation rounds resized sides and corners to whole pixels
    assert difference.max() <= 6


@pytest.mark.parametrize("box", [(0, 0, 40, 50), (7.5, 3.25, 20, 31), (10, 10, 5, 5), (0, 45, 40, 5)])
def test_a_box_is_resized_as_pillow_does(box):
    image = smooth(40, 50)
    top, left, height, width = box
    edges = (left, top, left + width, top + height)
    resized = Image.fromarray(image).resize((16, 12), Image.Resampling.BILINEAR, box=edges)
    found = np.asarray(cut_out(image[None], np.array([box], np.float32), 12, 16))[0]
    assert np.abs(found.astype(int) - np.asarray(resized)).max() <= 2  # Pillow rounds twice


def test_the_whole_of_a_canvas_at_its_own_size_is_the_canvas():
    noise = np.random.default_rng(0).integers(0, 256, (2, 8, 9, 1), np.uint8)
    cut = CentreCut(height=8, width=9, rows=8, columns=9, keep_aspect=True)
    np.testing.assert_array_equal(cut(noise, np.full(2, 9 / 8, np.float32)), noise)


def test_a_canvas_loses_nothing_of_an_image():
    image = np.zeros((10, 40, 1), np.uint8)
    image[:, :4] = image[:, -4:] = 200
    squeezed = Canvas(height=10, width=10, channels=1).fit(image)
    assert squeezed.shape == (10, 10, 1)
    assert (squeezed[:, [0, -1]] > 150).all()


@pytest.mark.parametrize(
    ("source", "asked", "expected"),
    [
        ((128, 128), None, (128, 128)),  # small and uniform: their own size
        ((256, 200), None, (256, 200)),
        ((300, 300), None, (160, 160)),  # far above the model's
        (None, None, (160, 160)),
        (None, 50, (50, 50)),
        ((32, 32), (16, 48), (16, 48)),
    ],
)
def test_the_canvas_follows_from_the_images_unless_it_is_asked_for(source, asked, expected):
    canvas = choose_canvas(SQUARE, source, asked)
    assert (canvas.height, canvas.width) == expected
