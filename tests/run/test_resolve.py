"""What a text that names a model means."""

import os
from pathlib import Path

import pytest

from jaxnets.errors import UserError
from jaxnets.run.resolve import ModelSource, resolve

RUN = ("config.json", "model.json")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*files: str) -> None:
    for file in files:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text("")


def meant(text: str) -> tuple[str, str, str, str | None]:
    found = resolve(text)
    return found.kind, found.location, found.name, found.model


@pytest.mark.parametrize(
    ("text", "files", "expected"),
    [
        ("runs/x", [f"runs/x/{file}" for file in RUN], ("run", "runs/x", "x", None)),
        ("cats.safetensors", ["cats.safetensors"], ("file", "cats.safetensors", "cats", None)),
        ("a/cats.pth.tar", ["a/cats.pth.tar"], ("file", "a/cats.pth.tar", "cats.pth", None)),
        ("hub", ["hub/model.safetensors", "hub/config.json"], ("file", "hub/model.safetensors", "hub", None)),
        ("hub", ["hub/pytorch_model.bin"], ("file", "hub/pytorch_model.bin", "hub", None)),
        ("hub/", ["hub/model.safetensors.index.json"], ("file", "hub/model.safetensors.index.json", "hub", None)),
        ("hub/model.safetensors", ["hub/model.safetensors"], ("file", "hub/model.safetensors", "hub", None)),
        ("hf:me/cats", [], ("hub", "me/cats", "cats", None)),
        ("hf:me/cats@v1", [], ("hub", "me/cats@v1", "cats", None)),
        ("gs://bucket/runs/x", [], ("run", "gs://bucket/runs/x", "x", None)),
        ("efficientnet_lite0", [], ("known", "efficientnet_lite0", "efficientnet_lite0", None)),
        ("resnet50@w.pth", ["w.pth"], ("file", "w.pth", "w", "resnet50")),
        ("resnet50@hf:me/cats@v1", [], ("hub", "me/cats@v1", "cats", "resnet50")),
    ],
)
def test_a_text_means_a_run_weights_a_repository_or_a_known_model(text, files, expected):
    make(*files)
    assert meant(text) == expected


@pytest.mark.parametrize("text", ["hf:me/cats", "resnet50@w.pth", "efficientnet_lite0", "runs/x", "hub"])
def test_a_name_is_given_to_each_of_them(text):
    make("w.pth", "hub/model.safetensors", *(f"runs/x/{file}" for file in RUN))
    bare, named = resolve(text), resolve(f"pets={text}")
    assert (named.name, named.given, bare.given) == ("pets", True, False)
    assert (named.kind, named.location, named.model) == (bare.kind, bare.location, bare.model)
    assert resolve(str(named)) == bare


def test_the_name_of_a_registered_model_says_the_network_of_weights_too():
    make("w.pth", *(f"runs/x/{file}" for file in RUN))
    assert resolve("resnet50=w.pth").model == "resnet50"
    assert resolve("resnet50=resnet18@w.pth").model == "resnet18"
    assert resolve("resnet50=runs/x").model is None
    assert str(resolve("resnet50=w.pth")) == "resnet50@w.pth"


@pytest.mark.parametrize("text", ["a=b.pth", "resnet50=w.pth", "resnet50@w.pth", "hf:x"])
def test_a_path_that_exists_is_that_path(text):
    make(text)
    assert meant(text)[:2] == ("file", text)


def test_a_path_goes_before_the_registered_model_of_its_name_and_that_is_said(caplog):
    caplog.set_level("INFO")
    make(*(f"resnet50/{file}" for file in RUN))
    assert resolve("resnet50").kind == "run"
    assert "goes before the registered model" in caplog.text


def test_a_folder_that_holds_no_model_hides_no_registered_one():
    make("resnet50/notes.txt")
    assert resolve("resnet50").kind == "known"


def test_a_run_that_was_exported_into_is_still_a_run():
    make(*(f"x/{file}" for file in (*RUN, "model.safetensors")))
    assert resolve("x").kind == "run"


def test_the_home_directory_is_understood(monkeypatch, here):
    monkeypatch.setenv("HOME", str(here))
    make("w.pth")
    assert resolve("~/w.pth") == ModelSource(kind="file", location=str(here / "w.pth"), name="w")


def test_a_missing_path_says_where_it_was_looked_for_and_what_is_expected(here):
    with pytest.raises(UserError) as refused:
        resolve("runs/y")
    assert str(here / "runs" / "y") in str(refused.value)
    assert "a run directory, a file of weights" in str(refused.value)


def test_a_misspelt_name_finds_its_nearest():
    with pytest.raises(UserError, match="did you mean 'resnet50'"):
        resolve("resnet5O")


def test_a_misspelt_network_of_a_file_finds_its_nearest():
    make("w.pth")
    with pytest.raises(UserError, match=r"no model 'resnet5O'.*did you mean 'resnet50'"):
        resolve("resnet5O@w.pth")


@pytest.mark.parametrize("text", ["resnet50@efficientnet_lite0", "resnet50@x"])
def test_what_says_its_network_itself_is_not_given_another(text):
    make(*(f"x/{file}" for file in RUN))
    with pytest.raises(UserError, match="says itself which model"):
        resolve(text)


def test_a_folder_that_holds_no_model_is_refused_with_what_it_holds():
    make("x/notes.txt", "x/config.json")
    with pytest.raises(UserError, match=r"neither a run directory .* holds 'config\.json', 'notes\.txt'"):
        resolve("x")


@pytest.mark.parametrize(
    "text", ["", "a\0b", "x" * 5000, "loop", "pets=", "@w.pth", "resnet50@", "resnet50@nowhere", "=x"]
)
def test_what_means_nothing_is_one_message(text):
    os.symlink("loop", "loop")
    with pytest.raises(UserError, match="there is no model"):
        resolve(text)
