"""Scripts that no test runs: what they import is there, of the package and of one another."""

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("benchmarks", "tools", "launch", "configs", "demo")
SCRIPTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_script_imports_of_the_package_exists(script):
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jaxnets":
            module = importlib.import_module(node.module)
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                assert hasattr(module, alias.name) or importlib.util.find_spec(inside), f"there is no {inside}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_script_imports_of_its_neighbours_exists(script):
    neighbours = {path.stem: path for path in SCRIPTS if path.parent == script.parent}
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module in neighbours:
            made = set()
            for other in ast.parse(neighbours[node.module].read_text()).body:
                if isinstance(other, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    made.add(other.name)
                made |= {
                    name.id
                    for name in ast.walk(other)
                    if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
                }
            assert {alias.name for alias in node.names} <= made
