"""The keys as `--help` lists them, and which one a user meant."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from jaxnets import keys
from jaxnets.config import Config
from jaxnets.schema import Count, flatten, written


def test_all_keys_are_those_of_the_schema():
    assert {name: key.default for name, key in keys.all_keys().items()} == flatten(Config())


def test_the_list_says_each_key_its_default_what_it_may_be_and_its_comment(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    lines = keys.describe_keys().splitlines()
    groups = [name.rpartition(".")[0] for name in keys.all_keys() if "." in name]
    assert [line for line in lines if line in keys.groups()] == list(dict.fromkeys(groups))
    at = lines.index("  batch_size=128  (a whole number, at least 1, or auto)")
    assert lines[at + 1].startswith("      Examples a step, over all devices. auto: ")
    assert any(line.startswith("  optimizer.learning_rate=0.1  (a number, above 0, or None)") for line in lines)
    assert all(f"  {name}=" in "\n".join(lines) for name in keys.all_keys())


def test_every_key_of_the_schema_has_a_comment_or_a_choice():
    """In config.py, where `--help` reads it."""
    silent = [name for name, key in keys.all_keys().items() if not key.comment and not isinstance(key.restraint, tuple)]
    assert silent == []


@dataclass(frozen=True)
class Inner:
    # Above the field,
    # over two lines.
    name: Literal["a", "b"] = "a"
    size: Count | None = None  # within its lines
    text: str = "x # y"  # beside a string that holds the sign
    bare: bool = False


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    last: float = 1.0  # after the group


def test_comments_are_found_beside_within_and_above_a_field():
    found = {key.name: key.comment for key in keys._walk(Outer())}
    assert found == {
        "last": "after the group",
        "inner.name": "Above the field, over two lines.",
        "inner.size": "within its lines",
        "inner.text": "beside a string that holds the sign",
        "inner.bare": "",
    }


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("lr", "optimizer.learning_rate"),
        ("LR", "optimizer.learning_rate"),
        ("learning-rate", "optimizer.learning_rate"),
        ("learning_rat", "optimizer.learning_rate"),
        ("model.lr", "optimizer.learning_rate"),
        ("optimizer.lr", "optimizer.learning_rate"),
        ("optimzer.learning_rate", "optimizer.learning_rate"),
        ("batch", "batch_size"),
        ("bs", "batch_size"),
        ("wd", "optimizer.weight_decay"),
        ("num_epochs", "epochs"),
        ("epoch", "epochs"),
        ("size", "data.image_size"),
        ("img_size", "data.image_size"),
        ("imgsz", "data.image_size"),
        ("image_size", "data.image_size"),
        ("arch", "model.name"),
        ("workers", "data.threads"),
        ("data_dir", "data.directory"),
        ("dataset", "data.source"),
        ("opt", "optimizer.name"),
        ("random_seed", "seed"),
        ("flip", "augment.flip.horizontal"),
        ("label_smoothing", "loss.label_smoothing"),
        ("posterize", "augment.posterize.probability"),
        ("mixup_alpha", "mix.mixup"),
        ("freeze", "freeze.before"),
        ("freeze_backbone", "freeze.before"),
        ("unfreeze_epoch", "freeze.thaw_epoch"),
    ],
)
def test_what_others_call_a_key_leads_to_it(name, key):
    assert keys.meant(name)[0] == key


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("stem", ("stem",)),
        ("stem,", ("stem",)),
        ("stem, stage[12]", ("stem", "stage[12]")),
        ("('stem', 'stage1')", ("stem", "stage1")),
        ("[stem]", ("stem",)),
        ("", ()),
    ],
)
def test_names_are_read_with_and_without_brackets_round_them(text, names):
    assert keys.all_keys()["freeze.layers"].parse(text) == names


def test_nothing_is_meant_by_what_is_like_no_key():
    assert keys.meant("xyzzy") == []
    assert keys.did_you_mean("xyzzy") == ""


def test_every_synonym_stands_for_one_meaning():
    words = [word for others in keys._SYNONYMS.values() for word in others.split()]
    assert len(words) == len(set(words))


def test_a_value_reads_back_as_it_is_written():
    for key in keys.all_keys().values():
        assert key.parse(written(key.default)) == key.default
        key.parse(key.example)
