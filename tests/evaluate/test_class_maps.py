"""The test sets of ImageNet as they are published."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from jaxnets.config import resolve
from jaxnets.errors import UserError
from jaxnets.evaluate.class_maps import (
    columns_of,
    find_class_map,
    open_mapped,
    real_figures,
    restricted,
    synsets,
)
from jaxnets.preprocess import Preprocess
from jaxnets.pretrained.imagenet import class_names
from tests.evaluate.invented import predictions

SMALL = Preprocess(height=8, width=8, channels=3, mean=(0.5,) * 3, std=(0.2,) * 3)


def _folder(root, *names):
    for name in names:
        (root / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / name / "a.png")
    return resolve({"data": {"source": f"folder:{root}", "image_size": 8}})


def test_synsets_are_those_of_the_classes():
    assert len(set(synsets())) == 1000
    assert list(synsets()) == sorted(synsets())  # the order of ImageNet's classes
    known = {"n01440764": "tench", "n02123045": "tabby", "n03000684": "chain saw", "n07768694": "pomegranate"}
    for synset, name in known.items():
        assert class_names()[synsets().index(synset)] == name


def test_the_sets_of_200_classes_are_those_of_their_authors():
    a, r = (find_class_map(f"imagenet-{letter}").answers for letter in "ar")
    # The first and the last of eval.py in natural-adv-examples (thousand_k_to_200) and of imagenet-r's list of synsets.
    assert (len(a), a[:6], a[-5:]) == (200, (6, 11, 13, 15, 17, 22), (981, 984, 986, 987, 988))
    assert (len(r), [synsets()[i] for i in r[:4]]) == (200, ["n01443537", "n01484850", "n01494475", "n01498041"])
    assert synsets()[r[-1]] == "n12267677"
    assert (sum(a), sum(r)) == (102178, 86135)  # of both authors' lists


@pytest.mark.parametrize(
    ("name", "folders", "classes"),
    [
        ("imagenet", ["n01440764", "n01443537"], [0, 1]),
        ("imagenet-v2", ["0", "10", "2", "999"], [0, 2, 10, 999]),
        ("imagenet-a", ["n01498041"], [6]),
        ("imagenet-r", ["n01443537", "n01484850"], [1, 2]),
        ("imagenet-sketch", ["n01440764"], [0]),
    ],
)
def test_folders_become_the_model_s_classes(tmp_path, name, folders, classes):
    data = open_mapped(_folder(tmp_path, *folders), SMALL, class_names(), find_class_map(name))
    assert sorted(data.split("all").labels.tolist()) == classes


@pytest.mark.parametrize("names", [synsets(), tuple(map(str, range(1000))), class_names()[::-1]])
def test_a_model_may_call_the_classes_by_synsets_or_numbers_and_in_any_order(tmp_path, names):
    data = open_mapped(_folder(tmp_path, "n01443537"), SMALL, names, find_class_map("imagenet-r"))
    (label,) = data.split("all").labels.tolist()
    assert names[label] in ("n01443537", "1", "goldfish")


def test_another_model_or_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="models of ImageNet's 1,000 classes, and this one has 2"):
        columns_of(("cat", "dog"))
    with pytest.raises(UserError, match=r"has the class|is none of .* known.*imagenet-r"):
        open_mapped(_folder(tmp_path, "n01440764"), SMALL, class_names(), find_class_map("imagenet-r"))
    with pytest.raises(UserError, match=r"must be one of imagenet, .*found 'imagenet-b'"):
        find_class_map("imagenet-b")


def test_a_model_answers_among_the_classes_of_the_set():
    chosen = find_class_map("imagenet-a")
    labels = np.random.default_rng(0).choice(chosen.answers, 40).astype(np.int32)
    given = predictions(40, 1000, class_names=class_names(), labels=labels, skill=0)
    found = restricted(given, chosen)
    assert found.logits.shape == (40, 200)
    assert [found.class_names[i] for i in found.labels] == [class_names()[i] for i in labels]
    among = given.logits[:, chosen.answers].argmax(1)  # as the authors' eval.py
    assert [found.class_names[i] for i in found.said] == [class_names()[chosen.answers[i]] for i in among]
    with pytest.raises(UserError, match="'a0' is 'tench', which is none of imagenet-a's"):
        restricted(replace(given, labels=np.zeros(40, np.int32)), chosen)
    assert restricted(given, find_class_map("imagenet")) is given


def test_real_s_labels_count_any_of_several_and_leave_out_images_without(tmp_path):
    (tmp_path / "real.json").write_text(json.dumps([[], [970, 795], [230, 231], [809]]))
    chosen = find_class_map(f"real:{tmp_path}/real.json")
    logits = np.zeros((4, 1000), np.float32)
    logits[np.arange(4), [5, 795, 3, 809]] = 1
    paths = tuple(f"n0/ILSVRC2012_val_{i + 1:08d}.JPEG" for i in range(4))
    given = predictions(4, 1000, class_names=class_names(), logits=logits, paths=paths)
    assert real_figures(given, chosen) == {"real_accuracy": pytest.approx(2 / 3), "real_count": 3}
    assert real_figures(given, find_class_map("imagenet")) == {}
    with pytest.raises(UserError, match=r"'cat\.jpg' is none of ImageNet's validation images"):
        real_figures(replace(given, paths=("cat.jpg",) * 4), chosen)


@pytest.mark.parametrize("content", ["{}", "[[1000]]", "[1, 2]", "[[true]]", "nothing"])
def test_a_file_that_is_not_real_s_is_refused(tmp_path, content):
    (tmp_path / "real.json").write_text(content)
    with pytest.raises(UserError, match=r"real\.json"):
        find_class_map(f"real:{tmp_path}/real.json")


@pytest.mark.parametrize("name", ["real", "real:", "real:/nowhere/real.json"])
def test_real_without_its_file_is_refused(name):
    with pytest.raises(UserError, match="reassessed-imagenet"):
        find_class_map(name)
