"""What `t2ipal evaluate` leaves out, what it refuses before its work, and where its numbers go."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from small_recognizer import NAMES, write_recognizers
from tiny_clip import VIT, write_tiny_clip
from voc_tree import write

from t2ipal.commands import evaluate
from t2ipal.commands.running import run_job
from t2ipal.evaluation import test_sets
from t2ipal.pictovoc.worlds import WORLDS, World
from t2ipal.store import Store


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_tiny_clip(tmp_path_factory.mktemp("clip"), VIT)


@pytest.fixture
def run(tmp_path, clip):
    """Recognizers in a run, and 40 photographs of their four classes beside it."""
    write_recognizers(Store(tmp_path / "run" / "train"), clip)
    write_labelled(tmp_path / "photos", NAMES)
    return tmp_path / "run"


def write_labelled(folder, names):
    """Ten photographs of each class, named `1.png` and so on."""
    rng = np.random.default_rng(0)
    rows = [f"{number}.png,{names[number % len(names)]}" for number in range(10 * len(names))]
    write(folder / "labels.csv", "\n".join(["file,labels", *rows]))
    for number in range(len(rows)):
        pixels = rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def words(run, clip, *more):
    photos = str(run.parent / "photos")
    return ["--run", str(run), "--model", str(clip), "--test-set", photos, *more]


@pytest.fixture
def without_features(monkeypatch):
    """Fails where the work begins."""

    def refuse(*_):
        raise AssertionError("features were computed")

    monkeypatch.setattr(test_sets, "image_set", refuse)


def test_a_photograph_that_cannot_be_read_is_left_out(run, clip, capsys, caplog):
    photograph = run.parent / "photos" / "7.png"
    photograph.write_bytes(photograph.read_bytes()[:200])
    result = evaluate.main(words(run, clip))
    assert "1 of 40 photographs" in caplog.text and "7.png (truncated)" in caplog.text
    assert result["num_images"] == 39
    assert result["unreadable"] == [{"file": "7.png", "reason": "truncated"}]
    out = capsys.readouterr().out
    assert "1 of 40 images left out that cannot be read" in out.splitlines()[0]
    assert json.loads(out.splitlines()[-1])["t2ipal"]["left_out"] == {"images": 1}
    with pytest.raises(
        ValueError, match=r"7.png \(truncated\). .* max_unreadable_fraction is 0.02"
    ):
        evaluate.main(words(run, clip, "--max-unreadable-fraction", "0.02"))
    assert json.loads((run / "evaluation.json").read_text()) == json.loads(json.dumps(result))


def test_a_class_that_no_photograph_shows_is_refused_before_the_work(run, clip, without_features):
    labels = run.parent / "photos" / "labels.csv"
    labels.write_text(labels.read_text().replace(",boat", ",bird"))
    with pytest.raises(ValueError, match=r"got none of: boat\. .* \(--skip-absent\)"):
        evaluate.main(words(run, clip))


def test_a_class_that_no_photograph_shows_is_left_out(run, clip, capsys):
    labels = run.parent / "photos" / "labels.csv"
    labels.write_text(labels.read_text().replace(",boat", ",bird"))
    result = evaluate.main(words(run, clip, "--skip-absent"))
    captured = capsys.readouterr()
    assert "Left out of the mean, for no image shows them: boat." in captured.err
    assert "1 of 4 classes left out that no image shows" in captured.out
    assert result["absent_classes"] == ["boat"]
    per_class = result["methods"]["t2ipal"]["per_class"]
    assert per_class[NAMES.index("boat")] is None
    shown = [value for value in per_class if value is not None]
    assert result["methods"]["t2ipal"]["mean"] == pytest.approx(np.mean(shown), abs=1e-3)
    stored = json.loads((run / "evaluation.json").read_text())
    assert stored["methods"]["t2ipal"]["per_class"] == per_class


def test_other_classes_are_refused_before_the_work(run, clip, without_features, monkeypatch):
    monkeypatch.setitem(WORLDS, "pictovoc", World(count=1))
    with pytest.raises(ValueError, match="t2ipal knows other classes than test set pictovoc"):
        evaluate.main([*words(run, clip)[:4], "--test-set", "pictovoc"])


def test_an_output_of_its_own(run, clip, store):
    server = ["--endpoint-url", store.endpoint_url] if store.endpoint_url else []
    result = evaluate.main(words(run, clip, "--output", f"{store.uri}/numbers", *server))
    there = json.loads(store.read("numbers/evaluation.json"))
    assert there == json.loads(json.dumps(result))
    assert not (run / "evaluation.json").exists()


def test_an_output_that_cannot_be_written_is_refused_before_the_work(run, clip, without_features):
    (run.parent / "file").write_text("")
    with pytest.raises(PermissionError, match=r"Cannot write to .*/file"):
        evaluate.main(words(run, clip, "--output", str(run.parent / "file" / "below")))


def test_numbers_are_printed_where_they_cannot_be_written(run, clip, capsys):
    """As on a disk that is read-only, which root can write to in a test."""
    (run / "evaluation.json").mkdir()
    with pytest.raises(SystemExit) as stopped:
        run_job(lambda: evaluate.main(words(run, clip)))
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert 0 < json.loads(captured.out.splitlines()[-1])["t2ipal"]["mean"] < 100
    first, *_, last = captured.err.splitlines()
    assert first.endswith("The numbers are printed all the same; --output names another folder.")
    assert last.startswith(f"error: Cannot write {run}/evaluation.json (Is a directory)")


def test_a_run_by_its_address(run, clip):
    moved = shutil.move(run, run.parent / "a run")
    folder, photos = f"file://{moved}", f"file://{run.parent}/photos"
    result = evaluate.main(["--run", folder, "--model", str(clip), "--test-set", photos])
    there = json.loads((run.parent / "a run" / "evaluation.json").read_text())
    assert there == json.loads(json.dumps(result))
