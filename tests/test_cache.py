"""Where the user's cache lies, and what happens where it cannot lie there."""

import os
import stat
from pathlib import Path

import pytest

from jaxnets import cache


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    cache._temporary.cache_clear()
    yield tmp_path / "tmp" / f"jaxnets-{os.getuid()}"
    cache._temporary.cache_clear()


def no_home(monkeypatch):
    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)


def blocked(monkeypatch, path):
    """The tests may run as root, who may write anywhere."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: not Path(p).is_relative_to(path) and access(p, mode))


def test_the_cache_lies_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_directory() == tmp_path / ".cache" / "jaxnets"


def test_a_relative_xdg_cache_home_is_ignored(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert cache.cache_directory() == tmp_path / ".cache" / "jaxnets"


@pytest.mark.parametrize("case", ["none", "read-only", "a file", "missing below a read-only one"])
def test_without_a_home_to_write_in_the_cache_is_temporary_and_that_is_said_once(
    tmp_path, monkeypatch, caplog, temporary, case
):
    home = tmp_path / "home"
    if case == "none":
        no_home(monkeypatch)
    elif case == "a file":
        home.write_text("")
        monkeypatch.setenv("HOME", str(home))
    else:
        home.mkdir()
        monkeypatch.setenv("HOME", str(home / "me" if case.startswith("missing") else home))
        blocked(monkeypatch, home)
    with caplog.at_level("INFO", "jaxnets"):
        assert [cache.cache_directory(), cache.cache_directory()] == [temporary, temporary]
    (said,) = caplog.messages
    assert str(temporary) in said
    assert ("there is no home directory" if case == "none" else "cannot be written to") in said
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700


@pytest.mark.parametrize("case", ["a link", "writable by others", "a file"])
def test_a_temporary_cache_that_others_could_have_filled_is_not_used(tmp_path, monkeypatch, temporary, case):
    no_home(monkeypatch)
    if case == "a link":
        (tmp_path / "theirs").mkdir()
        temporary.symlink_to(tmp_path / "theirs")
    elif case == "a file":
        temporary.write_text("")
    else:
        temporary.mkdir()
        temporary.chmod(0o777)
    chosen = cache.cache_directory()
    assert chosen != temporary
    assert chosen.parent == temporary.parent
    assert stat.S_IMODE(chosen.stat().st_mode) == 0o700


def test_choosing_the_cache_makes_nothing(tmp_path, monkeypatch, temporary):
    no_home(monkeypatch)
    assert cache.choose_directory() == (temporary, "there is no home directory")
    assert not temporary.exists()
