"""What is interrupted, missing, cut short or altered: gone on with, or refused by name."""

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jaxnets.config import DataConfig, resolve
from jaxnets.data.dataset import open_dataset, open_evaluation
from jaxnets.data.sources import open_undivided
from jaxnets.data.sources.prepared import read_index
from jaxnets.data.sources.prepared_files import INDEX, Table
from jaxnets.errors import UserError
from jaxnets.prepare import files
from jaxnets.prepare.__main__ import _refuse_bucket, _refuse_within, _share, _size, main
from jaxnets.prepare.progress import Progress
from jaxnets.prepare.run import verify
from tests.prepare.sets import content, photographs, prepared, silent
from tests.prepare.test_prepare import SEEN, of


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder of images, and what it becomes."""
    root = tmp_path_factory.mktemp("whole")
    folder = photographs(root / "photographs")
    prepared(folder, root / "prepared")
    return folder, root / "prepared"


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of the images and of what they became, which is damaged in the tests."""
    shutil.copytree(whole[0], tmp_path / "photographs", copy_function=shutil.copy2)
    shutil.copytree(whole[1], tmp_path / "prepared")
    return tmp_path / "photographs", tmp_path / "prepared"


def refusal(out) -> str:
    with pytest.raises(UserError) as refused:
        open_undivided(DataConfig(source=f"prepared:{out}"))
    return str(refused.value)


class Stopping(Progress):
    """Raises when so many images are done."""

    def __init__(self, after: int, error: BaseException) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.after, self.error = after, error

    def advance(self, images, unreadable):
        super().advance(images, unreadable)
        if self._done >= self.after:
            raise self.error


@pytest.mark.parametrize("after", [1, 5, 9, 17])
def test_what_is_interrupted_goes_on_to_the_same_bytes(whole, tmp_path, after):
    with pytest.raises(KeyboardInterrupt):
        prepared(whole[0], tmp_path / "prepared", progress=Stopping(after, KeyboardInterrupt()))
    assert "is not finished" in refusal(tmp_path / "prepared")
    assert not list((tmp_path / "prepared").glob(".*"))
    kept = {file: file.stat().st_ino for file in (tmp_path / "prepared").glob("*.npy")}
    prepared(whole[0], tmp_path / "prepared")
    assert content(tmp_path / "prepared") == content(whole[1])
    assert {file: file.stat().st_ino for file in kept} == kept


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.prepare import sets
done = 0
class Killing(sets.Progress):
    def advance(self, images, unreadable):
        global done
        done += images
        if done >= 9:
            os.kill(os.getpid(), signal.SIGKILL)
