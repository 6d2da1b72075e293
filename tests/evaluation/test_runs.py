"""The recognizers of a run, in a folder and in a bucket."""

import dataclasses
import json

import pytest
import torch
from fake_clip import NAMES, FakeClip, config, images
from fake_recognizers import t2ipal, write_fake_recognizers

from t2ipal.config import to_dict
from t2ipal.evaluation import runs
from t2ipal.evaluation.runs import find_recognizers, load_same_backbone, require_same_classes
from t2ipal.features.config import BackboneConfig


@pytest.fixture
def trained(store):
    return write_fake_recognizers(store)


def test_all_recognizers_of_a_run_and_nothing_else(trained):
    t2ipal(5).save(trained, "train/ray/0123/t2ipal-seed5")  # where an older version kept them
    t2ipal(6).save(trained, "train/other")
    t2ipal(7).save(trained, "elsewhere/t2ipal-seed7")
    found = find_recognizers(trained)
    assert {name: sorted(by_seed) for name, by_seed in found.items()} == {
        "class_concept": [0], "t2ipal": [0, 1], "tai_dpt": [0, 1],
    }  # fmt: skip
    test = images(60, seed=9)
    assert torch.equal(found["t2ipal"][1].scores(test), t2ipal(1).scores(test))
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


def test_a_test_set_of_other_classes(trained):
    found = find_recognizers(trained)
    require_same_classes(found, "drawn", NAMES)
    message = r"class_concept knows other classes than test set drawn: train on its vocabulary\."
    with pytest.raises(ValueError, match=message):
        require_same_classes(found, "drawn", NAMES[::-1])
