"""What is held out is a function of the seed and of each example alone."""

import numpy as np
import pytest

from jaxnets.data.sources.names import hashes
from jaxnets.data.split import few_of_each, fold_of, hold_out

NAMES = [f"{i % 5}/{i}.png" for i in range(2000)]
LABELS = np.arange(2000) % 5


def _held_out(names=NAMES, labels=LABELS, share=0.2, seed=3, purpose="test") -> set[str]:
    _, held_out = hold_out(hashes(name.encode() for name in names), np.asarray(labels), share, seed, purpose)
    return {names[i] for i in held_out}


def test_the_two_sides_are_sorted_and_hold_every_example_once():
    kept, held_out = hold_out(hashes(name.encode() for name in NAMES), LABELS, 0.2, 3, "test")
    assert sorted([*kept, *held_out]) == list(range(2000))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held_out) > 0).all()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_each_class_gives_about_its_share(share):
    held_out = _held_out(share=share)
    count = np.bincount([int(name.split("/")[0]) for name in held_out])
    np.testing.assert_allclose(count, share * 400, atol=4 * np.sqrt(400 * share * (1 - share)))


def test_the_order_of_the_examples_does_not_matter():
    order = np.random.default_rng(0).permutation(2000)
    assert _held_out([NAMES[i] for i in order], LABELS[order]) == _held_out()


@pytest.mark.parametrize("seed", range(5))
def test_adding_and_removing_examples_moves_no_other_across(seed):
    added = [f"{i % 5}/new{i}.png" for i in range(700)]
    names = added[:350] + NAMES[100:] + added[350:]
    labels = [int(name.split("/")[0]) for name in names]
    assert _held_out(names, labels, seed=seed) - set(added) == _held_out(seed=seed) - set(NAMES[:100])


def test_renaming_an_example_moves_no_other_across():
    renamed = ["0/zzz.png", *NAMES[1:]]
    assert _held_out(renamed) - {renamed[0]} == _held_out() - {NAMES[0]}


def test_another_seed_and_another_purpose_hold_out_others():
    assert len({frozenset(_held_out(seed=seed, purpose=p)) for seed in (3, 4) for p in ("test", "validation")}) == 4


def test_validation_is_drawn_independently_of_the_test_split():
    left = sorted(set(NAMES) - _held_out(seed=3))
    held_out = _held_out(left, [int(name.split("/")[0]) for name in left], seed=3, purpose="validation")
    assert len(held_out) == pytest.approx(0.2 * len(left), abs=70)


def test_what_is_held_out_never_changes():
    """Runs that resume, and accuracies that are compared, rest on it."""
    names = [f"{i}.png" for i in range(20)]
    assert sorted(_held_out(names, [0] * 20, 0.3, 0)) == ["12.png", "15.png", "17.png", "3.png"]


@pytest.mark.parametrize("share", [0.001, 0.999])
@pytest.mark.parametrize("size", [2, 3, 10])
def test_a_class_of_two_or_more_has_an_example_on_either_side(share, size):
    kept, held_out = hold_out(hashes(bytes([i]) for i in range(size)), np.zeros(size, int), share, 0, "test")
    assert min(len(kept), len(held_out)) == 1


def test_a_class_of_one_keeps_it():
    for seed in range(20):
        kept, _ = hold_out(hashes([b"a", b"b", b"c"]), np.array([7, 3, 3]), 0.9, seed, "test")
        assert 0 in kept


def test_a_share_of_nothing_holds_out_nothing():
    assert _held_out(share=0.0) == set()


def test_a_share_outside_0_to_1_is_refused():
    with pytest.raises(ValueError, match=r"0 … 1, found 1\.5"):
        _held_out(share=1.5)


def test_thousands_of_small_classes_have_an_example_on_either_side():
    identities = np.random.default_rng(0).integers(0, 2**63, 63_000).astype(np.uint64)
    for side in hold_out(identities, np.arange(63_000) % 21_000, 0.1, 0, "test"):
        assert len(np.unique(side % 21_000)) == 21_000


GROUPS = hashes(f"patient {i // 7}".encode() for i in range(2000))


@pytest.mark.parametrize("seed", range(3))
def test_a_group_is_never_on_both_sides(seed):
    labels = np.random.default_rng(seed).integers(0, 3, 2000)
    identities = hashes(name.encode() for name in NAMES)
    kept, held_out = hold_out(identities, labels, 0.2, seed, "validation", GROUPS)
    assert not set(GROUPS[kept]) & set(GROUPS[held_out])
    assert len(held_out) == pytest.approx(400, abs=4 * np.sqrt(400 * 0.8 * 7))
    assert sorted([*kept, *held_out]) == list(range(2000))
    folds = fold_of(identities, 5, seed, GROUPS)
    assert all(len(set(folds[group == GROUPS])) == 1 for group in np.unique(GROUPS))


def test_the_only_group_of_a_class_is_kept():
    groups = hashes([b"a", b"a", b"b", b"b"])
    kept, held_out = hold_out(hashes([b"1", b"2", b"3", b"4"]), np.array([0, 0, 1, 1]), 0.9, 0, "test", groups)
    assert (kept.tolist(), held_out.tolist()) == ([0, 1, 2, 3], [])


def test_every_example_is_held_out_in_one_of_the_folds():
    folds = fold_of(hashes(name.encode() for name in NAMES), 5, 0)
    np.testing.assert_allclose(np.bincount(folds), 400, atol=4 * np.sqrt(400 * 0.8))
    np.testing.assert_array_equal(folds[:50], fold_of(hashes(name.encode() for name in NAMES[:50]), 5, 0))


@pytest.mark.parametrize("shots", [1, 5, 500])
def test_shots_are_so_many_of_each_class_and_more_of_them_hold_the_fewer(shots):
    identities = hashes(name.encode() for name in NAMES)
    chosen = few_of_each(identities, LABELS, shots, 0)
    assert np.bincount(LABELS[chosen]).tolist() == [min(shots, 400)] * 5
    assert set(chosen) <= set(few_of_each(identities, LABELS, shots + 3, 0))
    assert shots == 500 or set(chosen) != set(few_of_each(identities, LABELS, shots, 1))
