import itertools

import numpy as np
import pytest

from jaxnets.answer import activated
from jaxnets.select.__main__ import _NAMES
from jaxnets.select.centres import k_centre
from jaxnets.select.gradients import plus_plus
from jaxnets.select.methods import METHODS, Pool, entropies, errors, margins

RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.standard_normal((60, 8)).astype(np.float32)
LOGITS = RANDOM.standard_normal((60, 4)).astype(np.float32)


def pool(**options) -> Pool:
    kept = {"probabilities": activated(LOGITS, "softmax"), "labelled": VECTORS[:0], **options}
    return Pool(vectors=VECTORS, **kept)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("count", [1, 7, 60])
def test_a_method_chooses_as_many_images_as_asked_for_each_once_and_the_same_again(method, several, count):
    given = pool(several_labels=several, seed=3)
    found = METHODS[method](given, count).images
    assert len(set(found.tolist())) == count
    assert set(found.tolist()) <= set(range(60))
    np.testing.assert_array_equal(found, METHODS[method](given, count).images)


@pytest.mark.parametrize("method", METHODS)
def test_images_that_are_all_the_same_can_be_chosen_from(method):
    same = Pool(np.ones((9, 3), np.float32), np.full((9, 2), 0.5), np.zeros((0, 3), np.float32))
    assert sorted(METHODS[method](same, 9).images.tolist()) == list(range(9))
    assert len(set(METHODS[method](same, 4).images.tolist())) == 4


def test_margin_and_entropy_are_those_of_the_closed_form():
    p = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    given = Pool(VECTORS[:3], p, VECTORS[:0])
    np.testing.assert_allclose(margins(given), [0.2, 1, 0], atol=1e-12)
    expected = [-(0.5 * np.log(0.5) + 0.3 * np.log(0.3) + 0.2 * np.log(0.2)), 0, np.log(3)]
    np.testing.assert_allclose(entropies(given), expected, atol=1e-9)
    assert METHODS["margin"](given, 3).images.tolist() == [2, 0, 1]
    assert METHODS["entropy"](given, 3).images.tolist() == [2, 0, 1]


def test_of_several_labels_the_one_nearest_to_its_threshold_decides():
    p = np.array([[0.9, 0.35], [0.5, 0.1], [0.99, 0.01]])
    given = Pool(VECTORS[:3], p, VECTORS[:0], several_labels=True, thresholds=(0.5, 0.3))
    np.testing.assert_allclose(margins(given), [0.05, 0, 0.29], atol=1e-12)
    np.testing.assert_allclose(errors(given), [[-0.1, -0.65], [0.5, 0.1], [-0.01, 0.01]], atol=1e-6)


def test_the_error_is_the_gradient_of_the_loss_by_the_logits():
    import jax
    import jax.numpy as jnp

    answers = LOGITS.argmax(1)
    gradient = jax.grad(lambda z: -jax.nn.log_softmax(z)[jnp.arange(60), answers].sum())(jnp.asarray(LOGITS))
    np.testing.assert_allclose(errors(pool()), gradient, atol=1e-6)


def test_badge_draws_as_k_means_plus_plus_on_the_whole_gradients():
    found = plus_plus(errors(pool()), VECTORS, 12, np.random.default_rng(5))
    whole = np.einsum("nc,nf->ncf", errors(pool()), VECTORS).reshape(60, -1).astype(np.float64)
    random = np.random.default_rng(5)
    expected = [int(np.linalg.norm(whole, axis=1).argmax())]
    while len(expected) < 12:
        nearest = np.min([np.square(whole - whole[i]).sum(1) for i in expected], axis=0)
        nearest[expected] = 0
        expected.append(int(random.choice(60, p=nearest / nearest.sum())))
    assert found.tolist() == expected


def test_the_greatest_distance_from_a_centre_is_at_most_twice_the_best():
    points = RANDOM.standard_normal((12, 2)).astype(np.float32)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)

    def radius(centres) -> float:
        return distance[:, list(centres)].min(1).max()

    best = min(radius(centres) for centres in itertools.combinations(range(12), 3))
    assert best <= radius(k_centre(points, points[:0], 3)) <= 2 * best


def test_k_centre_goes_first_to_what_is_farthest_from_all_that_has_a_label():
    line = np.array([[0.0], [1.0], [5.0], [9.0]], np.float32)
    assert k_centre(line, np.array([[0.0]], np.float32), 2).tolist() == [3, 2]
    assert k_centre(line, np.array([[9.0]], np.float32), 2).tolist() == [0, 2]


def test_a_mix_takes_unsure_images_that_differ():
    # Two places with unsure images, one of them with nine of ten; a sure one far off.
    vectors = np.concatenate([np.zeros((9, 2)), np.ones((1, 2)), np.full((90, 2), 50.0)]).astype(np.float32)
    vectors[:9] += np.arange(9)[:, None] * 1e-3
    sure = np.concatenate([np.full(10, 0.5), np.full(90, 0.999)])
    given = Pool(vectors, np.stack([sure, 1 - sure], 1), vectors[:0])
    found = set(METHODS["mix"](given, 1).images.tolist())
    assert found <= set(range(10))
    by_margin = METHODS["margin"](given, 2).images.tolist()
    assert by_margin == [0, 1]  # two that are the same, nearly
    some = Pool(vectors[:20], np.stack([sure, 1 - sure], 1)[:20], vectors[:0])
    assert 9 in METHODS["mix"](some, 2).images.tolist() or 50 in vectors[METHODS["mix"](some, 2).images]


def test_the_command_offers_all_methods():
    assert tuple(METHODS) == _NAMES
