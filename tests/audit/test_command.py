"""The command, its status, and what it leaves behind."""

import argparse
import json
import re
import shutil

import pytest
from PIL import Image

from jaxnets.audit import audit as audits
from jaxnets.audit import page
from jaxnets.data.__main__ import _audit
from jaxnets.errors import UserError
from tests.audit.made import make

HOSTILE = {"<img src=x onerror=1>": (170, 120, 60), "a&b": (40, 130, 140)}


def command(source, out, *overrides, **options):
    """Runs the command in this process; returns its status."""
    given = {"config": None, "model": "none", "batches": 1, "json": False, **options}
    return _audit(argparse.Namespace(source=source, out=out, **given), list(overrides))


@pytest.fixture(scope="module")
def dirty(tmp_path_factory):
    """A folder whose classes have names that would be markup, with copies in its test split."""
    folder = make(tmp_path_factory.mktemp("images") / "images", train=12, test=3, classes=HOSTILE)
    for number in range(4):
        name = f"{number}.jpg"
        shutil.copy(folder / "train" / "a&b" / name, folder / "test" / "a&b" / f"copy <b>{name}")
    (folder / "train" / "a&b" / "<i>broken</i>.jpg".replace("/", "_")).write_bytes(b"no image")
    return folder


def test_what_training_would_suffer_from_ends_with_1_and_is_written_down(dirty, tmp_path, capsys):
    assert command(f"folder:{dirty}", tmp_path / "out") == 1
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert report["status"] == 1
    assert {finding["kind"] for finding in report["findings"]} >= {"leakage", "unreadable"}
    assert "training would suffer: one image in several splits" in printed
    with Image.open(tmp_path / "out" / "sheets" / "leakage.png") as sheet:
        assert sheet.width > 300
    assert not (tmp_path / "out" / "sheets" / "unreadable.png").exists()


def test_the_page_needs_nothing_else_and_escapes_every_name(dirty, tmp_path):
    command(f"folder:{dirty}", tmp_path)
    html = (tmp_path / "index.html").read_text()
    assert not re.search(r'(src|href)="(?!data:image/|#)', html)
    assert "onerror=1>" not in html
    assert "<b>0.jpg" not in html
    assert "<i>broken" not in html
    assert "&lt;img src=x onerror=1&gt;" in html
    assert "copy &lt;b&gt;0.jpg" in html


def test_a_page_of_many_findings_shows_some_and_lists_the_others(dirty, tmp_path, monkeypatch):
    command(f"folder:{dirty}", tmp_path / "all")
    monkeypatch.setattr(page, "_CASES", 2)
    monkeypatch.setattr(page, "_SHOWN_CLASSES", 0)
    command(f"folder:{dirty}", tmp_path / "some")
    everything, some = ((tmp_path / name / "index.html").read_text() for name in ("all", "some"))
    assert some.count("<img ") == 2 * 2 < everything.count("<img ")
    assert all(f"copy &lt;b&gt;{number}.jpg" in some for number in range(4))


def test_a_clean_folder_ends_with_0_and_prints_json_if_asked(tmp_path, capsys):
    folder = make(tmp_path / "images", train=22, test=5)
    assert command(f"folder:{folder}", tmp_path / "out", json=True) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["findings"] == []
    assert printed["classes"] == {"amber": {"train": 22, "test": 5}, "teal": {"train": 22, "test": 5}}


def test_with_a_config_the_validation_split_is_looked_over_and_a_batch_is_shown(tmp_path):
    folder = make(tmp_path / "images", train=20, test=4)
    changed = ("--config.data.image_size=16", "--config.batch_size=8", "--config.data.validation=0.2")
    command(f"folder:{folder}", tmp_path / "out", *changed, config="digits")
    report = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert report["splits"].keys() == {"train", "test", "validation"}
    assert sum(report["splits"].values()) == report["images"] == 48
    assert (tmp_path / "out" / "sheets" / "fed-1.png").exists()
    assert "What the model is fed in step 1" in (tmp_path / "out" / "index.html").read_text()


def test_ctrl_c_says_what_was_not_done_and_keeps_what_was(dirty, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(audits, "near", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command(f"folder:{dirty}", tmp_path)
    assert "not done: comparing, judging labels" in capsys.readouterr().out
    report = json.loads((tmp_path / "audit.json").read_text())
    assert report["not_done"] == ["comparing", "judging labels"]
    assert "unreadable" in {finding["kind"] for finding in report["findings"]}


@pytest.mark.parametrize(
    ("source", "options", "overrides", "message"),
    [
        (None, {}, (), "give --source"),
        ("digits", {"batches": 0}, (), "--batches must be at least 1"),
        ("digits", {"config": "digts"}, (), "there is no config file 'digts'"),
        ("digits", {}, ("--config.data.sorce=x",), "config.data.sorce is not a key"),
        ("digits", {"model": "no/model"}, (), "no/model"),
    ],
)
def test_a_mistake_in_the_options_ends_with_2(source, options, overrides, message, tmp_path):
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        command(source, tmp_path, *overrides, **options)
    assert raised.value.status == 2


def test_an_empty_class_folder_ends_with_1(tmp_path):
    folder = make(tmp_path / "images", train=2, test=1)
    (folder / "train" / "empty").mkdir()
    with pytest.raises(UserError, match="has no image files") as raised:
        command(f"folder:{folder}", tmp_path / "out")
    assert raised.value.status == 1


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written to"):
        command("digits", tmp_path / "file" / "out")
