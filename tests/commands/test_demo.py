import contextlib
import json
import re

import pytest
from small_run import FEW_SCENES, write_random_judge
from tiny_clip import write_tiny_clip

from t2ipal.commands import demo
from t2ipal.engine import workers
from t2ipal.experiments import demo as chain
from t2ipal.pictovoc.worlds import WORLDS, World
from t2ipal.report import drawn
from t2ipal.store import Store, read_choice, read_manifest, read_rejected, read_run

METHODS = ("zsclip", "tai_dpt", "t2ipal")
STAGES = {"captions", "synthesis", "features_and_training", "evaluation", "report"}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A CLIP that was never trained, a judge alike, and a short test set."""
    write_random_judge(tmp_path)
    monkeypatch.setattr(drawn, "WEIGHTS_DIR", tmp_path)
    monkeypatch.setitem(WORLDS, "pictovoc", World(count=FEW_SCENES))
    return str(write_tiny_clip(tmp_path / "clip"))


def stored(folder):
    """When each file that synthesis and training leave was written."""
    paths = [p for part in ("images", "features", "train") for p in (folder / part).rglob("*")]
    return {path: path.stat().st_mtime_ns for path in paths if path.is_file()}


def test_the_whole_chain_and_again(ray_session, world, tmp_path, capsys):
    output = tmp_path / "demo"
    arguments = ["--output", str(output), "--images", "rendered", "--num-captions", "30"]
    arguments += ["--images-per-caption", "2", "--seeds", "0", "1", "--backbone.model", world]
    arguments += ["--set", "training.num_epochs=1"]
    result = demo.main(arguments)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == json.loads(json.dumps(result))
    assert 0 <= result["judge_share"] <= 1

    summary = json.loads((output / "summary.json").read_text())
    assert {*summary} == {"mAP", "num_captions", "num_images", "num_failed", "seconds"}
    assert {*summary["mAP"]} == {*METHODS}
    for method, numbers in summary["mAP"].items():
        assert {*numbers} == {"mean", "std", "seeds"}
        assert numbers["seeds"] == ([0] if method == "zsclip" else [0, 1])
        assert 0 < numbers["mean"] < 100 and numbers["std"] >= 0
    counts = summary["num_captions"], summary["num_images"], summary["num_failed"]
    assert counts == (30, 60, 0)
    assert {*summary["seconds"]} == STAGES

    store = Store(output)
    assert read_manifest(store).settings.synthesis["pipeline"] == "rendered"
    assert [sample.k for sample in read_run(store).images] == [0, 1] * 30
    assert "not chosen" in [caption.reason for caption in read_rejected(store)]
    page = (output / "report.html").read_text()
    assert {*re.findall(r'<section id="(\w+)"', page)} >= {"results", "images", "heatmaps"}
    assert "python jobs/demo.py --output" in page and "--num-captions 30" in page

    before = stored(output)
    again = demo.main(arguments)
    assert stored(output) == before
    assert again["mAP"] == result["mAP"] and again["num_images"] == 60

    # Another run's settings are refused before anything there is touched.
    content = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"holds 30 captions, and 1 of them"):
        demo.main([*arguments, "--num-captions", "29"])
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == content


@pytest.fixture
def in_process(monkeypatch):
    """All stages without Ray; with --num-workers 0 the training too."""
    monkeypatch.setattr(chain, "connect", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(chain, "synthesis_workers", lambda **_: workers.synthesis_workers(True))
    monkeypatch.setattr(chain, "extract", lambda *places, **_: workers.extract(*places, True))


def test_synthetic_images_are_chosen_before_training(in_process, world, tmp_path, capsys):
    output = tmp_path / "demo"
    arguments = ["--output", str(output), "--num-captions", "30", "--images-per-caption", "2"]
    arguments += ["--num-inference-steps", "2", "--seeds", "0", "--methods", "t2ipal"]
    arguments += ["--set", "training.num_epochs=1", "--backbone.model", world]
    arguments += ["--min-found", "0", "--best", "1", "--num-workers", "0"]
    result = demo.main(arguments)
    assert result["num_images"] == 60 and "features_and_choice" in result["seconds"]
    kept = [row.kept for row in read_choice(Store(output), chain.CHOSEN)]
    assert len(kept) == 60 and sum(kept) == 30
    with pytest.raises(ValueError, match=r"num_kept: 30 there, 60 here"):
        demo.main([*arguments, "--best", "2"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-captions", "0"], r"num_captions must be > 0, got 0\."),
        (["--num-captions", "-5"], r"num_captions must be > 0, got -5\."),
        (["--num-workers", "-1"], r"num_workers must be >= 0, got -1\."),
        (["--images-per-caption", "0"], r"images_per_caption must be > 0, got 0\."),
        (["--methods", "t2pal"], r"Unknown method 't2pal'\. Did you mean 't2ipal'\?"),
        (["--methods"], r"Give at least one method and one seed\."),
        (["--set", "method.sharpnes=2"], r"Unknown option .* Did you mean 'method.sharpness'\?"),
        (["--seeds", "-1"], r"seeds must be >= 0, got -1\."),
        (["--backbone.model", "runs/no"], r"must hold open_clip_config\.json; runs/no does not"),
    ],
)
def test_bad_input_is_named_before_anything_is_made(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    arguments = ["--output", "demo", "--num-captions", "2", "--images", "rendered"]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        demo.main([*arguments, *flags])
    assert not list(tmp_path.iterdir())
