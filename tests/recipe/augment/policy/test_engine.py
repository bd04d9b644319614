from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from PIL import Image, ImageEnhance, ImageOps

from jaxnets.recipe.augment.policy.blend import blend, smooth_of_padded, smooth_of_slices
from jaxnets.recipe.augment.policy.choose import choose
from jaxnets.recipe.augment.policy.dialect import Dialect
from jaxnets.recipe.augment.policy.engine import apply
from jaxnets.recipe.augment.policy.layer import Kind, Layer
from jaxnets.recipe.augment.policy.lookup import (
    count_by_products,
    count_by_scattering,
    look_up_by_choosing,
    look_up_by_gathering,
)
from jaxnets.recipe.augment.policy.tables import autocontrast
from jaxnets.recipe.augment.policy.warp import warp

FILL = (124, 116, 104)
PILLOW = Dialect()
FACTORS = (0.0, 0.1, 0.37, 1.0, 1.63, 1.9)
POINTWISE = {
    Kind.IDENTITY: (0.0,),
    Kind.POSTERIZE: (0, 1, 3, 8),
    Kind.SOLARIZE: (0, 26, 178.5, 256),
    Kind.SOLARIZE_ADD: (0, 99, 128),
    Kind.INVERT: (0,),
    Kind.AUTOCONTRAST: (0,),
    Kind.EQUALIZE: (0,),
    Kind.BRIGHTNESS: FACTORS,
    Kind.CONTRAST: FACTORS,
    Kind.COLOR: FACTORS,
    Kind.SHARPNESS: FACTORS,
}
GEOMETRIC = {
    Kind.SHEAR_X: (0.27, -0.3),
    Kind.SHEAR_Y: (0.27, -0.31),
    Kind.TRANSLATE_X: (5.3, -7.0),
    Kind.TRANSLATE_Y: (5.3, -7.0),
    Kind.ROTATE: (27.0, -30.0, 135.0),
}


def waves(height: int = 33, width: int = 47, channels: int = 3) -> np.ndarray:
    y, x, c = np.mgrid[:height, :width, :channels]
    return (127 + 120 * np.sin(y / 5 + c) * np.cos(x / 7 - c)).astype(np.uint8)


