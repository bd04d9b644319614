import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import jaxnets
from jaxnets.config import DataConfig
from jaxnets.data.sources import open_labelled
from jaxnets.errors import UserError
from jaxnets.select.table import read_labelled
from jaxnets.vectors import backbone_of, logits_of, vectors_of
from tests.tiny import classifier


@pytest.fixture(scope="module")
def model():
    return classifier("cifar", 3)


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(random.integers(0, 256, (20, 24, 3), np.uint8)).save(
                tmp_path / "images" / name / f"{i}.png"
            )
    return tmp_path / "images"


def correct(path):
    """Labels the images of a table by the folders that they lie in."""
    found = rows(path)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, found[0])
        writer.writeheader()
        writer.writerows({**row, "label": row["image"].split("/")[0], "checked": "yes"} for row in found)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("family", ["cifar", "efficientnet", "vit"])
@pytest.mark.parametrize("single", [False, True])
def test_the_head_on_vectors_answers_as_the_model_does(folder, family, single):
    model = classifier(family, 2 if single else 3, single_output=single)
    files = sorted(folder.rglob("*.png"))[:3]
    vectors = np.concatenate([block.vectors for block in vectors_of(backbone_of(model), files)])
    np.testing.assert_allclose(vectors, model.embed(files), rtol=1e-4, atol=1e-5)
    logits = logits_of(model, vectors)
    p = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(p / p.sum(1, keepdims=True), model.predict(files), rtol=1e-3, atol=1e-5)


def test_the_table_is_read_by_csv_and_holds_the_models_guesses(model, folder):
    found = jaxnets.select(model, folder, 5, method="margin", out=folder / "labels.csv")
    written = rows(folder / "labels.csv")
    assert [row["image"] for row in written] == [one.file.removeprefix(f"{folder}/") for one in found.chosen]
    answers = model.predict([one.file for one in found.chosen])
    assert [row["label"] for row in written] == [model.labels[i] for i in answers.argmax(1)]
    ordered = np.sort(answers, 1)
    np.testing.assert_allclose(ordered[:, -2] - ordered[:, -1], [one.score for one in found.chosen], atol=1e-4)
    assert {(row["checked"], row["split"]) for row in written} == {("no", "train")}
    source = open_labelled(DataConfig(source=f"csv:{folder / 'labels.csv'}"), model.labels)
    assert [model.labels[i] for i in source.splits["train"].labels] == [row["label"] for row in written]


def test_what_has_a_label_is_not_chosen_again_and_stands_in_the_next_table(model, folder, tmp_path):
    first = jaxnets.select(model, folder, 7, method="random", out=folder / "labels.csv")
    correct(folder / "labels.csv")
    second = jaxnets.select(
        model, folder, 9, method="kcentre", labelled=str(folder / "labels.csv"), out=tmp_path / "next.csv"
    )
    assert {one.file for one in first.chosen} & {one.file for one in second.chosen} == set()
    assert (second.labelled, second.unlabelled, len(second.chosen)) == (7, 5, 5)
    written = rows(tmp_path / "next.csv")
    assert len(written) == 12
    assert all((tmp_path / row["image"]).is_file() for row in written)
    assert [row["checked"] for row in written] == ["yes"] * 7 + ["no"] * 5
    assert {row["label"] for row in written[:7]} == {"a", "b"}
    assert len(read_labelled(str(tmp_path / "next.csv"))) == 12


def test_splits_and_classes_of_what_has_a_label_are_kept(model, folder, tmp_path):
    for split in ("train", "test"):
        shutil.copytree(folder, tmp_path / "mine" / split)
    jaxnets.select(model, folder, 2, labelled=f"folder:{tmp_path / 'mine'}", out=tmp_path / "next.csv")
    written = rows(tmp_path / "next.csv")
    assert len(written) == 26
    assert {row["image"]: (row["label"], row["split"]) for row in written}["mine/test/a/0.png"] == ("a", "test")


