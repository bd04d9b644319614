"""The words of an evaluation are the same on the command line and from Python."""

import argparse
import inspect
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import jaxnets
from jaxnets.errors import UserError
from jaxnets.evaluate.ask import evaluate
from jaxnets.evaluate.options import Options, add_options

NAMES = [each.name for each in fields(Options)]


def _parsed(text: str) -> Options:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return Options.parsed(parser.parse_args(["--workdir", "a", *text.split()]))


def test_each_option_of_the_command_is_a_word_of_python_with_the_same_default():
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser)
    known = {action.dest: action.default for action in parser._actions}
    found = inspect.signature(jaxnets.evaluate).parameters
    assert {name: each.default for name, each in found.items()} == known
    assert list(found) == NAMES
    asked_for = {"against", "by", "precision", "coverage", "conformal", "costs", "corruptions", "unlike", "class_map"}
    assert asked_for < known.keys()
    lines = [line.strip() for line in evaluate.__doc__.splitlines()]
    assert all(any(line.startswith(f"{name}: ") for line in lines) for name in NAMES)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", {}),
        ("--batch-size 7 --split train", {"batch_size": np.int64(7), "split": "train"}),
        ("--checkpoint newest --weights raw", {"checkpoint": "newest", "weights": "raw"}),
        ("--size 64", {"size": 64}),
        ("--size 64x48", {"size": (64, 48)}),
        ("--size 64x48", {"size": "64x48"}),
        ("--model f.onnx --costs c.csv", {"model": "f.onnx", "costs": Path("c.csv")}),
        ("--calibrate --familiar --precision 0.95", {"calibrate": True, "familiar": True, "precision": 0.95}),
        ("--familiar 0.9 --coverage 0.5", {"familiar": 0.9, "coverage": np.float32(0.5)}),
        ("--familiar 1", {"familiar": 1}),
        ("", {"familiar": False, "thresholds": False, "corruptions": False}),
        ("--thresholds", {"thresholds": True}),
        ("--thresholds train", {"thresholds": "train"}),
        ("--corruptions", {"corruptions": True}),
        ("--corruptions", {"corruptions": []}),
        ("--corruptions fog --corrupt-images 20", {"corruptions": "fog", "corrupt_images": 20}),
        ("--corruptions fog snow --corrupt-images all", {"corruptions": ("fog", "snow"), "corrupt_images": "all"}),
        ("--table b --seed 3 --no-page", {"table": "b", "seed": 3, "no_page": True}),
        ("--table b c --out d", {"table": [Path("b"), "c"], "out": "d"}),
    ],
)
def test_what_is_typed_and_what_python_gives_are_the_same_options(typed, words):
    assert _parsed(typed) == Options.of(workdir=Path("a"), **words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"agianst": "b"}, "no option 'agianst' .did you mean 'against'..; there are workdir, split, "),
        ({"batch_size": 0}, "--batch-size must be at least 1, found 0"),
        ({"batch_size": 2.5}, "--batch-size must be a whole number, found 2.5"),
        ({"batch_size": True}, "--batch-size must be a whole number, found True"),
        ({"precision": "0.95"}, "--precision must be a number, found '0.95'"),
        ({"precision": True}, "--precision must be a number, found True"),
        ({"calibrate": 1}, "--calibrate must be True or False, found 1"),
        ({"calibrate": None}, "--calibrate must be something like False, found None"),
        ({"split": None}, "--split must be something like 'test', found None"),
        ({"split": 3}, "--split must be text, found 3"),
        ({"weights": "mean"}, "--weights must be ema or raw, found 'mean'"),
        ({"checkpoint": 1.5}, "--checkpoint must be a whole number, found 1.5"),
        ({"out": ""}, "--out must be a path, found ''"),  # not the current directory
        ({"workdir": ""}, "--workdir must be text, found ''"),
        ({"against": ["b", ""]}, "--against must be text, found ''"),
        ({"costs": [[0, 1], [1, 0]]}, "--costs must be a path, found"),
        ({"against": []}, "--against must be one or more of them, found"),
        ({"against": 3}, "--against must be text, or a list of it, found 3"),
        ({"size": (1, 2, 3)}, "--size must be pixels of a side, or height and width, up to 9999, found"),
        ({"size": 0}, "--size must be pixels of a side"),
        ({"size": "0x3"}, "--size must be pixels of a side, or HEIGHTxWIDTH, up to 9999, found '0x3'"),
        ({"corruptions": ["fogg"]}, "no corruption 'fogg' .did you mean 'fog'"),
        ({"no_page": True}, "no_page is of the report, and none is written: say with out where it goes"),
        ({"workdir": None, "table": "b", "precision": 0.9}, "--precision is asked of one run: give it with --workdir"),
        ({"workdir": "/nowhere"}, "there is no directory /nowhere"),
    ],
)
def test_a_wrong_word_or_value_is_named(words, said):
    with pytest.raises(UserError, match=said):
        jaxnets.evaluate(**{"workdir": "a", **words})


def test_a_pattern_of_runs_is_what_it_matches_and_a_run_of_that_name_is_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a", "[x]", "x"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert Options.of(table="runs/*").table == ("runs/[x]", "runs/a", "runs/b", "runs/x")
    assert Options.of(table=["runs/[x]", "runs/[ab]"]).table == ("runs/[x]", "runs/a", "runs/b")
    assert Options.of(table=["runs/c*", "gs://bucket/*"]).table == ("runs/c*", "gs://bucket/*")
