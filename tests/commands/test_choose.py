import json
import shutil

import pytest
from fake_synthesis import FakeSynthesizer, a_request
from small_run import write_small_run
from tiny_clip import write_tiny_clip
from tiny_stable_diffusion import write_tiny_stable_diffusion

from benchmarks.chaos.checks import run_contents
from t2ipal.commands import choose, repair, train
from t2ipal.commands import synthesize as synthesize_job
from t2ipal.features.extraction import FeatureExtractor
from t2ipal.features.reading import read_training_features
from t2ipal.store import (
    ChoiceRow,
    Store,
    read_choice,
    read_choice_manifest,
    read_run,
    run_status,
    write_choice,
)
from t2ipal.synthesis.making import synthesize
from t2ipal.synthesis.rendering import RenderingSynthesizer
from t2ipal.synthesis.request import ExecutionConfig


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_tiny_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture
def arguments(tmp_path, model):
    write_small_run(tmp_path)
    return ["--run", str(tmp_path), "--model", model, "--in-process"]


def train_on(arguments, *more):
    words = ["--num-workers", "0", "--methods", "t2ipal", "--seeds", "0"]
    return train.main([*arguments[:4], *words, "--set", "training.num_epochs=1", *more])


def test_columns_for_all_and_a_choice_of_some(arguments, tmp_path, capsys):
    summary = choose.main([*arguments, "--min-found", "0", "--name", "measured"])
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1]) == summary and lines[0].split()[:2] == ["class", "named"]
    assert summary["num_images"] == summary["num_kept"] == 48
    store = Store(tmp_path)
    rows = read_choice(store, "measured")
    sidecar = {sample.key: sample for sample in read_run(store).images}
    assert [row.key for row in rows] == list(sidecar)
    for row in rows:
        assert sorted(row.found + row.missing) == sorted(sidecar[row.key].labels)
        assert -1 <= row.similarity <= 1 and row.kept
    assert 0 < summary["found_share"] < 1

    best = choose.main([*arguments, "--min-found", "0", "--name", "good", "--best", "1"])
    assert best["num_kept"] == 24 and best["num_images"] == 48
    kept = [row for row in read_choice(store, "good") if row.kept]
    assert len({row.caption_id for row in kept}) == 24
    for row in kept:
        (other,) = [o for o in rows if o.caption_id == row.caption_id and o.k != row.k]
        assert (len(row.found), row.similarity) >= (len(other.found), other.similarity)
    folder = read_choice_manifest(store, "good").settings["features"]
    images = read_training_features(store, folder, "good").image_of_caption
    assert (images >= 0).sum(dim=1).tolist() == [1] * 24


def test_training_on_a_choice(arguments, tmp_path):
    choose.main([*arguments, "--min-found", "0", "--name", "good", "--best", "1"])
    chosen = train_on(arguments, "--images", "good", "--output", str(tmp_path / "on-good"))
    everything = train_on(arguments)
    assert chosen["final_loss"] != everything["final_loss"]
    # Other images in the same place are refused, the choice of that name made anew included.
    with pytest.raises(ValueError, match="images"):
        train_on(arguments, "--images", "good")
    choose.main([*arguments, "--min-found", "0", "--name", "good"])
    with pytest.raises(ValueError, match=r"num_kept: 24 there, 48 here"):
        train_on(arguments, "--images", "good", "--output", str(tmp_path / "on-good"))


