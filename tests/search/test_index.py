import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("faiss")

import jaxnets
from jaxnets.errors import UserError
from jaxnets.search import build, kinds
from jaxnets.search.build import build_index
from jaxnets.search.index import open_index
from jaxnets.search.pairs import duplicates, leakage
from jaxnets.search.store import Store
from jaxnets.vectors import vectors_of
from tests.tiny import classifier

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model():
    return classifier("cifar", 3)


def scene() -> Image.Image:
    """Returns shapes at random, so that no two images are alike."""
    coarse = RANDOM.integers(0, 256, (7, 7, 3), np.uint8)
    return Image.fromarray(coarse).resize((80, 72), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(12):
        scene().save(tmp_path / "images" / f"{i}.png")
    return tmp_path / "images"


@pytest.fixture
def built(model, folder, tmp_path):
    build_index(model, tmp_path / "index", [folder])
    return tmp_path / "index"


@pytest.fixture
def computed(monkeypatch):
    """The files whose vectors are computed, in order."""
    seen = []

    def watched(backbone, files, threads=None):
        for block in vectors_of(backbone, files, threads):
            seen.extend(os.path.basename(file) for file in files[block.start : block.start + len(block.errors)])
            yield block

    monkeypatch.setattr(build, "vectors_of", watched)
    return seen


def test_an_image_is_most_like_itself_and_the_order_is_that_of_the_cosine(model, folder, built):
    files = sorted(map(str, folder.iterdir()))
    index = jaxnets.search(built, model)
    assert len(index) == 12
    unit = kinds.unit(model.embed(files))
    for file, hits, row in zip(files, index.find(files, top=12), unit @ unit.T, strict=True):
        assert (hits[0].file, hits[0].similarity) == (file, pytest.approx(1, abs=1e-4))
        np.testing.assert_allclose([hit.similarity for hit in hits], np.sort(row)[::-1], atol=1e-3)


def test_adding_computes_what_is_new_and_finds_as_if_all_had_been_there(model, folder, built, tmp_path, computed):
    for i in (20, 21):
        scene().save(folder / f"{i}.png")
    added = build_index(model, built, [folder])
    assert (added.added, added.kept, added.anew) == (2, 12, False)
    assert sorted(computed) == ["20.png", "21.png"]
    whole = tmp_path / "whole"
    build_index(model, whole, [folder])
    one, other = (open_index(path, model).find([folder / "21.png"], top=14)[0] for path in (built, whole))
    assert [hit.file for hit in one] == [hit.file for hit in other]
    assert build_index(model, built, [folder]).added == 0


def test_an_image_that_was_changed_counts_as_it_is_now(model, folder, built):
    before = open_index(built, model).find([folder / "3.png"], top=1)[0][0]
    scene().save(folder / "3.png")
    assert build_index(model, built, [folder]).added == 1
    index = open_index(built, model)
    assert len(index) == 12
    hits = index.find([folder / "3.png"], top=12)[0]
    assert (hits[0].file, hits[0].similarity) == (before.file, pytest.approx(1, abs=1e-4))
    assert len({hit.file for hit in hits}) == len(hits) == 12


def test_where_too_many_vectors_no_longer_count_the_index_is_built_anew(model, folder, built):
    for i in range(3):
        scene().save(folder / f"{i}.png")
    assert build_index(model, built, [folder]).anew
    index = open_index(built, model)
    assert len(index) == index.head.count == 12


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_an_index_that_outgrows_its_kind_keeps_its_vectors(model, folder, built, kind, monkeypatch, computed):
    monkeypatch.setattr(kinds, "_FLAT", 0)
    monkeypatch.setattr(kinds, "_HNSW", 100 if kind == "hnsw" else 0)
    scene().save(folder / "30.png")
    assert build_index(model, built, [folder]).anew
    assert computed == ["30.png"]
    index = open_index(built, model)
    assert index.head.plan.kind == kind
    assert {index.find([file], top=1)[0][0].file for file in folder.iterdir()} == set(map(str, folder.iterdir()))
    scene().save(folder / "31.png")
    assert not build_index(model, built, [folder]).anew
    assert open_index(built, model).find([folder / "31.png"], top=1)[0][0].file == str(folder / "31.png")


def test_an_interrupted_building_leaves_the_old_index_and_keeps_what_was_computed(
    model, folder, built, monkeypatch, computed
):
    for i in range(40, 60):
        scene().save(folder / f"{i}.png")
    watched = build.vectors_of

    def interrupted(backbone, files, threads=None):
        blocks = watched(backbone, files, threads)
        yield next(blocks)
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "vectors_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_index(model, built, [folder])
    first = list(computed)
    assert 0 < len(first) <= 20
    assert len(open_index(built, model)) == 12
    computed.clear()
    monkeypatch.setattr(build, "vectors_of", watched)
    assert build_index(model, built, [folder]).added == 20
    assert not set(first) & set(computed)
    assert len(open_index(built, model)) == 32
    assert not (built / "pending").exists()


def test_an_interrupted_writing_leaves_the_old_index(model, folder, built, monkeypatch):
    scene().save(folder / "70.png")

    def fails(index, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kinds, "write", fails)
        with pytest.raises(KeyboardInterrupt):
            build_index(model, built, [folder])
    assert len(open_index(built, model)) == 12
    build_index(model, built, [folder])
    assert len(open_index(built, model)) == 13
    assert len([path for path in built.iterdir() if path.name.isdecimal()]) == 1


@pytest.mark.parametrize("other", ["weights", "preprocess"])
def test_an_index_of_another_model_is_refused(model, folder, built, other):
    changed = classifier("wide", 3)
    if other == "preprocess":
        changed = replace(model, preprocess=replace(model.preprocess, crop_fraction=1.0))
    before = (built / "index.json").read_text()
    for attempt in (lambda: open_index(built, changed), lambda: build_index(changed, built, [folder])):
        with pytest.raises(UserError, match=r"vectors of different models cannot be compared\. Give the model"):
            attempt()
    assert (built / "index.json").read_text() == before


def test_a_new_head_leaves_the_vectors_as_they_are(model, built):
    head = {**model.variables["params"]["head"], "bias": np.ones(3, np.float32)}
    other = replace(model, variables={**model.variables, "params": {**model.variables["params"], "head": head}})
    assert len(open_index(built, other)) == 12


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "000001" / "vectors.faiss").write_bytes(b"x" * 50), "take 50 bytes, expected"),
        (lambda d: (d / "000001" / "paths").write_bytes(b"a\0"), "12 vectors and 1 files do not match"),
        (lambda d: shutil.rmtree(d / "000001"), "is damaged"),
        (lambda d: (d / "index.json").write_text("{"), "is damaged"),
        (lambda d: (d / "index.json").write_text('{"format": 9}'), "of format '9', and this version reads 1"),
        (lambda d: (d / "index.json").unlink(), "there is no index in"),
    ],
)
def test_a_damaged_index_is_named(model, built, damage, message):
    damage(built)
    with pytest.raises(UserError, match=message):
        open_index(built, model)


