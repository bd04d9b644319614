from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from jaxnets.data.canvas import Canvas, choose_canvas
from jaxnets.preprocess import Preprocess
from jaxnets.recipe.augment.cut import CentreCut, cut_out
from jaxnets.recipe.augment.flip import Flip, Mirrored
from jaxnets.recipe.augment.op import keys_of
from jaxnets.recipe.augment.random_resized_crop import RandomCut, draw_box

SQUARE = Preprocess(height=128, width=128, channels=3, mean=(0.5,) * 3, std=(0.2,) * 3)


def keys(count: int = 1, epoch: int = 0):
    index = np.arange(count, dtype=np.int32)
    return keys_of(0, seed=0, epoch=index * 0 + epoch, index=index)


def smooth(height: int, width: int) -> np.ndarray:
    """An image without detail finer than its sixth part, which every canvas holds."""
    y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    waves = np.sin(6 * y + np.array([0, 1, 2])) * np.cos(5 * x + np.array([2, 0, 1]))
    return np.round(127 + 100 * waves).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(240, 240), (240, 480), (600, 200), (133, 389), (100, 120)])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"crop_fraction": 0.875},
        {"fitting": "squeeze", "crop_fraction": 0.8},
        {"height": 96, "width": 192},
        {"interpolation": "bicubic"},
    ],
)
def test_the_centre_cut_of_a_canvas_is_what_evaluation_sees(height, width, fields):
    preprocess = Preprocess(**{**SQUARE.to_json(), **fields})
    image, canvas = smooth(height, width), choose_canvas(preprocess, None, None)
    found = CentreCut.of(preprocess)(keys(), canvas.fit(image)[None], np.array([width / height], np.float32))
    difference = np.abs(np.asarray(found)[0].astype(int) - preprocess.fit(image))
    assert difference.mean() < 1.0  # level of 256: evaluation rounds resized sides and corners to whole pixels
    assert difference.max() <= 6


@pytest.mark.parametrize(("height", "width"), [(240, 240), (240, 480), (600, 200)])
def test_the_centre_cut_of_a_padded_image_has_its_bars(height, width):
    preprocess = Preprocess(**{**SQUARE.to_json(), "fitting": "pad", "mean": (0.1, 0.5, 0.9)})
    image, canvas = smooth(height, width), choose_canvas(preprocess, None, None)
    found = CentreCut.of(preprocess)(keys(), canvas.fit(image)[None], np.array([width / height], np.float32))
    difference = np.abs(np.asarray(found)[0].astype(int) - preprocess.fit(image))
    assert np.quantile(difference, 0.98) <= 6  # a bar ends at a whole pixel in evaluation


BOXES = [(0, 0, 40, 50), (7.5, 3.25, 20, 31), (10, 10, 5, 5), (0, 45, 40, 5)]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
def test_a_box_is_resized_as_pillow_does(box, filter):
    image = smooth(40, 50)
    resized = by_pillow(image, box, filter, 12, 16)
    share = np.array([box], np.float32) / np.array([40, 50, 40, 50], np.float32)
    found = np.asarray(cut_out(image[None], share, 12, 16, bicubic=filter == "bicubic"))[0]
    assert np.abs(found.astype(int) - resized).max() <= 1


def by_pillow(image, box, filter, height, width) -> np.ndarray:
    """Across first, then down, as Pillow resizes wide images and, since its version 13, not tall ones."""
    top, left, rows, columns = box
    method = getattr(Image.Resampling, filter.upper())
    across = Image.fromarray(image).resize((width, len(image)), method, box=(left, 0, left + columns, len(image)))
    return np.asarray(across.resize((width, height), method, box=(0, top, width, top + rows))).astype(int)


@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
def test_random_boxes_of_photographs_are_resized_as_pillow_does(filter):
    count = 200
    index = np.arange(count, dtype=np.int32)
    keys = keys_of(0, seed=1, epoch=index * 0, index=index).each_epoch
    photographs = load_sample_images().images  # 427 × 640
    cut = jax.jit(partial(cut_out, height=224, width=224, bicubic=filter == "bicubic"))
    boxes = jax.vmap(partial(draw_box, area=(0.08, 1.0), ratio=(3 / 4, 4 / 3)))(keys, np.full(count, 640 / 427, "f"))
    for number, box in enumerate(np.asarray(boxes)):
        image = photographs[number % 2]
        expected = by_pillow(image, box * np.array([427, 640, 427, 640], np.float32), filter, 224, 224)
        found = np.asarray(cut(image[None], box[None]))[0]
        assert np.abs(found - expected).max() <= 2