def test_where_the_images_lie_elsewhere_the_command_says_so(model, folder, tmp_path):
    out = tmp_path / "tables" / "next.csv"
    found = jaxnets.select(model, folder, 6, method="random", out=out)
    assert f"--config.data.root={folder}" in found.main
    source = open_labelled(DataConfig(source=f"csv:{out}", root=str(folder)), model.labels)
    assert len(source.splits["train"]) == 6
    correct(out)
    again = jaxnets.select(model, folder, 1, labelled=str(out), root=str(folder))
    assert (again.labelled, again.unlabelled) == (6, 6)


def test_labels_that_nobody_has_checked_stay_guesses_and_are_said(model, folder, tmp_path):
    jaxnets.select(model, folder, 6, method="random", out=folder / "labels.csv")
    correct(folder / "labels.csv")
    text = (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text(text.replace(",yes,", ",no,", 2))
    said: list[str] = []
    jaxnets.select(model, folder, 1, labelled=str(folder / "labels.csv"), out=tmp_path / "next.csv", say=said.append)
    assert any("2 of the labels" in text for text in said)
    written = rows(tmp_path / "next.csv")
    assert [row["checked"] for row in written].count("no") == 3
    assert all(row["guess"] in model.labels for row in written if row["checked"] == "no")
    source = open_labelled(DataConfig(source=f"csv:{folder / 'labels.csv'}"), ("a", "b"))
    assert any("labels of 2 rows of labels.csv are a model's guesses" in note for note in source.notes)


def test_several_labels_stand_in_one_cell_and_are_read_again(folder, tmp_path):
    several = classifier("cifar", 3, activation="sigmoid", several_labels=True, thresholds=(1e-6, 1e-6, 0.999999))
    found = jaxnets.select(several, folder, 4, method="badge", out=folder / "labels.csv")
    assert "--config.data.table.separator=|" in found.main.replace("'", "")
    assert {len(one.guess) for one in found.chosen} == {2}
    assert {row.labels for row in read_labelled(str(folder / "labels.csv"))} == {("class 0", "class 1")}


def test_what_cannot_be_read_is_left_out_and_said(model, folder):
    (folder / "a" / "broken.png").write_bytes(b"no image")
    found = jaxnets.select(model, folder, 100, method="entropy")
    assert len(found.chosen) == 12
    assert "broken.png is not an image" in found.unreadable[0]


def test_a_table_that_is_there_is_never_written_over(model, folder):
    (folder / "labels.csv").write_text("image,label\na/0.png,mine\n")
    with pytest.raises(UserError, match=r"is there already, perhaps with labels .* --labelled"):
        jaxnets.select(model, folder, 2, out=folder / "labels.csv")
    assert "mine" in (folder / "labels.csv").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "margins"}, r"must be one of margin, .* \(did you mean 'margin'\?\)"),
        ({"count": 0}, "count must be 1 or more, found 0"),
        ({"images": "nowhere"}, "cannot be read|no such|does not exist|not an image"),
        ({"labelled": "digits:"}, "digits"),
        ({"labelled": "nowhere.csv"}, "nowhere.csv"),
    ],
)
def test_mistakes_are_said(model, folder, change, message):
    given = {"images": folder, "count": 2, **change}
    with pytest.raises(UserError, match=message):
        jaxnets.select(model, **given)


def test_images_that_all_have_a_label_leave_nothing_to_choose(model, folder, tmp_path):
    jaxnets.select(model, folder, 12, method="random", out=folder / "labels.csv")
    correct(folder / "labels.csv")
    with pytest.raises(UserError, match="all of the 12 images have a label"):
        jaxnets.select(model, folder, 1, labelled=str(folder / "labels.csv"))


def test_the_command_says_what_it_chose_and_how_to_go_on(run, folder):
    done = run("jaxnets.select", "--model", "efficientnet_lite0", "--images", folder / "a", "--count", 1, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["main"].startswith("python -m jaxnets.main --config finetune --config.data.source=csv:")
    assert "--config.model.name=" in said["main"]
    assert len(rows(folder / "a" / "labels.csv")) == len(said["chosen"]) == 1
