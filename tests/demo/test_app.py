"""What the demo shows, without a browser; and the Space that it becomes."""

import ast
import csv
import dataclasses
import importlib.util
import io
import json
import socket
import subprocess
import sys
import tomllib
from functools import partial
from importlib.metadata import packages_distributions
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from PIL import Image

import jaxnets
from jaxnets.errors import UserError
from jaxnets.run.directory import RunDirectory, open_run
from tests.conftest import environment
from tests.demo.conftest import ROOT
from tests.tiny import classifier

SAMPLES = sorted((ROOT / "demo" / "examples").rglob("*.*"))


@pytest.fixture(scope="module")
def shown(digits_run):
    from images import open_shown

    return open_shown(str(digits_run))


@pytest.fixture
def command(monkeypatch, capsys):
    """Calls what a script's `main` would do with some arguments; returns its status, its output and its messages."""

    def call(main, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
        with pytest.raises(SystemExit) as raised:
            main()
        captured = capsys.readouterr()
        return raised.value.code, captured.out, captured.err

    return call


@pytest.fixture
def deploy(command, monkeypatch):
    import deploy_space

    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    return partial(command, deploy_space.main)


def digit(tmp_path, name: str):
    (tmp_path / name).write_bytes((ROOT / "demo" / "examples" / "digits" / "3.png").read_bytes())
    return tmp_path / name


def test_the_table_has_the_predictions_of_the_library_in_the_order_of_the_files(shown, tmp_path):
    from images import columns, table

    files = [file for file in SAMPLES if file.parent.name == "digits"]
    rows = list(table(shown, files))
    expected = jaxnets.load(shown.source).predict([np.asarray(Image.open(file)) for file in files])
    assert [row[0] for row in rows] == [file.name for file in files]
    assert [row[1] for row in rows] == [shown.names[number] for number in expected.argmax(1)]
    np.testing.assert_allclose([row[2] for row in rows], expected.max(1), atol=1e-6)
    assert all(len(row) == len(columns(shown)) for row in rows)


def test_a_file_that_is_no_image_gets_its_reason_and_harms_no_other(shown, tmp_path):
    from images import columns, table

    (tmp_path / "notes.txt").write_text("hello")
    whole = (ROOT / "demo" / "examples" / "photos" / "coffee.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[:3000])
    files = [tmp_path / "notes.txt", digit(tmp_path, "good.png"), tmp_path / "cut.jpg"]
    bad, good, cut = table(shown, files)
    assert "notes.txt is not an image" in bad[-1]
    assert "cut.jpg cannot be decoded" in cut[-1]
    assert good[-1] == ""
    assert good[1] in shown.names
    assert len(bad) == len(good) == len(columns(shown))


def test_16_bits_are_read_as_the_model_reads_its_own(shown, tmp_path):
    from images import Shown

    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(tmp_path / "white.png")
    preprocess = dataclasses.replace(shown.classifier.preprocess, white_level=4095)
    of_12_bits = Shown("x", dataclasses.replace(shown.classifier, preprocess=preprocess), None)
    assert of_12_bits.decode(tmp_path / "white.png").max() == 255
    assert shown.decode(tmp_path / "white.png").max() == 16


def test_a_batch_of_nothing_but_damage_is_a_table_of_reasons(shown, tmp_path):
    from images import table

    (tmp_path / "notes.txt").write_text("hello")
    assert all(row[-1] for row in table(shown, [tmp_path / "notes.txt"] * 20))


def test_csv_reads_back_as_the_table_and_runs_no_formula(shown, tmp_path):
    from images import columns, table, to_csv

    rows = list(table(shown, [digit(tmp_path, "a, b.png"), digit(tmp_path, "=1+1.png")]))
    heads, first, second = csv.reader(io.StringIO(to_csv(columns(shown), rows)))
    assert heads == columns(shown)
    assert first == [str(cell) for cell in rows[0]]
    assert second[0] == "'=1+1.png"


def test_a_row_on_the_page_has_the_best_class_and_the_others_or_the_reason():
    from images import BRIEF, brief

    good = brief(["a.png", "cup", 0.75, "mug", 0.125, "pot", 0.0625, ""])
    assert good == ["a.png", "cup 75.0%", "mug 12.5%, pot 6.2%"]
    assert brief(["b.txt", "", "", "", "", "", "", "no image"]) == ["b.txt", "", "no image"]
    assert len(good) == len(BRIEF)


@pytest.mark.parametrize("thresholds", [(1.0, 0.0, 1.0, 0.0, 1.0), (1.0,) * 5])
def test_an_answer_of_several_labels_is_a_set_above_the_bars_and_in_the_table(thresholds):
    from images import BRIEF, Shown, brief, columns, table

    made = classifier(activation="sigmoid", several_labels=True, thresholds=thresholds, engine_name="jax")
    shown = Shown("tags", made, None)
    (row,) = table(shown, [SAMPLES[-1]])
    probabilities = made.predict(SAMPLES[-1])
    names = list(made.labels_of(probabilities)[0])
    assert set(names) == ({"class 1", "class 3"} if 0 in thresholds else set())
    assert dict(zip(columns(shown), row, strict=True))["labels"] == "|".join(names)
    words = ", ".join(names) or "none"
    assert brief(row, several_labels=True)[1] == words
    assert len(brief(row, several_labels=True)) == len(BRIEF)
    pytest.importorskip("gradio")
    from page import _label_data

    data = _label_data(shown, probabilities[0])
    assert data.label == words
    assert [bar.label for bar in data.confidences][: len(names)] == names


def test_the_classes_to_explain_start_with_the_most_probable(shown):
    from images import MOST_PROBABLE, choices

    p = np.linspace(0.2, 0, 10, dtype=np.float32)[::-1]
    offered = choices(shown, p)
    assert [number for _, number in offered] == [MOST_PROBABLE, *range(9, -1, -1)]
    assert offered[1][0] == "9, 20.0%"


def test_the_map_of_a_large_image_comes_back_small_and_names_its_class():
    from images import Shown

    shown = Shown("tiny", classifier(classes=5), None)
    image = np.random.default_rng(0).integers(0, 256, (600, 1500, 3), np.uint8)
    drawn, caption = shown.explain(image, 3, "stage2")
    assert drawn.shape == (410, 1024, 3)
    assert caption.startswith(f"**class 3** {shown.rows([image])[0, 3]:.1%}, as stage2")


def test_a_model_without_places_in_its_stages_is_explained_by_what_can():
    from images import MOST_PROBABLE, Shown

    from jaxnets import Preprocess, create_model
    from tests.tiny import live

    small = Preprocess(height=8, width=8, channels=1, mean=(0.5,), std=(0.3,))
    model = create_model("mlp", widths=(16, 12), num_classes=5, preprocess=small)
    made = dataclasses.replace(classifier(), model=model, preprocess=small, variables=live(model, small))
    shown = Shown("dense", made, None)
    assert shown.methods == ["occlusion", "integrated_gradients", "smoothgrad"]
    shown.warm()
    image = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    drawn, caption = shown.explain(image, MOST_PROBABLE, shown.stages[-1])
    assert drawn.shape == (8, 8, 3)
    assert "by Occlusion" in caption


def test_the_map_of_each_method_is_drawn():
    from images import Shown

    shown = Shown("tiny", classifier(classes=5), None)
    image = np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)
    drawn = [shown.explain(image, 3, "stage2", method) for method in ("gradcam", "gradcam++", "occlusion")]
    assert "as stage2 sees it" in drawn[1][1]
    assert "blue against it" in drawn[2][1]
    assert (drawn[0][0] != drawn[1][0]).any()


def test_classes_of_one_name_are_told_apart(shown):
    from images import Shown

    twins = dataclasses.replace(shown.classifier, labels=("crane", "crane", *"23456789"))
    assert Shown("x", twins, None).names[:3] == ("crane (class 0)", "crane (class 1)", "2")


@pytest.mark.parametrize("labels", [tuple("1234567890"), tuple("2345678901"), tuple("9876543210")])
def test_the_class_that_is_chosen_is_the_one_explained_where_numerals_name_classes(shown, labels):
    from images import Shown, choices

    renamed = Shown("x", dataclasses.replace(shown.classifier, labels=labels), None)
    image = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    (p,) = renamed.rows([image])
    for text, number in choices(renamed, p)[1:]:
        _, caption = renamed.explain(image, number, renamed.stages[-1])
        assert caption.startswith(f"**{text.partition(',')[0]}** {p[number]:.1%}")


def named(count, first="class 0", run=None):
    labels = (first, *(f"class {number}" for number in range(1, count)))
    return SimpleNamespace(classifier=SimpleNamespace(labels=labels), run=run)


@pytest.mark.parametrize("first", ["tench", "tench, Tinca tinca", "Tench", "n01440764"])
def test_photographs_are_the_samples_of_models_of_imagenet_s_classes(first):
    from samples import samples_of

    assert {file.suffix for file in samples_of([named(1000, first)])} == {".jpg"}


@pytest.mark.parametrize("model", [named(37), named(1000), named(10, "0"), named(5, "tench")])
def test_a_model_of_other_classes_has_no_samples(model):
    from samples import samples_of

    assert samples_of([model]) == []


def test_a_run_on_the_digits_has_digits_and_a_run_on_other_data_of_these_names_has_none(shown, monkeypatch):
    from samples import samples_of

    digits = sorted((ROOT / "demo" / "examples" / "digits").iterdir())
    assert samples_of([shown]) == digits
    assert set(samples_of([named(1000, "tench"), shown, shown])) == set(SAMPLES)
    config = SimpleNamespace(data=SimpleNamespace(source="idx:fashion"))
    monkeypatch.setattr(RunDirectory, "read_config", lambda run: config)
    assert samples_of([shown]) == []


@pytest.mark.parametrize("name", ["GRADIO_SERVER_PORT", "GRADIO_NUM_PORTS", "GRADIO_SERVER_NAME", "GRADIO_SHARE"])
@pytest.mark.parametrize("value", ["", " "])
def test_a_variable_that_is_set_to_nothing_is_as_good_as_unset(name, value):
    from variables import check

    environment = {name: value, "HOME": ""}
    check(environment)
    assert environment == {"HOME": ""}


@pytest.mark.parametrize(
    ("name", "value"),
    [("GRADIO_SERVER_PORT", "http"), ("GRADIO_SERVER_PORT", "7860/tcp"), ("GRADIO_SERVER_PORT", "70000"),
     ("GRADIO_SERVER_PORT", "7860.0"), ("GRADIO_NUM_PORTS", "many"), ("GRADIO_DEBUG", "True"),
     ("GRADIO_NODE_SERVER_PORT", "-1"), ("GRADIO_ANALYTICS_MAX_EVENTS", "x"),
     ("GRADIO_DEFAULT_CONCURRENCY_LIMIT", "some")],
)  # fmt: skip
def test_a_variable_that_is_no_number_is_named(name, value):
    from variables import check

    with pytest.raises(UserError, match=f"{name} must be a whole number from .*, found {value!r}"):
        check({name: value})


def test_variables_that_gradio_understands_are_left_alone():
    from variables import check

    environment = {"GRADIO_SERVER_PORT": " 80 ", "GRADIO_DEFAULT_CONCURRENCY_LIMIT": "None", "GRADIO_DEBUG": "1"}
    check(environment)
    assert environment == {
        "GRADIO_SERVER_PORT": " 80 ",
        "GRADIO_DEFAULT_CONCURRENCY_LIMIT": "None",
        "GRADIO_DEBUG": "1",
    }


@pytest.mark.parametrize("value", ["http", "-1"])
def test_a_port_that_is_none_is_one_message(command, monkeypatch, value):
    import app

    monkeypatch.setenv("GRADIO_SERVER_PORT", value)
    status, _, errors = command(app.main)
    assert status == 1
    assert (
        errors
        == f"error: GRADIO_SERVER_PORT must be a whole number from 0 to 65535, found {value!r}: mend it or "
        + ("unset it\n")
    )


def test_curves_are_train_and_evaluation_by_step(shown):
    from records import curves

    drawn = curves(shown.run)
    assert list(drawn) == ["Loss", "Accuracy", "Learning rate"]
    assert {of for _, _, of in drawn["Loss"]} == {"train", "validation"}
    assert {step for step, _, of in drawn["Loss"] if of == "validation"} == {4}


def test_curves_of_a_long_run_in_progress_are_thinned_and_leave_out_its_broken_line(tmp_path):
    from records import curves

    rows = [json.dumps({"step": step, "train/loss": 1 / step}) for step in range(1, 12_346)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*rows, '{"step": 12346, "train/lo']))
    points = curves(RunDirectory(tmp_path))["Loss"]
    assert len(points) <= 500
    assert points[-1] == (12_345, 1 / 12_345, "train")
    assert curves(RunDirectory(tmp_path / "none")) == {}


