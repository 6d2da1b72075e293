import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t2ipal.methods.losses import ranking_losses


def slow_ranking_loss(scores, labels, margin, scale):
    total = 0.0
    for row, truth in zip(scores.tolist(), labels.tolist()):
        for i, positive in enumerate(truth):
            for j, other in enumerate(truth):
                if positive == 1 and other == 0:
                    total += max(0.0, margin - scale * row[i] + scale * row[j])
    return total / len(scores)


@pytest.mark.parametrize("margin, scale", [(1.0, 4.0), (0.3, 1.0), (2.0, 10.0)])
def test_against_loops(margin, scale):
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(13, 9, generator=generator, dtype=torch.float64)
    labels = (torch.rand(13, 9, generator=generator) < 0.3).double()
    labels[0], labels[1] = 0, 1  # no pairs
    before = scores.clone()
    rows = ranking_losses(scores, labels, margin, scale)
    assert rows.mean().item() == pytest.approx(slow_ranking_loss(scores, labels, margin, scale))
    assert torch.equal(scores, before)  # nothing is scaled in place
    assert rows[0] == 0 and rows[1] == 0


def plain_form(scores, labels, margin, scale):
    """All pairs of classes of each row, as the formula reads."""
    hinge = torch.relu(margin - scale * scores.unsqueeze(2) + scale * scores.unsqueeze(1))
    return (hinge * labels.unsqueeze(2) * (1 - labels).unsqueeze(1)).sum(dim=(1, 2))


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(0, 6),
    classes=st.integers(2, 12),
    share=st.sampled_from([0.0, 0.2, 0.7, 1.0]),
    more=st.integers(0, 12),
    seed=st.integers(0, 2**31),
)
def test_equals_the_plain_form(batch, classes, share, more, seed):
    """Rows with no or all classes positive, room for more positives than there are, two kinds."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, batch, classes, generator=generator, dtype=torch.float64)
    labels = (torch.rand(batch, classes, generator=generator) < share).double()
    weights = torch.rand(2, batch, generator=generator, dtype=torch.float64)
    most = int(labels.sum(dim=1).max()) if batch else 0
    results = []
    for form in (
        lambda scores: torch.stack([plain_form(kind, labels, 0.7, 3.0) for kind in scores]),
        lambda scores: ranking_losses(scores, labels, 0.7, 3.0, min(max(most + more, 1), classes)),
        lambda scores: ranking_losses(scores, labels, 0.7, 3.0),
    ):
        given_scores = scores.clone().requires_grad_()
        losses = form(given_scores)
        (losses * weights).sum().backward()
        results.append((losses.detach(), given_scores.grad))
    for found in results[1:]:
        for expected, value in zip(results[0], found):
            assert torch.allclose(value, expected, rtol=1e-12, atol=1e-12)


def test_by_hand():
    scores, labels = torch.tensor([[0.5, 0.2, 0.4]]), torch.tensor([[1.0, 0.0, 0.0]])
    # 1 - 2 + 0.8 < 0 and 1 - 2 + 1.6 = 0.6.
    assert ranking_losses(scores, labels, 1.0, 4.0).item() == pytest.approx(0.6)


def test_gradient_is_counted_pairs():
    scores = torch.tensor([[0.5, 0.4, 0.45]], requires_grad=True)
    ranking_losses(scores, torch.tensor([[1.0, 0.0, 0.0]]), 1.0, 4.0).backward()
    assert torch.equal(scores.grad, torch.tensor([[-8.0, 4.0, 4.0]]))
