import json

import pytest
import torch
from small_run import FEW_SCENES, write_random_judge, write_small_run
from tiny_clip import write_tiny_clip

from benchmarks import choices as choices_benchmark
from t2ipal.evaluation.evaluate import evaluate
from t2ipal.evaluation.stored_sets import stored_features
from t2ipal.evaluation.test_sets import load_test_set
from t2ipal.experiments import choices, fitting, shown
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.extraction import feature_folder
from t2ipal.features.reading import read_training_features
from t2ipal.features.sets import FeatureSet, TrainingFeatures
from t2ipal.pictovoc.worlds import WORLDS, World
from t2ipal.selection.config import ChoiceConfig
from t2ipal.selection.quality import ImageQuality
from t2ipal.store import Store, read_choice, read_manifest, read_run
from t2ipal.training.loop import fit
from t2ipal.training.recipes import PICTOVOC_T2IPAL, recipe

# Two captions of one class each, four images of each, in this order.
CAPTION = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
KS = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
FOUND = torch.tensor([0, 1, 1, 1, 0, 0, 0, 1], dtype=torch.bool)


def pool():
    features = torch.arange(8.0)[:, None, None].expand(8, 1, 2)
    labels = torch.ones(8, 1)
    images = FeatureSet(features[:, 0], features, None, labels, features[:, 0])
    rows = torch.arange(8).view(2, 4)
    return TrainingFeatures(images.rows(slice(0, 2)), images, rows)


def measured(drawn):
    """What is found is known; among equals the later image is nearer to its caption."""
    number = int(drawn.sum())
    return ImageQuality(
        CAPTION[drawn],
        0.1 * KS[drawn],
        torch.ones(number, 1, dtype=torch.bool),
        FOUND[drawn, None],
        torch.full((number,), -1),
    )


@pytest.mark.parametrize(
    ("way", "kept", "num_drawn"),
    [
        (choices.Way("first", 2), [0, 1, 4, 5], 4),
        (choices.Way("best", 4, ChoiceConfig(0.0, best=2)), [2, 3, 6, 7], 8),
        (choices.Way("found", 4, ChoiceConfig(min_found=1.0)), [1, 2, 3, 7], 8),
        # The first caption lacks one of two good images and gets one; the second lacks both, gets
        # two, of which one is good, and has no more to get in the next round.
        (choices.Way("repair", 2, ChoiceConfig(0.0, best=2), 2, 2), [1, 2, 6, 7], 7),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_ways_of_choosing(way, kept, num_drawn):
    keep, drawn = choices.choose_images(way, pool(), KS, measured)
    assert keep.nonzero()[:, 0].tolist() == kept and drawn == num_drawn


def test_a_part_of_the_pool_is_a_run_of_its_own():
    drawn = torch.tensor([1, 1, 0, 0, 0, 1, 0, 1], dtype=torch.bool)
    part = choices.drawn_only(pool(), drawn)
    assert part.image_of_caption.tolist() == [[0, 1, -1, -1], [-1, 2, -1, 3]]
    assert part.images.global_features[:, 0].tolist() == [0.0, 1.0, 5.0, 7.0]


def test_every_way_is_trained_and_measured(tmp_path, monkeypatch, capsys):
    write_random_judge(tmp_path)
    monkeypatch.setattr(shown, "WEIGHTS_DIR", tmp_path)
    monkeypatch.setitem(WORLDS, "pictovoc", World(count=FEW_SCENES))
    monkeypatch.setitem(PICTOVOC_T2IPAL, "training.num_epochs", 3)
    folder = tmp_path / "reproduction"
    write_small_run(folder / "sets" / "synthetic", images_per_caption=3)
    store = Store(folder / "sets" / "synthetic")
    flags = ["--reproduction", str(folder), "--kept", "2", "--seeds", "1", "--in-process"]
    flags += ["--pools", "1", "--test-sets", "pictovoc"]
    flags += ["--backbone.model", str(write_tiny_clip(tmp_path / "clip"))]
    result = choices_benchmark.main(flags)
    printed = capsys.readouterr().out
    assert (folder / "choices.md").read_text() in printed
    assert json.loads((folder / "choices.json").read_text()) == json.loads(json.dumps(result))
    rows, num_images = result["rows"], read_manifest(store).num_images
    first, everything, best = rows[:3]
    assert first["num_kept"] == first["num_drawn"] == 2 * num_images // 3
    assert everything["num_kept"] == everything["num_drawn"] == best["num_drawn"] == num_images
    assert best["num_kept"] == first["num_kept"]
    assert first["num_drawn"] < rows[-1]["num_drawn"] <= num_images
    for row in rows:
        difference = row["mAP"]["pictovoc"]["mean"] - first["mAP"]["pictovoc"]["mean"]
        assert row["over"]["pictovoc"]["mean"] == pytest.approx(difference)
        assert 0 <= row["judge_share"] <= 1
    assert rows[3]["num_drawn"] == num_images // 3 and rows[3]["num_kept"] > 0
    assert rows[3]["num_kept"] < rows[3]["num_drawn"]

    # What stands in the table is what T2I-PAL reaches on the kept images alone.
    (name,) = {path.stem for path in folder.rglob("best-2-of-3-*.json")}
    assert sum(row.kept for row in read_choice(store, name)) == best["num_kept"]
    backbone = load_backbone(BackboneConfig(model=flags[-1]))
    settings = read_run(store).settings
    made = recipe("t2ipal", "pictovoc", settings.class_names, settings.prompt_names)
    data = read_training_features(store, feature_folder(backbone), name)
    recognizer = fit(made.method.build(backbone, 0), data, made.training).recognizer
    scenes = stored_features(load_test_set("pictovoc"), backbone, Store(folder)).features
    assert best["mAP"]["pictovoc"]["values"] == [pytest.approx(evaluate(recognizer, scenes).mAP)]

    monkeypatch.setattr(fitting, "train_group", None)  # nobody trains twice
    assert choices_benchmark.main(flags)["rows"] == rows

    with pytest.raises(ValueError, match="kept must be < the 3 images a caption of the pool"):
        choices_benchmark.main([*flags, "--kept", "3"])
    with pytest.raises(ValueError, match=r"pools must be 1 to 2, got \[3\]"):
        choices_benchmark.main([*flags, "--pools", "3"])
    with pytest.raises(ValueError, match=r"Unknown test set 'pictovoc_novel'\."):
        choices_benchmark.main([*flags, "--test-sets", "pictovoc_novel"])
    with pytest.raises(FileNotFoundError, match=r"Run jobs/reproduce\.py --output \S+ first"):
        choices_benchmark.main([*flags, "--reproduction", str(tmp_path / "nowhere")])