def test_metrics_are_the_report_s_and_the_worst_class_comes_first(shown, tmp_path):
    from records import metrics, per_class

    assert metrics(shown.run) == []  # no report was written
    classes = {"a": {"count": 4, "accuracy": 0.75}, "b": {"count": 4, "accuracy": 0.5}, "c": {"count": 0}}
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "metrics.json").write_text(
        json.dumps({"format": 1, "accuracy": 0.625, "split": "test", "per_class": classes})
    )
    run = RunDirectory(tmp_path)
    assert metrics(run) == [("accuracy", "0.625"), ("split", "test")]
    assert per_class(run) == [("b", 4, 0.5), ("a", 4, 0.75)]


def test_the_run_s_report_is_shown_as_it_is_in_a_frame_that_cannot_reach_the_page(shown, tmp_path):
    import html
    import re

    from records import has_page, page

    run = RunDirectory(tmp_path)
    assert not has_page(run)
    assert "python -m jaxnets.evaluate" in page(run)
    text = '<!doctype html><head></head><p title="a&b">' + "é’</p><script>parent.document</script>"
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text(text, encoding="utf-8")
    assert has_page(run)
    (frame,) = re.findall(r'srcdoc="([^"]*)"', page(run))
    assert html.unescape(frame) == text.replace("<head>", '<head><base href="about:srcdoc">')
    (rights,) = re.findall(r'sandbox="([^"]*)"', page(run))
    assert rights == "allow-popups"


