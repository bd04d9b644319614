"""launch/README.md names what is there, and nothing else."""

import re
from pathlib import Path

from jaxnets.flags import load_config

LAUNCH = Path(__file__).parent.parent.parent / "launch"
README = (LAUNCH / "README.md").read_text()


def test_every_file_is_named_and_every_named_file_is_there():
    named = set(re.findall(r"\]\(([^)#:]+)\)", README))
    assert named == {file.name for file in LAUNCH.iterdir() if file.is_file()} - {"README.md"}


def test_the_options_that_it_shows_exist(run):
    [line] = re.findall(r"-m (jaxnets\.doctor .*?) *#", README)
    module, *arguments = line.split()
    known = run(module, "--help").stdout
    assert all(argument in known for argument in arguments if argument.startswith("--"))
    for config in re.findall(r"--config (\w+)", README.replace("--config C", "")):
        load_config(config, [])
