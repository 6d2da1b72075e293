"""Runs that an earlier version stored go on: fixtures/README.md says what they are.

Knows the jobs, which `t2ipal.commands` holds, and what lies in a run's folder, no other module.
What is drawn anew may differ in its last bits from one processor to the next, so its bytes are
never compared.
"""

import importlib
import json
import shutil
from pathlib import Path

import pyarrow.parquet
import pytest
import torch

FIXTURES = Path(__file__).parent / "fixtures"
SYNTHESIS = [
    *("--captions", str(FIXTURES / "captions.txt"), "--num-inference-steps", "3"),
    *("--batch-size", "2", "--jpeg-quality", "75", "--in-process"),
]
GIVEN = {
    "grown": ["--images-per-shard", "4"],
    "repaired": [
        *("--images-per-shard", "2", "--num-captions", "2", "--images-per-caption", "2"),
    ],
    "retried": [
        *("--images-per-shard", "2", "--num-captions", "6", "--max-failed-fraction", "1"),
    ],
}
"""Each run's own options; make_runs.py has the same."""
COUNTS = {"grown": (12, 0, 3), "repaired": (5, 0, 3), "retried": (4, 2, 3)}
"""Its images, failed samples and shards, without those of retries."""
TRAINING = ["--num-workers", "0", "--set", "training.num_epochs=2"]
TUNING = ["--space", str(FIXTURES / "space.yaml"), "--set", "training.num_epochs=1"]
RECOGNIZERS = ["t2ipal-seed0", "tai_dpt-seed0", "zsclip-seed0"]


@pytest.fixture
def stored(tmp_path):
    """Copies a stored run and returns its folder."""

    def copy(name):
        return shutil.copytree(FIXTURES / "stored" / name, tmp_path / name)

    return copy


def job(name, *words):
    """What a job returns."""
    return importlib.import_module(f"t2ipal.commands.{name}").main([*map(str, words)])


def synthesize(run, *more):
    """The command that the run was made with, and more options, of which the last ones count."""
    return job("synthesize", "--output", run, *SYNTHESIS, *GIVEN[run.name], *more)