def test_the_page_has_a_column_and_a_tab_for_each_model(shown):
    pytest.importorskip("gradio")
    from page import build

    assert {"map-0", "map-1"} <= ids_of(build([shown, shown]))
    assert "map-1" not in ids_of(build([shown]))


def ids_of(page) -> set[str]:
    return {block.elem_id for block in page.blocks.values()}


@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="needs gradio")
def test_no_such_model_is_one_message(command):
    import app

    status, _, errors = command(app.main, "--model", "efficientnet_light0", "--port", free_port())
    assert status == 1
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert "efficientnet_light0" in errors


def test_a_port_in_use_is_one_message_before_anything_is_loaded(command, monkeypatch):
    import app

    monkeypatch.setenv("GRADIO_SERVER_NAME", "")
    with socket.create_server(("127.0.0.1", 0)) as other:
        status, _, errors = command(app.main, "--port", other.getsockname()[1])
    assert status == 1
    assert errors.count("\n") == 1
    assert "give another with --port" in errors


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_the_samples_are_small_images_and_the_card_names_their_sources():
    card = (ROOT / "demo" / "README.md").read_text()
    assert len(SAMPLES) == 7
    for file in SAMPLES:
        assert file.stat().st_size <= 60_000
        Image.open(file).verify()
        assert f"`{file.parent.name}/{file.name}`" in card or f"`{file.parent.name}/*{file.suffix}`" in card


