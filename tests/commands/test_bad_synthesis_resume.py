"""Runs that cannot go on as they are: what is wrong is named, and what to do mends them."""

import json
import shutil

import pytest
from painter import GIVEN, Painter, contents, painted_run, refusal

from benchmarks.chaos.checks import run_contents
from t2ipal.commands import repair, status, synthesize
from t2ipal.store import Store

JOBS = {
    "synthesize": (synthesize.main, f"{GIVEN} run"),
    "only": (synthesize.main, "--output run --only 00001-00001"),
    "status": (status.main, "--run run"),
    "repair": (repair.main, "--in-process --run run"),
}


def edited(name, **changes):
    def damage(run):
        values = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps(values | changes))

    return damage


def holding(name, content):
    return lambda run: (run / name).write_bytes(content)


def without(pattern):
    return lambda run: [path.unlink() for path in run.glob(pattern)]


def cut_short(pattern):
    def damage(run):
        for path in run.glob(pattern):
            path.write_bytes(path.read_bytes()[:50])

    return damage


def swapped(run):
    shutil.copy(run / "images/00000.parquet", run / "images/00001.parquet")


def untouched(run):
    """The run is right, and the arguments are not."""


DAMAGED = "{name} in {run} is damaged. Remove it and run jobs/synthesize.py again."
MARKER = DAMAGED.replace("{name}", "images/00001.json")
CONFIG = DAMAGED.replace("{name}", "config.json")
MANIFEST = DAMAGED.replace("{name}", "manifest.json")
AGAIN = "Remove the marker images/00001.json and run jobs/synthesize.py again."
TAR = f"images/00001.tar in {{run}} is not what its marker describes. {AGAIN}"
SIDECAR = f"images/00001.parquet in {{run}} is not what its marker describes. {AGAIN}"
GONE = f"images/00001.tar in {{run}} is gone, though its marker is there. {AGAIN}"
LATER = "and later sections, and run the same commands again in their order: shards are kept."
SECTION = f"sections/00000.json in {{run}} is damaged. Remove it {LATER}"
FEWER = (
    "{run} holds 4 captions, and 3 of them are not among those asked for, or changed (first: 1). "
    "A run only grows: ask for the same captions and more, or choose another output folder."
)
OTHER = (
    "{run} holds another run. Differences: %s. Choose another output folder or the same settings."
)
NO_SAMPLE = "No sample '%s' in {run}. A sample is named as in its tar, such as 00003-00017."

