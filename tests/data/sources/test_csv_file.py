"""CSV files of images: how they are written, which columns are meant, and what is refused."""

import numpy as np
import pytest

from jaxnets.config import DataConfig, TableConfig
from jaxnets.data.sources import open_labelled, open_source
from jaxnets.data.sources.table.columns import choose
from jaxnets.data.sources.table.labels import read_labels
from jaxnets.data.sources.table.rows import Rows, encode
from jaxnets.errors import UserError
from tests.data.sources.images import fill

ROWS = "".join(f"images/{i}.png,{'ab'[i % 2]}\n" for i in range(8))


@pytest.fixture
def table(tmp_path):
    """Writes a table beside `images/0.png` … `images/7.png` and opens it."""
    fill(tmp_path / "images", 8)

    def open_table(text: str | bytes, known=None, root=None, **keys):
        file = tmp_path / "labels.csv"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        spec = DataConfig(source=f"csv:{file}", root=root, table=TableConfig(**keys))
        return open_source(spec, 0) if known is None else open_labelled(spec, known)

    return open_table


def _all(source) -> dict[str, str]:
    """Returns the class of each image by its name."""
    return {
        part.name(i): source.class_names[part.labels[i]] for part in source.splits.values() for i in range(len(part))
    }


EXPECTED = {f"images/{i}.png": "ab"[i % 2] for i in range(8)}


@pytest.mark.parametrize(
    "text",
    [
        "image,label\n" + ROWS,
        b"\xef\xbb\xbfimage,label\r\n" + ROWS.replace("\n", "\r\n").encode(),
        "image;label\n" + ROWS.replace(",", ";"),
        "sep=;\nimage;label\n" + ROWS.replace(",", ";"),
        ("image\tlabel\n" + ROWS.replace(",", "\t")).encode("utf-16"),
        "label|x|image\n" + "".join(f"{'ab'[i % 2]} | 1,5 | images/{i}.png\n" for i in range(8)),
        ",image,label,\n" + "".join(f"{i},images/{i}.png,{'ab'[i % 2]},\n" for i in range(8)),
        "file_name,Class Name\n" + ROWS,
        "Image,Id\n" + ROWS,
        "image,label\n\n" + ROWS + "\n , \n",
        "id,breed\n" + ROWS.replace(".png", ""),
        "id,breed\n" + ROWS.replace("images/", ""),
        "id,breed\n" + ROWS.replace("images/", "").replace(".png", ""),
        "path,label\n" + ROWS.replace("/", "\\"),
        "image,label\n" + ROWS.replace("images/", "./images/../images/"),
        "image,label\n" + ROWS + ROWS,
    ],
    ids=[
        "plain",
        "bom",
        "semicolons",
        "excel",
        "utf-16",
        "bars",
        "index-column",
        "usual-names",
        "only-column-left",
        "blank-lines",
        "no-suffix",
        "no-folder",
        "neither",
        "windows",
        "dots",
        "repeated",
    ],
)
def test_tables_are_understood_as_they_are_written(table, text):
    assert _all(table(text)) == EXPECTED


def test_the_order_of_the_rows_is_of_no_account(table):
    there = table("image,label\n" + ROWS)
    back = table("image,label\n" + "\n".join(reversed(ROWS.splitlines())))
    for split in ("train", "test"):
        one, other = there.splits[split], back.splits[split]
        assert [one.name(i) for i in range(len(one))] == [other.name(i) for i in range(len(other))]
        assert one.labels.tolist() == other.labels.tolist()


def test_an_example_is_the_same_whichever_root_is_given_and_however_its_cell_is_written(table, tmp_path):
    def identities(text, root):
        source = table("image,label\n" + text, root=root)
        return {split: sorted(part.identities.tolist()) for split, part in source.splits.items()}

    bare = ROWS.replace("images/", "")
    expected = identities(bare, None)
    assert len({each for split in expected.values() for each in split}) == 8
    for root in (tmp_path, tmp_path / "images"):
        assert identities(bare, str(root)) == expected
        assert identities(bare.replace(".png", ""), str(root)) == expected
    (tmp_path / "elsewhere" / "a").mkdir(parents=True)
    (tmp_path / "images").rename(tmp_path / "elsewhere" / "a" / "b")
    assert identities(bare, None) == expected
    (tmp_path / "elsewhere" / "a" / "b").rename(tmp_path / "images")
    expected = identities(ROWS, None)
    assert identities(ROWS, str(tmp_path.parent)) == expected
    for written in (f"{tmp_path}/images/", "./images/", "images//"):
        assert identities(ROWS.replace("images/", written), str(tmp_path.parent)) == expected


