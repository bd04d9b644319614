"""A run in a bucket (gs://) is a run like any other."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import jaxnets
from jaxnets.errors import UserError
from jaxnets.run.checkpoints import Progress, read_variables, steps, verify
from jaxnets.run.directory import RunDirectory, open_run
from jaxnets.run.storage import Place, open_place
from jaxnets.train import log as log_module
from jaxnets.train.display import Display
from jaxnets.train.log import RunLog
from jaxnets.train.loop import train
from jaxnets.train.saver import Checkpointer
from jaxnets.train.step import TrainState
from tests.train.runs import assert_same_run, rows_of, short

STEPS = {"eval_every_steps": 2, "checkpoint_every_steps": 2}


def in_two_sessions(place: Place, mesh: Mesh) -> Place:
    train(short(**STEPS, steps=2), place, Display(), mesh)
    train(short(**STEPS), place, Display(), mesh)
    return place


@pytest.fixture(scope="module")
def local(tmp_path_factory, one_device):
    return in_two_sessions(tmp_path_factory.mktemp("runs") / "local", one_device)


@pytest.fixture(scope="module")
def remote(objects, one_device):
    return in_two_sessions(open_place("gs://bucket/runs/remote"), one_device)


def copy(objects, run: str, to: str) -> None:
    """Copies what is stored of gs://bucket/runs/`run` to another run."""
    for name, (generation, content) in list(objects.objects.items()):
        if name.startswith(f"runs/{run}/"):
            objects.objects[name.replace(f"runs/{run}/", f"runs/{to}/", 1)] = generation, content


def test_a_run_in_a_bucket_has_the_bits_and_the_rows_of_one_in_a_directory(local, remote):
    assert_same_run(local, remote)


def test_a_run_in_a_bucket_is_complete(remote):
    run = open_run("gs://bucket/runs/remote")
    assert run.is_run()
    assert steps(run.checkpoints) == [2, 4]
    assert len(list(run.tensorboard.iterdir())) == 2  # a file for each session


def test_drawings_come_into_the_bucket_and_a_drawing_of_as_many_bytes_replaces_the_one_before(objects):
    log = RunLog(RunDirectory(open_place("gs://bucket/runs/drawn")), 0)
    for content in (b"one", b"two"):
        log.write_file("curves.png", content)
        log.publish()
        assert objects.objects["runs/drawn/curves.png"][1] == content
    log.close()
    assert not [name for name in objects.objects if "/.curves" in name]
    with pytest.raises(OSError, match="has ended"):
        log.write_file("curves.png", b"three")


def test_what_is_loaded_from_a_bucket_predicts_as_what_is_loaded_from_a_directory(local, remote):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    one, other = (jaxnets.load(str(place), engine="jax").predict(images) for place in (local, remote))
    np.testing.assert_array_equal(one, other)


def test_a_run_that_is_copied_from_a_bucket_to_a_directory_opens_there(objects, local, remote, tmp_path):
    for name, (_, content) in objects.objects.items():
        if name.startswith("runs/remote/"):
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    assert_same_run(tmp_path / "runs" / "remote", local)  # reads every file and compares its checksum


def test_a_run_that_is_copied_from_a_directory_to_a_bucket_opens_there(objects, local, one_device):
    for file in local.rglob("*"):
        if file.is_file():
            objects.put(f"runs/uploaded/{file.relative_to(local).as_posix()}", file.read_bytes(), None)
    place = open_place("gs://bucket/runs/uploaded")
    assert_same_run(place, local)
    assert train(short(**STEPS), place, Display(), one_device).finished


def test_a_checkpoint_that_was_not_written_to_its_end_is_no_checkpoint(objects, remote, local, one_device):
    copy(objects, "remote", "cut")
    del objects.objects["runs/cut/checkpoints/4/commit_success.txt"]
    place = open_place("gs://bucket/runs/cut")
    assert steps(place / "checkpoints") == [2]
    train(short(**STEPS), place, Display(), one_device)
    assert_same_run(place, local)


