"""Figures: text that stays text, one style, and nothing of the process's."""

import sys
from xml.etree import ElementTree

import pytest

from jaxnets import figures


@pytest.fixture
def figure():
    made = figures.new_figure(4, 3)
    axes = made.subplots()
    axes.plot([0, 1, 2], [1, 3, 2], label="loss")
    axes.set(xlabel="step", title="$5 <classes> & more$")
    axes.legend()
    return made


def test_a_page_gets_an_element_that_is_as_wide_as_there_is_room(figure):
    text = figures.svg(figure, 'what "it" shows')
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert "width" not in root.attrib
    assert "max-width:384px" in root.attrib["style"]
    assert root.attrib["aria-label"] == 'what "it" shows'


def test_text_stays_text_in_the_page_s_colour_and_dollars_are_no_formulas(figure):
    root = ElementTree.fromstring(figures.svg(figure))
    texts = ["".join(each.itertext()).strip() for each in root.iter() if each.tag.endswith("text")]
    assert "$5 <classes> & more$" in texts
    assert {"step", "loss"} <= set(texts)
    assert "currentColor" in figures.svg(figure)
    assert figures.INK not in figures.svg(figure)


def test_the_same_figure_is_the_same_text(figure):
    assert figures.svg(figure) == figures.svg(figure)


def test_a_png_is_one_and_pyplot_stays_away(figure):
    assert figures.png(figure).startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules
