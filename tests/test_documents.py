"""Every command in the documents is run, or says why not; then its options are still checked.

A fenced `sh` block is run line by line in an empty folder, the blocks of one page after each other.
`<!-- not run: REASON -->` above a block says why it is not.
"""

import importlib
import re
import shlex
import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest
import tyro
from small_run import FEW_SCENES

from t2ipal.pictovoc.worlds import WORLDS, World
from t2ipal.synthesis.rendering import RenderingSynthesizer

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)```", re.S
)
COMMAND = re.compile(
    r"(?:.*-- )?(?:python (?P<file>(?:jobs|benchmarks)/[\w/]+)\.py|t2ipal (?P<job>\w+))"
)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")
OPTIONS = {
    "pretrain_pictovoc": "StagesConfig",
    "world_pictures": "PicturesConfig",
    "choices": "ChoicesConfig",
}
"""Where a command's options are not called `Options`."""


def blocks(page: Path):
    """(reason not to run it or None, its commands, each on one line) of each block of commands."""
    for match in BLOCK.finditer(page.read_text()):
        assert match["kind"] in ("sh", "text"), f"{page}: a block must be ```sh or ```text"
        if match["kind"] == "sh":
            lines = match["text"].replace("\\\n", " ").splitlines()
            yield (
                match["reason"],
                [line.partition(" #")[0].strip() for line in lines if line.strip()],
            )


def command(line: str):
    """The module and the words of a line that starts one of ours; None for any other."""
    match = COMMAND.match(line)
    if match is None:
        return None
    place = match["file"] or f"jobs/{match['job']}"
    module = place.replace("jobs/", "t2ipal/commands/").replace("/", ".")
    return importlib.import_module(module), shlex.split(line[match.end() :])


RUN = [page for page in PAGES if any(reason is None for reason, _ in blocks(page))]


@pytest.fixture
def stand_ins(monkeypatch):
    """Everything in this process: drawn scenes for Stable Diffusion, a short test set, no Ray."""
    from t2ipal.features import extraction
    from t2ipal.synthesis import worker
    from t2ipal.training import runs

    def extract(store, backbone, in_process, pool):
        return extraction.extract_run(store, backbone)

    monkeypatch.setattr("t2ipal.diffusion.synthesizer.Synthesizer", RenderingSynthesizer)
    monkeypatch.setattr("t2ipal.diffusion.identity.pinned", lambda config, model: config)
    monkeypatch.setitem(WORLDS, "pictovoc", World(count=FEW_SCENES))
    for name in ("choose", "synthesize", "train"):
        module = f"t2ipal.commands.{name}"
        monkeypatch.setattr(f"{module}.session", lambda *given, **least: nullcontext())
        for what, work in (
            ("extract", extract),
            ("synthesis_workers", lambda in_process: worker.in_process),
            ("training_workers", lambda *given: runs.in_process),
        ):
            monkeypatch.setattr(f"{module}.{what}", work, raising=False)


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_commands_run(page, stand_ins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line in (line for reason, lines in blocks(page) if reason is None for line in lines):
        ours = command(line)
        if ours is None:
            subprocess.run(["bash", "-ec", line], check=True)
        else:
            module, words = ours
            module.main(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_of_commands_that_are_not_run_exist(page):
    for _, lines in blocks(page):
        for line in lines:
            if (ours := command(line)) is None:
                continue
            module, words = ours
            name = module.__name__.rpartition(".")[2]
            tyro.cli(getattr(module, OPTIONS.get(name, "Options")), args=words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_paths_of_the_package_are_there():
    """`t2ipal/...` and `file:function` in the documents are files and what they hold."""
    for page in PAGES:
        if page.name == "log.md":
            continue  # tells what there was
        for line in page.read_text().splitlines():
            path = ""
            for token in re.findall(r"`(t2ipal/[\w/]+\.py(?::[\w.]+)?|:[\w.]+)`", line):
                file, _, name = token.partition(":")
                path = file or path
                assert (ROOT / path).is_file(), f"{page.name}: {path} is not there"
                text = (ROOT / path).read_text()
                for part in filter(None, name.split(".")):
                    found = re.search(rf"^(\s*def|class) {part}\b|^{part}\b", text, re.M)
                    assert found, f"{page.name}: {path} has no {part}"


def test_the_readme_can_be_read_in_five_minutes():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