def test_a_choice_that_is_not_there_or_too_old(arguments, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No choice 'good' of images .* there is none"):
        train_on(arguments, "--images", "good")
    choose.main([*arguments, "--min-found", "0", "--name", "early"])
    with pytest.raises(FileNotFoundError, match=r"there is early\. Run jobs/choose.py first"):
        train_on(arguments, "--images", "good")
    write_small_run(tmp_path, images_per_caption=3)
    with pytest.raises(ValueError, match=r"made before 24 of the run's images were there"):
        train_on(arguments, "--images", "early")
    with pytest.raises(ValueError, match=r"one word of letters, digits, - and _, got '\.\./x'"):
        choose.main([*arguments, "--min-found", "0", "--name", "../x"])


def test_a_choice_of_no_image(arguments, tmp_path):
    message = r"'none' would keep none of 48 images: its min_found 0.5 and min_similarity 1.0 must"
    with pytest.raises(ValueError, match=message):
        choose.main([*arguments, "--name", "none", "--min-similarity", "1"])
    store = Store(tmp_path)
    assert not store.exists("manifests/none.json")
    images = read_run(store).images
    rows = [ChoiceRow(s.key, s.caption_id, s.k, 0.0, (), (), "", False) for s in images]
    write_choice(store, "none", rows, {"choice": {"min_found": 1.0}})
    with pytest.raises(ValueError, match=r"'none' keeps none of 48 images, .*'min_found': 1.0"):
        train_on(arguments, "--images", "none")


@pytest.mark.parametrize("job", [choose, repair])
def test_a_run_of_failed_samples_alone(tmp_path, model, job):
    run = ExecutionConfig(max_failed_fraction=1)
    request = a_request(["a fail dog"])
    synthesize(Store(tmp_path), request, run, factory=FakeSynthesizer)
    words = ["--run", str(tmp_path), "--model", model, "--in-process"]
    with pytest.raises(FileNotFoundError, match=r"No image in .*: all 2 samples failed"):
        job.main([*words, *(["--max-failed-fraction", "1"] if job is repair else [])])


def test_repair_draws_again_what_is_not_found(tmp_path, model, capsys, monkeypatch):
    """On images of a diffusion model with random weights: nothing is found but by chance."""
    pipeline = write_tiny_stable_diffusion(tmp_path / "pipeline")
    (tmp_path / "captions.txt").write_text("a dog\na cat on a sofa\na boat and a bird\na car\n")
    output = str(tmp_path / "run")
    captions = ["--captions", str(tmp_path / "captions.txt"), "--images-per-caption", "2"]
    settings = ["--pipeline", str(pipeline), "--num-inference-steps", "1", "--in-process"]
    synthesize_job.main(["--output", output, *captions, *settings])
    shutil.copytree(output, tmp_path / "other")
    arguments = ["--run", output, "--model", model, "--in-process"]
    summary = repair.main([*arguments, "--rounds", "2", "--budget", "5"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == summary
    assert sum(summary["num_made"]) <= 5 and summary["num_images"] == 8 + sum(summary["num_made"])
    assert summary["num_made"][0] > 0 and summary["num_kept"] == 8
    assert len(summary["good_share"]) == len(summary["num_made"]) + 1
    rows = read_choice(Store(output), "repaired")
    for caption in {row.caption_id for row in rows}:
        mine = [row for row in rows if row.caption_id == caption]
        missing = [len(row.missing) for row in mine if row.kept]
        assert len(missing) == 2
        assert max(missing) <= min([len(r.missing) for r in mine if not r.kept], default=9)
    folder = read_choice_manifest(Store(output), "repaired").settings["features"]
    images = read_training_features(Store(output), folder, "repaired").image_of_caption
    assert (images >= 0).sum(dim=1).tolist() == [2] * 4
    status = run_status(Store(output))
    assert status.num_images == summary["num_images"] and status.seconds_left == 0
    assert f"| images | {status.num_images} |" in Store(output).read("README.md").decode()

    # The same command again is within the same budget, and a larger one pays for the difference.
    before = run_contents(Store(output))
    again = repair.main([*arguments, "--rounds", "2", "--budget", "5"])
    assert (again["num_made"], again["num_images"]) == ([], summary["num_images"])
    assert again["good_share"] == summary["good_share"][-1:]
    assert run_contents(Store(output)) == before
    shutil.copytree(output, tmp_path / "larger")
    larger = ["--run", str(tmp_path / "larger"), *arguments[2:]]
    assert repair.main([*larger, "--rounds", "2", "--budget", "6"])["num_made"] == [1]

    # The same, with the features of new images from the worker that drew them.
    shards, after_commit = [], FeatureExtractor.after_commit

    def noted(self, shard, images):
        shards.append(shard)
        after_commit(self, shard, images)

    monkeypatch.setattr(FeatureExtractor, "after_commit", noted)
    other = ["--run", str(tmp_path / "other"), *arguments[2:], "--features"]
    repair.main([*other, "--rounds", "2", "--budget", "5"])
    assert len(shards) == len(summary["num_made"])
    assert run_contents(Store(tmp_path / "other")) == run_contents(Store(output))
    with pytest.raises(ValueError, match="rounds must be > 0, got 0"):
        repair.main([*arguments, "--rounds", "0"])


def test_an_interrupted_repair_keeps_to_its_budget(arguments, tmp_path, monkeypatch):
    """Killed when its images were asked for and none was drawn."""
    monkeypatch.setattr("t2ipal.diffusion.synthesizer.Synthesizer", RenderingSynthesizer)
    commanded = [*arguments, "--budget", "3", "--min-found", "1"]

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("t2ipal.synthesis.worker.ShardWorker.__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            repair.main(commanded)
    assert run_status(Store(tmp_path)).num_samples == 51
    assert repair.main(commanded)["num_images"] == run_status(Store(tmp_path)).num_samples == 51
