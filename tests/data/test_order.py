import numpy as np
import pytest

from jaxnets.data.order import Order, permutation, shares_of_an_epoch

TEN = np.zeros(10, np.int32)
UNEVEN = np.repeat(np.arange(4), [60, 30, 9, 1])


def test_every_epoch_shows_each_example_once():
    index, epoch = Order(0, TEN).draw(0, 30)
    for e in range(3):
        assert sorted(index[epoch == e]) == list(range(10))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(permutation(seed, epoch, 50)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("batch", [1, 3, 7, 25])
def test_batches_of_any_size_follow_one_another_without_gap(batch, balance):
    order = Order(1, UNEVEN, balance)
    whole = order.draw(0, 250)
    parts = [Order(1, UNEVEN, balance).draw(start, min(batch, 250 - start)) for start in range(0, 250, batch)]
    for i in range(2):
        np.testing.assert_array_equal(np.concatenate([part[i] for part in parts]), whole[i])


def test_the_order_never_changes_between_versions():
    assert permutation(0, 0, 10).tolist() == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]


def test_the_balanced_order_never_changes_between_versions():
    index, passes = Order(0, np.array([0, 0, 0, 0, 1, 1, 2, 2]), 1.0).draw(0, 8)
    assert (index.tolist(), passes.tolist()) == ([4, 3, 0, 6, 2, 7, 5, 5], [0, 0, 0, 0, 0, 0, 0, 1])


@pytest.mark.parametrize(
    ("balance", "expected"), [(0.0, [60, 30, 9, 1]), (1.0, [25, 25, 25, 25]), (0.5, [46, 32, 18, 4])]
)
def test_balance_leads_from_the_shares_that_there_are_to_equal_ones(balance, expected):
    shares = shares_of_an_epoch(np.bincount(UNEVEN), balance)
    assert shares.sum() == 100
    assert np.abs(shares - expected).max() <= 2
    index, _ = Order(0, UNEVEN, balance).draw(0, 300)
    if balance:
        np.testing.assert_array_equal(np.bincount(UNEVEN[index]), 3 * shares)


def test_a_balanced_order_shows_all_examples_of_a_class_equally_often():
    index, passes = Order(0, UNEVEN, 1.0).draw(0, 1000)
    seen = np.bincount(index, minlength=100)
    for label in range(4):
        of_class = seen[label == UNEVEN]
        assert of_class.max() - of_class.min() <= 1
    assert len(set(zip(index.tolist(), passes.tolist(), strict=True))) == 1000  # each time with a pass of its own


def test_a_class_without_examples_has_no_share_and_a_rare_one_has_one():
    np.testing.assert_array_equal(shares_of_an_epoch(np.array([1000, 0, 1]), 0.01) > 0, [True, False, True])


@pytest.mark.parametrize("balance", [0.0, 1.0])
@pytest.mark.parametrize("repeats", [2, 3])
def test_a_batch_holds_each_of_its_images_as_often_as_it_repeats_and_never_with_one_pass_twice(repeats, balance):
    order = Order(1, UNEVEN, balance, repeats=repeats, batch_size=12)
    index, passes = order.draw(0, 50 * 12)
    for images in index.reshape(50, repeats, 12 // repeats):
        assert (images == images[0]).all()  # a copy in each equal part of the batch
    assert len(set(zip(index.tolist(), passes.tolist(), strict=True))) == 50 * 12


def test_as_many_epochs_as_repeats_show_every_example_and_count_its_showings():
    index, passes = Order(0, TEN, repeats=3, batch_size=6).draw(0, 2 * 30)
    assert np.bincount(index[:30]).tolist() == [3] * 10
    for example in range(10):
        assert sorted(passes[index == example].tolist()) == list(range(6))


def test_the_images_that_are_repeated_are_those_of_the_order_without_repeats():
    plain, _ = Order(2, UNEVEN).draw(0, 5 * 4)
    repeated, _ = Order(2, UNEVEN, repeats=3, batch_size=12).draw(0, 5 * 12)
    np.testing.assert_array_equal(repeated.reshape(5, 3, 4)[:, 0].reshape(-1), plain)


def test_repeated_batches_of_any_stretch_follow_one_another():
    order = Order(1, UNEVEN, repeats=2, batch_size=6)
    whole = order.draw(0, 300)
    for start, count in ((0, 6), (7, 1), (95, 110), (299, 1)):
        for some, all_of_them in zip(order.draw(start, count), whole, strict=True):
            np.testing.assert_array_equal(some, all_of_them[start : start + count])
