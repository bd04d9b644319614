"""What the tabs for similar images and for labels show, without a browser."""

import numpy as np
import pytest
from PIL import Image

from jaxnets.errors import UserError
from jaxnets.select.checking import Checking
from jaxnets.select.table import Row, write_table
from tests.demo.conftest import ROOT

DIGITS = sorted((ROOT / "demo" / "examples" / "digits").iterdir())


@pytest.fixture(scope="module")
def shown(digits_run):
    from images import open_shown

    return open_shown(str(digits_run), engine="jax")


@pytest.fixture(scope="module")
def index(shown, tmp_path_factory):
    pytest.importorskip("faiss")
    from jaxnets.search.build import build_index

    folder = tmp_path_factory.mktemp("index")
    images = tmp_path_factory.mktemp("digits")
    for file in DIGITS:
        (images / file.name).write_bytes(file.read_bytes())
    build_index(shown.classifier, folder / "digits.index", [images])
    return folder / "digits.index", images


def test_an_image_is_most_like_itself_and_one_that_is_gone_keeps_its_name(shown, index):
    from similar import look, open_indexes

    folder, images = index
    opened = open_indexes([str(folder)], [shown])
    assert list(opened) == ["few_digits"]
    image = np.asarray(Image.open(images / DIGITS[1].name))
    found, said = look(shown, opened["few_digits"], image, 3)
    assert len(found) == 3
    assert found[0][1] == f"1.000  {DIGITS[1].name}"
    np.testing.assert_array_equal(found[0][0][..., 0], image)
    assert said == f"{len(DIGITS):,} images; 1 of these is the same image, as far as the model sees."
    (images / DIGITS[1].name).rename(images / "elsewhere")
    found, said = look(shown, opened["few_digits"], image, 3)
    (images / "elsewhere").rename(images / DIGITS[1].name)
    assert found[0][1] == f"1.000  {DIGITS[1].name}"
    assert said.endswith("1 can no longer be read where it lay.")


def test_an_index_is_of_a_model_on_the_page(shown, index):
    from similar import open_indexes

    with pytest.raises(UserError, match=r"names the model 'other', which is not there: expected few_digits"):
        open_indexes([f"other={index[0]}"], [shown])


@pytest.fixture
def table(tmp_path):
    rows = []
    for file, guess in zip(DIGITS, ("3", "7", "8"), strict=True):
        (tmp_path / file.name).write_bytes(file.read_bytes())
        rows.append(Row(str(tmp_path / file.name), (guess,), "train", guess=(guess,), probability=0.5))
    write_table(tmp_path / "next.csv", tmp_path, rows)
    return tmp_path / "next.csv"


def test_an_image_to_label_stands_beside_what_is_said_of_it(shown, table):
    from labelling import look

    checking = Checking(table)
    image, said = look(shown, checking, 0)
    np.testing.assert_array_equal(image[..., 0], np.asarray(Image.open(DIGITS[0])))
    assert said == f"**{DIGITS[0].name}**: the model's guess\n\n3 of 3 are left."
    checking.say(0, ["3"])
    assert look(shown, checking, 0)[1] == f"**{DIGITS[0].name}**: checked\n\n2 of 3 are left."
    checking.image(1).write_text("no image")
    image, said = look(shown, checking, 1)
    assert image is None
    assert "is not an image that can be read" in said


def test_a_table_whose_images_are_elsewhere_wants_their_folder(table, tmp_path):
    from labelling import open_table

    assert len(open_table(str(table), None)) == 3
    moved = tmp_path / "other" / "next.csv"
    moved.parent.mkdir()
    table.rename(moved)
    with pytest.raises(UserError, match=r"is not there, the first image of .*\(--root\)"):
        open_table(str(moved), None)
    assert len(open_table(str(moved), str(tmp_path))) == 3


@pytest.mark.parametrize("count", [0, 1])
def test_the_page_has_the_tabs_that_were_asked_for(shown, index, table, count):
    pytest.importorskip("gradio")
    from page import build
    from similar import open_indexes

    wanted = (open_indexes([str(index[0])], [shown]), Checking(table)) if count else (None, None)
    page = build([shown], *wanted)
    tabs = [block.label for block in page.blocks.values() if block.get_block_name() == "tabitem"]
    assert [title for title in tabs if title in ("Similar", "Label")] == ["Similar", "Label"][: 2 * count]