def test_a_damaged_checkpoint_in_a_bucket_is_set_aside(objects, remote, local, one_device, caplog):
    copy(objects, "remote", "damaged")
    name = next(name for name in objects.objects if name.startswith("runs/damaged/checkpoints/4/variables/d/"))
    objects.put(name, b"something else", None)
    place = open_place("gs://bucket/runs/damaged")
    train(short(**STEPS), place, Display(), one_device)
    assert "going on from step 2; 4 is set aside as damaged-4" in caplog.text
    assert objects.objects["runs/damaged/checkpoints/damaged-4/" + name.partition("/4/")[2]][1] == b"something else"
    assert_same_run(place, local)


def test_an_object_that_was_put_together_of_parts_has_its_size_alone_to_be_known_by(objects, remote, monkeypatch):
    def without_checksum(name):
        return {key: value for key, value in about(name).items() if key != "md5Hash"}

    about = objects.about
    monkeypatch.setattr(objects, "about", without_checksum)
    copy(objects, "remote", "composed")
    verify(open_place("gs://bucket/runs/composed/checkpoints/4"))
    objects.put("runs/composed/checkpoints/4/progress/metadata", b"shorter", None)
    with pytest.raises(ValueError, match="progress/metadata has 7 bytes that are not the"):
        verify(open_place("gs://bucket/runs/composed/checkpoints/4"))