def test_cells_in_quotes_hold_delimiters_and_newlines(table):
    source = table('image,label\nimages/0.png,"a, ""x"""\n"images/1.png","b\nc"\n')
    assert source.class_names == ('a, "x"', "b\\nc")


def test_numbers_are_classes_by_value_however_they_are_written(table):
    assert table("image,label\nimages/0.png,10.0\nimages/1.png,9\nimages/2.png,9.0\n").class_names == ("9", "10")
    large = ("9007199254740992", "9007199254740993")  # of which float64 has but one
    assert table(f"image,label\nimages/0.png,{large[0]}.0\nimages/1.png,{large[1]}.0\n").class_names == large


def test_repeated_rows_count_once_and_are_counted(table):
    assert any("8 rows" in note and "count once" in note for note in table("image,label\n" + ROWS + ROWS).notes)


@pytest.mark.parametrize(
    "text",
    [
        "image,label,split\n" + "".join(f"images/{i}.png,{'ab'[i % 2]},{['train', 'Test'][i > 4]}\n" for i in range(8)),
        "image,label,is_test\n" + "".join(f"images/{i}.png,{'ab'[i % 2]},{i > 4}\n" for i in range(8)),
        "image,label,set\n" + "".join(f"images/{i}.png,{'ab'[i % 2]},{['training', 'val'][i > 4]}\n" for i in range(8)),
    ],
)
def test_a_column_says_the_splits(table, text):
    source = table(text)
    assert {name: len(part) for name, part in source.splits.items()} == {"train": 5, "test": 3}


def test_a_column_whose_values_are_no_splits_is_none_and_said_to_be(table):
    source = table("image,label,set\n" + "".join(f"images/{i}.png,{'ab'[i % 2]},{'AB'[i > 4]}\n" for i in range(8)))
    assert _all(source) == EXPECTED
    assert any("'set'" in note and "'A', 'B'" in note for note in source.notes)


def test_folders_say_the_splits_where_no_column_does(table, tmp_path):
    for name in ("train", "test"):
        fill(tmp_path / name, 4)
    rows = "".join(f"{name}/{i}.png,{'ab'[i % 2]}\n" for name in ("train", "test") for i in range(4))
    source = table("image,label\n" + rows)
    assert [source.splits["test"].name(i) for i in range(4)] == [f"test/{i}.png" for i in range(4)]
    with pytest.raises(UserError, match="has images in images, test, train, some of which are called as splits"):
        table("image,label\n" + rows + ROWS)
    assert sum(map(len, table("image,label\n" + rows + ROWS, split="").splits.values())) == 16


def test_folders_say_the_splits_where_a_column_does_not(table, tmp_path):
    for name in ("train", "test"):
        fill(tmp_path / name, 4)
    rows = "".join(f"{name}/{i}.png,{'ab'[i % 2]},z\n" for name in ("train", "test") for i in range(4))
    assert {name: len(part) for name, part in table("image,label,set\n" + rows).splits.items()} == {
        "train": 4,
        "test": 4,
    }