def test_a_mirrored_cut_is_the_mirror_image_of_the_cut():
    image, box = np.repeat(smooth(40, 50)[None], 4, 0), np.full((4, 4), [0.1, 0.2, 0.5, 0.7], np.float32)
    across, down = np.array([False, True, False, True]), np.array([False, False, True, True])
    plain, *others = np.asarray(cut_out(image, box, 12, 16, mirrored=Mirrored(across, down)))
    for found, expected in zip(others, (plain[:, ::-1], plain[::-1], plain[::-1, ::-1]), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_whole_of_a_canvas_at_its_own_size_is_the_canvas():
    noise = np.random.default_rng(0).integers(0, 256, (2, 8, 9, 1), np.uint8)
    for filter in ("bilinear", "bicubic"):
        cut = CentreCut(height=8, width=9, rows=8, columns=9, fitting="crop", fill=(0,), filter=filter)
        np.testing.assert_array_equal(cut(keys(2), noise, np.full(2, 9 / 8, np.float32)), noise)


def statistics(aspect: float, area: tuple[float, float], count: int = 100_000) -> np.ndarray:
    """Returns the boxes' area, logarithm of their aspect in the original, and corner, in shares of it."""
    keys = jax.random.split(jax.random.key(3), count)
    draw = jax.jit(jax.vmap(partial(draw_box, area=area, ratio=(3 / 4, 4 / 3))))
    top, left, height, width = np.asarray(draw(keys, np.full(count, aspect, np.float32))).T
    assert min(top.min(), left.min()) >= 0
    assert max((top + height).max(), (left + width).max()) <= 1 + 1e-6
    return np.stack([height * width, np.log(width * aspect / height), top, left])


def by_the_definition(aspect: float, area: tuple[float, float], count: int = 100_000) -> np.ndarray:
    """The same by torchvision's rule (`RandomResizedCrop.get_params`), in an image of countless pixels."""
    rng = np.random.default_rng(0)
    size = np.array([1 / aspect, 1.0])  # height and width of the image
    found = np.zeros((count, 2))  # height and width of the boxes
    waiting = np.arange(count)
    for _ in range(10):
        areas = rng.uniform(*area, len(waiting)) * size.prod()
        shapes = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), len(waiting)))
        tries = np.sqrt(np.stack([areas / shapes, areas * shapes], 1))
        fits = (tries <= size).all(1)
        found[waiting[fits]] = tries[fits]
        waiting = waiting[~fits]
    found[waiting] = np.minimum(size, size[::-1] * [1 / (3 / 4), 4 / 3])  # the largest centre crop within the ratio
    place = rng.uniform(size=(count, 2))
    place[waiting] = 0.5
    corner = place * (size - found) / size
    return np.stack([(found / size).prod(1), np.log(found[:, 1] / found[:, 0]), *corner.T])


@pytest.mark.parametrize("aspect", [1.0, 1.5, 0.4, 3.0])
@pytest.mark.parametrize("area", [(0.08, 1.0), (0.35, 1.0), (0.9, 1.0)])
def test_boxes_are_distributed_as_torchvisions(aspect, area):
    found, expected = statistics(aspect, area), by_the_definition(aspect, area)
    assert found[0].mean() == pytest.approx(expected[0].mean(), rel=0.01)
    assert np.exp(found[1]).mean() == pytest.approx(np.exp(expected[1]).mean(), rel=0.01)
    np.testing.assert_allclose(found[2:].mean(1), expected[2:].mean(1), atol=0.005)
    np.testing.assert_allclose(
        np.quantile(found, [0.1, 0.5, 0.9], 1), np.quantile(expected, [0.1, 0.5, 0.9], 1), atol=0.02
    )


def test_what_is_cut_depends_on_seed_epoch_and_index_alone():
    cut = RandomCut(
        height=8, width=8, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3), filter="random", flip=Flip(horizontal=0.5)
    )
    canvases = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 1), np.uint8)
    aspects = np.linspace(0.5, 2, 6, dtype=np.float32)
    epochs, index = np.zeros(6, np.int32), np.arange(6, dtype=np.int32)

    def run(seed=0, epochs=epochs, rows=slice(None)):
        drawn = keys_of(0, seed=seed, epoch=epochs[rows], index=index[rows])
        return np.asarray(jax.jit(cut)(drawn, canvases[rows], aspects[rows]))

    whole = run()
    np.testing.assert_array_equal(run(rows=slice(2, 5)), whole[2:5])
    for other in (run(seed=1), run(epochs=epochs + 1)):
        assert all(not np.array_equal(a, b) for a, b in zip(whole, other, strict=True))


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
