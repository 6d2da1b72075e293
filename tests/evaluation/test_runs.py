"""The recognizers of a run and their measures, in a folder and in a bucket."""

import dataclasses
import json

import fake_clip
import numpy as np
import pytest
import torch
from fake_clip import NAMES, FakeClip, config, images, training_features

from t2ipal.config import to_dict
from t2ipal.evaluation import runs
from t2ipal.evaluation.config import EvaluationOptions
from t2ipal.evaluation.evaluate import evaluate
from t2ipal.evaluation.modality_gap import modality_gap
from t2ipal.evaluation.runs import (
    describe_evaluation,
    evaluate_run,
    find_recognizers,
    load_same_backbone,
    mean_gap,
    read_evaluation,
)
from t2ipal.evaluation.test_sets import TestFeatures
from t2ipal.features.config import BackboneConfig
from t2ipal.methods.class_concept import ClassConceptConfig
from t2ipal.methods.t2ipal import T2IPAL

TEST = TestFeatures("drawn", NAMES, images(60, seed=9), None, [])


def t2ipal(seed, **changes):
    return T2IPAL(config(**changes), FakeClip(), seed=seed).export()


def class_concept():
    method = ClassConceptConfig(NAMES).build(FakeClip())
    method.prepare(training_features())
    return method.export()


@pytest.fixture
def trained(store):
    for seed in (0, 1):
        t2ipal(seed).save(store, f"train/t2ipal-seed{seed}")
        t2ipal(seed, adapter="none", image_weight=0.0).save(store, f"train/tai_dpt-seed{seed}")
    class_concept().save(store, "train/class_concept-seed0")
    return store


def test_all_recognizers_of_a_run_and_nothing_else(trained):
    t2ipal(5).save(trained, "train/ray/0123/t2ipal-seed5")  # where an older version kept them
    t2ipal(6).save(trained, "train/other")
    t2ipal(7).save(trained, "elsewhere/t2ipal-seed7")
    found = find_recognizers(trained)
    assert {name: sorted(by_seed) for name, by_seed in found.items()} == {
        "class_concept": [0], "t2ipal": [0, 1], "tai_dpt": [0, 1],
    }  # fmt: skip
    assert torch.equal(found["t2ipal"][1].scores(TEST.features), t2ipal(1).scores(TEST.features))
    assert list(find_recognizers(trained, "elsewhere")["t2ipal"]) == [7]


def test_no_recognizer(store):
    with pytest.raises(FileNotFoundError, match=r"No recognizer in .*/train. Run jobs/train.py"):
        find_recognizers(store)


@pytest.fixture
def at_hand(monkeypatch):
    """Puts a backbone into the place of whatever is asked for."""

    def put(identity):
        clip = FakeClip()
        clip.identity = identity
        monkeypatch.setattr(runs, "load_backbone", lambda config: clip)
        return clip

    return put


def test_recognizers_are_used_with_their_own_backbone_alone(trained, at_hand):
    found, clip = find_recognizers(trained), at_hand(FakeClip.identity)
    backbone, checked = load_same_backbone(trained, found, BackboneConfig())
    assert backbone is clip and checked == found
    at_hand(dataclasses.replace(FakeClip.identity, fingerprint="f" * 16))
    with pytest.raises(
        ValueError, match=r"train/class_concept-seed0 was trained on features of an"
    ):
        load_same_backbone(trained, found, BackboneConfig())


def test_recognizers_from_before_they_named_it_have_settings_beside_them(store, at_hand):
    """As the version before wrote them."""
    identity = FakeClip.identity
    t2ipal(0).save(store, "train/t2ipal-seed0")
    store.write("train/t2ipal-seed0/recognizer.json", json.dumps(to_dict(config())).encode())
    inputs = {
        "backbone": to_dict(identity.config),
        "features": f"features/fake/{identity.fingerprint}",
    }
    settings = json.dumps({"recipe": {}, "inputs": inputs}, indent=2).encode()
    store.write("train/t2ipal-seed0/settings.json", settings)
    found = find_recognizers(store)
    assert found["t2ipal"][0].backbone is None
    at_hand(identity)
    _, checked = load_same_backbone(store, found, BackboneConfig())
    assert checked["t2ipal"][0].backbone == identity
    other = dataclasses.replace(identity, fingerprint="f" * 16, config=BackboneConfig("RN101"))
    at_hand(other)
    with pytest.raises(ValueError, match=r"seed0 was trained .*model: 'fake' there, 'RN101' here"):
        load_same_backbone(store, found, BackboneConfig())


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
    with pytest.raises(ValueError, match=r"The modality gap needs images, .* has none\."):
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
    test = dataclasses.replace(TEST, class_names=fake_clip.NAMES[::-1])
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
