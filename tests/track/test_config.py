"""The keys of tracking: what they take, what they refuse, and what is missing for them."""

import importlib.util
import os

import pytest

from jaxnets.config import RESUMABLE, Config, TrackConfig, resolve
from jaxnets.config_check import without_effect
from jaxnets.data.absolute import with_absolute_paths
from jaxnets.errors import UserError
from jaxnets.export.register import parse_registration
from jaxnets.schema import flatten
from jaxnets.track.about import without_password
from jaxnets.track.destinations import destinations


@pytest.mark.parametrize(
    "uri",
    ["http://127.0.0.1:5000", "https://host/path", "sqlite:///m.db", "postgresql+psycopg2://u:p@h/db", "databricks",
     "databricks://profile", "file:///folder"],
)  # fmt: skip
def test_a_uri_of_mlflow_is_taken(uri):
    assert resolve({"track": {"mlflow": uri}}).track.mlflow == uri


@pytest.mark.parametrize(
    "uri", ["", " ", "mlruns", "/data/mlruns", "htp://host", "http://", "sqlite://m.db", "localhost:5000"]
)
def test_what_is_no_uri_is_refused(uri):
    with pytest.raises(UserError, match=r"config\.track\.mlflow must be the URI of MLflow: http://HOST:PORT"):
        resolve({"track": {"mlflow": uri}})


def test_a_password_is_kept_out_of_config_json_and_of_messages():
    with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        resolve({"track": {"mlflow": "https://me:secret@host"}})
    assert "secret" not in str(refused.value)
    assert without_password("postgresql://u:secret@h:5432/db") == "postgresql://u:***@h:5432/db"
    assert without_password("http://h:5000/a:b@c") == "http://h:5000/a:b@c"


@pytest.mark.parametrize("project", ["", "a/b/c", "a#b", "/b", "a/", "x" * 129])
def test_what_is_no_project_is_refused(project):
    with pytest.raises(UserError, match=r"config\.track\.wandb must be PROJECT or ENTITY/PROJECT"):
        resolve({"track": {"wandb": project}})


def test_an_empty_name_is_refused():
    with pytest.raises(UserError, match=r"config\.track\.name is empty"):
        resolve({"track": {"wandb": "team/digits", "name": " "}})


def test_what_tracks_may_change_between_sessions():
    assert {key for key in flatten(Config()) if key.startswith("track.")} <= RESUMABLE


def test_names_without_a_tracker_have_no_effect():
    said = without_effect(resolve({"track": {"experiment": "x", "name": "y"}}))
    assert [text.split()[0] for text in said] == ["config.track.experiment", "config.track.name"]
    assert not without_effect(resolve({"track": {"wandb": "p", "name": "y"}}))


def test_a_database_file_means_the_same_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given, meant in (
        ("sqlite:///m.db", f"sqlite:///{os.getcwd()}/m.db"),
        ("sqlite:////a/m.db", "sqlite:////a/m.db"),
    ):
        assert with_absolute_paths(resolve({"track": {"mlflow": given}})).track.mlflow == meant
    assert with_absolute_paths(Config()).track == TrackConfig()


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_what_is_not_installed_is_said_with_its_extra(package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("WANDB_MODE", "offline")
    given = {"mlflow": "http://u@h:1", "wandb": "digits"}[package]
    with pytest.raises(
        UserError, match=rf"needs {package}, which is not installed: pip install 'jaxnets\[{package}\]'"
    ):
        destinations(TrackConfig(**{package: given}))


def test_wandb_that_is_disabled_is_no_tracker(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert destinations(TrackConfig(wandb="digits")) == []


@pytest.mark.parametrize("text", ["", "@x", "a/b", "a.b", "a@", "a@1", "a@v2", "a@latest", " a"])
def test_a_name_that_no_registry_takes_is_refused(text, monkeypatch):
    with pytest.raises(UserError, match="--register"):
        parse_registration(text, "resnet20_cifar")
