"""The README and docs/ stay true: their commands take the options they show, and the README's Python runs."""

import functools
import itertools
import re
import shlex
from pathlib import Path

import pytest

from jaxnets.config_files import shipped_configs
from jaxnets.flags import load_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = {f"docs/{page.name}": page.read_text() for page in sorted((ROOT / "docs").glob("*.md"))}
PAGES = {"README.md": README, **DOCS}
BLOCKS = {name: re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL) for name, text in PAGES.items()}
COMMANDS = sorted(
    {
        command[command.index("-m jaxnets") :].strip()
        for kind, block in itertools.chain.from_iterable(BLOCKS.values())
        if kind == "bash"
        for command in re.split(r"\n|&&", block.replace("\\\n", " "))
        if "-m jaxnets" in command
    }
)


def test_the_commands_of_this_package_are_shown():
    modules = {command.split()[1] for command in COMMANDS}
    assert {"jaxnets.main", "jaxnets.evaluate", "jaxnets.predict", "jaxnets.benchmark"} <= modules


@pytest.fixture(scope="module")
def options_of(run):
    """Returns the options of a command, whose help is asked for once."""
    return functools.cache(lambda *command: set(re.findall(r"--[a-z0-9-]+", run(*command, "--help").stdout)))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_is_shown_has_options_that_exist(options_of, command):
    _, module, *arguments = shlex.split(command, comments=True)
    options = {argument.split("=")[0] for argument in arguments if argument.startswith("--")}
    known = options_of(module, *itertools.takewhile(lambda word: not word.startswith("-"), arguments))
    overrides = [argument for argument in arguments if argument.startswith("--config.")]
    assert {option for option in options if not option.startswith("--config.")} <= known
    if overrides:
        load_config(arguments[arguments.index("--config") + 1], overrides)


@pytest.mark.parametrize("name", PAGES)
def test_every_file_that_a_page_points_to_exists(name):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGES[name]):
        assert (ROOT / name).parent.joinpath(target).exists(), target


def test_every_shipped_config_is_in_the_table_of_recipes():
    assert all(f"`{name}`" in PAGES["docs/recipes.md"] for name in shipped_configs())


def test_the_python_of_the_readme_runs(run, tmp_path):
    snippets = [block for kind, block in BLOCKS["README.md"] if kind == "python" and "jaxnets.load" in block]
    assert len(snippets) == 2
    for code in snippets:
        (tmp_path / "snippet.py").write_text(code.replace("config.epochs = 5.0", "config.steps = 2"))
        done = run("snippet", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
