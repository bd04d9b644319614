import pytest

from jaxnets.config import Config, resolve
from jaxnets.errors import UserError
from jaxnets.sweep import choices, floats, ints
from jaxnets.sweep.best import config_file
from jaxnets.sweep.space import as_space, check_space, read_space, with_values
from jaxnets.sweep.study import values_of


def test_a_file_says_what_may_be_tried(tmp_path):
    (tmp_path / "space.py").write_text(
        "from jaxnets.sweep import choices, floats, ints\n\n\ndef get_space():\n    return {\n"
        '        "config.optimizer.learning_rate": floats(0.01, 1, log=True),\n'
        '        "augment.pad_and_crop.padding": ints(0, 3, step=2),\n'
        '        "schedule.milestones": choices((0.5,), [0.5, 0.75]),\n    }\n'
    )
    space = read_space(tmp_path / "space.py")
    assert list(space) == ["optimizer.learning_rate", "augment.pad_and_crop.padding", "schedule.milestones"]
    assert [str(values) for values in space.values()] == [
        *("0.01 to 1, by its logarithm", "0 to 2 in steps of 2", "0.5, or 0.5,0.75"),
    ]
    check_space(space, Config())
    params = {"optimizer.learning_rate": 0.3, "augment.pad_and_crop.padding": 2, "schedule.milestones": "0.5,0.75"}
    config = with_values(Config(), values_of(space, params))
    assert (config.optimizer.learning_rate, config.schedule.milestones) == (0.3, (0.5, 0.75))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1", "must define get_space(), which returns the space"),
        ("def get_space(): return 3", "must be a mapping from keys to floats(low, high), ints(low, high) or choices"),
        ("def get_space(): return {}", "with a key at least, found an empty one"),
        ("def get_space(): return {'epochs': (1, 2)}", "found 'epochs': (1, 2)"),
        ("def get_space(): return 1 / 0", "fails: ZeroDivisionError"),
        ("from jaxnets.sweep import floats\ndef get_space(): return {'epochs': floats(2, 1)}", "found 2 to 1"),
    ],
)
def test_a_file_without_a_space_gets_one_message(tmp_path, content, message):
    (tmp_path / "space.py").write_text(content + "\n")
    with pytest.raises(UserError) as error:
        read_space(tmp_path / "space.py")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"optimizer.learning_rat": floats(0.1, 1)}, "not a key (did you mean config.optimizer.learning_rate or"),
        ({"optimizer": choices("sgd", "adamw")}, "config.optimizer, which is a group of keys"),
        ({"loss.label_smoothing": floats(0.0, 1.5)}, "config.loss.label_smoothing must be"),
        ({"optimizer.name": choices("sgd", "adamww")}, "config.optimizer.name must be one of"),
        ({"epochs": choices("many", 3.0)}, "config.epochs must be float, found 'many'"),
        ({"augment.pad_and_crop.padding": floats(0, 2)}, "a whole number, at least 0: give ints(low, high)"),
        ({"optimizer.name": ints(0, 2)}, "give choices"),
        ({"seed": ints(0, 9)}, "decides what the trials are measured by"),
        ({"data.validation": floats(0.1, 0.5)}, "decides what the trials are measured by"),
        ({"accumulate_steps": choices(3, 5)}, "does not divide config.batch_size"),
    ],
)
def test_what_the_config_cannot_take_is_refused_before_anything_starts(space, message):
    with pytest.raises(UserError) as error:
        check_space(space, Config())
    assert message in str(error.value)


def test_trials_that_are_compared_by_the_loss_have_one_loss():
    by_loss = Config(best="loss")
    for name in ("loss.name", "loss.focal.gamma"):
        values = choices("softmax_cross_entropy", "focal") if name == "loss.name" else floats(1, 3)
        with pytest.raises(UserError, match="decides what the trials are measured by"):
            check_space({name: values}, by_loss)
        check_space({name: values}, Config())
    check_space({"loss.label_smoothing": floats(0, 0.2)}, by_loss)  # evaluation has none


def test_one_value_of_several_that_the_rest_of_the_config_forbids_is_left_to_its_trial():
    with pytest.raises(UserError, match="does not divide"):
        with_values(Config(), {"accumulate_steps": 3})
    check_space({"accumulate_steps": choices(1, 3)}, Config())
    check_space({"batch_size": ints(32, 256, log=True)}, Config())


@pytest.mark.parametrize(
    "make",
    [
        lambda: floats(0, 1, log=True),
        lambda: floats("a", 1),
        lambda: floats(0, float("inf")),
        lambda: ints(0, 2.5),
        lambda: ints(1, 8, step=0),
        lambda: ints(1, 8, log=True, step=2),
        lambda: choices("a"),
        lambda: choices("a", "a"),
        lambda: as_space([floats(0, 1)]),
    ],
)
def test_a_range_of_nothing_is_refused(make):
    with pytest.raises(UserError):
        make()


def test_the_best_config_is_a_file_that_stands_by_itself():
    changed = {"epochs": 2.5, "data": {"source": 'folder:/a/b"""\\c'}, "optimizer": {"name": "adamw"}}
    config = resolve({**changed, "model": {"pretrained": "x"}, "augment": {"pad_and_crop": {"padding": 2}}})
    values = {"optimizer.name": "adamw", "schedule.milestones": (0.5, 0.7)}
    config = with_values(config, values)
    text = config_file(config, values, 'of a folder called """\\c')
    scope: dict = {}
    exec(compile(text, "best.py", "exec"), scope)
    assert resolve(scope["get_config"]()) == config
    assert text.index("config.epochs") < text.index("# What was sought.") < text.index("config.optimizer.name")