sets.prepared(Path(sys.argv[1]), Path(sys.argv[2]), progress=Killing(sets.silent()._console))
"""


def test_what_is_killed_goes_on_to_the_same_bytes(whole, tmp_path):
    command = [sys.executable, "-c", KILLED, str(whole[0]), str(tmp_path / "prepared")]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert list((tmp_path / "prepared").glob(".*.partial"))
    prepared(whole[0], tmp_path / "prepared")
    assert content(tmp_path / "prepared") == content(whole[1])


@pytest.mark.parametrize("processes", [2, 3])
def test_the_shares_of_several_processes_are_the_whole(whole, tmp_path, processes):
    for process in range(processes):
        outcome = prepared(whole[0], tmp_path / "prepared", process=process, processes=processes)
        last = process == processes - 1
        assert bool(outcome.missing) != last
        assert ("is not finished" in refusal(tmp_path / "prepared")) if not last else True
    assert content(tmp_path / "prepared") == content(whole[1])


def test_a_shard_that_another_process_writes_is_left_to_it(whole, tmp_path):
    with files.new_file(tmp_path / "x.npy") as file:
        file.write(b"half")
        with pytest.raises(UserError, match=r"another process is writing .*x\.npy"), files.new_file(tmp_path / "x.npy"):
            pass
        file.write(b" done")
    assert (tmp_path / "x.npy").read_bytes() == b"half done"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_what_is_finished(whole, tmp_path, monkeypatch, number):
    synced = os.fsync
    calls = iter(range(100))

    def full(descriptor):
        if next(calls) == 8:
            raise OSError(number, os.strerror(number))
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"disk of .* is full: make room; what is finished is kept"):
        prepared(whole[0], tmp_path / "prepared")
    assert not list((tmp_path / "prepared").glob(".*"))
    assert list((tmp_path / "prepared").glob("*.npz"))
    monkeypatch.undo()
    prepared(whole[0], tmp_path / "prepared")
    assert content(tmp_path / "prepared") == content(whole[1])


def test_a_disk_that_is_too_small_is_refused_before_anything_is_decoded(whole, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5000))
    with pytest.raises(UserError, match=r"has 0 MiB left, and 0 MiB are to be written: make room"):
        prepared(whole[0], tmp_path / "prepared")
    assert not list((tmp_path / "prepared").glob("*.np?"))


def cut(file):
    file.write_bytes(file.read_bytes()[:-7])


def grow(file):
    file.write_bytes(file.read_bytes() + b"x")


def alter(file):
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(bytes(content))


def behead(file):
    file.write_bytes(b"\x94" + file.read_bytes()[1:])


def remove(file):
    file.unlink()


DAMAGES = [
    (cut, ".npy", "bytes, and had"),
    (grow, ".npy", "bytes, and had"),
    (alter, ".npy", "has another checksum"),
    (behead, ".npy", "does not begin as it did"),
    (remove, ".npy", "is missing"),
    (cut, ".npz", "cannot be read as a table"),
    (alter, ".npz", ""),
    (remove, ".npz", "cannot be read"),
]


@pytest.mark.parametrize(("damage", "suffix", "said"), DAMAGES)
def test_a_damaged_shard_is_refused_by_name_and_written_anew(copy, whole, damage, suffix, said):
    folder, out = copy
    shard = sorted(out.glob(f"train-*{suffix}"))[1]
    damage(shard)
    message = refusal(out)
    assert shard.name in message
    assert said in message
    assert "run the command that prepared it again" in message
    before = {file: file.stat().st_ino for file in out.iterdir()}
    prepared(folder, out)
    assert content(out) == content(whole[1])
    rewritten = {file.stem for file, inode in before.items() if file != shard and file.stat().st_ino != inode}
    assert rewritten <= {shard.stem}


def test_a_shard_of_another_set_is_refused(copy, tmp_path):
    folder, out = copy
    (folder / "train" / "cat" / "0.png").write_bytes((folder / "train" / "dog" / "2.png").read_bytes())
    prepared(folder, tmp_path / "other")
    first = sorted(out.glob("train-*.npy"))[0]
    shutil.copy(tmp_path / "other" / first.name, first)
    assert f"{first.name} does not hold what was written: example 0 (cat/0.png)" in refusal(out)


def test_every_byte_is_looked_at_when_asked(copy):
    out = copy[1]
    assert verify(out, read_index(out, "x"), silent()) == []
    for shard in sorted(out.glob("test-*.files"))[:1] + sorted(out.glob("train-*.npy"))[2:3]:
        alter(shard)
    wrong = verify(out, read_index(out, "x"), silent())
    assert len(wrong) == 2
    assert "train-00002" in wrong[0]
    assert "test-00000" in wrong[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2, "jaxnets": "9.9"}, "is of format 2, and this version of jaxnets reads format 1: .*9.9"),
        ({"tables": None}, "is not finished"),
        ({"height": "16"}, "cannot be read"),
        ({"shards": {"../train": 1}}, "cannot be read"),
        ({"class_names": ["cat"]}, "has labels outside 0 … 0"),
        ({"unknown": 1}, "cannot be read"),
    ],
)
def test_an_index_that_cannot_be_is_refused(copy, change, said):
    index = copy[1] / INDEX
    index.write_text(json.dumps({**json.loads(index.read_text()), **change}))
    with pytest.raises(UserError, match=said):
        open_undivided(DataConfig(source=f"prepared:{copy[1]}"))


@pytest.mark.parametrize(
    "change",
    [
        {"nbytes": lambda table: table.nbytes + np.array([1, -1] + [0] * (len(table) - 2))},
        {"sizes": lambda table: table.sizes * 0},
        {"targets": lambda table: np.zeros((len(table), 3), np.uint8)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_table_that_cannot_be_is_refused(copy, change):
    file, index = copy[1] / "train-00001-of-00006.npz", copy[1] / INDEX
    table, _ = Table.of_file(file)
    changed = replace(table, **{name: make(table) for name, make in change.items()})
    file.write_bytes(changed.to_bytes())
    saved = json.loads(index.read_text())
    saved["tables"][file.stem] = zlib.crc32(file.read_bytes())
    index.write_text(json.dumps(saved))
    assert "train-00001-of-00006.npz says what cannot be of its images" in refusal(copy[1])


def test_what_is_no_prepared_data_is_refused(tmp_path):
    assert "does not exist; expected what python -m jaxnets.prepare" in refusal(tmp_path / "nowhere")
    assert "has no prepared.json" in refusal(tmp_path)
    (tmp_path / INDEX).write_text("{")
    assert "prepared.json cannot be read" in refusal(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("")
    folder = photographs(tmp_path / "photographs", train=1, test=1)
    with pytest.raises(UserError, match=r"holds other files \(letter\): give --out a new or an empty folder"):
        prepared(folder, tmp_path / "mine")


def test_a_file_that_is_cut_while_it_is_read_is_named(copy):
    examples = open_dataset(of("prepared", copy[1]), SEEN).training
    cut(sorted(copy[1].glob("train-*.npy"))[1])
    with pytest.raises(UserError, match=r"train-00001-of-.*\.npy was cut short while it was read"):
        [examples.read(index) for index in range(len(examples))]


def break_(folder):
    for number in (1, 3):
        file = folder / "train" / "cat" / f"{number}.jpg"
        file.write_bytes(file.read_bytes()[:100])


def test_unreadable_images_are_listed_and_refused_or_left_out(copy, tmp_path):
    folder, _ = copy
    break_(folder)
    said = io.StringIO()
    progress = Progress(Console(file=said, width=500))
    with pytest.raises(UserError, match=r"2 images cannot be read: .*1.jpg .*3.jpg .*--skip-corrupt"):
        prepared(folder, tmp_path / "out", progress=progress)
    assert said.getvalue().count("cannot be read: ") == 2
    assert "is not finished" in refusal(tmp_path / "out")
    outcome = prepared(folder, tmp_path / "out", skip_corrupt=True)
    assert (outcome.examples, outcome.skipped) == (18, 2)
    source = open_undivided(DataConfig(source=f"prepared:{tmp_path / 'out'}"))
    assert "2 images that could not be read are not in it" in source.notes
    names = [source.splits["train"].name(i) for i in range(len(source.splits["train"]))]
    assert len(names) == 12
    assert not {"cat/1.jpg", "cat/3.jpg"} & set(names)
    assert "cat/0.png" in names


def test_a_mended_image_is_put_in(copy, whole, tmp_path):
    folder, _ = copy
    break_(folder)
    prepared(folder, tmp_path / "out", skip_corrupt=True)
    for number in (1, 3):
        shutil.copy2(whole[0] / "train" / "cat" / f"{number}.jpg", folder / "train" / "cat" / f"{number}.jpg")
    prepared(folder, tmp_path / "out")
    assert content(tmp_path / "out").keys() == content(whole[1]).keys()
    expected, found = (open_dataset(of("prepared", out), SEEN).training.load(1) for out in (whole[1], tmp_path / "out"))
    np.testing.assert_array_equal(found, expected)


def test_images_of_which_none_can_be_read_are_refused(copy, tmp_path):
    for file in (copy[0] / "test").rglob("*.*"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match="none of the images of test can be read"):
        prepared(copy[0], tmp_path / "out", skip_corrupt=True)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"canvas_size": 20}, r"canvas_size is 20×20, and prepared:.* holds canvases of 16×16: .*--size 20"),
        ({"canvas_size": None, "image_size": 17}, r"16×16, smaller than the model's input of 17×17"),
        ({"channels": 1}, r"holds RGB images, and the run is of grey ones: .*--config.data.channels=1"),
        ({"white_level": 4095}, r"prepared with config.data.white_level=65535, and it is 4095 now"),
    ],
)
def test_a_run_that_it_was_not_prepared_for_is_refused(whole, data, said):
    with pytest.raises(UserError, match=said):
        open_dataset(of("prepared", whole[1], **data))


def test_an_evaluation_that_would_enlarge_is_refused(whole):
    config = resolve({"data": {"source": f"prepared:{whole[1]}"}})
    big = SEEN.__class__(**{**vars(SEEN), "height": 17, "width": 17})
    with pytest.raises(UserError, match="smaller than the model's input of 17×17"):
        open_evaluation(config, big, ("cat", "dog"))


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (lambda: _refuse_bucket("gs://bucket/x"), "--out must be a folder of a disk, found gs://bucket/x"),
        (lambda: _refuse_within("folder:/data/a", Path("/data/a/b")), "lies in folder:/data/a, which would then have"),
        (lambda: _refuse_within("folder:/data/a", Path("/data/a/../a")), "lies in folder:/data/a, which would"),
        (lambda: _size("x", None, None), "--size must be pixels"),
        (lambda: _size(None, None, None), "the images have different sizes: give --size"),
        (lambda: _size("20x30", None, 90), "the limit of the shorter side, one number"),
        (lambda: _share(1, None), "--process and --processes are given together"),
        (lambda: _share(2, 2), "--process 2 is not one of 2 processes"),
    ],
)
def test_options_that_cannot_be_are_refused(work, said):
    with pytest.raises(UserError, match=said):
        work()


def test_options_mean_what_they_say():
    assert _size("20x30", None, None) == (20, 30)
    assert _size(None, (5, 6), None) == (5, 6)
    assert _size(None, (5, 6), 90) == (5, 5)
    assert _share(1, 3) == (1, 3)
    _refuse_within("folder:/data/a", Path("/data/ab"))
    _refuse_within("csv:/data/a.csv", Path("/data/a"))


def test_the_config_s_canvas_is_what_is_prepared(tmp_path, monkeypatch):
    folder = photographs(tmp_path / "photographs")
    arguments = ("--source", f"folder:{folder}", "--out", str(tmp_path / "out"), "--config.data.canvas_size=8x9")
    monkeypatch.setattr("sys.argv", ["prepare", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    index = read_index(tmp_path / "out", "out")
    assert (index.height, index.width) == (8, 9)
