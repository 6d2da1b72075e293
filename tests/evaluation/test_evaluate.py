import dataclasses

import numpy as np
import pytest
import torch
from fake_clip import NAMES, FakeClip, config, images, training_features

from t2ipal.evaluation.evaluate import evaluate, predict, summarize
from t2ipal.evaluation.metrics import average_precision
from t2ipal.methods.class_concept import ClassConceptConfig
from t2ipal.methods.t2ipal import T2IPAL


def test_batches_do_not_matter():
    recognizer, test = T2IPAL(config(), FakeClip()).export(), images(50)
    whole = recognizer.scores(test).numpy()
    for scores in predict([recognizer, recognizer], test, batch_size=7):
        assert np.allclose(scores, whole, atol=1e-6)
    result = evaluate(recognizer, test, batch_size=7)
    assert result.average_precision == pytest.approx(
        average_precision(whole, test.labels.numpy()).tolist()
    )
    assert result.mAP == pytest.approx(np.mean(result.average_precision))
    assert (result.class_names, result.num_images) == (NAMES, 50)
    assert result.scores.shape == (50, len(NAMES))
    assert result.definition == "non-interpolated average precision"


def test_options_reach_the_metric():
    method, test = T2IPAL(config(), FakeClip()).export(), images(50)
    difficult = np.zeros((50, len(NAMES)), bool)
    difficult[:20:3] = True
    result = evaluate(method, test, difficult=difficult, skip_difficult=True, eleven_point=True)
    expected = average_precision(
        result.scores,
        test.labels.numpy(),
        difficult=difficult,
        skip_difficult=True,
        eleven_point=True,
    )
    assert result.average_precision == pytest.approx(expected.tolist())
    assert result.definition == (
        "11-point average precision, difficult entries left out of the ranking"
    )
    result = evaluate(method, test, difficult=difficult)
    assert result.definition.endswith("difficult entries counted as negatives")


def test_a_single_class():
    """One method that does not compare classes with each other."""
    data = training_features()
    texts, shown = (
        dataclasses.replace(rows, labels=rows.labels[:, :1]) for rows in (data.texts, data.images)
    )
    method = ClassConceptConfig(NAMES[:1]).build(FakeClip())
    method.prepare(dataclasses.replace(data, texts=texts, images=shown))
    test = images(50)
    result = evaluate(method.export(), dataclasses.replace(test, labels=test.labels[:, :1]))
    assert result.scores.shape == (50, 1) and result.average_precision == (result.mAP,)


def test_bad_input():
    method, test = T2IPAL(config(), FakeClip()).export(), images(50)
    fewer = dataclasses.replace(test, labels=test.labels[:, 1:])
    with pytest.raises(ValueError, match="knows 5 classes, the test set has 4"):
        evaluate(method, fewer)
    with pytest.raises(ValueError, match="needs images, got none"):
        evaluate(method, test.rows(slice(0, 0)))
    labels = test.labels.clone()
    labels[:, 1] = 0
    with pytest.raises(ValueError, match="got none of: boat"):
        evaluate(method, dataclasses.replace(test, labels=labels))
    scorer = dataclasses.replace(method.scorer, prototypes=method.scorer.prototypes * torch.nan)
    broken = dataclasses.replace(method, scorer=scorer)
    with pytest.raises(ValueError, match="must not be NaN"):
        evaluate(broken, test)


def test_summary():
    summary = summarize([80.0, 82.0, 84.0], [0, 1, 2])
    assert (summary.mean, summary.std) == (82.0, 2.0)
    assert (summary.seeds, summary.mAPs) == ((0, 1, 2), (80.0, 82.0, 84.0))
    assert summarize([80.0], [7]).std == 0.0
    with pytest.raises(ValueError, match="got none"):
        summarize([], [])
    with pytest.raises(ValueError, match=r"seed of its own, got 2 for seeds \[0, 0\]"):
        summarize([80.0, 81.0], [0, 0])
