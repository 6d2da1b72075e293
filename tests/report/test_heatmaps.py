"""Which test images have heatmaps, and what these show."""

import dataclasses

import numpy as np
import pytest
import torch
from fake_clip import NAMES, FakeClip, config, images, training_features

from t2ipal.evaluation.test_sets import TestFeatures
from t2ipal.methods.class_concept import ClassConceptConfig
from t2ipal.methods.recognizer import FULL
from t2ipal.report.heatmaps import heatmap_examples, rows_to_show
from t2ipal.training.loop import TrainingConfig, fit

PREVIEWS = [np.full((8, 8, 3), row, np.uint8) for row in range(60)]
TEST = TestFeatures("voc2007", NAMES, images(60, seed=9), None, PREVIEWS)


@pytest.mark.parametrize("method", [ClassConceptConfig(NAMES), config()])
def test_heatmaps_of_every_method(method):
    untrained = TrainingConfig(num_epochs=0)
    recognizer = fit(method.build(FakeClip(), 0), training_features(), untrained).recognizer
    recognizer = dataclasses.replace(recognizer, normalization=FULL)
    examples = heatmap_examples(recognizer, TEST, 2)
    assert len(examples) == 2
    scores = recognizer.scores(TEST.features).numpy()
    labels = TEST.features.labels.numpy()
    rows = [row for row in range(60) if labels[row].sum() >= 2]
    for row, example in zip(rows, examples, strict=False):
        assert example.image is PREVIEWS[row]
        assert example.true_labels == [NAMES[c] for c in np.flatnonzero(labels[row])]
        shown = [score for _, score, _ in example.classes]
        assert shown == sorted(shown, reverse=True)
        for name, score, heatmap in example.classes:
            assert score == pytest.approx(scores[row, NAMES.index(name)], rel=1e-4)
            assert heatmap.shape == (3, 3) and heatmap.sum() == pytest.approx(1, abs=1e-5)


def test_a_mean_location_before_the_map_is_not_drawn():
    recognizer = config().build(FakeClip()).export()
    local = TEST.features.local_features
    more = torch.cat([local.mean(dim=1, keepdim=True), local], dim=1)
    regions = dataclasses.replace(
        TEST, features=dataclasses.replace(TEST.features, local_features=more)
    )
    (example,) = heatmap_examples(recognizer, regions, 1)
    row = rows_to_show(TEST.features.labels.numpy(), 1)[0]
    expected = recognizer.scorer.heatmap(more[[row]])[0].numpy()
    for name, _, heatmap in example.classes:
        assert np.array_equal(heatmap.flatten(), expected[NAMES.index(name), 1:])


def test_images_of_several_classes_come_first():
    labels = np.zeros((12, 3))
    labels[:, 0] = 1  # one class each
    labels[[4, 7], 1] = 1
    labels[[0, 11], 0] = 0
    assert rows_to_show(labels, 1) == [4]
    assert rows_to_show(labels, 2) == [4, 7]
    assert rows_to_show(labels, 4) == [4, 7, 1, 6]  # the others from all over the set
    assert rows_to_show(labels, 99) == [4, 7, 1, 2, 3, 5, 6, 8, 9, 10]
    chosen = labels[rows_to_show(labels, 4)]
    assert rows_to_show(chosen, 4) == [0, 1, 2, 3]
    assert rows_to_show(np.zeros((3, 2)), 4) == []
