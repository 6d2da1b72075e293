"""The image of the nodes, as far as it can be checked without Docker: what is copied, and pins."""

import re
import shlex
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def instructions():
    """(name, words) of each instruction, in order."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    pairs = (line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    return [(name, shlex.split(words)) for name, words in pairs]


@pytest.fixture(scope="module")
def copied(instructions):
    """Files and folders, in the order in which they are copied."""
    copies = [[w for w in words if w[:2] != "--"] for name, words in instructions if name == "COPY"]
    return [source for *sources, _ in copies for source in sources]


def ignored(path):
    """Whether .dockerignore leaves a path out: its last line that fits decides."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    parts, last = Path(path).parts, "!"
    for rule in rules:
        anywhere, pattern = "**/" in rule, rule.lstrip("!").removeprefix("**/")
        if any(fnmatch(part, pattern) for part in (parts if anywhere else parts[:1])):
            last = rule
    return not last.startswith("!")


def test_the_base_is_the_ray_that_is_pinned(instructions):
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    (base,) = (words[0] for name, words in instructions if name == "FROM")
    assert base == f"rayproject/ray:{pinned['ray']}-py311-cpu"
    assert pinned["ray"] == version("ray")


def test_everything_that_is_copied_is_there(copied):
    assert copied and all((ROOT / source).exists() for source in copied)
    assert not any(ignored(source) for source in copied)


def test_the_package_goes_along_whole_and_nothing_else():
    assert not ignored("t2ipal/captions/vocabularies/voc2007.yaml")
    assert not ignored("t2ipal/pictovoc/weights")
    for path in (".git", "runs", ".venv", "tests", "docs", "t2ipal/store/__pycache__"):
        assert ignored(path), path


def test_the_copied_files_are_all_that_the_build_reads(copied):
    text = (ROOT / "pyproject.toml").read_text()
    readme = re.search(r'^readme = "(.+)"', text, re.M)
    assert readme and readme[1] in copied and "pyproject.toml" in copied
    version_module = re.search(r'version = \{ attr = "(\w+)\.__version__"', text)
    assert version_module and f"{version_module[1]}/__init__.py" in copied


def test_what_is_installed_is_locked(instructions):
    installs = [words for name, words in instructions if name == "RUN"]
    assert all(words[:2] == ["pip", "install"] for words in installs)
    for words in installs:
        assert "--no-deps" in words or words[words.index("--constraint") + 1].endswith(
            "constraints.txt"
        )
        assert "--no-cache-dir" in words


def test_dependencies_lie_below_the_code(instructions):
    order = [" ".join(words) for name, words in instructions if name in ("COPY", "RUN")]
    locked = next(i for i, each in enumerate(order) if "--constraint" in each)
    code = next(i for i, each in enumerate(order) if re.search(r" t2ipal ", each))
    assert locked < code


def test_it_does_not_run_as_root(instructions):
    assert [words for name, words in instructions if name == "USER"][-1] == ["1000"]


def test_cluster_and_kubernetes_take_one_image():
    image = yaml.safe_load((ROOT / "cluster.yaml").read_text())["docker"]["image"]
    for path in (ROOT / "kuberay").glob("*.yaml"):
        named = set(re.findall(r"image: (?:&image )?(\w\S+)", path.read_text()))
        assert named <= {image}, path.name
