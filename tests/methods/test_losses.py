import pytest
import torch

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


def test_by_hand():
    scores, labels = torch.tensor([[0.5, 0.2, 0.4]]), torch.tensor([[1.0, 0.0, 0.0]])
    # 1 - 2 + 0.8 < 0 and 1 - 2 + 1.6 = 0.6.
    assert ranking_losses(scores, labels, 1.0, 4.0).item() == pytest.approx(0.6)


def test_gradient_is_counted_pairs():
    scores = torch.tensor([[0.5, 0.4, 0.45]], requires_grad=True)
    ranking_losses(scores, torch.tensor([[1.0, 0.0, 0.0]]), 1.0, 4.0).backward()
    assert torch.equal(scores.grad, torch.tensor([[-8.0, 4.0, 4.0]]))