def contents(folder, *names):
    """Bytes of every file in some parts of a run; none named: of all."""
    parts = [folder / name for name in names] or [folder]
    files = [path for part in parts for path in part.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def is_kept(before, after):
    """Whether every file is still there as it was."""
    return before == {name: after.get(name) for name in before}


def refused(message, name, *words):
    """A job refuses these options."""
    with pytest.raises(ValueError, match=message):
        job(name, *words)


@pytest.mark.parametrize("name", GIVEN)
def test_the_same_request_draws_nothing(stored, name):
    run = stored(name)
    before = contents(run)
    num_images, num_failed, num_shards = COUNTS[name]
    shown = job("status", "--run", run)
    assert (shown["num_images"], shown["num_failed"]) == (num_images, num_failed)
    assert shown["num_shards_done"] == shown["num_shards"] == num_shards
    assert shown["seconds_left"] == 0
    summary = synthesize(run)
    assert (summary["num_images"], summary["num_failed"]) == (num_images, num_failed)
    assert summary["num_shards_skipped"] == summary["num_shards"] == num_shards
    after = contents(run)
    assert {*after} - {*before} == {"samples.jpg"}  # the card's picture, which is no part of it
    del before["README.md"]  # the card
    assert is_kept(before, after)


@pytest.mark.parametrize(
    ("name", "more", "num_captions", "num_images"),
    [
        ("grown", ["--images-per-caption", "2"], 12, 24),
        ("repaired", ["--num-captions", "3"], 3, 7),
        ("retried", ["--num-captions", "8"], 8, 6),
    ],
)
def test_a_larger_request_adds_to_what_is_there(stored, name, more, num_captions, num_images):
    run = stored(name)
    before = contents(run, "images", "sections", "features", "manifests", "train")
    summary = synthesize(run, *more)
    assert summary["num_captions"] == num_captions and summary["num_images"] == num_images
    assert summary["num_shards_skipped"] == COUNTS[name][2] < summary["num_shards"]
    after = contents(run)
    assert is_kept(before, after)
    new = [key for key in after if key.endswith(".tar") and key not in before]
    assert len(new) == summary["num_shards"] - summary["num_shards_skipped"]
    shown = job("status", "--run", run)
    assert (shown["num_images"], shown["seconds_left"]) == (num_images, 0)
    if (run / "features").is_dir():  # of what is new alone
        chosen = job("choose", "--run", run, "--name", "all", "--min-found", "0", "--in-process")
        assert chosen["num_images"] == num_images
        features = contents(run, "features")
        assert is_kept(contents(FIXTURES / "stored" / name, "features"), features)
        kinds = [Path(key).name.split("-")[0] for key in features if key not in before]
        assert sorted(kinds) == ["images"] * len(new) + ["texts"] * (name == "repaired")


def test_failed_samples_are_tried_again(stored):
    run = stored("retried")
    before = contents(run, "images", "sections")
    summary = synthesize(run, "--retry-failed")
    assert (summary["num_images"], summary["num_failed"]) == (6, 0)
    after = contents(run, "images", "sections")
    assert is_kept(before, after)
    new = {f"images/00001-retry2.{ending}" for ending in ("tar", "parquet", "json")}
    assert {*after} - {*before} == new
    rows = pyarrow.parquet.read_table(run / "images/00001-retry2.parquet").to_pylist()
    assert [(row["attempt"], row["status"]) for row in rows] == [(2, "ok")] * 2
    shown = job("status", "--run", run)
    assert (shown["num_images"], shown["num_failed"], shown["num_shards_done"]) == (6, 0, 3)


@pytest.mark.parametrize(
    ("name", "shard"), [("grown", "00002"), ("repaired", "00002"), ("retried", "00000-retry1")]
)
def test_one_image_is_made_again(stored, name, shard):
    run = stored(name)
    row = pyarrow.parquet.read_table(run / f"images/{shard}.parquet").to_pylist()[0]
    remade = job("synthesize", "--output", run, "--only", row["key"])
    for column in ("key", "caption_id", "caption", "k", "attempt", "seed", "settings"):
        assert remade[column] == row[column]
    assert remade["same_as_stored"] in (True, False)  # False on another processor
    assert (run / f"remade/{row['key']}.jpg").is_file()


def test_other_requests_are_refused(stored):
    run = stored("grown")
    before = contents(run)
    there = ["--output", run, *SYNTHESIS, *GIVEN["grown"]]
    message = r"holds another run. Differences: synthesis.guidance_scale: 2.0 there, 3.5 here"
    refused(message, "synthesize", *there, "--guidance-scale", "3.5")
    refused("images_per_shard: 4 there, 5 here", "synthesize", *there, "--images-per-shard", "5")
    refused(r"holds 12 captions, and 2 of them", "synthesize", *there, "--num-captions", "10")
    assert contents(run) == before


def test_a_choice_from_stored_features(stored):
    run = stored("grown")
    before = contents(run)
    words = ["--run", run, "--min-found", "0.3", "--in-process"]
    summary = job("choose", *words, "--name", "again")
    assert (summary["num_images"], summary["num_kept"]) == (12, 7)
    after = contents(run)
    assert {*after} - {*before} == {"manifests/again.json", "manifests/again.parquet"}
    assert is_kept(before, after)
    assert after["manifests/again.json"] == before["manifests/good.json"]
    there, here = [
        pyarrow.parquet.read_table(run / f"manifests/{name}.parquet").to_pylist()
        for name in ("good", "again")
    ]
    for old, new in zip(there, here, strict=True):
        assert new.pop("similarity") == pytest.approx(old.pop("similarity"), abs=1e-4)
        assert new == old


def test_a_repair_keeps_to_its_budget(stored):
    run = stored("repaired")
    before = contents(run, "images", "sections", "features")
    words = ["--run", run, "--in-process", "--budget"]
    summary = job("repair", *words, "1")
    assert (summary["num_made"], summary["num_images"], summary["num_kept"]) == ([], 5, 4)
    assert contents(run, "images", "sections", "features") == before
    message = "was repaired: it cannot get more images of every caption"
    there = ["--output", run, *SYNTHESIS, *GIVEN["repaired"]]
    refused(message, "synthesize", *there, "--images-per-caption", "3")
    assert job("repair", *words, "2")["num_made"] == [1]
    assert is_kept(before, contents(run))


def test_trained_recognizers_are_kept_and_more_seeds_added(stored, tmp_path):
    run = stored("grown")
    before = contents(run)
    words = ["--run", run, *TRAINING]
    assert job("train", *words, "--seeds", "0")["recognizers"] == RECOGNIZERS
    assert contents(run) == before
    added = job("train", *words, "--methods", "t2ipal", "--seeds", "1")
    assert added["recognizers"] == ["t2ipal-seed1"]
    after = contents(run)
    assert is_kept(before, after)
    assert {Path(key).name for key in after if key.startswith("train/t2ipal-seed1/")} == {
        Path(key).name for key in before if key.startswith("train/t2ipal-seed0/")
    }
    message = r"other settings \(recipe.training.num_epochs: 2 there, 3 here\)"
    others = ["--seeds", "0", "--methods", "t2ipal"]
    refused(message, "train", *words[:-1], "training.num_epochs=3", *others)
    refused(r"other settings \(inputs.images", "train", *words, *others, "--images", "good")
    assert contents(run) == after
    on_good = job("train", *words, *others, "--images", "good", "--output", tmp_path / "good")
    assert on_good["recognizers"] == ["t2ipal-seed0"]
    assert contents(run) == after


def test_an_interrupted_training_goes_on(stored):
    run = stored("grown")
    (path,) = run.glob("train/ray/*/t2ipal-seed7/checkpoint.pt")
    checkpoint = torch.load(path, weights_only=True)
    assert [record["epoch"] for record in checkpoint["history"]] == [0]
    checkpoint["history"][0]["loss"] = 123.0  # a training from the start would not know it
    torch.save(checkpoint, path)
    job("train", "--run", run, *TRAINING, "--methods", "t2ipal", "--seeds", "7")
    history = json.loads((run / "train/t2ipal-seed7/history.json").read_text())["history"]
    assert [record["epoch"] for record in history] == [0, 1]
    assert history[0]["loss"] == 123.0


def test_an_evaluation_gives_the_same_numbers_and_a_report(stored):
    run = stored("grown")
    there = json.loads((run / "evaluation.json").read_text())
    before = contents(run, "train", "tune", "images", "features")
    here = job("evaluate", "--run", run)
    assert json.loads((run / "evaluation.json").read_text()) == json.loads(json.dumps(here))
    assert {*here} == {*there}
    for key in ("test_set", "num_images", "definition", "class_names"):
        assert here[key] == there[key]
    assert {*here["methods"]} == {*there["methods"]} == {"zsclip", "tai_dpt", "t2ipal"}
    # The version before kept no features of test sets; now they are kept as halves.
    for method, numbers in there["methods"].items():
        assert here["methods"][method]["mAPs"] == pytest.approx(numbers["mAPs"], abs=0.01)
        assert here["methods"][method]["per_class"] == pytest.approx(numbers["per_class"], abs=0.1)
    summary = job("report", "--run", run, "--num-captions", "3", "--num-heatmaps", "2")
    assert summary["num_images"] == 12
    page = (run / "report.html").read_text()
    for part in ("results", "classes", "images", "heatmaps", "search", "settings"):
        assert f'<section id="{part}"' in page
    for numbers in there["methods"].values():
        assert f"{numbers['mean']:.1f}" in page
    assert contents(run, "train", "tune", "images", "features") == before


def test_a_search_of_the_version_before_is_kept_beside_a_new_one(stored):
    run = stored("grown")
    before = contents(run)
    there = ["--run", run, "--in-process", *TUNING]
    message = r"tune holds a search of another version of t2ipal \(form 1, this one writes form 2\)"
    refused(message, "tune", *there, "--output", run / "tune")
    assert contents(run) == before
    summary = job("tune", *there)
    assert (summary["num_trials"], summary["num_failed"]) == (2, 0)
    known = json.loads(before["tune/best.json"])
    assert {*summary["best"]["values"]} == {*known["values"]}
    new = {name for name in contents(run) if name.startswith("search/")}
    assert {name: data for name, data in contents(run).items() if name not in new} == before