def test_one_name_in_two_folders_is_the_one_of_the_split(table, tmp_path):
    for name in ("train", "test"):
        fill(tmp_path / name, 12)
    rows = "".join(f"{i},{'ab'[i % 2]},{['train', 'test'][i > 9]}\n" for i in range(8, 12))
    source = table("id,label,split\n" + rows)
    assert [source.splits["train"].name(i) for i in range(2)] == ["train/8.png", "train/9.png"]
    assert [source.splits["test"].name(i) for i in range(2)] == ["test/10.png", "test/11.png"]
    source = table("id,label\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(8, 12)))
    assert all(name.startswith("train/") for name in _all(source))
    assert list(source.unlabelled) == ["test"]


def test_test_rows_without_labels_are_kept_as_unlabelled(table, tmp_path):
    rows = "".join(f"images/{i}.png,{'ab'[i % 2] if i < 5 else ''},{['train', 'test'][i > 4]}\n" for i in range(8))
    source = table("image,label,split\n" + rows)
    assert sum(map(len, source.splits.values())) == 5
    assert source.unlabelled == {"labels.csv": [str(tmp_path / "images" / f"{i}.png") for i in (5, 6, 7)]}


@pytest.mark.parametrize(
    ("values", "mark"),
    [
        ([f"{i / 7:.3f}" for i in range(12)], ","),
        ([f"{i - 5.5}" for i in range(12)], ","),
        ([f"{i / 7:.2f}".replace(".", ",") for i in range(12)], ";"),
        ([f"{i + 1}e-{i % 3 + 3}" for i in range(12)], ","),
        ([str(i % 11 / 2) for i in range(12)], ","),  # 0.0, 0.5, …, 5.0
    ],
)
def test_a_quantity_is_refused_with_what_to_do(table, tmp_path, values, mark):
    fill(tmp_path / "images", 12)
    rows = "".join(f"{i}.png{mark}{value}\n" for i, value in enumerate(values))
    with pytest.raises(UserError, match=r"'price', are a quantity: 1[12] different values in 12 rows.*few ranges"):
        table(f"image{mark}price\n{rows}", label="price")


@pytest.mark.parametrize("values", [["1.5", "2.5", "3.0"] * 4, [f"v1.{i}" for i in range(12)], list("aabbccddeeff")])
def test_classes_that_look_like_numbers_are_no_quantity(table, tmp_path, values):
    fill(tmp_path / "images", 12)
    rows = "".join(f"{i}.png,{value}\n" for i, value in enumerate(values))
    assert len(table(f"image,grade\n{rows}", label="grade").class_names) == len(set(values))


def test_labels_in_one_cell_become_targets(table):
    cells = ["", "a", "b a", "b"] * 2
    source = table("image,tags\n" + "".join(f"images/{i}.png,{cells[i]}\n" for i in range(8)), separator=" ")
    found = {
        part.name(i): part.targets[i].tolist() for part in source.splits.values() for i in range(len(part.targets))
    }
    assert found == {f"images/{i}.png": [int("a" in cells[i]), int("b" in cells[i])] for i in range(8)}
    assert source.splits["train"].labels.tolist() == source.splits["train"].targets.argmax(1).tolist()


def test_an_image_without_any_of_several_labels_is_kept(table):
    source = table("image,tags\n" + ROWS.replace("7.png,b", "7.png,"), known=("a", "b"), separator=" ")
    assert source.splits["all"].targets[7].tolist() == [0, 0]
    assert source.splits["all"].targets.sum() == 7


def test_labels_that_all_differ_take_no_square_of_their_number():
    """Gigabytes it would be, of a column that was named by mistake."""
    columns = choose(["image", "label"], "t", TableConfig())
    count = 50_000
    rows = Rows(title="t", unit="row", numbers=np.arange(count), columns=columns, label=encode(map(str, range(count))))
    assert read_labels(rows, np.ones(count, bool), None, None).labels.tolist() == list(range(count))


def test_columns_of_0_and_1_become_targets_in_their_order(table):
    rows = "".join(f"images/{i}.png,{i & 1},{i >> 1 & 1}.0,{'True' if i > 3 else 'false'}\n" for i in range(8))
    source = table("image,z,a,m\n" + rows, labels=("z", "a", "m"))
    assert source.class_names == ("z", "a", "m")
    found = {part.name(i): part.targets[i].tolist() for part in source.splits.values() for i in range(len(part))}
    assert found == {f"images/{i}.png": [i & 1, i >> 1 & 1, i >> 2] for i in range(8)}


def test_columns_of_which_each_row_has_one_are_classes(table):
    source = table(
        "image,b,a\n" + "".join(f"images/{i}.png,{i % 2},{1 - i % 2}\n" for i in range(8)), labels=("b", "a")
    )
    assert source.splits["train"].targets is None
    assert _all(source) == {name: {"a": "a", "b": "b"}[label] for name, label in EXPECTED.items()}


def test_targets_are_those_of_the_model_s_classes(table):
    source = table("image,tags\nimages/0.png,a b\nimages/1.png,b\n", known=("x", "b", "a"), separator=" ")
    assert source.splits["all"].targets.tolist() == [[0, 1, 1], [0, 1, 0]]
    assert source.notes[-1].endswith("has no images of x")


def test_numbers_are_positions_among_the_model_s_classes(table):
    source = table("image,label\nimages/0.png,2\nimages/1.png,0\n", known=("x", "b", "a"))
    assert source.splits["all"].labels.tolist() == [2, 0]
    assert any("0 is x" in note for note in source.notes)


def test_keys_of_a_run_hold_for_other_tables_as_far_as_they_have_such_columns(table):
    text = "image,label,no\n" + ROWS.replace("\n", ",1\n")
    assert len(table(text, known=("a", "b"), label="breed", split="fold", group="label").splits["all"]) == 8
    with pytest.raises(UserError, match="names the column 'breed'"):
        table(text, label="breed")


def test_images_of_one_group_have_one_hash(table):
    rows = "".join(f"images/{i}.png,{'ab'[i % 2]},{'train' if i < 6 else 'test'},p{i // 3}\n" for i in range(8))
    source = table("image,label,split,patient_id\n" + rows)
    train, test = source.splits["train"].groups, source.splits["test"].groups
    assert len({*train[:3].tolist()}) == len({*train[3:].tolist()}) == len({*test.tolist()}) == 1
    assert len({*train.tolist(), *test.tolist()}) == 3


def test_a_row_without_a_group_is_one_of_its_own(table):
    rows = "".join(f"images/{i}.png,{'ab'[i % 2]},{'p1' if i < 4 else ''}\n" for i in range(8))
    part = table("image,label,group\n" + rows, known=("a", "b")).splits["all"]
    assert len(set(part.groups[:4].tolist())) == 1
    assert len(set(part.groups.tolist())) == 5


def test_a_group_is_never_on_both_sides_of_a_drawn_split(table):
    for seed in range(5):
        random = np.random.default_rng(seed)
        groups = random.integers(0, 4, 8)
        rows = "".join(f"images/{i}.png,{'ab'[i % 2]},g{seed}.{groups[i]}\n" for i in range(8))
        source = table("image,label,group\n" + rows)
        train, test = (set(source.splits[split].groups.tolist()) for split in ("train", "test"))
        assert not train & test
        assert len(train | test) == len(set(groups.tolist()))


def test_a_group_in_two_of_the_table_s_splits_is_said(table):
    rows = "".join(f"images/{i}.png,{'ab'[i % 2]},{'train' if i < 6 else 'test'},p{i % 2}\n" for i in range(8))
    assert (
        "2 groups of labels.csv have images both in train and in test"
        in table("image,label,split,group\n" + rows).notes
    )


def test_rows_without_an_image_or_a_label_are_left_out_when_asked(table):
    source = table("image,label\n" + ROWS + "images/8.png,a\n", skip_missing=True)
    assert _all(source) == EXPECTED
    assert any("1 images (of 9)" in note and "line 10" in note for note in source.notes)
    source = table("image,label\n" + ROWS.replace("7.png,b", "7.png,NaN"), skip_missing=True)
    assert len(_all(source)) == 7


def test_paths_may_leave_the_folder_within_the_root_that_is_given(table, tmp_path):
    fill(tmp_path.parent / "beside", 2)
    text = "image,label\nimages/0.png,a\n../beside/0.png,b\n" + f"{tmp_path.parent}/beside/1.png,b\n"
    with pytest.raises(UserError, match=r"leads out of .*config.data.root="):
        table(text)
    assert sorted(_all(table(text, root=str(tmp_path.parent))).values()) == ["a", "b", "b"]


@pytest.mark.parametrize(
    ("text", "keys", "expected"),
    [
        ("", {}, "labels.csv is empty"),
        ("image,label\n", {}, "has a line of titles and nothing below it"),
        (ROWS, {}, "has no line of titles: its first line is 'images/0.png', 'a'"),
        ("image\nimages/0.png\n", {}, "must have a line of titles with two or more columns"),
        ("image,x,y\nimages/0.png,1,2\n", {}, "no column that is called like a label (label, class, target, …), found"),
        ("a,label\nimages/0.png,1\n", {}, "no column that is called like an image (image, file, path, id, …), found"),
        ("image,label\n" + ROWS, {"label": "labl"}, "names the column 'labl', which labels.csv does not have (did you"),
        ("image,label,class\nimages/0.png,1,2\n", {}, "has the columns 'label', 'class', and each may be the label"),
        ("image,label,is_train,is_test\nimages/0.png,1,1,0\n", {}, "'is_train', 'is_test', and each may be the split"),
        ("image,label,label\nimages/0.png,1,2\n", {}, "has 2 columns called 'label'"),
        ("image,label\n" + ROWS + "images/0.png,b\n", {}, "'images/0.png' is 'a' in line 2 and 'b' in line 10"),
        ("image,label\n" + ROWS + "images/8.png,b\n", {}, "names 1 images (of 9) that are not in"),
        ("image,label\n" + ROWS.replace(".png", ".jpg"), {}, "'images/0.jpg', line 3: 'images/1.jpg', line 4"),
        ("image,label\n" + ROWS.replace(".png", ".jpg"), {}, "though there is images/0.png"),
        ("image,label\n" + ROWS + ",b\n", {}, "line 10: expected an image's path"),
        ("image,label\n" + ROWS + "images/1.png,\n", {}, "1 of 9 rows of labels.csv have no label (line 10)"),
        ("image,label\n" + ROWS + "images/1.png,NaN\n", {}, "1 of 9 rows of labels.csv have no label (line 10)"),
        ("image,label\n" + ROWS + "images/1.png,a,b\n", {}, "line 10: expected 2 cells as in the line of titles"),
        ("image,label\n" + ROWS + "images/1.png\n", {}, "line 10: expected 2 cells as in the line of titles"),
        ('image,label\nimages/0.png,"a\n' + ROWS, {}, "the quotes that open in line 2 or below are never closed"),
        (("image,label\n" + ROWS.replace("b", "ß")).encode("latin-1"), {}, "line 3: '\\\\xdf' holds bytes that are no"),
        (bytes(range(256)), {}, "found binary data"),
        (b"PK\x03\x04", {}, "an Excel workbook"),
        ("image,label\n" + ROWS.replace("b", "a"), {}, "two or more classes, found 1 (a)"),
        ("image,label\nhttps://x.org/1.png,a\n", {}, "is an address in the web"),
        ("image,label,split\nimages/0.png,a,train\nimages/1.png,b,foo\n", {}, "line 3: the column 'split' says 'foo'"),
        ("image,label,split\nimages/0.png,a,test\nimages/1.png,b,test\n", {}, "has no images to train on"),
        (
            "image,label,split\nimages/0.png,a,train\nimages/1.png,b,train\nimages/2.png,c,test\n",
            {},
            "has the label 'c' in test alone (1 images, line 4 for one)",
        ),
        ("image,a,b\nimages/0.png,1,2\n", {"labels": ("a", "b")}, "the column 'b' must be 0 or 1"),
        ("image,a,b\nimages/0.png,1,0\n", {"labels": ("a", "a")}, "names the column 'a' twice"),
        ("image,a\nimages/0.png,1\nimages/1.png,0\n", {"labels": ("a",)}, "say yes and no: write them in one column"),
    ],
)  # fmt: skip
def test_what_is_no_such_table_is_refused(table, text, keys, expected):
    with pytest.raises(UserError) as refused:
        table(text, **keys)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_name_that_may_be_two_files_is_refused(table, tmp_path):
    fill(tmp_path / "more", 8)
    with pytest.raises(UserError, match=r"may be any of images/0.png, more/0.png"):
        table("id,label\n" + ROWS.replace("images/", ""))
    (tmp_path / "images" / "0.jpg").write_bytes((tmp_path / "images" / "0.png").read_bytes())
    with pytest.raises(UserError, match=r"images has 0.jpg and 0.png: write the suffix too"):
        table("id,label\n" + ROWS.replace(".png", ""))


def test_a_name_is_found_however_its_accents_are_stored(table, tmp_path):
    fill(tmp_path / "images", 1)
    (tmp_path / "images" / "0.png").rename(tmp_path / "images" / "cafe\u0301.png")
    for cell in ("images/caf\u00e9.png", "images/caf\u00e9", "caf\u00e9"):
        assert _all(table("image,label\n" + ROWS.replace("images/0.png", cell))).keys() >= {"images/caf\u00e9.png"}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["cat", "dog", "cat|dog", "bird"], "separator='|'"),
        (["cat", "dog", "bird", "dog, cat"], "separator=','"),
        (["black", "bear", "black bear", "white"], None),
        (["primary", "haze", "cloudy", "haze primary", "cloudy haze"], "separator=' '"),
    ],
)
def test_a_class_that_is_made_of_others_is_said(table, labels, said):
    rows = "".join(f'images/{i}.png,"{labels[i % len(labels)]}"\n' for i in range(8))
    notes = " ".join(table("image,label\n" + rows).notes)
    assert (f"if an image may have several labels, say so with config.data.table.{said}" in notes) == bool(said)


def test_classes_that_may_be_one_are_said(table):
    notes = table("image,label\nimages/0.png,Cat\nimages/1.png,cat\nimages/2.png,dog\n").notes
    assert "labels.csv has the classes 'Cat' and 'cat': they count as two" in notes


def test_files_of_undecodable_names_are_found(table, tmp_path):
    fill(tmp_path / "images", 1)
    (tmp_path / "images" / "0.png").rename(tmp_path / "images" / "caf\udce9.png")
    source = table(b"image,label\n" + ROWS.encode().replace(b"0.png", b"caf\xe9.png"))
    assert "images/caf\\xe9.png" in _all(source)
