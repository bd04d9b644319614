import pytest

from jaxnets.errors import UserError
from jaxnets.flags import load_config, shipped_configs


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
            "--config.data.std=(0.25,)",
        ],
    )
    assert (config.steps, config.epochs, config.augment.flip.horizontal) == (7, 2.0, 0.5)
    assert (config.model.zero_init_last_norm, config.model.shortcut) == (False, "B")
    assert (config.data.mean, config.data.std) == ((0.5,), (0.25,))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["--config.optimizer.learning_rat=1"], "did you mean 'optimizer.learning_rate'?"),
        (["--config.batch_size=many"], "config.batch_size cannot be 'many': int expected"),
        (["--config.steps=many"], "config.steps cannot be 'many'"),
        (["--config.batch_size=0"], "config.batch_size must be at least 1, found 0"),
        (["--steps=3"], "unknown option --steps=3"),
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
        ("config.bach_size = 1", "sets 'bach_size', which is not a key (did you mean 'batch_size'?)"),
        ("config.batch_size = 'many'", "Could not override field 'batch_size'"),
        ("config.epochs = 'abc'.nope", "fails: AttributeError: 'str' object has no attribute 'nope'"),
        ("raise RuntimeError('no such disk')", "fails: RuntimeError: no such disk"),
        ("config.batch_size = ", "fails: SyntaxError"),
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
        "def get_config():\n    config = default_config()\n    config.ema_decay = 0.9\n    return config\n"
    )
    assert load_config(str(file), []).ema_decay == 0.9
    assert load_config(str(file), ["--config.ema_decay=None"]).ema_decay is None


def test_a_missing_config_file_names_what_there_is():
    with pytest.raises(UserError, match=r"no config file 'digit' \(did you mean 'digits'\?\)"):
        load_config("digit", [])