def test_tensorflow_is_not_imported_to_read_a_bucket(objects, tmp_path, monkeypatch):
    (tmp_path / "tensorflow.py").write_text("raise AssertionError('TensorFlow is imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert not (open_place("gs://bucket/runs") / "nothing").exists()


def test_rows_are_in_the_bucket_before_the_log_is_closed(objects):
    log = RunLog(RunDirectory(open_place("gs://bucket/runs/rows")), 0)
    log.write(1, 0.5, {"train/loss": 2.0})
    log.publish()
    assert rows_of(open_place("gs://bucket/runs/rows")) == [{"step": 1, "epoch": 0.5, "train/loss": 2.0}]
    log.write(2, 1.0, {"train/loss": 1.0})
    log.close()
    assert [row["step"] for row in rows_of(open_place("gs://bucket/runs/rows"))] == [1, 2]


def test_a_log_outlives_a_network_that_is_gone_for_a_while(objects, monkeypatch, caplog):
    monkeypatch.setattr(log_module, "_PUBLISHED_EVERY", -1.0)
    log = RunLog(RunDirectory(open_place("gs://bucket/runs/patient")), 0)
    monkeypatch.setattr(objects, "refuses", True)
    log.write(1, 0.5, {"train/loss": 2.0})
    assert "metrics.jsonl cannot be written (Forbidden" in caplog.text
    monkeypatch.setattr(objects, "refuses", False)
    log.write(2, 1.0, {"train/loss": 1.0})
    assert [row["step"] for row in rows_of(open_place("gs://bucket/runs/patient"))] == [1, 2]
    log.close()


def test_a_bucket_that_may_not_be_written_to_is_one_message(objects, one_device, monkeypatch):
    monkeypatch.setattr(objects, "refuses", True)
    with pytest.raises(UserError, match=r"work directory gs://bucket/runs/new cannot be written to \(.*denied"):
        train(short(**STEPS), open_place("gs://bucket/runs/new"), Display(), one_device)


def test_a_checkpoint_that_a_bucket_refuses_is_one_message_and_costs_no_earlier_one(
    objects, remote, one_device, monkeypatch
):
    copy(objects, "remote", "refusing")
    place = open_place("gs://bucket/runs/refusing")

    class Refusing(Display):
        def update(self, step, *figures):
            objects.refuses = True

    monkeypatch.setattr(objects, "refuses", False)
    with pytest.raises(UserError, match=r"gs://bucket/runs/refusing/.* (could not|cannot) be written"):
        train(short(**STEPS, steps=6), place, Refusing(), one_device)
    assert steps(place / "checkpoints") == [2, 4]


def save_and_wait(checkpointer, state):
    checkpointer.save(state, Progress(step=1))
    checkpointer.wait()


def test_a_save_that_a_bucket_refuses_is_one_message(objects, monkeypatch):
    checkpointer = Checkpointer(open_place("gs://bucket/runs/full/checkpoints"))
    monkeypatch.setattr(objects, "refuses", True)
    state = TrainState(step=jnp.int32(1), params={"w": jnp.ones(3)}, batch_stats={}, opt_state={}, ema=None)
    with pytest.raises(UserError, match=r"could not be written to gs://bucket/runs/full/checkpoints \(.*denied"):
        save_and_wait(checkpointer, state)


def test_a_bucket_that_cannot_be_read_is_one_message_and_damages_nothing(objects, remote, monkeypatch):
    copy(objects, "remote", "deaf")
    monkeypatch.setattr(objects, "hides", True)
    with pytest.raises(UserError, match=r"gs://bucket/runs/deaf.* cannot be read \(.*denied"):
        Checkpointer(open_place("gs://bucket/runs/deaf/checkpoints"))
    with pytest.raises(UserError, match=r"gs://bucket/runs/deaf cannot be read \(.*denied"):
        RunDirectory(open_place("gs://bucket/runs/deaf")).is_run()
    with pytest.raises(UserError, match=r"metrics.jsonl cannot be written \(.*denied"):
        RunLog(RunDirectory(open_place("gs://bucket/runs/deaf")), 4)
    with pytest.raises(UserError, match="cannot be read"):
        read_variables(open_place("gs://bucket/runs/deaf/checkpoints"), 4, "ema")
    monkeypatch.setattr(objects, "hides", False)
    assert steps(open_place("gs://bucket/runs/deaf/checkpoints")) == [2, 4]


def test_a_missing_run_in_a_bucket_is_one_message(objects):
    with pytest.raises(UserError, match="gs://bucket/runs/none is not a run directory"):
        jaxnets.load("gs://bucket/runs/none")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://bucket/run", r"neither a directory nor a folder of a bucket \(gs://BUCKET/FOLDER\)"),
        ("gs://bucket", "names no folder of a bucket"),
        ("gs://bucket/", "names no folder of a bucket"),
        ("gs://bucket/exp [v2]", r"must be without '\['"),
        ("gs://bucket/runs/a?", r"must be without '\?'"),
        ("gs://bucket/**/a", r"must be without '\*'"),
        ("gs://bucket/a/../b", r"must be without '\.\.'"),
        ("gs://bucket/gs://b", r"neither|must be without 'gs:'"),
        ("gs://bucket/a\nb", r"must be without '\\n'"),
        ("gs://bucket/\udcff", r"must be without '\\udcff'"),
    ],
)
def test_an_address_that_is_none_is_one_message(address, said):
    with pytest.raises(UserError, match=said):
        open_place(address)


def test_a_bucket_without_what_reads_it_is_one_message(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'jaxnets\[gcs\]'"):
        open_place("gs://bucket/run")


def test_only_what_begins_with_an_address_is_in_a_bucket(tmp_path):
    assert open_place(str(tmp_path)) == tmp_path
    assert open_place("~/runs") == Path.home() / "runs"
    assert open_place("~nobody-has-this-name/runs") == Path("~nobody-has-this-name/runs")  # as in a shell


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "is empty"),
        ("a\0b", "zero byte"),
        ("x" * 256, "each name in it 255, found one of"),
        ("x/" * 2000, r"may have 3584 bytes .* found one of \d{4} bytes"),
    ],
)
def test_a_path_that_can_be_no_directory_is_one_message(path, said):
    with pytest.raises(UserError, match=said):
        open_place(path)


def test_a_home_directory_that_is_not_there_is_one_message(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(UserError, match="~/runs needs a home directory, and there is none: set HOME"):
        open_place("~/runs")
