import pytest

from jaxnets.pretrained.imagenet import class_names


def test_there_are_a_thousand_names_that_differ_in_more_than_case():
    names = class_names()
    assert len(names) == 1000
    assert len({name.lower() for name in names}) == 1000
    assert all(name == name.strip() != "" for name in names)


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (0, "tench"),
        (134, "crane (bird)"),
        (207, "golden retriever"),
        (285, "Egyptian cat"),
        (388, "giant panda"),
        (517, "crane (machine)"),
        (639, "tank suit"),
        (817, "sports car"),
        (967, "espresso"),
        (999, "toilet tissue"),
    ],
)
def test_names_stand_in_the_order_of_the_synsets(index, name):
    assert class_names()[index] == name
