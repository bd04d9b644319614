"""The thread that writes records: what it keeps, what it removes, and what it does where it cannot write."""

import shutil

import numpy as np
import pytest

from jaxnets.errors import UserError
from jaxnets.monitor import recorder as module
from jaxnets.monitor.log import read_log
from jaxnets.monitor.observe import Observer
from jaxnets.monitor.recorder import Answered, Bounds, Recorder
from jaxnets.monitor.records import RECORD
from tests.serve.fakes import FakePredictor

IMAGES = np.full((4, 8, 8, 1), 60, np.uint8)


@pytest.fixture(scope="module")
def observer():
    return Observer(FakePredictor(), "it")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "_PAUSE", 60)  # nothing is written but by `flush` and at the end


def answered(recorder, observer, count=4, **changed):
    rows = observer.rows(IMAGES[:count])
    given = {"sizes": [(8, 8)] * count, "ids": recorder.ids(count), "time": 1.0, "latency": 0.1, "images": []}
    return Answered(observer, rows, **{**given, **changed})


def counted():
    counts = {"written": 0, "dropped": 0}

    def count(key):
        def add(name, number):
            counts[key] += number

        return add

    return counts, count("written"), count("dropped")


def test_what_is_added_is_in_the_log_after_the_end(tmp_path, observer):
    counts, written, dropped = counted()
    recorder = Recorder(tmp_path, None, written, dropped)
    first = answered(recorder, observer)
    recorder.add(first)
    recorder.add(answered(recorder, observer, 2, time=2.0))
    recorder.close()
    found = read_log(tmp_path / "it")
    assert found.about == observer.about
    assert found.rows["id"][:4].tolist() == first.ids.tolist()
    assert found.rows["time"].tolist() == [1.0] * 4 + [2.0] * 2
    assert counts == {"written": 6, "dropped": 0}
    assert len(set(found.rows["id"].tolist())) == 6


def test_files_are_of_a_size_at_most_and_so_many(tmp_path, observer):
    recorder = Recorder(tmp_path, Bounds(file_bytes=1 << 16, files=2))
    for time in range(40):
        many = answered(recorder, observer, time=float(time))
        recorder.add(many._replace(rows=np.tile(many.rows, (16, 1)), sizes=[(8, 8)] * 64, ids=recorder.ids(64)))
        recorder._write()
    recorder.close()
    sizes = [file.stat().st_size for file in (tmp_path / "it").iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= 1 << 16
    found = read_log(tmp_path / "it")
    assert found.rows["time"][-1] == 39  # the newest stay
    assert found.rows["time"][0] > 0
    assert found.notes == ()
    assert len(found) > (1 << 16) / RECORD.itemsize / 2


def test_other_weights_get_a_file_of_their_own(tmp_path, observer):
    other = Observer(FakePredictor(step=2, fingerprint="1" * 16), "it")
    recorder = Recorder(tmp_path)
    recorder.add(answered(recorder, observer))
    recorder.add(answered(recorder, other, 3))
    recorder.close()
    assert len(read_log(tmp_path / "it", observer.about)) == 4
    assert len(read_log(tmp_path / "it", other.about)) == 3


def test_more_than_may_wait_is_dropped_and_counted(tmp_path, observer, monkeypatch):
    counts, written, dropped = counted()
    recorder = Recorder(tmp_path, None, written, dropped)
    monkeypatch.setattr(module, "_WAITING", 2 * answered(recorder, observer).nbytes)
    for _ in range(5):
        recorder.add(answered(recorder, observer))
    recorder._write()
    recorder.add(answered(recorder, observer))  # there is room again
    recorder.close()
    recorder.add(answered(recorder, observer))  # after the end
    assert counts == {"written": 12, "dropped": 16}
    assert len(read_log(tmp_path / "it")) == 12


def test_what_cannot_be_written_is_counted_and_what_follows_is_written(tmp_path, observer, monkeypatch, caplog):
    counts, written, dropped = counted()
    recorder = Recorder(tmp_path, None, written, dropped)
    recorder.add(answered(recorder, observer))
    recorder._write()
    real = open

    class Full:
        def __init__(self, *arguments, **options):
            self.file = real(*arguments, **options)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            return self.file.write(content[:50])  # there is no room for more

        def truncate(self, size):
            self.file.truncate(size)

    monkeypatch.setattr(module, "open", Full, raising=False)
    for _ in range(3):
        recorder.add(answered(recorder, observer))
        recorder._write()
    monkeypatch.setattr(module, "open", real, raising=False)
    recorder.add(answered(recorder, observer, 1))
    recorder.close()
    found = read_log(tmp_path / "it")
    assert len(found) == 5
    assert found.notes == ()
    assert counts == {"written": 5, "dropped": 12}
    assert caplog.text.count("records are lost until this is mended") == 1


def test_a_folder_that_is_removed_meanwhile_is_made_anew(tmp_path, observer):
    recorder = Recorder(tmp_path)
    recorder.add(answered(recorder, observer))
    recorder._write()
    shutil.rmtree(tmp_path / "it")
    recorder.add(answered(recorder, observer, 2))
    recorder.close()
    assert len(read_log(tmp_path / "it")) == 2


def test_images_are_kept_only_if_asked_for_and_then_the_latest(tmp_path, observer):
    recorder = Recorder(tmp_path, Bounds(images=3))
    for number in range(5):
        recorder.add(answered(recorder, observer, 1, images=[b"\xff\xd8%d" % number]))
        recorder._write()
    recorder.close()
    kept = sorted((tmp_path / "it" / "images").iterdir())
    assert [file.read_bytes()[2:] for file in kept] == [b"2", b"3", b"4"]
    ids = read_log(tmp_path / "it").rows["id"].tolist()
    assert [file.name for file in kept] == [f"{number:016x}.jpg" for number in ids[2:]]


@pytest.mark.parametrize(
    "bounds", [{"file_bytes": 1000}, {"file_bytes": np.nan}, {"file_bytes": np.inf}, {"files": 0}, {"images": -1}]
)
def test_bounds_that_are_none(bounds):
    with pytest.raises(UserError, match="must be at least"):
        Bounds(**bounds)


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--record .*: records cannot be written there"):
        Recorder(tmp_path / "file")
