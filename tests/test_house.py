"""The house: one folder a stage, imports that point one way, no circle, no file too long.

Read from the syntax tree, so that imports inside functions and under TYPE_CHECKING count too.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = (
    ("jobs",),
    ("commands",),
    ("experiments",),
    ("engine", "report", "dashboard"),
    ("recognition", "search", "pretraining", "pipeline"),
    ("evaluation", "selection", "training"),
    ("methods", "synthesis"),
    ("features", "diffusion", "captions", "doctor"),
    ("store", "pictovoc", "cloud"),
    ("places", "pools"),
    ("config", "devices", "halting", "torchvision_repair"),
)
"""A room imports from floors below its own, and from no other room of its own floor."""
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MAX_LINES = 500
TABLES = {"pictovoc/shapes.py", "pictovoc/places.py"}
"""Tables of drawings, which may be longer."""
BORDERS = {
    "ray": ("engine/",),
    "diffusers": ("diffusion/pipelines.py", "pretraining/"),
    "open_clip": ("features/backbone.py", "captions/tokens.py", "pretraining/"),
    "boto3": ("store/buckets.py", "cloud/quotas.py"),
    "pyarrow": ("store/",),
    "tyro": ("commands/",),
    "transformers": ("captions/language_model.py", "diffusion/pipelines.py", "pretraining/"),
}
"""Foreign package -> the only places that import it."""

FILES = sorted((ROOT / "t2ipal").rglob("*.py"))
NAMES = [path.relative_to(ROOT / "t2ipal").as_posix() for path in FILES]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in FILES
}


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative imports hide where they go"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


def room(module: str) -> str:
    """The folder of the package that a module lies in, or its own name at the top."""
    return module.split(".")[1] if "." in module else ""


def ours(path: Path) -> set[str]:
    return {name for name in imported(path) if name.split(".")[0] == "t2ipal"}


def test_every_room_has_a_floor():
    assert {name.split("/")[0].removesuffix(".py") for name in NAMES} - {"__init__"} == {*FLOOR} - {
        "jobs"
    }


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_point_down(path):
    here = path.relative_to(ROOT / "t2ipal").parts[0].removesuffix(".py")
    if here == "__init__":
        assert not ours(path)
        return
    for name in ours(path):
        there = room(name)
        down = there in ("", here) or FLOOR[there] > FLOOR[here]
        assert down, f"{here} must not import {name}: it lies above, or on the same floor"


def test_no_circle():
    graph = {}
    for path in FILES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = ours(path) - {name}
    try:
        order = [*TopologicalSorter(graph).static_order()]
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' > '.join(error.args[1])}")
    assert {*order} >= {*graph}


@pytest.mark.parametrize("package", BORDERS)
def test_foreign_packages_stay_at_their_borders(package):
    for path, name in zip(FILES, NAMES):
        if package in {module.split(".")[0] for module in imported(path)}:
            assert name.startswith(BORDERS[package]), f"{name} must not import {package}"


def test_every_module_of_the_engine_uses_ray():
    """Itself, or through another of its modules; but for its options, which the help shows."""
    for path in (ROOT / "t2ipal" / "engine").glob("*.py"):
        roots = {name.split(".")[0] for name in imported(path)}
        through = any(name.startswith("t2ipal.engine.") for name in imported(path))
        plain = path.name in ("__init__.py", "config.py")
        assert "ray" in roots or through or plain, f"{path.name}: no ray"


def test_jobs_are_imported_by_nothing():
    folders = ("t2ipal", "benchmarks", "tests", "jobs")
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        if path.parent.name == "fixtures":
            continue  # is run with the version whose runs it makes
        assert "jobs" not in {name.split(".")[0] for name in imported(path)}, f"{path} imports jobs"


def test_jobs_are_launchers_of_the_commands():
    commands = {path.stem for path in (ROOT / "t2ipal" / "commands").glob("*.py")}
    jobs = {path.stem for path in (ROOT / "jobs").glob("*.py")} - {"__init__", "_launch"}
    assert jobs == commands - {"__init__", "main", "running", "stages", "stopping", "streams"}
    for path in (ROOT / "jobs").glob("*.py"):
        few = 30 if path.stem == "_launch" else 6
        assert len(path.read_text().splitlines()) <= few, f"{path} does more than launch"
    from t2ipal.commands.main import COMMANDS

    assert {*COMMANDS} == jobs


def test_no_file_is_too_long():
    for path, name in zip(FILES, NAMES):
        lines = len(path.read_text().splitlines())
        assert lines <= MAX_LINES or name in TABLES, f"{name} has {lines} lines"


def test_tests_have_the_rooms_of_the_package():
    rooms = {path.name for path in (ROOT / "t2ipal").iterdir() if (path / "__init__.py").is_file()}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert folders - {"fixtures", "__pycache__"} == rooms | {"benchmarks"}
