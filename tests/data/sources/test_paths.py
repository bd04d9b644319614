"""A row of paths is what a list of them is."""

import pytest

from jaxnets.data.sources.paths import Chain, Paths

NAMES = ["a/1.jpg", "", "猫/é.png", "caf\udce9/\udcff.jpg", "b" * 300]  # bytes that are no UTF-8 among them


@pytest.mark.parametrize("made", [Paths(NAMES), Chain([NAMES[:2], [], Paths(NAMES[2:])])], ids=["paths", "chain"])
def test_paths_are_found_as_in_a_list(made):
    assert list(made) == NAMES
    assert len(made) == len(NAMES)
    assert [made[i] for i in range(-5, 5)] == [NAMES[i] for i in range(-5, 5)]
    assert made[1:4] == NAMES[1:4]
    assert made[::-2] == NAMES[::-2]
    for outside in (5, -6):
        with pytest.raises(IndexError):
            made[outside]