def test_a_generation_that_leads_elsewhere_is_refused(model, built):
    said = json.loads((built / "index.json").read_text())
    (built / "index.json").write_text(json.dumps({**said, "generation": "../elsewhere"}))
    with pytest.raises(UserError, match="names a generation"):
        open_index(built, model)


def test_a_folder_with_other_things_is_no_place_for_an_index(model, folder):
    with pytest.raises(UserError, match="holds other things"):
        build_index(model, folder, [folder])
    assert len(list(folder.glob("*.png"))) == 12


def test_two_buildings_at_once_are_refused(model, folder, built):
    with Store(built).alone(), pytest.raises(UserError, match="another process is building"):
        build_index(model, built, [folder])


def test_images_that_cannot_be_read_are_left_out_and_said(model, folder, tmp_path):
    (folder / "bad.png").write_bytes(b"no image")
    found = build_index(model, tmp_path / "index", [folder])
    assert found.added == 12
    assert "bad.png is not an image" in found.unreadable[0]
    (tmp_path / "bad").mkdir()
    shutil.move(folder / "bad.png", tmp_path / "bad" / "bad.png")
    with pytest.raises(UserError, match="none of the 1 images can be read"):
        build_index(model, tmp_path / "other", [tmp_path / "bad"])


def test_without_faiss_it_is_said_how_to_install_it(model, built, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"faiss is not installed.*pip install 'jaxnets\[search\]'"):
        open_index(built, model)


def test_images_that_are_one_are_found_within_an_index_and_in_a_test(model, folder, tmp_path):
    image = Image.open(folder / "4.png")
    image.resize((60, 54)).save(folder / "small.png")
    test = tmp_path / "test"
    test.mkdir()
    Image.open(folder / "7.png").convert("RGB").save(test / "again.jpg", quality=80)
    scene().save(test / "other.png")
    build_index(model, tmp_path / "index", [folder])
    index = open_index(tmp_path / "index", model)
    (pair,) = duplicates(index, similarity=-1)
    assert {os.path.basename(pair.first), os.path.basename(pair.second)} == {"4.png", "small.png"}
    assert pair.turned == ""
    (leak,) = leakage(index, [test], similarity=-1)
    assert (os.path.basename(leak.first), os.path.basename(leak.second)) == ("again.jpg", "7.png")
    assert duplicates(index, similarity=1) == []
    with pytest.raises(UserError, match="similarity must be from -1 to 1, found 2"):
        duplicates(index, similarity=2)


def test_the_command_builds_and_finds(run, folder, tmp_path):
    asked = ("--images", folder, "--query", folder / "5.png", "--top", 2, "--json")
    done = run("jaxnets.search", "--model", "efficientnet_lite0", "--index", tmp_path / "index", *asked)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert os.path.basename(found["hits"][0]["file"]) == "5.png"
    assert len(found["hits"]) == 2
    assert "12 vectors, 12 of them new; flat" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give --images to build an index, or --query"),
        (("--images", "x"), "--images needs --model"),
        (("--query", "x", "--top", "0"), "--top must be at least 1"),
        (("--query", "x"), "there is no index in"),
    ],
)
def test_the_command_says_mistakes(run, tmp_path, options, message):
    done = run("jaxnets.search", "--index", tmp_path / "none", *options)
    assert done.returncode == 1
    assert message in done.stderr
