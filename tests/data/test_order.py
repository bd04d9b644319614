import numpy as np
import pytest

from jaxnets.data.order import draw, permutation


def test_every_epoch_shows_each_example_once():
    index, epoch = draw(seed=0, examples=10, start=0, count=30)
    for e in range(3):
        assert sorted(index[epoch == e]) == list(range(10))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(permutation(seed, epoch, 50)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("batch", [1, 3, 7, 25])
def test_batches_of_any_size_follow_one_another_without_gap(batch):
    whole = draw(seed=1, examples=10, start=0, count=50)
    parts = [draw(seed=1, examples=10, start=start, count=min(batch, 50 - start)) for start in range(0, 50, batch)]
    for i in range(2):
        np.testing.assert_array_equal(np.concatenate([part[i] for part in parts]), whole[i])


def test_the_order_never_changes_between_versions():
    assert permutation(0, 0, 10).tolist() == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]