def images(channels: int = 3) -> list[np.ndarray]:
    """Returns images with all levels, with few of them and with one."""
    noise = np.random.default_rng(0).integers(0, 256, (33, 47, channels), np.uint8)
    return [noise, noise // 3 + np.uint8(60), np.full_like(noise, 77), waves(channels=channels)]


def pillow(image: np.ndarray, kind: Kind, amount: float, filter: str = "bilinear", fill=FILL) -> np.ndarray:
    """Returns what Pillow makes of an image."""
    grey = image.shape[-1] == 1
    own = Image.fromarray(image[..., 0] if grey else image)
    moved = {"resample": Image.Resampling[filter.upper()], "fillcolor": fill[0] if grey else fill}
    if kind == Kind.ROTATE:
        made = own.rotate(amount, **moved)
    elif kind in GEOMETRIC:
        matrix = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        matrix[{Kind.SHEAR_X: 1, Kind.SHEAR_Y: 3, Kind.TRANSLATE_X: 2, Kind.TRANSLATE_Y: 5}[kind]] = amount
        made = own.transform(own.size, Image.Transform.AFFINE, matrix, **moved)
    elif kind in (Kind.BRIGHTNESS, Kind.CONTRAST, Kind.COLOR, Kind.SHARPNESS):
        made = getattr(ImageEnhance, kind.name.capitalize())(own).enhance(amount)
    elif kind == Kind.POSTERIZE:
        made = ImageOps.posterize(own, int(amount)) if amount else own.point(lambda _: 0)  # refused by Pillow 13
    elif kind == Kind.SOLARIZE:
        made = ImageOps.solarize(own, amount)
    elif kind == Kind.SOLARIZE_ADD:
        made = own.point([min(255, x + int(amount)) if x < 128 else x for x in range(256)] * image.shape[-1])
    else:
        made = getattr(ImageOps, kind.name.lower())(own) if kind != Kind.IDENTITY else own
    return np.asarray(made).reshape(image.shape)


def layer(kinds, amounts) -> Layer:
    return Layer(np.array(kinds, np.int32), np.array(amounts, np.float32))


@partial(jax.jit, static_argnames=("fill", "dialect"))
def applied(images, layers, fill=FILL, dialect=PILLOW):
    return apply(images, layers, fill, dialect)


@pytest.mark.parametrize("channels", [3, 1])
def test_ops_that_are_not_geometric_are_pillows_to_the_bit(channels):
    cases = [(image, *case) for image in images(channels) for case in _cases(POINTWISE)]
    own, kinds, amounts = zip(*cases, strict=True)
    found = np.asarray(applied(np.stack(own), [layer(kinds, amounts)], FILL[:channels]))
    for made, case in zip(found, cases, strict=True):
        np.testing.assert_array_equal(made, pillow(*case), err_msg=str(case[1:]))


@pytest.mark.parametrize("filter", ["bilinear", "nearest"])
@pytest.mark.parametrize("channels", [3, 1])
def test_geometric_ops_are_pillows_within_a_level(filter, channels):
    cases = _cases(GEOMETRIC)
    kinds, amounts = zip(*cases, strict=True)
    image = waves(channels=channels)
    batch = np.broadcast_to(image, (len(cases), *image.shape))
    found = np.asarray(applied(batch, [layer(kinds, amounts)], FILL[:channels], Dialect(filter=filter))).astype(int)
    for made, case in zip(found, cases, strict=True):
        difference = np.abs(made - pillow(image, *case, filter))
        # Pillow counts in 16ths of a bit where it takes the nearest pixels: those that lie between two may differ.
        assert (difference > (1 if filter == "bilinear" else 0)).mean() < 0.004, case
        assert np.median(difference) == 0


def _cases(ops: dict[Kind, tuple[float, ...]]) -> list[tuple[Kind, float]]:
    return [(kind, amount) for kind, amounts in ops.items() for amount in amounts]


PAIRS = [
    (Kind.ROTATE, 20, Kind.INVERT, 0),  # the bare corners are inverted
    (Kind.INVERT, 0, Kind.ROTATE, 20),  # they are not
    (Kind.SHEAR_X, 0.3, Kind.EQUALIZE, 0),  # the fill counts in the histogram
    (Kind.EQUALIZE, 0, Kind.SHEAR_X, 0.3),
    (Kind.SOLARIZE, 100, Kind.POSTERIZE, 3),
    (Kind.COLOR, 0.2, Kind.SHARPNESS, 1.9),
    (Kind.TRANSLATE_X, 7, Kind.TRANSLATE_Y, -5),  # whole pixels: nothing is blurred
    (Kind.TRANSLATE_X, 40, Kind.TRANSLATE_X, -40),  # what has left does not come back
    (Kind.IDENTITY, 0, Kind.IDENTITY, 0),
]


def test_two_ops_are_applied_in_their_order():
    image = waves()
    first, second = (layer(*zip(*[pair[i : i + 2] for pair in PAIRS], strict=True)) for i in (0, 2))
    found = np.asarray(applied(np.broadcast_to(image, (len(PAIRS), *image.shape)), [first, second])).astype(int)
    for made, (kind, amount, then, other) in zip(found, PAIRS, strict=True):
        difference = np.abs(made - pillow(pillow(image, kind, amount), then, other))
        # A level more or less after a warp is a step in the equalised image.
        far = 1 if then != Kind.EQUALIZE else 8
        assert (difference > far).mean() < 0.004, (kind, then)


def test_two_turns_that_cancel_bring_an_image_back():
    turns = np.linspace(5, 60, 32).astype(np.float32)
    batch = np.broadcast_to(waves(16, 20).clip(1), (32, 16, 20, 3))
    kinds = np.full(32, Kind.ROTATE, np.int32)
    found = np.asarray(applied(batch, [Layer(kinds, turns), Layer(kinds, -turns)], (0, 0, 0))).astype(int)
    bare = (found == 0).all(-1, keepdims=True)  # turned out of the image
    assert bare.mean() < 0.3
    # Each pixel comes from within rounding of itself: it may be neither its neighbour nor blended with the wrong one.
    assert np.abs(np.where(bare, 0, found - batch)).max() <= 1


def test_three_ops_are_those_of_one_after_the_other():
    random = np.random.default_rng(1)
    pairs = np.array([(a, b) for a in GEOMETRIC for b in GEOMETRIC]).T  # one warp for both
    kinds = np.concatenate([np.stack([*pairs, random.integers(1, 17, 25)]), random.integers(1, 17, (3, 24))], 1)
    amounts = np.where(
        kinds == Kind.ROTATE, 21.0, np.where(kinds <= Kind.SHEAR_Y, 0.25, random.uniform(0.2, 3, (3, 49)))
    )
    layers = [layer(*both) for both in zip(kinds, amounts, strict=True)]
    batch, dialect = np.broadcast_to(waves(16, 20), (49, 16, 20, 3)), Dialect(filter="nearest")
    singly = batch
    for one in layers:
        singly = applied(singly, [one], FILL, dialect)
    np.testing.assert_array_equal(applied(batch, layers, FILL, dialect), singly)


@pytest.mark.parametrize(("filter", "pair"), [("bilinear", False), ("bilinear", True), ("nearest", True)])
def test_the_warp_of_a_tpu_is_the_one_that_gathers(filter, pair, monkeypatch):
    random, count = np.random.default_rng(0), 40
    kinds = random.integers(Kind.SHEAR_X, Kind.ROTATE + 1, (2, count))
    most = np.select(
        [kinds <= Kind.SHEAR_Y, kinds <= Kind.TRANSLATE_Y], [0.3 if pair else 0.99, 9], 30 if pair else 135
    )
    amounts = random.uniform(-1, 1, kinds.shape) * most
    layers = [layer(*both) for both in zip(kinds, amounts, strict=True)][: 1 + pair]
    batch, dialect = np.broadcast_to(waves(20, 27), (count, 20, 27, 3)), Dialect(filter=filter)
    gathered = np.asarray(jax.jit(lambda x: warp(x, layers, FILL, dialect))(batch)).astype(int)
    monkeypatch.setattr(lax, "platform_dependent", lambda *given, tpu, default: tpu(*given))
    difference = np.abs(np.asarray(jax.jit(lambda x: warp(x, layers, FILL, dialect))(batch)) - gathered)
    assert difference.max() <= (2 if filter == "bilinear" else 0)  # levels: shares have 8 bits there
    assert difference.mean() < 0.4


def test_a_cutout_is_a_square_about_its_centre_within_the_image():
    centre = np.array([[0.5, 0.5], [0.0, 0.99]], np.float32)
    cut = Layer(np.full(2, Kind.CUTOUT, np.int32), np.full(2, 4, np.float32), centre)
    image = np.full((2, 20, 30, 3), 9, np.uint8)
    found = np.asarray(applied(image, [cut], (1, 2, 3), Dialect(filter="nearest")))
    expected = image.copy()
    expected[0, 6:14, 11:19] = expected[1, :4, 25:30] = (1, 2, 3)
    np.testing.assert_array_equal(found, expected)


def test_tensorflows_contrast_blends_with_the_images_area():
    image = waves(32, 40)
    found = applied(image[None], [layer([Kind.CONTRAST], [0.5])], FILL, Dialect(contrast_from_area=True))
    np.testing.assert_array_equal(found[0], (32 * 40 // 256 + 0.5 * (image.astype(int) - 5)).astype(int))


def test_tensorflows_shears_keep_the_centre_of_the_first_pixel():
    image = waves(9, 9)
    found = np.asarray(applied(image[None], [layer([Kind.SHEAR_X], [1.0])], FILL, Dialect(corner=0.0)))[0]
    for row in range(9):
        np.testing.assert_array_equal(found[row, : 9 - row], image[row, row:])


def test_autocontrast_is_pillows_for_every_lowest_and_highest_level():
    lowest, highest = np.triu_indices(256)
    histogram = np.zeros((len(lowest), 1, 256), np.int32)
    histogram[np.arange(len(lowest)), 0, lowest] = histogram[np.arange(len(lowest)), 0, highest] = 1
    levels, width = np.arange(256.0), np.maximum(highest - lowest, 1)
    scale = 255.0 / width[:, None]  # in float64, as Pillow's own loop
    expected = np.clip(np.trunc(levels * scale + -lowest[:, None] * scale), 0, 255)
    expected[highest == lowest] = levels
    np.testing.assert_array_equal(jax.jit(autocontrast)(histogram)[:, 0], expected)


@pytest.mark.parametrize("factor", [0.19, 0.37, 0.731, 1.27, 1.81])
def test_every_two_levels_blend_as_pillows(factor):
    first, second = np.mgrid[:256, :256].astype(np.uint8)
    expected = np.asarray(Image.blend(Image.fromarray(first), Image.fromarray(second), factor))
    found = jax.jit(blend)(first.astype(np.float32), second.astype(np.float32), np.float32(factor))
    np.testing.assert_array_equal(np.asarray(found), expected)


def test_products_count_and_choices_look_up_as_scatters_and_gathers_do():
    batch = np.stack(images())
    tables = np.random.default_rng(2).integers(0, 256, (4, 3, 256)).astype(np.int32)
    counts = count_by_scattering(batch)
    np.testing.assert_array_equal(counts[0, 1], np.bincount(batch[0, ..., 1].ravel(), minlength=256))
    np.testing.assert_array_equal(count_by_products(batch), counts)
    looked_up = look_up_by_gathering(batch, tables)
    np.testing.assert_array_equal(looked_up[1, ..., 2], tables[1, 2][batch[1, ..., 2]])
    np.testing.assert_array_equal(look_up_by_choosing(batch, tables), looked_up)


def test_smoothing_reads_padded_images_as_it_reads_slices():
    inner = np.s_[:, 1:-1, 1:-1]
    batch = np.stack(images())
    np.testing.assert_array_equal(smooth_of_padded(batch)[inner], smooth_of_slices(batch)[inner])


@pytest.mark.parametrize("count", [1, 2, 11, 16])
def test_bits_of_an_index_choose_what_it_numbers(count):
    random = np.random.default_rng(3)
    options = random.integers(0, 256, (count, 2, 5, 3), np.uint8)
    index = random.integers(0, count, (2, 5, 1), np.int32)
    found = choose(jnp.asarray(index), list(jnp.asarray(options)))
    np.testing.assert_array_equal(found, np.take_along_axis(options, index[None], 0)[0])
