"""What is planted in a folder is found, and what is clean is not accused."""

import io
import json
import shutil
import tarfile

import numpy as np
import pytest
from PIL import ExifTags, Image

from jaxnets.audit.sheet import Thumbnails
from jaxnets.config import DataConfig
from jaxnets.data.sources import ArraySplit, open_source
from tests.audit.dirt import ALONE, COPIES, MOVED, accused, missed, plant
from tests.audit.made import Colours, audit_of, audit_of_splits, make, scene
from tests.prepare.sets import prepared


@pytest.fixture(scope="module")
def dirty(tmp_path_factory):
    folder = make(tmp_path_factory.mktemp("dirty") / "images", train=70, test=20)
    planted = plant(folder, each=2, seed=1)
    return planted, json.loads(json.dumps(audit_of(folder, Colours()).to_json()))


@pytest.mark.parametrize("kind", [*ALONE, *COPIES, MOVED])
def test_everything_planted_is_found_by_its_name(dirty, kind):
    planted, report = dirty
    of_kind = [each for each in planted if each.kind == kind]
    assert len(of_kind) == 2
    assert missed(of_kind, report) == []


def test_clean_images_beside_dirty_ones_are_not_accused(dirty):
    planted, report = dirty
    assert accused(planted, report) == []


def test_training_would_suffer_from_what_was_planted(dirty):
    _, report = dirty
    problems = {finding["kind"] for finding in report["findings"] if finding["severity"] == "problem"}
    assert problems == {"leakage", "contradiction"}
    assert report["status"] == 1


def test_a_clean_folder_has_no_findings(tmp_path):
    audit = audit_of(make(tmp_path / "images", train=30, test=10), Colours())
    assert audit.findings == []
    assert audit.status == 0
    assert audit.left == []


def scenes(count, seed):
    rng = np.random.default_rng(seed)
    return np.stack([np.asarray(scene(rng)) for _ in range(count)])


def kinds(audit):
    return {finding.kind: finding for finding in audit.findings}


def test_a_group_on_both_sides_is_a_problem():
    labels = np.arange(30, dtype=np.int32) % 2
    train = ArraySplit(scenes(30, 0), labels, groups=np.arange(30, dtype=np.uint64))
    test = ArraySplit(scenes(30, 1), labels, groups=np.arange(28, 58, dtype=np.uint64))
    found = kinds(audit_of_splits({"train": train, "test": test}, "ab"))["split_group"]
    assert found.severity == "problem"
    assert found.lines == ("2 groups, whose images are 2 in train, 2 in test",)


def test_one_image_with_other_sets_of_labels_contradicts_itself_and_with_the_same_set_does_not():
    images = scenes(40, 2)
    images[1], images[3] = images[0], images[2]
    targets = np.random.default_rng(0).integers(0, 2, (40, 3)).astype(np.uint8)
    targets[[0, 1, 2, 3]] = (1, 0, 1), (1, 1, 0), (0, 1, 1), (0, 1, 1)
    audit = audit_of_splits({"train": ArraySplit(images, np.zeros(40, np.int32), targets=targets)}, "abc")
    assert [case.examples for case in kinds(audit)["contradiction"].cases] == [(0, 1)]
    assert [case.examples for case in kinds(audit)["exact_duplicates"].cases] == [(2, 3)]


def test_classes_without_images_of_few_images_and_out_of_balance_are_named():
    labels = np.array([0] * 40 + [1] * 3, np.int32)
    train, test = ArraySplit(scenes(43, 3), labels), ArraySplit(scenes(2, 4), np.array([0, 1], np.int32))
    found = kinds(audit_of_splits({"train": train, "test": test}, ["many", "few", "none"]))
    assert found["empty_class"].severity == "problem"
    assert found["empty_class"].lines[0] == "train has no readable image of none"
    assert found["tiny_class"].lines == ("few (3)",)
    assert "13 times as many" in found["imbalance"].lines[0]


def test_a_class_that_only_the_test_lacks_is_a_warning():
    train = ArraySplit(scenes(50, 5), np.arange(50, dtype=np.int32) % 2)
    test = ArraySplit(scenes(3, 6), np.zeros(3, np.int32))
    audit = audit_of_splits({"train": train, "test": test}, "ab")
    assert kinds(audit)["empty_class"].severity == "warning"
    assert audit.status == 0


def test_a_wrong_label_that_was_copied_does_not_vouch_for_itself(tmp_path):
    folder = make(tmp_path / "images", train=40, test=5)
    for number in range(12):
        shutil.copy(folder / "train" / "amber" / "0.jpg", folder / "train" / "teal" / f"copy{number}.jpg")
    (folder / "train" / "amber" / "0.jpg").unlink()
    (case,) = kinds(audit_of(folder, Colours()))["wrong_label"].cases
    assert case.text.startswith("looks like amber")


def test_images_in_a_tar_are_looked_over_as_files_are(dirty, tmp_path):
    planted, report = dirty
    folder = next(each.files[0] for each in planted if each.kind == "CMYK").parents[2]
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(folder, "images")
    source = open_source(DataConfig(source=f"tar:{tmp_path}/all.tar"), seed=0)
    audit = audit_of_splits(source.splits, source.class_names, Colours())
    assert {finding.kind: len(finding.examples) for finding in audit.findings} == {
        finding["kind"]: finding["images"] for finding in report["findings"]
    }


@pytest.mark.parametrize("jpeg", [None, 90])
def test_prepared_images_have_the_sizes_of_their_originals(tmp_path, jpeg):
    folder = make(tmp_path / "images", train=8, test=2)
    for name, size in (("0", (600, 60)), ("1", (12, 10))):
        scene(np.random.default_rng(9)).resize(size).save(folder / "train" / "amber" / f"{name}.jpg", quality=92)
    original = audit_of(folder)
    prepared(folder, tmp_path / "prepared", (48, 48), jpeg=jpeg)
    source = open_source(DataConfig(source=f"prepared:{tmp_path / 'prepared'}"), seed=0)
    audit = audit_of_splits(source.splits, source.class_names)
    assert audit.to_json()["sizes"] == original.to_json()["sizes"]
    for kind, text in (("aspect", "600×60"), ("tiny", "12×10")):
        (case,) = kinds(audit)[kind].cases
        assert case.text == text
        shown = Thumbnails(audit.album).get(case.examples[0])
        width, height = map(int, text.split("×"))
        assert shown.width / shown.height == pytest.approx(width / height, rel=0.1)


def test_what_encoded_images_say_is_told_of_every_source_that_has_them():
    class Records(ArraySplit):
        def encoded(self, index):
            buffer, exif = io.BytesIO(), Image.Exif()
            exif[ExifTags.Base.Orientation] = 6 if index == 3 else 1
            Image.fromarray(self.images[index]).save(buffer, "JPEG", exif=exif)
            return buffer.getvalue()

    audit = audit_of_splits({"train": Records(scenes(20, 7), np.arange(20, dtype=np.int32) % 2)}, "ab")
    assert [case.examples for case in kinds(audit)["exif_turned"].cases] == [(3,)]


def test_digits_that_look_alike_are_no_duplicates():
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images[:120] / 16 * 255).round().astype(np.uint8)[..., None]
    audit = audit_of_splits({"train": ArraySplit(images, digits.target[:120].astype(np.int32))}, "0123456789")
    assert sum(len(finding.examples) for finding in audit.findings) <= 1
