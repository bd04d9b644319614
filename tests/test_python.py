import subprocess
import sys

import numpy as np
import pytest

import jaxnets
from tests.train.runs import SMALL


def test_dir_shows_the_public_names_and_each_is_there():
    assert {"train", "evaluate", "load", "get_config", "load_pretrained", "list_models"} <= set(dir(jaxnets))
    for name in dir(jaxnets):
        assert getattr(jaxnets, name) is not None


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    config = jaxnets.get_config("digits")
    config.model.name, config.batch_size, config.steps, config.eval_every_steps = SMALL, 16, 4, 4
    folder = tmp_path_factory.mktemp("python")
    outcome = jaxnets.train(config, folder / "run", quiet=True)
    assert (outcome.step, outcome.finished) == (4, True)
    return folder / "run"


def test_a_run_is_trained_evaluated_and_loaded_from_python(workdir):
    report = jaxnets.evaluate(workdir)
    assert (report["count"], report["split"]) == (360, "test")
    classifier = jaxnets.load(workdir)
    assert classifier.predict(np.zeros((8, 8), np.uint8)).shape == (1, 10)


def test_a_mapping_and_a_name_are_configs_too(workdir):
    with pytest.raises(jaxnets.UserError, match=r"config.bach_size is not a key"):
        jaxnets.train({"bach_size": 1}, workdir)
    with pytest.raises(jaxnets.UserError, match="holds another run"):
        jaxnets.train("digits", workdir, quiet=True)
    with pytest.raises(jaxnets.UserError, match="there is no config file 'digit'"):
        jaxnets.train("digit", workdir)


def test_the_packages_are_callable_whatever_was_imported_before():
    code = (
        "import jaxnets.train.loop, jaxnets.evaluate.run, jaxnets; "
        "print(callable(jaxnets.train), callable(jaxnets.evaluate))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