def requirements_of_the_space() -> dict[str, Requirement]:
    lines = (ROOT / "demo" / "requirements.txt").read_text().splitlines()
    return {found.name: found for found in (Requirement(line) for line in lines if not line.startswith("#"))}


def test_the_space_s_card_is_what_hugging_face_reads():
    _, front, _ = (ROOT / "demo" / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(front)
    assert (card["sdk"], card["license"]) == ("gradio", "apache-2.0")
    assert (ROOT / "demo" / card["app_file"]).is_file()
    assert card["sdk_version"] in requirements_of_the_space()["gradio"].specifier
    assert len(card["short_description"]) <= 60


def test_the_space_wants_the_versions_that_the_package_wants():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    wanted = {found.name: found.specifier for found in map(Requirement, lines)}
    for name, requirement in requirements_of_the_space().items():
        assert wanted.get(name, requirement.specifier) == requirement.specifier


def test_the_space_installs_whatever_the_page_imports():
    code = """import sys; sys.path[:0] = ['demo']; import images, records
images.open_shown('efficientnet_lite0')
ours = [module for name, module in sys.modules.items() if name.split('.')[0] in ('jaxnets', 'images', 'records')]
print(*filter(None, (module.__file__ for module in ours)), sep='\\n')
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    homes = packages_distributions()
    installed = {name.lower().replace("_", "-") for name in requirements_of_the_space()}
    for file in done.stdout.split():
        for package in packages_imported_by(file):
            if package not in sys.stdlib_module_names and package != "jaxnets":
                found = {name.lower().replace("_", "-") for name in homes.get(package, ())}
                assert found & installed or found <= {"jaxlib", "ml-dtypes"}, f"{file} imports {package}"


def test_the_page_answers_and_explains_without_what_the_space_does_not_install(digits_run):
    """What is imported within functions, too: neither matplotlib nor scikit-learn is in the Space's requirements."""
    assert not {"matplotlib", "scikit-learn"} & requirements_of_the_space().keys()
    code = f"""import sys; sys.path[:0] = ['demo']
sys.modules.update(dict.fromkeys(('matplotlib', 'sklearn', 'skimage', 'shap')))
import numpy as np, images, records
shown = images.open_shown({str(digits_run)!r}, engine='jax')
image = np.random.default_rng(0).integers(0, 256, (8, 8, 1)).astype(np.uint8)
(row,) = shown.rows([image])
print(images.headline(shown, row))
print(shown.explain(image, images.MOST_PROBABLE, shown.stages[0])[1])
images.drawable(image[..., 0] / 255)  # of methods with grains
for part in (records.curves, records.page, records.metrics, records.per_class, records.configuration):
    part(shown.run)
records.card(shown)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said, caption = done.stdout.splitlines()
    assert said in [str(digit) for digit in range(10)]
    assert "as stage1 sees it" in caption


def packages_imported_by(file: str) -> set[str]:
    """Returns what a module imports when it is imported itself."""
    tree = ast.parse(Path(file).read_text())
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports]
    return {name.split(".")[0] for name in names}


def test_a_dry_run_lists_what_the_space_would_hold(digits_run, deploy):
    status, output, errors = deploy("--space", "me/digits", "--run", digits_run)
    assert status == 0, errors
    names = [line.split()[1] for line in output.splitlines() if "/" in line or "." in line]
    modules = {file.name for file in (ROOT / "demo").glob("*.py")}
    assert {*modules, "README.md", "requirements.txt", "jaxnets/classifier.py", "run/model.json"} <= set(names)
    assert not [name for name in names if (name.startswith("run/") and "optimizer/" in name) or "__pycache__" in name]
    assert "nothing was uploaded" in output


def test_the_run_in_a_space_predicts_as_the_run_here(digits_run, tmp_path):
    from deploy_space import files_of_space, stage

    stage(files_of_space(digits_run, "best"), tmp_path)
    image = np.asarray(Image.open(tmp_path / "examples" / "digits" / "3.png"))
    there, here = jaxnets.load(tmp_path / "run"), jaxnets.load(digits_run)
    np.testing.assert_array_equal(there.predict([image]), here.predict([image]))
    assert open_run(tmp_path / "run").metrics.read_text() == open_run(digits_run).metrics.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--space", "digits"), "OWNER/NAME"), (("--space", "me/digits", "--run", "nowhere"), "there is no directory")],
)
def test_a_space_that_cannot_be_is_one_message(arguments, message, deploy):
    status, _, errors = deploy(*arguments)
    assert status == 1
    assert message in errors
    assert errors.count("\n") == 1


def test_hugging_face_out_of_reach_is_one_message(monkeypatch, capsys):
    import deploy_space

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    with pytest.raises(UserError, match="cannot be reached"):
        deploy_space._upload({"LICENSE": ROOT / "LICENSE"}, "me/digits", private=False)
