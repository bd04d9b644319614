"""The command, over a run on the digits: what it says, writes, runs and ends with."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets
from jaxnets.data.dataset import open_dataset
from jaxnets.monitor import __main__ as command
from jaxnets.monitor import embeddings, reference
from jaxnets.monitor.observe import Observer
from jaxnets.run.build import build_model
from jaxnets.run.checkpoints import Progress
from jaxnets.run.directory import ModelCard, RunDirectory
from jaxnets.train.saver import Checkpointer
from jaxnets.train.step import TrainState
from tests.monitor.made import rows, write
from tests.tiny import live
from tests.train.runs import SMALL, short


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(embeddings, "_PERMUTATIONS", 999)
    monkeypatch.setattr(embeddings, "MOST", 200)


@pytest.fixture(scope="module")
def run_and_records(tmp_path_factory):
    """A run that no training has made, and what its service would record of the digits' test images, and inverted."""
    run = RunDirectory(tmp_path_factory.mktemp("run") / "digits")
    run.create()
    config = short(data={"validation": 0.25})
    data = open_dataset(config)
    fields = {"num_classes": 10, "dtype": "float32"}
    card = ModelCard(
        name=SMALL,
        fields=fields,
        class_names=data.class_names,
        preprocess=data.preprocess,
        data=data.fingerprint(),
    )
    run.write(config, card)
    variables = live(build_model(card), card.preprocess)
    saver = Checkpointer(run.checkpoints)
    state = TrainState(jnp.int32(3), variables["params"], variables["batch_stats"], opt_state={}, ema=None)
    saver.save(state, Progress(step=3))
    saver.close()
    observer = Observer(jaxnets.load(run.path, engine="jax").observing(), "digits")
    test = data.split("test")
    images = np.stack([test.read(i).image for i in range(len(test))])
    found = []
    for seen in (images, 255 - images):
        made = observer.records(
            observer.rows(seen),
            [seen.shape[1:3]] * len(seen),
            ids=np.arange(1, len(seen) + 1),
            times=1.7e9 + 10.0 * np.arange(len(seen)),
            latencies=0.01,
        )
        found.append(made)
    return run.path, observer.about, found, test.labels


@pytest.fixture
def monitor(run_and_records, tmp_path, monkeypatch, capsys):
    """Writes records into a log, calls the command, and returns its status and what it printed."""
    run, about, _, _ = run_and_records

    def call(log, *arguments, of=about, against=run):
        write(tmp_path / "log" / "digits", log, of)
        options = ["--reference", against, "--log", tmp_path / "log", "--engine", "jax", *arguments]
        monkeypatch.setattr("sys.argv", ["monitor", *map(str, options)])
        with pytest.raises(SystemExit) as ended:
            command.main()
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return call


def test_images_like_the_held_out_ones_are_no_drift_and_the_report_is_beside_the_records(
    monitor, run_and_records, tmp_path
):
    run, _, (clean, _), labels = run_and_records
    table = ["id,label", *(f"{i + 1:016x},{label}" for i, label in enumerate(labels))]
    (tmp_path / "labels.csv").write_text("\n".join(table))
    status, out, _ = monitor(clean, "--labels", tmp_path / "labels.csv", "--on-drift", f"touch {tmp_path / 'called'}")
    assert status == 0, out
    assert "no drift: no bound is crossed" in out
    folder = tmp_path / "log" / "digits" / "monitor"
    assert {file.name for file in folder.iterdir()} == {"index.html", "monitor.json", "monitor.prom"}
    found = json.loads((folder / "monitor.json").read_text())
    assert found["window"]["records"] == 360
    assert found["accuracy"]["real"]["share"] == (clean["label"] == labels).mean()
    assert found["accuracy"]["reference"]["count"] == found["reference"]["records"]
    assert len(found["tests"]) == 9
    assert not (tmp_path / "called").exists()
    assert len(list((run / "monitor").iterdir())) == 1


def test_the_reference_is_made_once(monitor, run_and_records, monkeypatch):
    clean = run_and_records[2][0]
    monitor(clean)
    monkeypatch.setattr(reference, "_make", lambda *_: pytest.fail("it was made anew"))
    assert monitor(clean)[0] == 0


