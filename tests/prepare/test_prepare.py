"""What a source becomes when it is prepared, and what of it survives."""

import dataclasses
import os
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxnets.config import DataConfig, TableConfig, resolve
from jaxnets.data.dataset import open_dataset, open_evaluation
from jaxnets.data.pipeline import evaluation_batches, train_stream
from jaxnets.data.sources import ArraySplit, Source, open_source, open_undivided
from jaxnets.data.sources.prepared_files import INDEX, Index, Table, Texts, bounds, npy_header
from jaxnets.errors import UserError
from jaxnets.preprocess import Preprocess
from tests.data.sources import tables
from tests.prepare.sets import content, opened, photographs, prepared

SEEN = Preprocess(height=12, width=12, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3, crop_fraction=0.875)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder of images, and what it becomes."""
    root = tmp_path_factory.mktemp("sets")
    folder = photographs(root / "photographs")
    prepared(folder, root / "prepared")
    return folder, root / "prepared"


def of(kind, location, **data):
    return resolve({"data": {"source": f"{kind}:{location}", "image_size": 12, "canvas_size": 16, **data}})


def batches(data, **options):
    steps = {"batch_size": 5, "start_step": 0, "stop_step": 6}
    return [vars(batch) for batch in train_stream(data.training, order=data.order, threads=2, **steps, **options)]


def test_prepared_data_gives_the_batches_of_its_source(sets):
    first, second = (open_dataset(of(*one), SEEN) for one in zip(("folder", "prepared"), sets, strict=True))
    for expected, found in zip(batches(first), batches(second), strict=True):
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("data", [{}, {"validation": 0.3}])
def test_the_same_examples_are_held_out_of_both(sets, data):
    folder, canvases = sets
    first, second = open_dataset(of("folder", folder, **data)), open_dataset(of("prepared", canvases, **data))
    assert first.class_names == second.class_names
    for name, (split, chosen) in first.selections.items():
        other, also_chosen = second.selections[name]
        assert [split.name(i) for i in chosen] == [other.name(i) for i in also_chosen]
        np.testing.assert_array_equal(split.labels[chosen], other.labels[also_chosen])


def test_a_drawn_test_split_is_the_source_s(tmp_path):
    folder = photographs(tmp_path / "photographs") / "train"
    prepared(folder, tmp_path / "prepared")
    first = open_source(DataConfig(source=f"folder:{folder}"), 5).splits["test"]
    second = open_source(DataConfig(source=f"prepared:{tmp_path / 'prepared'}"), 5).splits["test"]
    assert [first.name(i) for i in range(len(first))] == [second.name(i) for i in range(len(second))]
    assert 0 < len(first) < 14


@pytest.mark.parametrize("split", ["test", "validation"])
def test_evaluation_sees_what_it_sees_of_the_source(sets, split):
    """To the bit where a split is the source's own; of canvases, as near as a second resize comes."""
    data = {"validation": 0.3} if split == "validation" else {}
    kinds = zip(("folder", "prepared"), sets, strict=True)
    passes = [
        evaluation_batches(open_dataset(of(kind, where, **data), SEEN).split(split), batch_size=4, threads=2)
        for kind, where in kinds
    ]
    for expected, found in zip(*passes, strict=True):
        np.testing.assert_array_equal(found.label, expected.label)
        np.testing.assert_array_equal(found.mask, expected.mask)
        difference = np.abs(found.image.astype(int) - expected.image)
        assert difference.max() == 0 if split == "test" else difference.mean() < 3


def test_a_canvas_is_evaluated_in_the_geometry_of_its_original(tmp_path):
    """A wide image with a square in its middle: squeezed it is a narrow box, and evaluation must see the square."""
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / "wide" / split / name).mkdir(parents=True)
            pixels = np.zeros((40, 120, 3), np.uint8)
            pixels[10:30, 50:70] = 255
            Image.fromarray(pixels).save(tmp_path / "wide" / split / name / "0.png")
    prepared(tmp_path / "wide", tmp_path / "prepared", (40, 40))
    whole = dataclasses.replace(SEEN, height=40, width=40, crop_fraction=1.0)
    config = resolve({"data": {"source": f"prepared:{tmp_path / 'prepared'}", "image_size": 40}})
    seen = open_dataset(config, whole).split("train").read(0)
    assert seen.aspect == 3
    expected = np.zeros((40, 40))
    expected[10:30, 10:30] = 255
    assert np.abs(seen.image[..., 0] - expected).mean() < 12  # its edges are enlarged threefold
    assert seen.image[20, [11, 28], 0].min() > 128 > seen.image[20, [8, 31], 0].max()


