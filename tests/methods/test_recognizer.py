import dataclasses
import json

import pytest
import torch
from fake_clip import FakeClip, config, images, unit

from t2ipal.features.config import BackboneConfig
from t2ipal.methods.recognizer import FULL, Normalization, Recognizer
from t2ipal.methods.t2ipal import T2IPAL


def drawn_scores(rows=7, classes=5):
    return 0.3 + 0.1 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(0))


# Normalization


def test_no_normalization_is_exactly_nothing():
    scores = drawn_scores()
    assert Normalization()(scores) is scores


def test_full_normalization_against_loops():
    """SPARC: each image's scores less their mean, divided by their standard deviation."""
    scores = drawn_scores()
    for row, changed in zip(scores.tolist(), FULL(scores).tolist(), strict=True):
        mean = sum(row) / len(row)
        deviation = (sum((score - mean) ** 2 for score in row) / len(row)) ** 0.5
        expected = [(score - mean) / deviation for score in row]
        assert changed == pytest.approx(expected, rel=1e-4)


def test_normalization_by_hand():
    scores = torch.tensor([[1.0, 3.0], [4.0, 4.0]])
    assert FULL(scores).tolist() == [[-1.0, 1.0], [0.0, 0.0]]  # equal scores have no spread
    assert Normalization(0.5, 0.0)(scores).tolist() == [[0.0, 2.0], [2.0, 2.0]]
    scores = torch.tensor([[0.0, 8.0]])  # mean and deviation are 4
    assert Normalization(0.0, 0.5)(scores).tolist() == [[0.0, 4.0]]
    assert Normalization(0.25, 0.5)(scores).tolist() == [[-0.5, 3.5]]


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("power", [0.0, 0.25, 1.0])
def test_normalization_never_changes_the_order_of_an_images_classes(weight, power):
    scores = drawn_scores(50, 9)
    changed = Normalization(weight, power)(scores)
    assert torch.equal(changed.argsort(dim=1), scores.argsort(dim=1))
    if weight or power:
        assert not torch.equal(changed.argsort(dim=0), scores.argsort(dim=0))


@pytest.mark.parametrize("name", ["mean_weight", "deviation_power"])
def test_bad_normalizations(name):
    for value in (-0.1, 1.5):
        with pytest.raises(ValueError, match=rf"{name} must be in 0\.\.1, got {value}"):
            Normalization(**{name: value})


def test_a_recognizer_normalizes_what_its_scorer_gives():
    plain, test = T2IPAL(config(), FakeClip()).export(), images(20)
    assert torch.equal(plain.scores(test), plain.scorer.scores(test))
    full = dataclasses.replace(plain, normalization=FULL)
    assert torch.equal(full.scores(test), FULL(plain.scores(test)))


# Whose features


def test_a_recognizer_names_its_backbone_and_refuses_another():
    recognizer = T2IPAL(config(), FakeClip()).export()
    own = FakeClip.identity
    assert recognizer.backbone == own
    elsewhere = dataclasses.replace(own, config=dataclasses.replace(own.config, device="cuda"))
    recognizer.require_backbone(elsewhere, "runs/a/train/t2ipal-seed0")  # the device is no matter
    other = dataclasses.replace(own, fingerprint="f" * 16)
    with pytest.raises(ValueError, match=r"runs/a was .* \(same name, other weights; fingerprint"):
        recognizer.require_backbone(other, "runs/a")
    other = dataclasses.replace(other, config=BackboneConfig(model="RN101", device="cuda"))
    with pytest.raises(
        ValueError, match=r"\(model: 'fake' there, 'RN101' here; fingerprint .*--model"
    ):
        recognizer.require_backbone(other, "runs/a")
    nameless = dataclasses.replace(recognizer, backbone=None)
    with pytest.raises(ValueError, match="runs/a does not say which backbone it belongs to"):
        nameless.require_backbone(own, "runs/a")


# What is stored


def test_the_recognizer_is_there_when_its_json_is(store, monkeypatch):
    written, write = [], type(store).write

    def noted(self, key, data):
        written.append(key)
        write(self, key, data)

    monkeypatch.setattr(type(store), "write", noted)
    T2IPAL(config(), FakeClip()).export().save(store, "train/t2ipal-seed0")
    folder = "train/t2ipal-seed0"
    assert written == [f"{folder}/recognizer.safetensors", f"{folder}/recognizer.json"]
    values = json.loads(store.read(f"{folder}/recognizer.json"))
    assert values["sharpness"] == 5.5 and values["backbone"]["fingerprint"] == "0123456789abcdef"
    assert "method" not in values and "normalization" not in values  # as versions before this one


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_are_constants_of_the_scorer(dtype):
    """A recognizer needs neither text encoder nor gradient."""
    recognizer = T2IPAL(config(), FakeClip()).export()
    scores = recognizer.scores(images(4))
    assert not scores.requires_grad
    features = dataclasses.replace(images(4), global_features=unit(4, 24, dtype=dtype))
    assert isinstance(recognizer, Recognizer) and recognizer.scores(features).shape == (4, 5)
    assert recognizer.class_names == config().class_names and recognizer.device.type == "cpu"
