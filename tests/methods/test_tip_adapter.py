import dataclasses

import numpy as np
import pytest
import torch
from fake_clip import NAMES, PROMPT_NAMES, FakeClip, images, training_features
from labelled_images import labelled_images, unknown_turned
from torch.nn import functional

from t2ipal.methods import tip_adapter as module
from t2ipal.methods.tip_adapter import TipAdapterConfig
from t2ipal.training.loop import TrainingConfig, fit
from t2ipal.training.recipes import recipe

UNTRAINED = TrainingConfig(num_epochs=0)
TRAINING = TrainingConfig(num_epochs=3, batch_size=16, lr=1e-3, optimizer="adamw")


def config(**changes) -> TipAdapterConfig:
    return TipAdapterConfig(**{"class_names": NAMES, "prompt_names": PROMPT_NAMES, **changes})


def fitted(data, **changes):
    training = TRAINING if changes.get("learned_keys") else UNTRAINED
    return fit(config(**changes).build(FakeClip()), data, training).recognizer


def zero_shot(test):
    texts = FakeClip().encode_text([f"a photo of a {name}." for name in PROMPT_NAMES])
    return 100 * test.pooled_features @ texts.T


def test_scores_against_loops():
    data, test = labelled_images(), images(5, seed=3)
    found = fitted(data, residual_ratio=0.7, sharpness=3.0, known_labels=0.6).scores(test)
    expected = zero_shot(test).double().numpy()
    for row in range(5):
        feature = test.pooled_features[row].double().numpy()
        for shot in range(40):
            views = data.images.pooled_features[[shot, 40 + shot]].double().numpy()
            key = views.mean(axis=0) / np.linalg.norm(views.mean(axis=0))
            affinity = 0.7 * np.exp(-3 * (1 - feature @ key))
            for index in range(len(NAMES)):
                if data.images.known_from[shot, index] < 0.6 and data.images.labels[shot, index]:
                    expected[row, index] += affinity
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)


def test_limits():
    """No weight: zero-shot CLIP. No sharpness: every key counts alike."""
    data, test = labelled_images(), images(20)
    assert torch.allclose(fitted(data, residual_ratio=0.0).scores(test), zero_shot(test), atol=1e-4)
    even = fitted(data, residual_ratio=3.0, sharpness=0.0).scores(test)
    count = data.images.labels[:40].sum(dim=0)
    assert torch.allclose(even, zero_shot(test) + 3 * count, atol=1e-3)


def test_images_without_a_view_are_no_keys():
    data = training_features()
    shown = (data.image_of_caption >= 0).any(dim=1)
    scorer = fitted(data).scorer
    assert len(scorer.keys) == int(shown.sum()) < 40
    assert torch.equal(scorer.values, data.texts.labels[shown])
    assert torch.allclose(scorer.keys.norm(dim=1), torch.ones(len(scorer.keys)))
    one = data.image_of_caption[1]  # a view is missing: the other one is the key
    first = data.images.pooled_features[one[one >= 0]].mean(dim=0)
    assert torch.allclose(scorer.keys[0], functional.normalize(first, dim=0), atol=1e-6)


def test_blocks_give_what_one_block_gives(monkeypatch):
    data = training_features()
    whole = fitted(data).scorer
    monkeypatch.setattr(module, "BLOCK_ROWS", 7)
    parts = fitted(data).scorer
    assert torch.equal(parts.keys, whole.keys) and torch.equal(parts.values, whole.values)


@pytest.mark.parametrize("loss", ["binary", "softmax"])
def test_the_loss_against_loops(loss):
    data, test = labelled_images(), images(6, seed=3)
    method = config(learned_keys=True, loss=loss).build(FakeClip())
    method.prepare(data)
    logits, total = method.export().scores(test).double().numpy(), 0.0
    for row in range(6):
        shown = test.labels[row].numpy() > 0
        if loss == "binary":
            total += np.logaddexp(0, np.where(shown, -logits[row], logits[row])).mean()
        else:
            total -= np.mean(logits[row][shown]) - np.logaddexp.reduce(logits[row])
    assert method.loss(test, None).total.item() == pytest.approx(total / 6, rel=1e-4)


@pytest.mark.parametrize("loss", ["binary", "softmax"])
def test_only_the_keys_are_learned(loss):
    clip, data = FakeClip(), labelled_images()
    method = config(learned_keys=True, loss=loss).build(clip)
    start = fitted(data).scorer
    learned = fit(method, data, TRAINING).recognizer.scorer
    assert not torch.equal(learned.keys, start.keys)
    assert torch.equal(learned.values, start.values)
    assert torch.equal(learned.embeddings, start.embeddings)
    assert [name for name, _ in method.named_parameters()] == ["keys"]
    untrained = fit(config(learned_keys=True).build(clip), data, UNTRAINED).recognizer.scorer
    assert torch.equal(untrained.keys, start.keys)


@pytest.mark.parametrize(
    "changes", [{}, {"learned_keys": True}, {"learned_keys": True, "loss": "softmax"}], ids=str
)
def test_unknown_labels_change_nothing(changes):
    data = labelled_images()
    fits = [
        fitted(each, known_labels=0.4, **changes).scorer
        for each in (data, unknown_turned(data, 0.4))
    ]
    assert torch.equal(fits[0].keys, fits[1].keys) and torch.equal(fits[0].values, fits[1].values)
    assert not torch.equal(fitted(data, **changes).scorer.values, fits[0].values)


def test_it_is_ready_after_its_images():
    method = config().build(FakeClip())
    with pytest.raises(RuntimeError, match="prepare must be called with the labelled images"):
        method.export()
    with pytest.raises(ValueError, match="without anything to train needs num_epochs 0, got 3"):
        fit(method, labelled_images(), TRAINING)
    test = dataclasses.replace(images(3), pooled_features=None)
    with pytest.raises(ValueError, match="Tip-Adapter needs pooled_features"):
        fitted(labelled_images()).scores(test)


def test_recipes_are_the_papers():
    plain, learned = (
        recipe(name, "coco2014", NAMES, PROMPT_NAMES) for name in ("tip_adapter", "tip_adapter_f")
    )
    assert plain.training.num_epochs == 0 and not plain.method.learned_keys
    assert (learned.method.residual_ratio, learned.method.sharpness) == (1.0, 5.5)
    training = learned.training
    assert (training.optimizer, training.lr, training.num_epochs) == ("adamw", 1e-3, 20)