def test_images_of_the_canvas_s_size_are_stored_to_the_bit(tmp_path):
    digits = open_undivided(DataConfig(source="digits"))
    prepared(digits, tmp_path / "digits", (8, 8), shard_bytes=30_000)
    first, second = (
        open_dataset(resolve({"data": {"source": source, "validation": 0.1}}))
        for source in ("digits", f"prepared:{tmp_path / 'digits'}")
    )
    assert first.preprocess == second.preprocess
    assert second.canvas_is_input
    for name in first.splits:
        np.testing.assert_array_equal(first.split(name).load(2), second.split(name).load(2))


def test_a_shard_opens_as_an_array(sets):
    files = sorted(sets[1].glob("train-*.npy"))
    assert len(files) > 2
    arrays = [np.load(file, mmap_mode="r") for file in files]
    assert {array.shape[1:] for array in arrays} == {(16, 16, 3)}
    assert sum(map(len, arrays)) == 14
    table = np.load(files[0].with_suffix(".npz"))
    assert [zlib.crc32(canvas) for canvas in arrays[0]] == table["crc32"].tolist()


def test_what_fits_lies_in_memory_without_being_copied(tmp_path, sets):
    folder, several = sets
    prepared(folder, tmp_path / "one", shard_bytes=10**9)
    one = open_dataset(of("prepared", tmp_path / "one"), SEEN).training
    images = one.load(2)
    assert not images.flags.owndata
    assert not images.flags.writeable
    np.testing.assert_array_equal(images, open_dataset(of("prepared", several), SEEN).training.load(2))


@pytest.mark.skipif(sys.platform != "linux", reason="the system says there what is resident")
def test_a_run_does_not_hold_on_to_all_that_it_has_read(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (256, 64, 64, 3), np.uint8)
    arrays = ArraySplit(images, np.arange(256, dtype=np.int32) % 2)
    source = Source(
        description="arrays", class_names=("a", "b"), splits={"train": arrays}, image_size=(64, 64), channels=3
    )
    prepared(source, tmp_path / "prepared", (64, 64), shard_bytes=2**30)
    monkeypatch.setattr("jaxnets.data.sources.prepared_splits._RESIDENT", 100_000)
    split = open_undivided(DataConfig(source=f"prepared:{tmp_path / 'prepared'}")).splits["train"]

    def resident() -> int:
        """Returns KiB of the shard that this process holds."""
        lines = Path("/proc/self/smaps").read_text().splitlines()
        starts = [n for n, line in enumerate(lines) if f"{tmp_path}" in line]
        return sum(int(next(line for line in lines[n:] if line.startswith("Rss:")).split()[1]) for n in starts)

    most, out = 0, np.empty((5, 64, 64, 3), np.uint8)
    for number, numbers in enumerate(np.random.default_rng(1).integers(0, 256, (61, 5))):
        split.read_into(numbers, out)
        np.testing.assert_array_equal(out, images[numbers])
        most = most if number % 6 else max(most, resident())
    assert 0 < most < 0.8 * images.nbytes / 1024


def test_hosts_load_their_shares_of_it(sets):
    examples = open_dataset(of("prepared", sets[1]), SEEN).training
    whole = open_dataset(of("prepared", sets[1]), SEEN).training.load(1)
    share = np.array([1, 4, 5, 11])
    np.testing.assert_array_equal(examples.load(2, share)[share], whole[share])


@pytest.mark.parametrize("write", [tables.write_csv, tables.write_parquet, tables.write_tar])
def test_any_source_is_prepared(tmp_path, monkeypatch, write):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = open_undivided(DataConfig(source=write(tmp_path / "data")))
    prepared(first, tmp_path / "prepared", (6, 6))
    second = open_undivided(DataConfig(source=f"prepared:{tmp_path / 'prepared'}"))
    assert second.class_names == first.class_names
    assert second.splits.keys() == first.splits.keys()
    for name, split in first.splits.items():
        other = second.splits[name]
        np.testing.assert_array_equal(other.identities, split.identities)
        np.testing.assert_array_equal(other.labels, split.labels)
        assert [other.name(i) for i in range(len(other))] == [split.name(i) for i in range(len(split))]
    for i in range(len(first.splits["test"])):
        np.testing.assert_array_equal(second.splits["test"].image(i), first.splits["test"].image(i))


