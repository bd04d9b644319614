"""Random erasing and cutout: which boxes are drawn, and what stands in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.preprocess import Preprocess
from jaxnets.recipe.augment.box import around, covered
from jaxnets.recipe.augment.cutout import Cutout
from jaxnets.recipe.augment.erasing import Erasing
from jaxnets.recipe.augment.op import keys_of

SEEN = Preprocess(height=32, width=24, channels=3, mean=(0.5, 0.4, 0.3), std=(0.02, 0.05, 1.0))
MEAN = np.array([128, 102, 76], np.uint8)  # 255 · mean, halves to even
COUNT = 1500
IMAGES = np.full((COUNT, 32, 24, 3), 255, np.uint8)  # no fill is that bright in the first two channels


def keys(count: int = COUNT, epoch: int = 0, seed: int = 0):
    index = np.arange(count, dtype=np.int32)
    return keys_of(0, seed=seed, epoch=np.full(count, epoch, np.int32), index=index)


def changed(spec, images=IMAGES, **drawn):
    return np.asarray(jax.jit(spec.bind(SEEN).__call__)(keys(len(images), **drawn), images))


def extents(erased):
    """Returns the height and width of what is erased of each image, asserting that each is a full box."""
    down, across = erased.any(2), erased.any(1)
    assert (erased == down[:, :, None] & across[:, None, :]).all()
    return down.sum(1), across.sum(1)


def timms_boxes(count: int, area, aspect) -> np.ndarray:
    """Heights and widths as `timm.data.random_erasing` 1.0.31 draws them for images of 32 × 24."""
    random, boxes = np.random.default_rng(1), []
    for _ in range(count):
        for _ in range(10):
            pixels = random.uniform(*area) * 32 * 24
            shape = np.exp(random.uniform(*np.log(aspect)))
            tall, wide = round(np.sqrt(pixels * shape)), round(np.sqrt(pixels / shape))
            if tall < 32 and wide < 24:
                boxes.append((tall, wide))
                break
        else:
            boxes.append((0, 0))
    return np.array(boxes)


def test_boxes_are_clipped_at_the_border_and_odd_ones_end_later():
    assert [int(x) for x in around(jnp.int32(1), jnp.int32(5), 10)] == [0, 4]
    assert [int(x) for x in around(jnp.int32(8), jnp.int32(4), 10)] == [6, 10]
    box = covered(*(jnp.int32(x) for x in (1, 3, -2, 2)), 4, 3)
    np.testing.assert_array_equal(box, [[0, 0, 0], [1, 1, 0], [1, 1, 0], [0, 0, 0]])
    assert not covered(*(jnp.int32(x) for x in (2, 1, 0, 3)), 4, 3).any()


@pytest.mark.parametrize(("area", "aspect"), [((0.02, 1 / 3), (0.3, 1 / 0.3)), ((0.3, 0.9), (0.5, 4.0))])
def test_erased_boxes_have_the_sizes_of_timms(area, aspect):
    erase = Erasing(probability=1.0, area=area, aspect=aspect).bind(SEEN)
    drawn = jax.jit(jax.vmap(lambda key: erase.draw(key, jnp.int32(1), 32, 24)))(keys(8000).each_epoch)
    top, left, tall, wide = (np.asarray(x) for x in drawn)
    expected = timms_boxes(8000, area, aspect)
    for found, reference in ((tall, expected[:, 0]), (wide, expected[:, 1]), (tall * wide, expected.prod(1))):
        deviation = reference.std() / np.sqrt(4000)  # of the difference of two means of 8,000
        assert found.mean() == pytest.approx(reference.mean(), abs=5 * deviation)
        np.testing.assert_allclose(
            np.quantile(found, [0.1, 0.5, 0.9]), np.quantile(reference, [0.1, 0.5, 0.9]), rtol=0.12, atol=1
        )
    assert (top >= 0).all()
    assert (top + tall <= 32).all()
    assert (left + wide <= 24).all()
    free = (tall > 0) & (tall < 30)
    assert np.mean(top[free] / (32 - tall[free])) == pytest.approx(0.5, abs=0.03)  # anywhere


def test_a_share_of_the_images_is_erased_by_a_box_within_them():
    spec = Erasing(probability=0.4)
    erased = (changed(spec) == MEAN).all(-1)
    tall, wide = extents(erased)
    assert (tall > 0).mean() == pytest.approx(0.4, abs=0.065)  # 5 standard deviations
    assert (tall * wide)[tall > 0].max() <= 32 * 24 * 0.36
    assert ((changed(spec) == 255).all(-1) == ~erased).all()


def test_several_boxes_share_the_area():
    one, three = (
        (changed(Erasing(probability=1.0, area=(0.3, 0.3), count=count)) != 255).any(-1).mean((1, 2))
        for count in (1, 3)
    )
    assert one.mean() == pytest.approx(0.3, abs=0.01)
    assert 0.22 < three.mean() < 0.3  # less by what they cover twice
    assert len(np.unique(three)) > 20


@pytest.mark.parametrize("fill", ["noise", "colour"])
def test_noise_has_the_mean_and_deviation_of_the_data_and_is_clipped_to_levels(fill):
    out = changed(Cutout(side=24, whole=True, fill=fill))
    boxes = out[(out != 255).any(-1)].reshape(COUNT, -1, 3) / 255.0  # 24 × 24 pixels each
    same = (boxes == boxes[:, :1]).all((1, 2))
    assert same.all() if fill == "colour" else not same.any()
    np.testing.assert_allclose(boxes[:, 0, :2].mean(0), SEEN.mean[:2], atol=0.0065)  # 5 standard deviations
    np.testing.assert_allclose(boxes[:, 0, :2].std(0), SEEN.std[:2], rtol=0.1)
    assert np.mean(boxes[:, 0, 2] == 0) == pytest.approx(0.382, abs=0.065)  # clipped: N(0, 1) below −0.3
    assert np.mean(boxes[:, 0, 2] == 1) == pytest.approx(0.242, abs=0.055)  # and above 0.7


def test_cutouts_centre_is_any_pixel_and_the_border_clips():
    out = changed(Cutout(side=7, fill="black"))
    tall, wide = extents((out == 0).all(-1))
    assert set(tall) == set(wide) == {4, 5, 6, 7}
    assert np.mean(tall == 7) == pytest.approx(26 / 32, abs=0.05)
    covering = (out == 0).all(-1).mean(0)
    assert covering[16, 12] == pytest.approx(49 / (32 * 24), abs=0.032)
    assert covering[0, 0] == pytest.approx(16 / (32 * 24), abs=0.02)


def test_a_whole_cutout_lies_within_the_image():
    out = changed(Cutout(share=0.5, whole=True, probability=0.5, fill="black"))
    tall, wide = extents((out == 0).all(-1))
    assert set(zip(tall.tolist(), wide.tolist(), strict=True)) == {(0, 0), (12, 12)}
    assert (tall == 12).mean() == pytest.approx(0.5, abs=0.065)
    assert (out[:, :12, :12] == 0).all((1, 2, 3)).any()  # in the corner too


@pytest.mark.parametrize("spec", [Erasing(probability=0.5, fill="noise"), Cutout(side=9, fill="colour")])
def test_what_is_taken_out_is_a_function_of_seed_epoch_and_index(spec):
    op, images = jax.jit(spec.bind(SEEN).__call__), IMAGES[:24]
    first, order = np.asarray(op(keys(24), images)), np.random.default_rng(0).permutation(24)
    np.testing.assert_array_equal(op(jax.tree.map(lambda x: x[order], keys(24)), images), first[order])
    assert not np.array_equal(first, op(keys(24, epoch=1), images))
    assert not np.array_equal(first, op(keys(24, seed=1), images))


def test_boxes_that_do_nothing_are_no_ops():
    assert Erasing().bind(SEEN) is None
    assert Cutout().bind(SEEN) is None
    assert Cutout(side=8, probability=0.0).bind(SEEN) is None
