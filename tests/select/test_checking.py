import csv

import pytest
from PIL import Image

from jaxnets.errors import UserError
from jaxnets.select.checking import Checking
from jaxnets.select.table import TITLES, Row, read_labelled, write_table

ROWS = [("a.png", ("cat",), None), ("b.png", ("dog",), 0.6), ("c.png", ("cat", "dog"), 0.7), ("d.png", ("cat",), 0.5)]


@pytest.fixture
def table(tmp_path):
    rows = []
    for name, labels, probability in ROWS:
        Image.new("RGB", (4, 4)).save(tmp_path / name)
        guess = None if probability is None else labels
        rows.append(Row(str(tmp_path / name), labels, "train", guess=guess, probability=probability))
    write_table(tmp_path / "next.csv", tmp_path, rows)
    return tmp_path / "next.csv"


def cells(table):
    with table.open(newline="") as opened:
        return list(csv.reader(opened))


def test_only_what_a_person_has_not_seen_is_asked_for_and_each_answer_is_on_disk(table):
    checking = Checking(table)
    assert (len(checking), checking.left, checking.next()) == (4, 3, 1)
    assert checking.image(1) == table.parent / "b.png"
    assert checking.labels(2) == ("cat", "dog")
    assert checking.classes == ("cat", "dog")
    before = cells(table)
    checking.say(1, ["cat"])
    assert cells(table)[2] == ["b.png", "cat", "dog", "0.6000", "yes", "train"]
    assert [row for i, row in enumerate(cells(table)) if i != 2] == [row for i, row in enumerate(before) if i != 2]
    assert (checking.next(1), checking.next(3), checking.left) == (2, 2, 2)
    checking.say(2, ["dog", "bird"])
    checking.say(3, ["cat"])
    assert checking.next() is None
    assert [row.labels for row in read_labelled(str(table))] == [("cat",), ("cat",), ("bird", "dog"), ("cat",)]
    assert all(row.guess is None for row in read_labelled(str(table)))


def test_columns_of_somebody_else_stay(table):
    rows = cells(table)
    with table.open("w", newline="") as opened:
        csv.writer(opened).writerows([[*rows[0], "who"], *([*row, "me, too"] for row in rows[1:])])
    Checking(table).say(1, ["cat"])
    assert [row[-1] for row in cells(table)] == ["who", *["me, too"] * 4]


def test_a_table_that_changed_meanwhile_is_not_written_over_until_it_was_read_anew(table):
    checking = Checking(table)
    table.write_text(table.read_text().replace("d.png,cat", "d.png,dog"))
    with pytest.raises(UserError, match="was changed by something else: nothing was written"):
        checking.say(1, ["cat"])
    assert cells(table)[4][1] == "dog"
    checking.refresh()
    checking.say(1, ["cat"])
    assert [row[1] for row in cells(table)[1:]] == ["cat", "cat", "cat|dog", "dog"]


def test_where_nothing_can_be_written_nothing_is_taken_for_checked(table, monkeypatch):
    checking = Checking(table)

    def full(*arguments):
        raise UserError("no room")

    monkeypatch.setattr("jaxnets.select.checking.write_bytes", full)
    with pytest.raises(UserError, match="no room"):
        checking.say(1, ["cat"])
    assert (checking.labels(1), checking.left) == (("dog",), 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("", f"expected the columns {', '.join(TITLES)}, found none"),
        ("image,label\na.png,cat\n", "found image, label"),
        (",".join(TITLES) + "\n", "has no images"),
        (",".join(TITLES) + "\na.png,cat\n", "line 2 has 2 cells, expected 6"),
    ],
)
def test_what_is_no_table_of_ours_is_said(tmp_path, content, message):
    if content is not None:
        (tmp_path / "next.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        Checking(tmp_path / "next.csv")


@pytest.mark.parametrize(
    ("labels", "message"), [([], "choose a label first"), (["a|b"], "found 'a|b'"), ([" "], "' '")]
)
def test_a_label_that_a_table_cannot_hold_is_refused(table, labels, message):
    checking = Checking(table)
    with pytest.raises(UserError, match=message):
        checking.say(1, labels)
    assert checking.left == 3