def test_groups_and_targets_survive(tmp_path):
    (tmp_path / "images").mkdir()
    lines = ["image,label,group"]
    for n in range(24):
        (tmp_path / "images" / f"{n}.png").write_bytes(tables.encoded(n))
        lines.append(f"images/{n}.png,{('ant', 'bee', 'ant|bee')[n % 3]},{n // 4}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    spec = DataConfig(source=f"csv:{tmp_path / 'labels.csv'}", table=TableConfig(separator="|"))
    prepared(open_undivided(spec), tmp_path / "prepared", (8, 8))
    for first, second in zip(
        open_source(spec, 1).splits.values(),
        open_source(DataConfig(source=f"prepared:{tmp_path / 'prepared'}"), 1).splits.values(),
        strict=True,
    ):
        np.testing.assert_array_equal(second.groups, first.groups)
        np.testing.assert_array_equal(second.targets, first.targets)
        assert first.groups is not None
        assert first.targets is not None


@pytest.mark.parametrize("name", ["кошка", "猫", "قطة", "chat\nnoir", os.fsdecode(b"caf\xe9")])
def test_names_in_any_script_survive(tmp_path, name):
    folder = photographs(tmp_path / "photographs", train=1, test=1)
    (folder / "train" / "cat" / "0.png").rename(folder / "train" / "cat" / f"{name}.png")
    for split in ("train", "test"):
        (folder / split / "cat").rename(folder / split / f"{name}!")
    prepared(folder, tmp_path / "prepared")
    first, second = opened(folder), open_undivided(DataConfig(source=f"prepared:{tmp_path / 'prepared'}"))
    assert second.class_names == first.class_names
    for split in ("train", "test"):
        assert [second.splits[split].name(i) for i in (0, 1)] == [first.splits[split].name(i) for i in (0, 1)]


def test_an_empty_split_and_a_single_image_survive(tmp_path):
    one = ArraySplit(np.full((1, 6, 4, 1), 7, np.uint8), np.zeros(1, np.int32))
    none = ArraySplit(np.zeros((0, 6, 4, 1), np.uint8), np.zeros(0, np.int32))
    source = Source(
        description="arrays", class_names=("a", "b"), splits={"train": one, "test": none}, image_size=(6, 4), channels=1
    )
    prepared(source, tmp_path / "prepared", (6, 4))
    found = open_undivided(DataConfig(source=f"prepared:{tmp_path / 'prepared'}")).splits
    assert {name: len(split) for name, split in found.items()} == {"train": 1, "test": 0}
    np.testing.assert_array_equal(found["train"].image(0), one.images[0])


def test_jpeg_keeps_the_aspect_and_the_limit(tmp_path):
    folder = photographs(tmp_path / "photographs")
    prepared(folder, tmp_path / "prepared", (24, 24), jpeg=95)
    first, second = opened(folder), open_undivided(DataConfig(source=f"prepared:{tmp_path / 'prepared'}"))
    for name, split in first.splits.items():
        for i in range(len(split)):
            image, stored = split.image(i), second.splits[name].image(i)
            assert min(stored.shape[:2]) == min(*image.shape[:2], 24)
            assert stored.shape[1] / stored.shape[0] == pytest.approx(image.shape[1] / image.shape[0], abs=0.06)
    data = open_dataset(resolve({"data": {"source": f"prepared:{tmp_path / 'prepared'}", "image_size": 12}}), SEEN)
    exact = open_dataset(of("folder", folder), SEEN)
    found, expected = (x.split("test").load(1).astype(int) for x in (data, exact))
    assert np.abs(found - expected).mean() < 6


def test_data_to_evaluate_on_is_whole(sets, tmp_path):
    folder, _ = sets
    prepared(folder / "train", tmp_path / "prepared")
    config = resolve({"data": {"source": f"prepared:{tmp_path / 'prepared'}"}})
    data = open_evaluation(config, SEEN, ("bird", "cat", "dog"))
    assert data.split("all").labels.tolist() == [1] * 7 + [2] * 7


def test_shards_are_as_even_as_can_be():
    for examples, shards in ((10, 3), (3, 3), (0, 1), (1, 1), (1000, 7)):
        found = bounds(examples, shards)
        sizes = [last - first for first, last in found]
        assert sum(sizes) == examples
        assert max(sizes) - min(sizes) <= 1
        assert [first for first, _ in found[1:]] == [last for _, last in found[:-1]]


def test_the_header_is_numpy_s(tmp_path):
    for shape in ((3, 5, 7, 1), (0, 1, 1, 3), (10**9, 10**5, 10**5, 3)):
        (tmp_path / "x.npy").write_bytes(npy_header(shape))
        with open(tmp_path / "x.npy", "rb") as file:
            assert np.lib.format.read_magic(file) == (1, 0)
            assert np.lib.format.read_array_header_1_0(file) == (shape, False, np.dtype(np.uint8))
            assert file.tell() == 128


def test_texts_are_kept_one_by_one():
    texts = ["", "a", "", "zwölf", "猫"]
    kept = Texts.of(texts)
    assert list(kept) == texts
    assert list(Texts.together([kept, Texts.of([]), kept])) == texts * 2


def test_the_provenance_says_where_the_data_came_from(sets):
    folder, canvases = sets
    index = Index.of_json((canvases / INDEX).read_text())
    assert index.source == f"folder:{folder}"
    assert index.class_names == ("cat", "dog")
    assert index.examples == {"train": 14, "test": 6}
    assert index.decoder["white_level"] == 65535
    source = open_undivided(DataConfig(source=f"prepared:{canvases}"))
    assert source.notes[0].startswith(f"prepared from folder:{folder} on {index.date}, canvases of 16×16")


def test_a_set_in_a_bucket_is_copied_once(sets, tmp_path, monkeypatch, objects):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for file in sets[1].iterdir():
        objects.put(f"sets/{file.name}", file.read_bytes(), None)
    here, there = (
        open_dataset(of("prepared", where), SEEN).training.load(1) for where in (sets[1], "gs://bucket/sets")
    )
    np.testing.assert_array_equal(here, there)
    for name in [name for name in objects.objects if name.endswith((".npy", ".npz"))]:
        objects.objects[name] = (*objects.objects[name][:1], bytes(len(objects.objects[name][1])))
    open_dataset(of("prepared", "gs://bucket/sets"), SEEN)  # of which nothing more than the index is read again
    del objects.objects[next(name for name in objects.objects if name.endswith(".npz"))]
    with pytest.raises(UserError, match=r"prepared:gs://bucket/sets: .*\.npz is missing"):
        open_source(DataConfig(source="prepared:gs://bucket/sets"), 0)
    with pytest.raises(UserError, match=r"prepared:gs://bucket/none has no prepared\.json"):
        open_source(DataConfig(source="prepared:gs://bucket/none"), 0)


def test_a_table_of_a_million_takes_no_python_objects(sets):
    table, _ = Table.of_file(min(sets[1].glob("train-*.npz")))
    assert all(isinstance(value, np.ndarray | Texts | int | None) for value in vars(table).values())


def test_the_same_command_twice_changes_nothing(tmp_path):
    folder = photographs(tmp_path / "photographs", train=3, test=1)
    prepared(folder, tmp_path / "prepared")
    before = content(tmp_path / "prepared")
    prepared(folder, tmp_path / "prepared")
    assert content(tmp_path / "prepared") == before


def test_a_command_begun_otherwise_is_refused(tmp_path):
    folder = photographs(tmp_path / "photographs", train=2, test=1)
    prepared(folder, tmp_path / "prepared")
    (folder / "train" / "cat" / "0.png").unlink()
    with pytest.raises(
        UserError, match=r"other images, names, labels or groups \(4 train, 2 test; now 3 train, 2 test\)"
    ):
        prepared(folder, tmp_path / "prepared")
    photographs(tmp_path / "again", train=2, test=1)
    folder = tmp_path / "again"
    with pytest.raises(UserError, match=r"was begun otherwise \(height was 16 and is 20; .*another folder"):
        prepared(folder, tmp_path / "prepared", (20, 20))