DAMAGES = [
    ("synthesize", "", holding("config.json", b"{br"), CONFIG, "config.json"),
    ("only", "", holding("config.json", b"{}"), CONFIG, "config.json"),
    ("only", "", edited("config.json", images_per_shard="2"), CONFIG, "config.json"),
    ("only", "", edited("config.json", synthesis=5), CONFIG, "config.json"),
    ("synthesize", "", holding("images/00001.json", b""), MARKER, "images/00001.json"),
    ("synthesize", "", holding("images/00001.json", b"[]"), MARKER, "images/00001.json"),
    ("synthesize", "", edited("images/00001.json", tar=5), MARKER, "images/00001.json"),
    ("synthesize", "", edited("images/00001.json", num_rows="2"), MARKER, "images/00001.json"),
    ("synthesize", "", edited("images/00001.json", num_failed=9), MARKER, "images/00001.json"),
    ("synthesize", "", edited("images/00001.json", shard="00000"), MARKER, "images/00001.json"),
    ("synthesize", "", edited("images/00001.json", plan_hash="0"), MARKER, "images/00001.json"),
    ("status", "", edited("images/00001.json", seconds=None), MARKER, "images/00001.json"),
    ("synthesize", "", cut_short("images/00001.tar"), TAR, "images/00001.json"),
    ("only", "", cut_short("images/00001.tar"), TAR, "images/00001.json"),
    ("synthesize", "", without("images/00001.tar"), GONE, "images/00001.json"),
    ("synthesize", "", cut_short("images/00001.parquet"), SIDECAR, "images/00001.json"),
    ("synthesize", "", swapped, SIDECAR, "images/00001.json"),
    ("synthesize", "", holding("sections/00000.json", b"{br"), SECTION, "sections/*.json"),
    ("only", "", edited("sections/00000.json", num_k=0), SECTION, "sections/*.json"),
    ("status", "", edited("sections/00000.json", num_captions="4"), SECTION, "sections/*.json"),
    (
        "synthesize",
        "",
        edited("sections/00000.json", num_captions=40),
        f"{{captions}} in {{run}} holds 4 captions where its section has 40. Remove both {LATER}",
        "sections/*",
    ),
    (
        "synthesize",
        "",
        cut_short("sections/*.parquet"),
        f"{{captions}} in {{run}} is gone or damaged. Remove it, its section {LATER}",
        "sections/*",
    ),
    (
        "synthesize",
        "",
        cut_short("rejected.parquet"),
        DAMAGED.replace("{name}", "rejected.parquet"),
        "rejected.parquet",
    ),
    ("repair", "", holding("manifest.json", b"{}"), MANIFEST, "manifest.json"),
    ("repair", "", holding("manifest.json", b"{br"), MANIFEST, "manifest.json"),
    ("synthesize", "--num-captions 1", untouched, FEWER, ""),
    (
        "synthesize",
        "--images-per-shard 3",
        untouched,
        OTHER % "images_per_shard: 2 there, 3 here",
        "",
    ),
    (
        "synthesize",
        "--image-size-px 16",
        untouched,
        OTHER % "synthesis.image_size_px: None there, 16 here",
        "",
    ),
    ("only", "--only 00009-00000", untouched, "No shard '00009' in {run}.", ""),
    ("only", "--only 00000-00002", untouched, NO_SAMPLE % "00000-00002", ""),
    ("only", "--only 00000-retryX-00000", untouched, NO_SAMPLE % "00000-retryX-00000", ""),
    ("only", "--only ../x-00000", untouched, NO_SAMPLE % "../x-00000", ""),
    ("only", "--only 00000-\u0663", untouched, NO_SAMPLE % "00000-\u0663", ""),
]
"""Job, more arguments, damage to the run, message, and what it says to remove."""


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return painted_run(tmp_path_factory.mktemp("original"))


@pytest.fixture
def folder(original, tmp_path, monkeypatch):
    """A copy of it to damage, as the working directory."""
    shutil.copytree(original, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setattr("t2ipal.diffusion.synthesizer.Synthesizer", Painter)
    return tmp_path / "copy"


@pytest.mark.parametrize(("job", "changes", "damage", "message", "removed"), DAMAGES)
def test_a_run_that_cannot_go_on(folder, original, job, changes, damage, message, removed):
    run = folder / "run"
    captions = next((run / "sections").glob("*.parquet")).relative_to(run)
    damage(run)
    before = contents(run)
    expected = message.replace("{run}", str(run)).replace("{captions}", str(captions))
    assert refusal(*JOBS[job], changes) == expected
    assert contents(run) == before
    # Who does what the message says has the run as it was.
    for path in run.glob(removed) if removed else ():
        path.unlink()
    synthesize.main(JOBS["synthesize"][1].split())
    assert run_contents(Store(run)) == run_contents(Store(original / "run"))


def test_a_gap_between_sections(folder):
    """Of a run that has grown, the first section is lost: no later one takes its place."""
    (folder / "captions.txt").write_text((folder / "captions.txt").read_text() + "a sheep\n")
    main, given = JOBS["synthesize"]
    main(given.split())
    whole = run_contents(Store(folder / "run"))
    (folder / "run/sections/00000.json").unlink()
    before = contents(folder)
    message = f"sections/00000.json in {folder}/run is gone. Remove its captions {LATER}"
    assert refusal(*JOBS["synthesize"], "") == message
    assert contents(folder) == before
    for path in (folder / "run/sections").iterdir():
        path.unlink()
    lines = (folder / "captions.txt").read_text().splitlines(keepends=True)
    (folder / "captions.txt").write_text("".join(lines[:-1]))
    main(given.split())
    (folder / "captions.txt").write_text("".join(lines))
    main(given.split())
    assert run_contents(Store(folder / "run")) == whole


def test_nothing_to_retry_changes_nothing(folder):
    before = contents(folder)
    main, given = JOBS["synthesize"]
    summary = main([*given.split(), "--retry-failed"])
    assert (summary["num_failed"], summary["num_shards_skipped"]) == (0, 2)
    assert contents(folder) == before
