"""The floors: an import may only fall, siblings never import each other, and each verb loads only the heavy modules it needs."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ROOMS = {"slides", "models", "evaluation", "tracking", "reporting", "data", "cams", "robustness", "training", "cli"}
MAY = {"cli": ROOMS, "training": {"data", "models"}, "data": {"slides"}, "cams": {"models"}, "robustness": {"slides"}}
HEAVY = {"torch", "monai", "albumentations", "mlflow", "matplotlib", "numba", "pandas", "skimage", "openslide", "scipy"}


def imported(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, with its line (also inside functions)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; write the room's name"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def arrows(package: Path) -> Iterator[tuple[str, str, str]]:
    """(room, other room, file:line) for every import that crosses a wall."""
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package).parts
        if len(parts) == 1:
            continue
        for name, line in imported(ast.parse(file.read_text())):
            pieces = name.split(".")
            if pieces[0] == package.name and len(pieces) > 1 and pieces[1] in ROOMS and pieces[1] != parts[0]:
                yield parts[0], pieces[1], f"{file.relative_to(package.parent)}:{line}"


def test_arrows_only_fall():
    found = arrows(ROOT / "wsol")
    bad = [f"{place}: {room} may not import {other}" for room, other, place in found if other not in MAY.get(room, set())]
    assert not bad, "\n".join(bad)


def test_an_arrow_that_rises_is_seen(tmp_path):
    room = tmp_path / "wsol" / "slides"
    room.mkdir(parents=True)
    (room / "x.py").write_text("def f():\n    from wsol.data import read_manifest\n")
    assert list(arrows(tmp_path / "wsol")) == [("slides", "data", "wsol/slides/x.py:2")]


def test_rooms_are_those_of_the_design():
    rooms = {p.name for p in (ROOT / "wsol").iterdir() if p.is_dir() and not p.name.startswith("__")}
    assert rooms == ROOMS


def test_only_transforms_knows_albumentations():
    trees = {f.name: ast.parse(f.read_text()) for f in (ROOT / "wsol").rglob("*.py")}
    users = [name for name, tree in trees.items() if any(n.startswith("albumentations") for n, _ in imported(tree))]
    assert users == ["transforms.py"]


def statements(function: ast.FunctionDef) -> int:
    """Lines of a function below its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_files_and_functions_stay_readable():
    long = []
    for file in (ROOT / "wsol").rglob("*.py"):
        text = file.read_text()
        if len(text.splitlines()) > 320:
            long.append(f"{file.name}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and statements(node) > 60:
                long.append(f"{file.name}:{node.lineno} {node.name}")
    assert not long, long


def loaded(code: str) -> set[str]:
    """Heavy modules in `sys.modules` after `code` ran in a fresh process."""
    script = f"{code}\nimport sys\nprint(' '.join(m for m in {sorted(HEAVY)!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()) if done.stdout.strip() else set()


FACES = ["wsol", *(f"wsol.{room}" for room in sorted(ROOMS)), "wsol.cli.main", "wsol.cli.config", "wsol.cli.plan"]


@pytest.mark.parametrize("module", FACES)
def test_importing_a_face_loads_nothing_heavy(module):
    assert loaded(f"import {module}") == set()


@pytest.mark.parametrize(
    ("verb", "may"),
    [
        ("prepare", {"pandas", "scipy"}),
        ("tile", {"pandas", "openslide", "scipy", "skimage"}),
        ("train", {"torch", "pandas", "albumentations", "openslide", "scipy", "skimage"}),
        ("localize", {"torch", "pandas", "openslide", "scipy", "skimage"}),
        ("floors", {"pandas", "openslide", "scipy", "skimage"}),
        ("evaluate", {"pandas", "numba", "torch", "scipy", "skimage"}),
        ("probe", {"pandas", "torch", "openslide", "scipy", "skimage"}),
        ("heatmap", {"pandas", "torch", "openslide", "scipy", "skimage"}),
        ("report", {"matplotlib", "pandas", "scipy", "skimage"}),
        ("log", {"mlflow"}),
    ],
)
def test_a_verb_module_loads_only_what_it_may(verb, may):
    assert loaded(f"import wsol.cli.{verb}") <= may


def test_environment_and_pyproject_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    env = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = next(d for d in env["dependencies"] if isinstance(d, str) and d.startswith("python "))
    assert python.removeprefix("python ").strip() == project["requires-python"]
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert pins["torch"] == "2.13.0"
    names = {d.split(">")[0].split("[")[0].strip().lower().replace("_", "-") for d in project["dependencies"]}
    assert names <= {n.lower().replace("_", "-") for n in pins}
