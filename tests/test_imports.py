import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jaxnets"

# The way of the data: each room may use the ones before it. What shares a line may use its neighbours.
ORDER = [
    ["callable", "errors", "chips", "cores", "dtypes", "cache", "exit", "interrupt", "terminal", "figures"],
    ["schema", "answer", "trust", "metrics", "preprocess", "sheet"],
    ["models"],
    ["recipe"],
    ["config", "config_check", "keys", "config_files"],  # puts together what each part of a recipe has for keys
    ["data"],
    ["run"],
    ["doctor", "track"],
    ["pretrained", "engine", "explain"],
    ["train"],
    ["classifier"],
    ["loading"],
    ["vectors"],
    [
        "evaluate",
        "export",
        "plan",
        "prepare",
        "audit",
        "finetune",
        "soup",
        "compress",
        "sweep",
        "search",
        "select",
        "monitor",
    ],
    ["serve"],
    ["cli", "flags"],
    ["predict", "benchmark", "main"],
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_stage_imports_from_earlier_ones_only(file):
    room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if file.name == "__main__.py":
        room = "main"  # a command, wherever it lies
    if room == "__init__":
        pytest.skip("the package's own names lead everywhere")
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jaxnets":
            names = [room_of(node.module)] if "." in node.module else [alias.name for alias in node.names]
            for name in names:
                assert RANK[name] <= RANK[room], f"{file.name} imports {name}, which comes after {room}"


COMMAND_LINE = {"cli", "flags", "main", "predict", "benchmark"}


def test_only_commands_import_the_command_line():
    commands = [file for name in COMMAND_LINE for file in (PACKAGE / f"{name}.py", *(PACKAGE / name).rglob("*.py"))]
    for file in set(PACKAGE.rglob("*.py")) - {*commands, *PACKAGE.rglob("__main__.py")}:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{name}" for name in names]
            for name in names:
                assert not name.startswith("jaxnets") or room_of(name) not in COMMAND_LINE, f"{file} imports {name}"


def imported_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_jaxnets_imports_neither_jax_nor_flax():
    assert not {"jax", "flax", "numpy"} & imported_by("import jaxnets")


def test_the_training_loop_imports_nothing_that_the_digits_do_not_need():
    heavy = {"tensorflow", "tensorflow_datasets", "grain", "sklearn", "scipy.stats", "matplotlib", "torch", "clu"}
    assert not heavy & imported_by("import jaxnets.train.loop")


def test_what_answers_imports_nothing_of_the_training():
    modules = imported_by("import jaxnets.classifier, jaxnets.serve.models, jaxnets.export.onnx_export")
    assert not [name for name in modules if name.startswith("jaxnets.train")]


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_onnx_runtime_reports_to_nobody_unless_somebody_wants_it(given, expected):
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    environment |= {} if given is None else {"ORT_DISABLE_TELEMETRY": given}
    code = "import os, jaxnets; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
