import dataclasses
import math

import pytest
import torch
from fake_clip import NAMES, images, training_features

from t2ipal.methods.labelled import (
    asymmetric_losses,
    binary_losses,
    known,
    mean_loss,
    require_labelled,
)

LABELS = images(12, seed=4).labels
LOGITS = 3 * torch.randn(12, len(NAMES), generator=torch.Generator().manual_seed(1))
KNOWN_FROM = torch.rand(12, len(NAMES), generator=torch.Generator().manual_seed(2))


def slow_asymmetric(logit, label, gamma_negative, gamma_positive, clip):
    p = 1 / (1 + math.exp(-logit))
    if label:
        return -((1 - p) ** gamma_positive) * math.log(max(p, 1e-6))
    q = max(p - clip, 0.0)
    return -(q**gamma_negative) * math.log(max(1 - q, 1e-6))


@pytest.mark.parametrize("gammas", [(2.0, 1.0), (0.0, 0.0), (4.0, 0.5)])
@pytest.mark.parametrize("clip", [0.0, 0.05, 0.3])
def test_asymmetric_loss_against_loops(gammas, clip):
    found = asymmetric_losses(LOGITS.double(), LABELS.double(), None, *gammas, clip)
    for row in range(12):
        pairs = zip(LOGITS[row].tolist(), LABELS[row].tolist())
        expected = sum(slow_asymmetric(*pair, *gammas, clip) for pair in pairs)
        assert found[row].item() == pytest.approx(expected, rel=1e-6)


def test_no_focus_and_no_clip_is_binary_cross_entropy():
    plain = binary_losses(LOGITS, LABELS, None)
    assert torch.allclose(
        asymmetric_losses(LOGITS, LABELS, None, 0.0, 0.0, 0.0), plain * len(NAMES), atol=1e-5
    )


def test_no_gradient_passes_through_the_focus():
    logits = LOGITS.clone().requires_grad_()
    asymmetric_losses(logits, LABELS, None, 2.0, 1.0, 0.05).sum().backward()
    p = torch.sigmoid(LOGITS)
    q = (p - 0.05).clamp(min=0)
    shown = -(1 - p) * (1 - p)  # weight times the derivative of -log p
    absent = q**2 * p * (1 - p) / (1 - q)
    assert torch.allclose(logits.grad, torch.where(LABELS > 0, shown, absent), atol=1e-6)


def test_extreme_logits_give_finite_losses():
    logits = torch.tensor([[-1e4, 1e4, 0.0]]).requires_grad_()
    for labels in (torch.ones(1, 3), torch.zeros(1, 3)):
        loss = asymmetric_losses(logits, labels, None, 2.0, 1.0, 0.05).sum()
        assert torch.isfinite(loss)
        assert torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()


def test_which_labels_are_known():
    features = images(12)
    assert known(features, 0.3) is None
    features = dataclasses.replace(features, known_from=KNOWN_FROM)
    for share in (0.0, 0.3, 0.9, 1.0, torch.tensor(0.3)):
        found = known(features, share)
        assert torch.equal(found, float(share) > KNOWN_FROM)
    last = dataclasses.replace(features, known_from=torch.ones(12, len(NAMES)))
    assert known(last, 1.0).all() and not known(last, 0.9).any()


@pytest.mark.parametrize("losses", [binary_losses, asymmetric_losses])
def test_an_unknown_label_changes_nothing(losses):
    is_known = KNOWN_FROM < 0.5
    more = () if losses is binary_losses else (2.0, 1.0, 0.05)
    turned = torch.where(is_known, LABELS, 1 - LABELS)
    found = []
    for labels in (LABELS, turned):
        logits = LOGITS.clone().requires_grad_()
        loss = losses(logits, labels, is_known, *more)
        found.append((loss, torch.autograd.grad(loss.sum(), logits)[0]))
    assert all(torch.equal(one, other) for one, other in zip(*found))
    assert not found[0][1][~is_known].any() and found[0][1][is_known].any()
    parts = [losses(LOGITS[:, [c]], LABELS[:, [c]], is_known[:, [c]], *more) for c in range(5)]
    shared = sum(parts) / (len(NAMES) if losses is binary_losses else 1)
    assert torch.allclose(found[0][0], shared, atol=1e-6)


def test_the_mean_is_over_all_workers_images():
    losses = torch.tensor([1.0, 2.0, 6.0])
    assert mean_loss(losses, None, None).total.item() == 3
    assert mean_loss(losses, torch.tensor([1.0, 0.0, 1.0]), 2).total.item() == 3.5
    assert mean_loss(losses[:0], None, None).total.item() == 0


def test_what_cannot_be_learned_from():
    data = training_features()
    require_labelled(data, "CoOp", 1.0)
    without = dataclasses.replace(data, image_of_caption=torch.full((40, 1), -1))
    for none in (without, dataclasses.replace(data, images=None)):
        with pytest.raises(ValueError, match="CoOp learns from labelled images, got none"):
            require_labelled(none, "CoOp", 1.0)
    with pytest.raises(ValueError, match=r"known_labels 0.3 needs images that say which labels"):
        require_labelled(data, "CoOp", 0.3)
