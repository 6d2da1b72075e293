"""The search as people start it: its page, its budgets, and a kill at any moment."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from small_run import write_small_run
from tiny_clip import write_tiny_clip

from t2ipal.commands import tune
from t2ipal.search.results import SearchFolder
from t2ipal.store import Store

ROOT = Path(__file__).parents[2]
SPACE = """
num_samples: 6
num_validations: 2
space:
  method.sharpness: {uniform: [1.0, 9.0]}
  training.lr: {loguniform: [1.0e-3, 1.0e-2]}
"""


@pytest.fixture
def words(tmp_path):
    """Of a search of six trials without Ray, in a folder of its own."""
    write_small_run(tmp_path / "run", images_per_caption=2)
    (tmp_path / "space.yaml").write_text(SPACE)
    clip = write_tiny_clip(tmp_path / "clip")
    named = {"--run": tmp_path / "run", "--model": clip, "--space": tmp_path / "space.yaml"}
    words = [str(word) for pair in named.items() for word in pair]
    return [*words, "--in-process", "--quiet", "--set", "training.num_epochs=4"]


def start(words, errors):
    command = [sys.executable, ROOT / "jobs" / "tune.py", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=errors.open("w"), text=True, env=environment
    )


def test_the_page_is_served_and_a_kill_loses_no_finished_trial(words, tmp_path):
    many = [*words[:-2], "--population", "2", "--set", "training.num_epochs=20"]
    many += ["--num-samples", "20"]
    process = start(many, tmp_path / "errors")
    try:
        address = process.stdout.readline().split("The page of the search: ")[1].strip()
        folder, deadline = SearchFolder(Store(tmp_path / "run"), "search"), time.monotonic() + 120
        while sum(trial.has_ended for trial in folder.trials()) < 4:
            assert process.poll() is None, (tmp_path / "errors").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        page = urllib.request.urlopen(address).read().decode()
        assert "<html" in page and folder.status() == "running"
    finally:
        process.kill()
        process.wait()
    there = {trial.number: trial for trial in folder.trials() if trial.has_ended}
    assert 4 <= len(there) < 20
    summary = tune.main(many)
    assert (summary["num_trials"], summary["num_resumed"]) == (20, len(there))
    trials = {trial.number: trial for trial in folder.trials()}
    assert [*trials] == list(range(20)) and {t.status for t in trials.values()} == {"ok"}
    assert {number: trials[number] for number in there} == there
    again = tune.main(many)
    assert again["num_resumed"] == 20 and again["best"] == summary["best"]


def test_what_a_search_leaves(words, tmp_path, capsys):
    summary = tune.main([*words, "--cpus-per-trial", "1"])  # as the option was called before
    out = capsys.readouterr()
    first, *_, last = out.out.splitlines()
    assert first.startswith("The page of the search: http://127.0.0.1:")
    assert json.loads(last) == summary and summary["pareto_front"] is None
    assert out.err.count("best so far") >= 1
    search = tmp_path / "run" / "search"
    assert "<html" in (search / "page.html").read_text()
    names = {path.name for path in search.iterdir()}
    assert names >= {"trials.csv", "trials.json", "best.json", "optuna.journal", "tensorboard"}
    events = [p for p in (search / "tensorboard").rglob("*") if "tfevents" in p.name]
    assert {event.relative_to(search).parts[1] for event in events} >= {"00000", "00005"}
    best = summary["best"]
    assert best["number"] == json.loads((search / "best.json").read_text())["number"]


def test_two_searches_of_one_run_lie_side_by_side(words, tmp_path):
    one = tune.main([*words, "--no-page"])
    two = tune.main([*words, "--no-page", "--output", str(tmp_path / "run" / "search-two")])
    apart = tune.main([*words, "--no-page", "--output", str(tmp_path / "elsewhere")])
    places = [summary["output"] for summary in (one, two, apart)]
    run = tmp_path / "run"
    assert places == [f"{run}/search", f"{run}/search-two", f"{tmp_path}/elsewhere"]
    assert one["best"]["values"] == two["best"]["values"] == apart["best"]["values"]


def test_seeds_and_several_objectives(words, tmp_path):
    (tmp_path / "space.yaml").write_text(
        "searcher: optuna\nnum_samples: 8\nminimize: [images]\nspace:\n"
        "  training.images_per_caption: {choice: [1, 2]}\n  method.sharpness: {uniform: [1, 9]}\n"
    )
    summary = tune.main([*words, "--num-seeds", "2", "--no-page"])
    assert summary["best"]["spread"] is not None
    front = summary["pareto_front"]
    assert 1 <= len(front) <= 2
    assert [trial["images"] for trial in front] == sorted(trial["images"] for trial in front)


def test_labelled_images_in_place_of_held_out_ones(words, tmp_path, monkeypatch):
    asked = [*words, "--no-page", "--validation-set"]
    with pytest.raises(ValueError, match="must be no test set, got pictovoc"):
        tune.main([*asked, "pictovoc"])
    with pytest.raises(ValueError, match="Unknown validation set 'pictovoc_validaton'"):
        tune.main([*asked, "pictovoc_validaton"])
    from small_run import FEW_SCENES

    from t2ipal.pictovoc.worlds import WORLDS, World

    monkeypatch.setitem(WORLDS, "pictovoc_validation", World(count=FEW_SCENES))
    summary = tune.main([*asked, "pictovoc_validation"])
    assert summary["num_failed"] == 0
    kept = SearchFolder(Store(tmp_path / "run"), "search").settings()
    assert kept["validation_set"] == "pictovoc_validation"


def test_when_the_time_is_up_the_rest_is_left(words, tmp_path):
    summary = tune.main([*words, "--no-page", "--max-minutes", "1e-9"])
    assert (summary["num_trials"], summary["best"]) == (0, None)
    assert summary["num_unfinished"] == 0
    assert SearchFolder(Store(tmp_path / "run"), "search").status() == "ended"
    assert tune.main([*words, "--no-page"])["num_trials"] == 6


def test_bad_input_is_named_before_anything_starts(words, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} of 127.0.0.1 is in use"):
            tune.main([*words, "--port", str(port)])
    for option, value, message in (
        ("--port", "99999", "port must be in 0..65535, got 99999"),
        ("--max-minutes", "0", "max_minutes must be > 0, got 0"),
        ("--population", "0", "population must be > 0, got 0"),
        ("--num-seeds", "0", "num_seeds must be > 0, got 0"),
        ("--num-samples", "1", "num_samples"),
        ("--method", "zsclip", "training.num_epochs makes zsclip what it is"),
        ("--max-images", "-1", "max_images must be >= 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            tune.main([*words, option, value])
    assert not (tmp_path / "run" / "search").exists()


def test_signals_are_no_trials(words, tmp_path):
    process = start([*words, "--num-samples", "400", "--no-page"], tmp_path / "errors")
    folder = SearchFolder(Store(tmp_path / "run"), "search")
    while not folder.trials():
        assert process.poll() is None, (tmp_path / "errors").read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert folder.status() == "ended" and (tmp_path / "run/search/trials.csv").exists()
