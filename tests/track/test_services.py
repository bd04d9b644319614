"""MLflow and Weights & Biases themselves, where they are installed: a store of this machine, and files."""

import io
import json
import struct
import time
from dataclasses import replace

import pytest
from PIL import Image

from jaxnets.track.tracker import About, Kept
from tests.track.made import evaluation, train

ABOUT = About(name="digits", key="0123456789abcdef", folder=None, params={"steps": "4"}, tags={"jax": "1"})


@pytest.fixture(scope="module")
def png():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    pytest.importorskip("mlflow")
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/m.db"


def test_mlflow_goes_on_in_the_same_run_with_each_point_once(store, png):
    from jaxnets.track.mlflow_run import MlflowRun, client_of

    first = MlflowRun(store, "once", ABOUT, Kept(key=ABOUT.key))
    first.rows([train(2), evaluation(2)])  # and it is killed before it has noted that
    later = replace(ABOUT, params={"steps": "8"})
    again = MlflowRun(store, "once", later, Kept(key=ABOUT.key))
    assert again.id == first.id
    again.rows([train(2), evaluation(2), train(4)])
    again.image("curves", png, 4)
    again.files("report", {"metrics.json": b"{}"})
    again.close("failed", "the loss is nan")
    MlflowRun(store, "once", later, Kept(key=ABOUT.key, id=first.id)).close(None)  # as what sends a report does
    client = client_of(store)
    run = client.get_run(first.id)
    assert [point.step for point in client.get_metric_history(first.id, "train/loss")] == [2, 4]
    assert run.data.params == {"steps": "4"}
    assert {"jax": "1", "config.steps": "8", "ended": "failed: the loss is nan"}.items() <= run.data.tags.items()
    assert (run.info.status, run.info.run_name) == ("FAILED", "digits")
    assert [file.path for file in client.list_artifacts(first.id, "report")] == ["report/metrics.json"]
    assert len(client.search_runs([run.info.experiment_id])) == 1


def test_mlflow_begins_another_run_where_the_one_was_deleted_and_refuses_a_deleted_experiment(store):
    from jaxnets.track.mlflow_run import MlflowRun, client_of

    first = MlflowRun(store, "gone", ABOUT, Kept(key=ABOUT.key))
    client = client_of(store)
    client.delete_run(first.id)
    second = MlflowRun(store, "gone", ABOUT, Kept(key=ABOUT.key, id=first.id))
    assert second.id != first.id
    client.delete_experiment(client.get_experiment_by_name("gone").experiment_id)
    with pytest.raises(RuntimeError, match="the experiment 'gone' was deleted there: restore it"):
        MlflowRun(store, "gone", ABOUT, Kept(key=ABOUT.key, id=second.id))


def test_wandb_goes_on_in_the_same_run_with_rising_steps(tmp_path, monkeypatch, png):
    pytest.importorskip("wandb")
    from jaxnets.track.wandb_run import WandbRun

    monkeypatch.setenv("WANDB_MODE", "offline")
    about = replace(ABOUT, folder=str(tmp_path))
    first = WandbRun("digits", about, Kept(key=ABOUT.key))
    first.rows([train(2), evaluation(2)])
    first.image("first_batch", png, 1)
    first.close("stopped")
    time.sleep(1.1)  # W&B calls a session's files by the second that it began in
    second = WandbRun("digits", about, Kept(key=ABOUT.key, id=first.id, sent=3))
    second.rows([train(4)])
    second.close("finished")
    deadline = time.monotonic() + 10  # its own process writes them
    while sum(record.HasField("exit") for record in records_in(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    found = records_in(tmp_path)
    assert {record.run.run_id for record in found if record.HasField("run")} == {ABOUT.key}
    rows = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in found
        if record.HasField("history")
    ]
    assert [(row["_step"], row["step"]) for row in rows] == [(0, 2), (1, 2), (2, 1), (3, 4)]
    assert rows[0]["_timestamp"] == train(2)["time"]
    assert "first_batch" in rows[2]


def records_in(folder):
    return [record for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")) for record in records(file)]


def records(file):
    """Yields the records of a .wandb file, a log of LevelDB's form."""
    from wandb.proto import wandb_internal_pb2

    content, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        whole += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # full, last
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""