def test_the_reference_s_records_are_those_of_the_service(monitor, run_and_records):
    run, about, (clean, _), labels = run_and_records
    asked = reference.Asked(str(run), split="test", engine="jax")
    found = reference.open_reference(asked)
    assert found.about == about
    for name in ("label", "brightness", "sharpness", "width", "height", "refused"):
        np.testing.assert_array_equal(found.rows[name], clean[name])
    np.testing.assert_allclose(found.rows["energy"], clean["energy"], rtol=1e-4)
    np.testing.assert_allclose(found.rows["projection"], clean["projection"], atol=1e-4)
    np.testing.assert_array_equal(found.rows["truth"], labels)


def test_inverted_images_are_drift_and_the_hook_is_told(monitor, run_and_records, tmp_path):
    shifted = run_and_records[2][1]
    hook = (
        f'echo "$JAXNETS_MODEL $JAXNETS_DRIFT" > "{tmp_path}/told"; ls "$JAXNETS_REPORT" >> "{tmp_path}/told"; exit 3'
    )
    status, out, err = monitor(shifted, "--out", tmp_path / "out", "--on-drift", hook)
    assert status == 1
    model, *crossed = (tmp_path / "told").read_text().splitlines()[0].replace(",", " ").split()
    assert model == "digits"
    assert {"brightness", "embedding_mmd"} <= set(crossed)
    assert "index.html" in (tmp_path / "told").read_text()
    assert f"drift: {', '.join(crossed)}" in out
    assert "ended with status 3" in err
    assert 'jaxnets_drift{model="digits"} 1' in (tmp_path / "out" / "monitor.prom").read_text()


def test_json_alone_is_printed(monitor, run_and_records):
    status, out, _ = monitor(run_and_records[2][1], "--json")
    assert status == 1
    assert json.loads(out)["drift"] is True


def test_the_window_is_the_latest(monitor, run_and_records):
    clean, shifted = run_and_records[2]
    both = np.concatenate([clean, shifted])
    both["time"] = 1.7e9 + 10.0 * np.arange(len(both))
    assert monitor(both, "--window", "1h")[0] == 1  # its 360 records
    assert monitor(both, "--until", 1.7e9 + 3600)[0] == 0
    status, _, err = monitor(both, "--window", "10m")
    assert status == 2
    assert "the window has 60 records, and 100 are needed" in err
    status, _, err = monitor(both, "--since", "2030-01-01")
    assert status == 2
    assert "the window is empty: the log's records are of 2023-11-14 22:13:20 to" in err
    status, _, err = monitor(both, "--since", 1.7e9 + 9, "--until", 1.7e9)
    assert status == 2
    assert "is not before --until" in err


def test_a_log_is_a_reference_too(monitor, run_and_records, tmp_path):
    _, about, (clean, shifted), _ = run_and_records
    write(tmp_path / "well" / "digits", clean, about)
    assert monitor(clean[::2], against=tmp_path / "well")[0] == 0
    assert monitor(shifted, against=tmp_path / "well")[0] == 1


def test_a_log_of_another_model_is_no_drift_but_a_mistake(monitor):
    from tests.monitor.made import about as other

    status, _, err = monitor(rows(200), of=other())
    assert status == 2
    assert "give the run that is served as --reference" in err


def test_what_fails_is_no_drift(monitor, run_and_records, monkeypatch):
    monkeypatch.setattr("jaxnets.monitor.judge.judge", lambda *_: 1 / 0)
    status, _, err = monitor(run_and_records[2][0])
    assert status == 2
    assert "ZeroDivisionError" in err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda path: shutil.rmtree(path / "checkpoints"), "checkpoint"),
        (lambda path: (path / "model.json").unlink(), "model.json"),
    ],
)
def test_a_reference_that_is_none(monitor, run_and_records, tmp_path, change, says):
    run = shutil.copytree(run_and_records[0], tmp_path / "copy")
    change(run)
    status, _, err = monitor(run_and_records[2][0], against=run)
    assert status == 2
    assert says in err
