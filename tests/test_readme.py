"""The README stays true: its commands take the options it shows, and its Python runs."""

import functools
import re
import shlex
from pathlib import Path

import pytest

from jaxnets.config_files import shipped_configs
from jaxnets.flags import load_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = sorted(
    {
        command[command.index("-m jaxnets") :].strip()
        for kind, block in BLOCKS
        if kind == "bash"
        for command in re.split(r"\n|&&", block.replace("\\\n", " "))
        if "-m jaxnets" in command
    }
)


def test_the_readme_shows_the_commands_of_this_package():
    modules = {command.split()[1] for command in COMMANDS}
    assert {"jaxnets.main", "jaxnets.evaluate", "jaxnets.predict", "jaxnets.benchmark"} <= modules


@pytest.fixture(scope="module")
def options_of(run):
    """Returns the options of a command, whose help is asked for once."""
    return functools.cache(lambda module: set(re.findall(r"--[a-z0-9-]+", run(module, "--help").stdout)))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_has_options_that_exist(options_of, command):
    _, module, *arguments = shlex.split(command, comments=True)
    options = {argument.split("=")[0] for argument in arguments if argument.startswith("--")}
    known = options_of(module)
    overrides = [argument for argument in arguments if argument.startswith("--config.")]
    assert {option for option in options if not option.startswith("--config.")} <= known
    if overrides:
        load_config(arguments[arguments.index("--config") + 1], overrides)


def test_every_file_that_the_readme_points_to_exists():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_shipped_config_is_in_the_readme():
    assert all(f"`{name}`" in README for name in shipped_configs())


def test_the_python_of_the_readme_runs(run, tmp_path):
    snippets = [block for kind, block in BLOCKS if kind == "python" and "jaxnets.load" in block]
    assert len(snippets) == 2
    for code in snippets:
        (tmp_path / "snippet.py").write_text(code.replace("config.epochs = 5.0", "config.steps = 2"))
        done = run("snippet", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
