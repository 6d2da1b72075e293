"""What recognizers reach on a test set, in a folder and in a bucket."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from fake_clip import NAMES, images, training_features
from fake_recognizers import write_fake_recognizers

from t2ipal.evaluation.config import EvaluationOptions
from t2ipal.evaluation.evaluate import evaluate, predict
from t2ipal.evaluation.modality_gap import modality_gap
from t2ipal.evaluation.reading import Unreadable
from t2ipal.evaluation.results import (
    ACCURACY,
    describe_evaluation,
    evaluate_run,
    mean_gap,
    measure,
    read_evaluation,
    require_measurable,
    summarize_evaluation,
)
from t2ipal.evaluation.runs import find_recognizers
from t2ipal.evaluation.test_sets import DATA_SETS, DataSet, TestFeatures
from t2ipal.report.measured import read_measured

TEST = TestFeatures("drawn", NAMES, images(60, seed=9), None, [])


@pytest.fixture
def trained(store):
    return write_fake_recognizers(store)


def test_every_recognizer_is_measured(trained):
    found = find_recognizers(trained)
    result = evaluate_run(trained, found, TEST, EvaluationOptions())
    assert json.loads(trained.read("evaluation.json")) == json.loads(json.dumps(result))
    assert read_evaluation(trained) == json.loads(json.dumps(result))
    assert (result["test_set"], result["num_images"]) == ("drawn", 60)
    for name, numbers in result["methods"].items():
        each = [evaluate(recognizer, TEST.features) for recognizer in found[name].values()]
        assert numbers["mAPs"] == pytest.approx([e.mAP for e in each])
        assert numbers["mean"] == pytest.approx(np.mean([e.mAP for e in each]))
        per_class = np.mean([e.average_precision for e in each], axis=0)
        assert numbers["per_class"] == pytest.approx(per_class, abs=1e-3)
        assert "modality_gap" not in numbers
    lines = describe_evaluation(result).splitlines()
    assert "non-interpolated" in lines[0]
    means = [float(line.split()[1]) for line in lines[1:]]
    assert len(means) == 3 and means == sorted(means)


def test_accuracy_where_each_image_shows_one_class(trained, monkeypatch):
    one = DataSet(None, "pictovoc", measure="accuracy")
    monkeypatch.setitem(DATA_SETS, "drawn", one)
    columns = np.arange(60) % (len(NAMES) - 1)  # no image shows the last class
    labels = torch.eye(len(NAMES))[torch.from_numpy(columns)]
    test = dataclasses.replace(TEST, features=dataclasses.replace(TEST.features, labels=labels))
    found = find_recognizers(trained)
    assert require_measurable(found, "drawn", NAMES, labels, EvaluationOptions()) == []
    result = evaluate_run(trained, found, test, EvaluationOptions())
    assert (result["measure"], result["definition"]) == ("accuracy", ACCURACY)
    assert "absent_classes" not in result
    for name, numbers in result["methods"].items():
        hits = [
            predict([recognizer], test.features)[0].argmax(axis=1) == columns
            for recognizer in found[name].values()
        ]
        assert numbers["mAPs"] == pytest.approx([100 * hit.mean() for hit in hits])
        first = np.mean([100 * hit[columns == 0].mean() for hit in hits])
        assert numbers["per_class"][0] == pytest.approx(first, abs=1e-3)
        assert numbers["per_class"][-1] is None
    assert "accuracy" in describe_evaluation(result).splitlines()[0]
    measured = read_measured(trained)
    assert measured.measure == "accuracy"
    assert measured.notes[0].startswith(f"accuracy is {ACCURACY}, in percent")
    with pytest.raises(ValueError, match="Accuracy needs one class for each image"):
        measure(found, TEST, EvaluationOptions())


def test_the_gap_of_methods_that_have_class_embeddings(trained):
    found, data = find_recognizers(trained), training_features()
    options = EvaluationOptions(modality_gap=True)
    methods = evaluate_run(trained, found, TEST, options, data)["methods"]
    assert "modality_gap" not in methods["class_concept"]
    for name in ("t2ipal", "tai_dpt"):
        scorers = [recognizer.scorer for recognizer in found[name].values()]
        gaps = [modality_gap(one, TEST.features, data.texts, data.images) for one in scorers]
        assert methods[name]["modality_gap"] == mean_gap(gaps)
    assert methods["tai_dpt"]["modality_gap"]["adapted_synthetic_images"] is None
    without = dataclasses.replace(data, images=None)
    with pytest.raises(ValueError, match=r"The modality gap needs images, the run has none\."):
        evaluate_run(trained, found, TEST, options, without)


def test_options_reach_the_metric(trained):
    difficult = np.zeros((60, len(NAMES)), bool)
    difficult[::4] = True
    test = dataclasses.replace(TEST, difficult=difficult)
    found = find_recognizers(trained)
    options = EvaluationOptions(skip_difficult=True, eleven_point=True)
    result = evaluate_run(trained, found, test, options)
    expected = evaluate(
        found["t2ipal"][0],
        test.features,
        difficult=difficult,
        skip_difficult=True,
        eleven_point=True,
    )
    assert result["methods"]["t2ipal"]["mAPs"][0] == pytest.approx(expected.mAP)
    assert result["definition"] == expected.definition


def test_a_test_set_of_another_vocabulary_leaves_no_file(trained):
    test = dataclasses.replace(TEST, class_names=NAMES[::-1])
    message = r"knows other classes than test set drawn: train on its vocabulary\."
    with pytest.raises(ValueError, match=message):
        evaluate_run(trained, find_recognizers(trained), test, EvaluationOptions())
    assert not trained.exists("evaluation.json")


@pytest.mark.parametrize("text", ['{"methods": {"tai_d', "[]", '{"rows": []}'])
def test_a_damaged_evaluation_is_named(store, text):
    with pytest.raises(FileNotFoundError, match=r"No evaluation.json in .*Run jobs/evaluate.py fi"):
        read_evaluation(store)
    store.write("evaluation.json", text.encode())
    with pytest.raises(
        ValueError, match=r"evaluation.json in .* is damaged. Remove it and run job"
    ):
        read_evaluation(store)


def test_what_is_left_out_is_said_everywhere(trained):
    """A class that no image shows, and photographs that cannot be read."""
    labels = TEST.features.labels.clone()
    labels[:, NAMES.index("boat")] = 0
    features = dataclasses.replace(TEST.features, labels=labels)
    unreadable = (Unreadable("a.jpg", "truncated"), Unreadable("b.jpg", "empty file"))
    test = dataclasses.replace(TEST, features=features, unreadable=unreadable)
    found = find_recognizers(trained)
    with pytest.raises(ValueError, match=r"got none of: boat\. .*--skip-absent"):
        measure(found, test, EvaluationOptions())
    result = evaluate_run(trained, found, test, EvaluationOptions(skip_absent=True))
    said = "1 of 5 classes left out that no image shows, 2 of 62 images left out that cannot be"
    assert said in result["definition"] and said in describe_evaluation(result)
    assert (result["num_images"], result["absent_classes"]) == (60, ["boat"])
    assert result["unreadable"][1] == {"file": "b.jpg", "reason": "empty file"}
    there = [at for at, name in enumerate(NAMES) if name != "boat"]
    for name, numbers in result["methods"].items():
        assert numbers["per_class"][NAMES.index("boat")] is None
        shown = [numbers["per_class"][at] for at in there]
        assert numbers["mean"] == pytest.approx(np.mean(shown), abs=1e-3)
        summary = summarize_evaluation(result)[name]
        assert summary["left_out"] == {"images": 2, "classes": 1}
    assert json.loads(trained.read("evaluation.json")) == json.loads(json.dumps(result))


def test_nothing_is_said_where_nothing_is_left_out(trained):
    result = measure(find_recognizers(trained), TEST, EvaluationOptions(skip_absent=True))
    assert result["definition"] == "non-interpolated average precision"
    assert not {"absent_classes", "unreadable"} & {*result}
    for numbers in summarize_evaluation(result).values():
        assert {*numbers} == {"mean", "std", "seeds"}
