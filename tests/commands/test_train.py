import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import pytest
from small_run import FEW_SCENES, small_captions, write_random_judge, write_small_run
from tiny_clip import write_tiny_clip

from t2ipal.commands import evaluate, report, train, tune
from t2ipal.evaluation.modality_gap import modality_gap
from t2ipal.evaluation.test_sets import test_set_features as set_features
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.extraction import feature_folder
from t2ipal.features.reading import read_training_features
from t2ipal.pictovoc.scenes import CLASS_NAMES
from t2ipal.pictovoc.worlds import WORLDS, World
from t2ipal.report import drawn
from t2ipal.store import Store, read_manifest, read_rejected
from t2ipal.training.runs import load_run

METHODS = ("zsclip", "tai_dpt", "t2ipal")
RECOGNIZERS = [f"{m}-seed{s}" for m in METHODS[1:] for s in (0, 1)] + ["zsclip-seed0"]
NUM_CAPTIONS = len(small_captions()) - 1
FILES = {"recognizer.safetensors", "recognizer.json", "settings.json", "history.json"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_tiny_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_small_run(folder)
    return folder


@pytest.fixture(scope="module")
def trained(run, model):
    """The arguments and the summary of the training that the later stages build on."""
    arguments = ["--run", str(run), "--model", model, "--num-workers", "0"]
    arguments += ["--methods", *METHODS, "--seeds", "0", "1", "--set", "training.num_epochs=2"]
    return arguments, train.main(arguments)


@pytest.fixture
def evaluated(run, model, trained, monkeypatch, capsys):
    """What the job returns, and the last line that it prints."""
    monkeypatch.setitem(WORLDS, "pictovoc", World(count=FEW_SCENES))
    capsys.readouterr()
    return evaluate.main(["--run", str(run), "--model", model]), last_line(capsys)


def last_line(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_train_and_again(run, trained, capsys):
    arguments, summary = trained
    assert summary["output"] == str(run / "train")
    assert summary["recognizers"] == sorted(RECOGNIZERS)
    assert {*summary["final_loss"]} == {*RECOGNIZERS} - {"zsclip-seed0"}
    assert all(math.isfinite(loss) for loss in summary["final_loss"].values())
    for name in RECOGNIZERS:
        result = load_run(Store(run), f"train/{name}")
        assert result.recognizer.config.class_names == CLASS_NAMES
        assert len(result.history) == (0 if name.startswith("zsclip") else 2)
        prototypes = result.recognizer.scorer.prototypes
        assert (prototypes is None) == (not name.startswith("t2ipal"))
        names = {path.name for path in (run / "train" / name).iterdir()}
        assert names == FILES
    features = [key for key in Store(run).list(f"{summary['features']}/")]
    assert len(features) == 1 + len(read_manifest(Store(run)).shards)

    before = times(run)
    capsys.readouterr()
    assert train.main(arguments) == summary
    assert last_line(capsys) == summary
    assert times(run) == before


def test_evaluate(run, evaluated):
    evaluated, printed = evaluated
    assert evaluated["num_images"] == 150 and evaluated["test_set"] == "pictovoc"
    assert json.loads((run / "evaluation.json").read_text()) == json.loads(json.dumps(evaluated))
    assert {*printed} == {*METHODS}
    for method, numbers in evaluated["methods"].items():
        seeds = (0,) if method == "zsclip" else (0, 1)
        assert tuple(numbers["seeds"]) == seeds and len(numbers["mAPs"]) == len(seeds)
        assert numbers["mean"] == pytest.approx(sum(numbers["mAPs"]) / len(seeds))
        assert numbers["mean"] == pytest.approx(sum(numbers["per_class"]) / 20, abs=1e-3)
        assert 0 < numbers["mean"] < 100
        assert printed[method] == {
            "mean": numbers["mean"],
            "std": numbers["std"],
            "seeds": list(seeds),
        }


def test_the_modality_gap_is_measured_when_asked_for(run, model, evaluated, monkeypatch, capsys):
    without = evaluated[0]["methods"]
    assert not any("modality_gap" in numbers for numbers in without.values())
    result = evaluate.main(["--run", str(run), "--model", model, "--modality-gap"])
    printed = last_line(capsys)
    backbone = load_backbone(BackboneConfig(model=model))
    data = read_training_features(Store(run), feature_folder(backbone))
    test = set_features("pictovoc", None, backbone).features
    for method, numbers in result["methods"].items():
        gaps = [
            dataclasses.astuple(
                modality_gap(
                    load_run(Store(run), f"train/{method}-seed{seed}").recognizer.scorer,
                    test,
                    data.texts,
                    data.images,
                )
            )
            for seed in numbers["seeds"]
        ]
        found = numbers.pop("modality_gap")
        assert printed[method]["modality_gap"] == found
        *plain, adapted = zip(*gaps)
        expected = [sum(column) / len(column) for column in plain]
        assert [*found.values()][:3] == pytest.approx(expected, abs=1e-4)
        if method == "t2ipal":
            assert [*found.values()][3] == pytest.approx(sum(adapted) / 2, abs=1e-4)
        else:
            assert found["adapted_synthetic_images"] is None
    assert result["methods"] == without
    page = Path(report.main(["--run", str(run), "--model", model])["report"]).read_text()
    assert '<section id="gap"' in page and "adapted synthetic images" in page


def test_report(run, model, evaluated, tmp_path, monkeypatch, capsys):
    write_random_judge(tmp_path)
    monkeypatch.setattr(drawn, "WEIGHTS_DIR", tmp_path)
    summary = report.main(["--run", str(run), "--model", model, "--num-captions", "3"])
    assert last_line(capsys) == summary
    assert summary["report"] == str(run / "report.html")
    assert summary["num_images"] == 2 * NUM_CAPTIONS
    assert 0 <= summary["judge_share"] <= 1
    page = (run / "report.html").read_text()
    sections = set(re.findall(r'<section id="(\w+)"', page))
    assert sections >= {"results", "classes", "images", "heatmaps", "curves", "notes", "settings"}
    reasons = [caption.reason for caption in read_rejected(Store(run))]
    assert reasons
    for words in ("TaI-DPT", "T2I-PAL", "ZSCLIP", "A photo of a ", *reasons, *CLASS_NAMES):
        assert words in page
    for numbers in evaluated[0]["methods"].values():
        assert f"{numbers['mean']:.1f}" in page
    assert page.count("Heatmap of ") >= 6


SPACE = """
searcher: grid
validation_fraction: 0.3
space:
  method.residual_ratio: {grid: [0.0, 1.0]}
"""


def test_tune(ray_session, run, model, tmp_path, capsys):
    (tmp_path / "space.yaml").write_text(SPACE)
    arguments = ["--run", str(run), "--model", model, "--space", str(tmp_path / "space.yaml")]
    arguments += ["--num-samples", "1", "--set", "training.num_epochs=1"]
    summary = tune.main(arguments)
    assert last_line(capsys) == summary
    assert (summary["num_trials"], summary["num_failed"]) == (2, 0)
    assert summary["output"] == str(run / "search")
    trials = json.loads((run / "search" / "trials.json").read_text())["trials"]
    assert {trial["values"]["method.residual_ratio"] for trial in trials} == {0.0, 1.0}
    scores = [trial["validation_mAP"] for trial in trials]
    assert summary["best"]["validation_mAP"] == max(scores)

    written = (run / "search" / "trials.json").read_bytes()
    with pytest.raises(ValueError, match=r"holds another search \(recipe.training.num_epochs: 1 "):
        tune.main([*arguments[:-1], "training.num_epochs=2"])
    assert (run / "search" / "trials.json").read_bytes() == written

    again = tune.main(arguments)
    assert again["num_resumed"] == again["num_trials"] == 2
    assert again["best"] == summary["best"]


def test_train_the_best_of_a_search(run, model, tmp_path, capsys):
    (tmp_path / "space.yaml").write_text(
        "num_samples: 3\nspace:\n  method.sharpness: {uniform: [1.0, 9.0]}\n"
        "  normalization.deviation_power: {uniform: [0.1, 1.0]}\n"
        "  training.lr: {uniform: [0.001, 0.002]}\n"
    )
    words = ["--run", str(run), "--model", model, "--output", str(tmp_path / "search")]
    words += ["--space", str(tmp_path / "space.yaml"), "--set", "training.num_epochs=1"]
    best = tune.main([*words, "--in-process"])["best"]
    given = ["--run", str(run), "--model", model, "--from-search", str(tmp_path / "search")]
    given += ["--num-workers", "0", "--seeds", "4"]
    summary = train.main(given)
    assert summary["output"] == str(tmp_path / "search" / "train")
    assert summary["recognizers"] == ["t2ipal-seed4"]
    kept = json.loads((tmp_path / "search/train/t2ipal-seed4/settings.json").read_text())
    recipe = kept["recipe"]
    assert recipe["method"]["sharpness"] == best["values"]["method.sharpness"]
    assert recipe["training"]["lr"] == best["values"]["training.lr"]
    assert recipe["training"]["num_epochs"] == 1 and recipe["training"]["seed"] == 4
    made = json.loads((tmp_path / "search/train/t2ipal-seed4/recognizer.json").read_text())
    power = best["values"]["normalization.deviation_power"]
    assert made["normalization"]["deviation_power"] == power
    assert f"trial {best['number']}: " in capsys.readouterr().err
    with pytest.raises(ValueError, match="from_search trains on the search's own CLIP"):
        train.main([*given[:2], "--model", "RN50", *given[4:]])
    shutil.rmtree(tmp_path / "search" / "train")
    assert train.main([*given[:2], *given[4:]]) == summary  # the same CLIP without a word of it
    for option, value in (("--methods", "tai"), ("--data-set", "coco2014"), ("--images", "good")):
        name = option[2:].replace("-", "_")
        with pytest.raises(ValueError, match=f"{name} cannot be given with from_search"):
            train.main([*given, option, value])
    with pytest.raises(FileNotFoundError, match=r"No search in .*nothing. Run jobs/tune.py first"):
        train.main([*given[:4], "--from-search", str(tmp_path / "nothing")])


def test_template_captions_and_a_method_that_needs_the_visual_tower(run, model, tmp_path):
    arguments = ["--run", str(run), "--model", model, "--num-workers", "0", "--seeds", "0"]
    arguments += ["--methods", "tai_dpt", "pvp", "--template-captions", "--output", str(tmp_path)]
    train.main([*arguments, "--set", "training.num_epochs=1", "training.batch_size=512"])
    settings = json.loads((tmp_path / "tai_dpt-seed0" / "settings.json").read_text())
    assert settings["recipe"]["training"]["template_captions"] is True
    recognizer = load_run(Store(str(tmp_path)), "pvp-seed0").recognizer
    assert recognizer.scorer.image_global.shape == (len(CLASS_NAMES), 12)
