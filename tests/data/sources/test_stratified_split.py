"""What is held out, and that it stays the same."""

import numpy as np
import pytest

from jaxnets.data.split import stratified_split

LABELS = np.random.default_rng(0).integers(0, 5, 503)


def test_the_two_sides_hold_every_example_once():
    kept, held_out = stratified_split(LABELS, 0.2, seed=3)
    assert sorted([*kept, *held_out]) == list(range(503))


def test_both_sides_are_sorted():
    for side in stratified_split(LABELS, 0.2, seed=3):
        assert (np.diff(side) > 0).all()


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_each_class_gives_its_rounded_share(share):
    _, held_out = stratified_split(LABELS, share, seed=3)
    expected = [round(share * count) for count in np.bincount(LABELS)]
    assert np.bincount(LABELS[held_out]).tolist() == expected


def test_the_same_seed_holds_out_the_same_examples():
    np.testing.assert_array_equal(stratified_split(LABELS, 0.2, 3)[1], stratified_split(LABELS, 0.2, 3)[1])


def test_another_seed_holds_out_other_examples():
    assert stratified_split(LABELS, 0.2, 3)[1].tolist() != stratified_split(LABELS, 0.2, 4)[1].tolist()


def test_what_is_held_out_never_changes():
    """Runs that resume, and accuracies that are compared, rest on it."""
    assert stratified_split(np.arange(20) % 2, 0.3, seed=0)[1].tolist() == [2, 4, 6, 9, 11, 15]


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_a_class_of_two_has_one_example_on_either_side(share):
    kept, held_out = stratified_split(np.array([0, 0]), share, seed=0)
    assert (len(kept), len(held_out)) == (1, 1)


def test_a_class_of_one_keeps_it():
    kept, held_out = stratified_split(np.array([0, 1, 1]), 0.9, seed=0)
    assert 0 in kept
    assert 0 not in held_out


def test_a_share_of_nothing_holds_out_nothing():
    assert len(stratified_split(LABELS, 0.0, seed=0)[1]) == 0


def test_another_class_growing_leaves_a_class_split_as_it_was():
    before = stratified_split(np.array([0] * 10), 0.3, seed=0)[1]
    after = stratified_split(np.array([0] * 10 + [1] * 50), 0.3, seed=0)[1]
    np.testing.assert_array_equal(before, after[after < 10])


def test_a_share_outside_0_to_1_is_refused():
    with pytest.raises(ValueError, match=r"0 … 1, found 1\.5"):
        stratified_split(LABELS, 1.5, seed=0)
