"""What else an evaluation is asked, from the options to the page."""

import argparse
import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from jaxnets.config import resolve
from jaxnets.data.dataset import open_dataset
from jaxnets.errors import UserError
from jaxnets.evaluate import run as room
from jaxnets.evaluate.ask import ask, evaluate
from jaxnets.evaluate.further import Further, corrupted_images, corruption_names
from jaxnets.evaluate.options import Options, add_options
from jaxnets.evaluate.run import judge_run
from jaxnets.pretrained.imagenet import class_names as imagenet_names
from jaxnets.run.directory import ModelCard, RunDirectory
from tests.evaluate.invented import by_brightness


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A CSV of bright and dark images with a column `site`; at site s every third is labelled wrongly."""
    root = tmp_path_factory.mktemp("table")
    random = np.random.default_rng(0)
    lines = ["file,label,split,site"]
    for i in range(150):
        level = int(random.integers(30, 226))
        pixels = np.clip(level + random.integers(-20, 21, (16, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.png")
        label, site = ("bright", "dark")[int(pixels.mean() < 127.5)], "rst"[i % 3]
        if site == "s" and i % 9 == 1:
            label = {"bright": "dark", "dark": "bright"}[label]
        lines.append(f"{i}.png,{label},{'train' if i < 20 else 'test'},{site}")
    (root / "labels.csv").write_text("\n".join(lines))
    return root / "labels.csv"


@pytest.fixture
def run(tmp_path, table, monkeypatch):
    """Makes runs that answer by brightness; "worse" ones take all that is not very bright for dark."""

    def who(run, *_):
        model = by_brightness()
        if "worse" not in run.path.name:
            return model, None
        biased = lambda images: model.logits(images) + np.array([-1.5, 1.5], np.float32)  # noqa: E731
        return replace(model, logits=biased), None

    monkeypatch.setattr(room, "_who", who)

    def make(name: str) -> RunDirectory:
        made = RunDirectory(tmp_path / name)
        made.create()
        config = resolve({"data": {"source": f"csv:{table}", "image_size": 16}})
        data = open_dataset(config)
        fields = {"class_names": data.class_names, "preprocess": by_brightness().preprocess, "fields": {}}
        made.write(config, ModelCard(name="resnet8_cifar", data=data.fingerprint(), **fields))
        return made

    return make


def _options(*given: str) -> Options:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return Options.parsed(parser.parse_args(given))


def _ask(made: RunDirectory, *given: str) -> Further:
    return ask(_options("--workdir", str(made.path), *given)).further


def test_a_run_is_compared_with_another(run):
    first, second = run("good"), run("worse")
    found = _ask(first, "--against", str(second.path))
    (compared,) = found.metrics["against"]
    assert compared["metrics"]["accuracy"]["difference"]["low"] > 0
    assert compared["p_adjusted"] < 0.01
    (section,) = found.sections()
    assert "Only" in section.html
    assert "data:image/jpeg" in section.html
    json.dumps(found.metrics)


def test_figures_by_the_column_of_the_table(run):
    found = _ask(run("good"), "--by", "site")
    groups = found.metrics["by_group"]["groups"]
    assert {name: group["accuracy"]["value"] < 1 for name, group in groups.items()} == {
        "r": False,
        "s": True,
        "t": False,
    }
    assert found.metrics["by_group"]["gaps"]["accuracy"]["worst"] == "s"
    (section,) = found.sections()
    assert section.title == "By site"


def test_corrupted_images_and_images_of_another_kind(run, table, tmp_path):
    (tmp_path / "others" / "deep").mkdir(parents=True)
    for i in range(9):
        Image.fromarray(np.full((20, 30, 3), 127, np.uint8)).save(tmp_path / "others" / "deep" / f"{i}.png")
    given = ("--corruptions", "contrast", "weather", "--corrupt-images", "20", "--unlike", str(tmp_path / "others"))
    found = _ask(run("good"), *given)
    assert list(found.metrics["robustness"]["errors"]) == ["contrast", "snow", "frost", "fog", "brightness"]
    assert found.metrics["robustness"]["images"] == 20
    assert found.metrics["unlike"]["other"] == 9
    assert found.metrics["unlike"]["scores"]["energy"]["auroc"]["value"] > 0.9  # a middling grey says nothing
    corrupted, unlike = found.sections()
    assert "snow" in corrupted.html
    assert "corruptions.png" in corrupted.files
    assert "unlike-energy.png" in unlike.files
    json.dumps(found.metrics)


def test_all_is_asked_in_the_views_of_the_evaluation(run):
    biased = run("good")
    plain, mirrored = (
        _ask(biased, "--corruptions", "contrast", "--corrupt-images", "all", "--unlike", "digits", *tta).metrics
        for tta in ((), ("--tta", "mirror"))
    )
    # A mirrored image is as bright: what is averaged over it changes nothing, if all of it is.
    assert mirrored["robustness"]["errors"] == plain["robustness"]["errors"]
    assert mirrored["unlike"]["scores"]["energy"] == plain["unlike"]["scores"]["energy"]


def test_a_source_serves_as_images_of_another_kind(run):
    found = _ask(run("good"), "--unlike", "digits")
    assert found.metrics["unlike"]["other"] == 360


def test_a_test_set_of_imagenet_is_answered_among_its_classes(tmp_path, monkeypatch):
    for synset in ("n01498041", "n01531178", "n12267677"):  # of imagenet-a: stingray, goldfinch, acorn
        (tmp_path / "set" / synset).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(np.full((16, 16, 3), 40 * i, np.uint8)).save(tmp_path / "set" / synset / f"{i}.png")
    wanted = np.zeros((1, 1000), np.float32)
    wanted[0, [0, 6, 988]] = 3, 2, 1  # a tench above all, which is none of the 200
    model = replace(by_brightness(), labels=imagenet_names(), logits=lambda images: np.repeat(wanted, len(images), 0))
    monkeypatch.setattr(room, "_who", lambda *_: (model, None))
    made = RunDirectory(tmp_path / "run")
    made.create()
    config = resolve({"data": {"source": f"folder:{tmp_path / 'set'}", "image_size": 16}})
    fields = {"class_names": imagenet_names(), "preprocess": model.preprocess, "fields": {}, "data": {}}
    made.write(config, ModelCard(name="resnet8_cifar", **fields))
    found = judge_run(made, class_map="imagenet-a").metrics
    assert (found["count"], found["correct"], found["class_map"]) == (6, 2, "imagenet-a")
    assert len(found["per_class"]) == 200
    assert found["per_class"]["stingray"]["recall"] == 1


def test_python_is_answered_as_the_command_is_in_the_same_words(run, tmp_path):
    good, worse = run("good"), run("worse")
    given = ("--against", str(worse.path), "--by", "site", "--corruptions", "contrast", "--corrupt-images", "9")
    asked = ask(_options("--workdir", str(good.path), *given, "--unlike", "digits", "--tta", "mirror")).metrics
    words = {"by": "site", "corruptions": "contrast", "corrupt_images": 9, "unlike": "digits", "tta": "mirror"}
    found = evaluate(good.path, against=worse.path, **words, out=tmp_path / "report", no_page=True)
    assert found == asked
    assert {"against", "by_group", "robustness", "unlike", "tta"} <= found.keys()
    written = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert written["by_group"] == json.loads(json.dumps(found["by_group"]))
    rows = evaluate(table=[good.path, worse.path])["table"]
    assert [row["run"] for row in rows] == [str(good.path), str(worse.path)]
    assert rows[0]["accuracy"] > rows[1]["accuracy"]


def test_a_table_over_runs_is_written_as_csv_and_as_a_page(run, tmp_path, capsys):
    paths = [str(run(name).path) for name in ("good", "worse")]
    answer = ask(_options("--table", *paths))
    from rich.console import Console

    answer.further.show(Console(width=200))
    assert "worse" in capsys.readouterr().out
    assert answer.write(tmp_path / "out") == ["runs.csv", "runs.html"]
    rows = list(csv.DictReader((tmp_path / "out" / "runs.csv").open()))
    assert [row["run"] for row in rows] == paths
    assert float(rows[0]["accuracy"]) > float(rows[1]["accuracy"])
    assert "<table>" in (tmp_path / "out" / "runs.html").read_text()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "--workdir is needed"),
        (["--table", "a", "--by", "x"], "--by is asked of one run: give it with --workdir"),
        (["--table", "a", "--corruptions"], "--corruptions is asked of one run"),
        (["--workdir", "a", "--corrupt-images", "5"], "--corrupt-images says how many images --corruptions takes"),
        (
            ["--workdir", "a", "--corruptions", "--corrupt-images", "few"],
            "a number of images from 1 on, or all, found 'few'",
        ),
        (["--workdir", "a", "--corruptions", "--corrupt-images", "0"], "found '0'"),
        (["--workdir", "a", "--corruptions", "fogg"], "no corruption 'fogg' .did you mean 'fog'"),
        (["--workdir", "a", "--against", "/nowhere"], "there is no model ./nowhere."),
        (["--workdir", "a", "--against", "/nowhere.onnx"], "--against /nowhere.onnx: there is no such file"),
        (["--workdir", "a", "--seed", "-1"], "--seed must be 0 or more, found -1"),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_is_evaluated(given, said):
    with pytest.raises(UserError, match=said):
        _options(*given)


def test_corruptions_are_meant_by_name_by_family_or_all():
    assert len(corruption_names([])) == 15
    assert len(corruption_names(["all"])) == 19
    assert corruption_names(["Gaussian-Noise", "noise", "fog"]) == (
        *("gaussian_noise", "shot_noise", "impulse_noise"),
        "fog",
    )
    assert corruption_names(None) == ()
    assert (corrupted_images(None), corrupted_images("all"), corrupted_images("12")) == (1000, None, 12)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--unlike", "/nowhere"], "--unlike /nowhere: "),
        (["--by", "sight"], "--by names the column 'sight', .*did you mean 'site'"),
        (["--class-map", "imagenet-a"], "models of ImageNet's 1,000 classes"),
    ],
)
def test_what_is_not_there_is_refused_with_what_to_do(run, given, said):
    with pytest.raises(UserError, match=said):
        _ask(run("good"), *given)
