"""What a page is gathered from; the whole of it is tested with its job."""

import dataclasses

import numpy as np
import pytest
from fake_clip import NAMES, FakeClip, config, images, training_features

from t2ipal.evaluation.config import EvaluationOptions
from t2ipal.evaluation.published import PUBLISHED
from t2ipal.evaluation.results import evaluate_run
from t2ipal.evaluation.runs import find_recognizers
from t2ipal.evaluation.test_sets import TestFeatures
from t2ipal.features.config import BackboneConfig
from t2ipal.methods.class_concept import ClassConceptConfig
from t2ipal.methods.recognizer import FULL
from t2ipal.methods.t2ipal import T2IPAL
from t2ipal.report import gathering
from t2ipal.training.loop import TrainingConfig
from t2ipal.training.plans import TrainingRun
from t2ipal.training.recipes import METHODS, Recipe
from t2ipal.training.runs import load_history, train_runs

SHORT = TrainingConfig(num_epochs=3, batch_size=16)
PREVIEWS = [np.zeros((8, 8, 3), np.uint8)] * 60
TEST = TestFeatures("voc2007", NAMES, images(60, seed=9), None, PREVIEWS)


@pytest.fixture
def trained(store):
    concept = Recipe(ClassConceptConfig(NAMES), dataclasses.replace(SHORT, num_epochs=0))
    runs = [
        TrainingRun("class_concept-seed0", concept),
        TrainingRun("t2ipal-seed3", Recipe(config(), dataclasses.replace(SHORT, seed=3))),
        TrainingRun("t2ipal-seed4", Recipe(config(), dataclasses.replace(SHORT, seed=4))),
        TrainingRun("ours-seed0", Recipe(config(adapter="none"), SHORT)),
    ]
    train_runs(runs, lambda: (FakeClip(), training_features()), store, inputs={})
    return store


def test_losses_of_trained_methods_become_curves(trained):
    """The first seed of each; none of what is not trained."""
    (curve,) = gathering._curves(trained, "train", find_recognizers(trained))
    assert [name for name, _, _ in curve.series] == ["ours", "T2I-PAL"]
    for (_, epochs, losses), folder in zip(curve.series, ("ours-seed0", "t2ipal-seed3")):
        history, _ = load_history(trained, f"train/{folder}")
        assert epochs == [1.0, 2.0, 3.0] and losses == [record.loss for record in history]
    concept = {"class_concept": find_recognizers(trained)["class_concept"]}
    assert gathering._curves(trained, "train", concept) == []


def test_a_recognizer_that_was_copied_without_its_history_has_no_curve(store):
    T2IPAL(config(), FakeClip()).export().save(store, "train/t2ipal-seed0")
    assert gathering._curves(store, "train", find_recognizers(store)) == []


def test_results_have_titles_and_what_was_published(trained):
    evaluation = evaluate_run(trained, find_recognizers(trained), TEST, EvaluationOptions())
    rows = gathering._results(evaluation, BackboneConfig(model="RN101"))
    by_name = {row.name: row for row in rows}
    assert {*by_name} == {"ours", "Class concept", "T2I-PAL"}
    assert by_name["T2I-PAL"].published == "91.5 (RN101)"
    assert by_name["T2I-PAL"].seeds == (3, 4) and len(by_name["T2I-PAL"].per_class) == len(NAMES)
    absent = {
        name: {**numbers, "per_class": [None, 50.0]}
        for name, numbers in evaluation["methods"].items()
    }
    without = gathering._results({**evaluation, "methods": absent}, BackboneConfig())
    assert all(np.isnan(row.per_class).tolist() == [True, False] for row in without)
    assert by_name["ours"].published is None and by_name["ours"].description == "ours"
    assert [row.mAP_mean for row in rows] == sorted(row.mAP_mean for row in rows)
    rows = gathering._results(evaluation, BackboneConfig(model="pictovoc"))
    assert not any(row.published for row in rows)


@pytest.mark.parametrize(
    ("method", "test_set", "model", "expected"),
    [
        ("zsclip", "voc2007", "RN50", "76.2 (RN50)"),
        ("tai_dpt", "coco2014", "RN50-quickgelu", "65.1 (RN50)"),
        ("t2ipal", "nuswide", "RN101", "47.4 (RN101)"),
        ("t2ipal_images_only", "voc2007", "RN101", "90.8 (RN101)"),
        ("t2ipal_one_image", "voc2007", "RN101", "91.1 (RN101)"),
        ("t2ipal", "pictovoc", "RN101", None),
        ("t2ipal", "voc2007", "ViT-B-16", None),
        ("t2ipal_max", "voc2007", "RN101", None),
    ],
)
def test_only_numbers_of_the_same_kind_are_put_beside_ours(method, test_set, model, expected):
    assert gathering._published(method, test_set, model) == expected


def test_published_rows_are_called_as_our_methods_are():
    titles = {method.title for method in METHODS.values()}
    others = {row.method for row in PUBLISHED if row.setting == "zero_shot"} - titles
    assert others == {"PIAA", "TagCLIP"}


@pytest.mark.parametrize("method", ["class_concept", "t2ipal"])
def test_heatmaps_of_every_method(trained, method):
    recognizer = next(iter(find_recognizers(trained)[method].values()))
    recognizer = dataclasses.replace(recognizer, normalization=FULL)
    examples = gathering._heatmaps(recognizer, TEST, 2)
    assert len(examples) == 2
    scores = recognizer.scores(TEST.features).numpy()
    labels = TEST.features.labels.numpy()
    rows = [row for row in range(60) if labels[row].sum() >= 2]
    for row, example in zip(rows, examples, strict=False):
        assert example.true_labels == [NAMES[c] for c in np.flatnonzero(labels[row])]
        shown = [score for _, score, _ in example.classes]
        assert shown == sorted(shown, reverse=True)
        for name, score, heatmap in example.classes:
            assert score == pytest.approx(scores[row, NAMES.index(name)], rel=1e-4)
            assert heatmap.shape == (3, 3) and heatmap.sum() == pytest.approx(1, abs=1e-5)
