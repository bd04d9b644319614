import sys

import pytest

from jaxnets.config_files import shipped_configs
from jaxnets.errors import UserError
from jaxnets.flags import load_config


def test_a_shipped_config_is_found_by_name_and_by_its_path_in_the_repository():
    assert load_config("digits", []) == load_config("configs/digits.py", [])


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_resolves(name):
    assert load_config(name, []).batch_size % 8 == 0


def test_overrides_reach_keys_of_every_type():
    config = load_config(
        "digits",
        [
            "--config.steps=7",
            "--config.epochs=2",
            "--config.augment.flip.horizontal=0.5",
            "--config.model.zero_init_last_norm=false",
            "--config.model.shortcut",
            "B",
            "--config.data.mean=(0.5,)",
            "--config.data.std",
            "0.25",
            "--config.log_every_steps=1e3",
        ],
    )
    assert (config.steps, config.epochs, config.augment.flip.horizontal) == (7, 2.0, 0.5)
    assert (config.model.zero_init_last_norm, config.model.shortcut) == (False, "B")
    assert config.log_every_steps == 1000
    assert (config.data.mean, config.data.std) == ((0.5,), (0.25,))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["--config.optimizer.learning_rat=1"], "is not a key (did you mean config.optimizer.learning_rate"),
        (["--config.lr=1"], "config.lr is not a key (did you mean config.optimizer.learning_rate?)"),
        (["--config.optimizer=sgd"], "config.optimizer is a group of keys, found '--config.optimizer=sgd'"),
        (["--config.batch_size=many"], "config.batch_size must be a whole number, at least 1, or auto, found 'many'"),
        (["--config.batch_size=2.5"], "config.batch_size must be a whole number, at least 1, or auto, found 2.5"),
        (["--config.steps=many"], "config.steps must be a whole number, at least 1, or None, found 'many'"),
        (["--config.max_hours=8h"], "found '8h': write for instance --config.max_hours=1"),
        (["--config.optimizer.nesterov=maybe"], "config.optimizer.nesterov must be true or false, found 'maybe'"),
        (["--config.data.mean=(0.5"], "found '(0.5': write for instance --config.data.mean=0.5,0.5,0.5"),
        (["--config.steps"], "config.steps needs a value"),
        (["--config.steps", "--config.epochs=1"], "config.steps needs a value"),
        (["--config.batch_size=0"], "config.batch_size must be a whole number, at least 1, or auto, found 0"),
        (["--config.batch_size=None"], "config.batch_size must be a whole number"),
        (["--lr=0.1"], "unknown option --lr=0.1 (did you mean --config.optimizer.learning_rate=0.1?)"),
        (["--epochs", "5"], "unknown option --epochs (did you mean --config.epochs=5?)"),
        (["optimizer.momentum=0.5"], "(did you mean --config.optimizer.momentum=0.5?)"),
        (["--xyzzy=3"], "unknown option --xyzzy=3: keys of the config are written --config.KEY=VALUE"),
        (["extra"], "unexpected argument 'extra'"),
    ],
)
def test_wrong_overrides_are_refused_with_their_key(overrides, expected):
    with pytest.raises(UserError) as error:
        load_config("digits", overrides)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "config.bach_size = 1",
            "line 5 (config.bach_size = 1), sets 'bach_size', which is not a key (did you mean config.batch_size",
        ),
        ("config.lr = 1", "sets 'lr', which is not a key (did you mean config.optimizer.learning_rate?)"),
        ("config['learning_rate'] = 1", "is not a key (did you mean config.optimizer.learning_rate?)"),
        ("config.model.update({'lr': 1})", "is not a key (did you mean config.optimizer.learning_rate?)"),
        ("config.epochs = config.optimizer.lr", "is not a key (did you mean config.optimizer.learning_rate?)"),
        (
            "config.data.repeats = 'many'",
            "sets 'repeats' to many (str): a whole number, at least 1 expected",
        ),
        ("config.epochs = 'abc'.nope", "fails: AttributeError: 'str' object has no attribute 'nope'"),
        ("raise RuntimeError('no such disk')", "fails: RuntimeError: no such disk"),
        ("config.batch_size = ", "fails: SyntaxError"),
        ("return None", "must return a ConfigDict, found NoneType"),
        ("return 3", "must return a ConfigDict, found int"),
    ],
)
def test_a_config_file_that_fails_is_named(tmp_path, body, expected):
    file = tmp_path / "mine.py"
    file.write_text(
        "from jaxnets.config import default_config\n\n"
        f"def get_config():\n    config = default_config()\n    {body}\n    return config\n"
    )
    with pytest.raises(UserError) as error:
        load_config(str(file), [])
    assert expected in str(error.value)


def test_an_optional_key_is_unset_by_none(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from jaxnets.config import default_config\n\n"
        "def get_config():\n    config = default_config()\n    config.ema.decay = 0.9\n    return config\n"
    )
    assert load_config(str(file), []).ema.decay == 0.9
    assert load_config(str(file), ["--config.ema.decay=None"]).ema.decay is None


@pytest.mark.parametrize("arguments", [["--config.hang_minutes=None"], ["--config.hang_minutes", "none"]])
def test_a_key_whose_default_is_a_number_is_unset_where_its_comment_says_so(arguments):
    assert load_config("digits", arguments).hang_minutes is None


@pytest.mark.parametrize(
    ("arguments", "value"),
    [([], True), (["yes"], True), (["off"], False), (["--config.epochs", "20"], True)],
)
def test_a_switch_is_set_with_and_without_its_value(arguments, value):
    config = load_config("digits", ["--config.optimizer.nesterov", *arguments, "--config.seed", "3"])
    assert (config.optimizer.nesterov, config.seed) == (value, 3)


def test_a_config_file_may_define_what_it_likes_and_leaves_nothing_behind(tmp_path):
    before = set(sys.modules)
    file = tmp_path / "[mine] é.py"
    file.write_text(
        "from __future__ import annotations\nimport dataclasses\nfrom jaxnets.config import default_config\n\n"
        "@dataclasses.dataclass\nclass Sizes:\n    batch: int = 24  # é\n\n"
        "def get_config():\n    config = default_config()\n    config.batch_size = Sizes().batch\n    return config\n",
        encoding="utf-8",
    )
    assert load_config(str(file), []).batch_size == 24
    assert set(sys.modules) == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_config_file_without_get_config_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text("config = 3\n")
    with pytest.raises(UserError, match=r"must define get_config\(\)"):
        load_config(str(tmp_path / "mine.py"), [])


def test_a_missing_config_file_names_what_there_is():
    with pytest.raises(UserError, match=r"no config file 'digit' \(did you mean 'digits'\?\)"):
        load_config("digit", [])
