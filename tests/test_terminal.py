"""What is printed, on terminals that can show everything and on those that cannot."""

import io
import json
import logging

import pytest
from rich.table import Table

from jaxnets import terminal

NAMES = ["[red]", "cat [wild]", "[/]", "[bold", ":dog:", "a\\[b]", "[link=x]y[/link]"]


def stream(encoding: str, errors: str = "strict") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors, write_through=True)


def written(monkeypatch, encoding, print_it) -> str:
    out = stream(encoding)
    monkeypatch.setattr("sys.stdout", out)
    terminal.show_anything(out)
    print_it()
    return out.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_no_markup_in_lines_nor_in_tables(monkeypatch, name):
    def show():
        console = terminal.console()
        table = Table(name, title=name)
        table.add_row(name)
        console.print(table)
        console.print(name)

    assert written(monkeypatch, "utf-8", show).count(name) == 4


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "8×8 — … café \\xe9 犬"),
        ("ascii", "8x8 - ... caf\\xe9 \\xe9 \\u72ac"),
        ("latin-1", "8×8 - ... café \\xe9 \\u72ac"),
        ("cp1252", "8×8 — … café \\xe9 \\u72ac"),
        ("koi8-r", "8x8 - ... caf\\xe9 \\xe9 \\u72ac"),
    ],
)
def test_any_encoding_shows_any_text(monkeypatch, encoding, expected):
    text = "8×8 — … café \udce9 犬"  # \udce9 is how Python holds a name's byte that is no UTF-8
    assert written(monkeypatch, encoding, lambda: print(text, end="")) == expected
    assert written(monkeypatch, encoding, lambda: terminal.console().print(text, end="")) == expected
    assert written(monkeypatch, encoding, lambda: print(terminal.shown(text), end="")) == expected


def test_a_table_stays_in_line_where_a_name_is_escaped(monkeypatch):
    def show():
        table = Table("class")
        for name in ("café", "dog"):
            table.add_row(terminal.shown(name))
        terminal.console().print(table)

    lines = written(monkeypatch, "ascii", show).splitlines()
    assert len({len(line.rstrip()) for line in lines}) == 1


def test_control_characters_of_a_name_do_not_reach_the_terminal():
    assert terminal.shown("a\x1b[31mb\nc\u2028d\x9b") == "a\\x1b[31mb\\nc\\u2028d\\x9b"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@pytest.mark.parametrize("name", ["café", "caf\udce9", "犬 😀"])
def test_json_reads_back_the_same_whatever_the_encoding(monkeypatch, encoding, name):
    assert json.loads(written(monkeypatch, encoding, lambda: print(terminal.json_text({"file": name})))) == {
        "file": name
    }


def test_a_stream_that_knows_what_to_do_is_left_alone():
    out = stream("ascii", errors="replace")
    terminal.show_anything(out)
    assert out.errors == "replace"


def test_a_log_that_the_terminal_cannot_show_is_written_in_another_way():
    out = stream("ascii")
    terminal.show_anything(out)
    logging.StreamHandler(out).emit(logging.makeLogRecord({"msg": "skipped: caf\udce9 — 8×8"}))
    assert out.buffer.getvalue() == b"skipped: caf\\xe9 - 8x8\n"
