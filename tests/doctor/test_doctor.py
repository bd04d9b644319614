"""The command as a user types it, on this machine: with JAX as it is, and with a JAX that misbehaves."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from jaxnets.doctor import gather, probe
from jaxnets.doctor.__main__ import main
from tests.doctor.machines import CPU

# Enough of a JAX for the child, and quick to import.
JAX = """
class Device:
    platform = device_kind = "cpu"

def devices(platform="cpu"):
    if platform != "cpu":
        raise RuntimeError(f"Unknown backend: {platform!r}")
    return [Device()]

def local_devices():
    return devices()
"""


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A folder for modules that every Python started from here finds first."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))
    return folder


def fake_jax(folder, code):
    (folder / "jax.py").write_text(JAX + textwrap.dedent(code))


def levels(report):
    return {finding["check"]: finding["level"] for finding in report["findings"]}


@pytest.fixture
def without_asking(monkeypatch):
    """The tests ask for the CPU (JAX_PLATFORMS); here nobody does."""
    monkeypatch.delenv("JAX_PLATFORMS")


@pytest.fixture
def doctor(monkeypatch, capsys):
    """Runs the command in this process; returns its status and what it printed."""

    def doctor(*arguments):
        monkeypatch.setattr("sys.argv", ["doctor", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, capsys.readouterr().out

    return doctor


@pytest.fixture
def examine(monkeypatch, doctor):
    """Runs the command with an outcome of the child that is made up; returns status and report."""
    monkeypatch.setattr("jaxnets.doctor.__main__.probe", lambda seconds: CPU.probe)

    def examine(*arguments):
        status, said = doctor("--json", *arguments)
        return status, json.loads(said)

    return examine


def test_no_accelerator_though_one_is_asked_for_and_in_plain_text_where_there_is_no_terminal(
    run, tmp_path, without_asking
):
    done = run("jaxnets.doctor", "--expect", "tpu", "--workdir", tmp_path)
    assert done.returncode == 1, done.stderr
    assert "✗ devices" in done.stdout
    assert "a TPU was asked for, and JAX runs on 1 × cpu" in done.stdout
    assert "a run would suffer here" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if "$" not in line and "/" not in line) <= 80
    assert not any(line != line.rstrip() for line in done.stdout.splitlines())


def test_a_work_directory_that_cannot_be_written_to(examine, tmp_path):
    (tmp_path / "file").touch()
    status, report = examine("--workdir", tmp_path / "file" / "run")
    assert status == 1
    assert report["verdict"] == "fault"
    assert levels(report)["work directory"] == "fault"


def test_one_core(examine, tmp_path):
    before = os.sched_getaffinity(0)
    if len(before) == 1:
        pytest.skip("there is only one")
    assert levels(examine("--workdir", tmp_path)[1])["cores"] == "fine"
    os.sched_setaffinity(0, {min(before)})
    try:
        status, report = examine("--workdir", tmp_path)
    finally:
        os.sched_setaffinity(0, before)
    assert status == 1
    assert levels(report)["cores"] == "fault"


def test_a_stale_lock(examine, tmp_path, monkeypatch):
    monkeypatch.setattr(gather, "TPU_LOCK", tmp_path / "lock")
    assert "TPU lock" not in levels(examine("--workdir", tmp_path)[1])
    (tmp_path / "lock").touch()
    _, report = examine("--workdir", tmp_path)
    [finding] = [finding for finding in report["findings"] if finding["check"] == "TPU lock"]
    assert finding["level"] == "note"
    assert finding["commands"] == [f"rm {tmp_path / 'lock'}"]


def test_tensorflow_on_the_path(path, doctor, tmp_path, monkeypatch):
    (path / "tensorflow.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(path)
    report = json.loads(doctor("--json", "--workdir", tmp_path)[1])
    assert levels(report)["TensorFlow"] == "note"
    assert report["machine"]["probe"]["tensorflow_importer"] is None


def test_who_imports_tensorflow_is_found_out(path):
    fake_jax(path, "")
    (path / "tensorflow.py").touch()
    (path / "culprit.py").write_text("import tensorflow\n")
    (path / "child.py").write_text(
        "import jaxnets.doctor.probe as p\np._TRAINER, p._convolve = 'culprit', lambda: None\np.main()\n"
    )
    done = subprocess.run([sys.executable, "-m", "child"], capture_output=True, text=True, timeout=300)
    seen = probe.read_probe(done.stdout, done.stderr, done.returncode, 1.0)
    assert seen.outcome == "finished", done.stderr
    assert seen.tensorflow_importer == "culprit"


def test_a_backend_that_hangs_is_given_up_and_does_not_stay(path, doctor, tmp_path):
    note = f"open({str(path / 'pid')!r}, 'w').write(str(os.getpid()))"
    fake_jax(path, f"import os, time\ndef devices(*_):\n    {note}\n    time.sleep(600)")
    status, said = doctor("--timeout", 3, "--workdir", tmp_path)
    assert status == 1
    assert "the start of the devices did not end within 3 s" in " ".join(said.split())
    with pytest.raises(ProcessLookupError):
        os.kill(int((path / "pid").read_text()), 0)


def test_a_backend_that_crashes_is_reported(path, doctor, tmp_path):
    fake_jax(path, "import os, sys\ndef devices(*_):\n    print('last words', file=sys.stderr, flush=True); os.abort()")
    status, said = doctor("--workdir", tmp_path)
    assert status == 1
    assert "signal 6 (SIGABRT): last words" in " ".join(said.split())


def test_a_jax_that_is_missing_is_reported(path, doctor, tmp_path):
    (path / "jax.py").write_text("raise ModuleNotFoundError(\"No module named 'jax'\")\n")
    status, said = doctor("--workdir", tmp_path)
    assert status == 1
    assert "No module named 'jax'" in " ".join(said.split())


def test_a_child_that_cannot_be_started_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    seen = probe.probe(3.0)
    assert (seen.outcome, seen.stage) == ("failed", "the start of a child process")
    assert "No such file or directory" in seen.messages


def test_what_a_library_prints_does_not_disturb_the_child_s_report():
    output = 'hello\njaxnets-probe {"stage": "a convolution", "platform": "gpu"}\nnoise\njaxnets-probe {"stage": "do'
    seen = probe.read_probe(output, "", None, 9.0)
    assert (seen.outcome, seen.stage, seen.platform, seen.seconds) == ("hung", "a convolution", "gpu", 9.0)


@pytest.mark.parametrize("argument", ["--timeout=0", "--devices=0"])
def test_numbers_that_make_no_sense_are_refused(monkeypatch, capsys, argument):
    monkeypatch.setattr("sys.argv", ["doctor", argument])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert "--timeout must be above 0" in capsys.readouterr().err
