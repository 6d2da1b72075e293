import dataclasses
import json
from itertools import pairwise
from unittest import mock

import pytest
import torch
from torch import nn

from t2ipal.pretraining import loop as pretraining
from t2ipal.pretraining import muon
from t2ipal.pretraining.loop import PretrainConfig, step_generator, train_steps

LOOP = PretrainConfig(
    12, 4, learning_rate=0.05, warmup_steps=3, ema_decay=0.9, checkpoint_steps=4, seed=3
)


class Toy:
    """Linear regression whose data are drawn from the step's own generator."""

    def __init__(self, config, stop_at=None):
        torch.manual_seed(config.seed)
        width = 32 if config.matrix_learning_rate else 5
        first = [nn.Linear(3, width), nn.Linear(width, width)][: 1 + (width > 5)]
        self.model = nn.Sequential(*first, nn.BatchNorm1d(width), nn.Linear(width, 1))
        self.config, self.stop_at = config, stop_at

    def loss(self, step):
        if step == self.stop_at:
            raise KeyboardInterrupt
        inputs = torch.randn(16, 3, generator=step_generator(self.config, step))
        loss = (self.model(inputs)[:, 0] - inputs.sum(dim=1)).square().mean()
        return loss, {"loss": loss.item()}

    def train(self, work_dir):
        return train_steps("toy", self.model, self.loss, self.config, work_dir)


def assert_same_weights(ours, theirs):
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


@pytest.mark.parametrize(
    "changes", [{}, {"ema_decay": 0.0}, {"matrix_learning_rate": 0.05}], ids=str
)
def test_resumed_training_ends_at_the_same_weights(tmp_path, changes):
    config = dataclasses.replace(LOOP, **changes)
    undisturbed = Toy(config)
    result = undisturbed.train(tmp_path / "one")
    assert result["seconds"] > 0
    for stop in (6, 10):  # both after a checkpoint: the steps since then are done again
        with pytest.raises(KeyboardInterrupt):
            Toy(config, stop).train(tmp_path / "two")
    resumed = Toy(config)
    assert resumed.train(tmp_path / "two")["loss"] == result["loss"]
    assert_same_weights(resumed.model, undisturbed.model)
    lines = (tmp_path / "two" / "toy.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [4, 8, 12]

    finished = Toy(config)
    assert finished.train(tmp_path / "one") == result  # nothing is left to do
    assert_same_weights(finished.model, undisturbed.model)
    assert not finished.model.training


def test_averaged_weights_are_shipped(tmp_path):
    averaged, last = Toy(LOOP), Toy(dataclasses.replace(LOOP, ema_decay=0.0))
    averaged.train(tmp_path / "one")
    last.train(tmp_path / "two")
    assert not torch.equal(averaged.model[0].weight, last.model[0].weight)

    slow = Toy(dataclasses.replace(LOOP, ema_decay=0.0))
    mean = {name: value.clone() for name, value in slow.model.state_dict().items()}
    original = torch.optim.AdamW.step

    def step(optimizer, closure=None):
        original(optimizer, closure)
        number = step.count = step.count + 1
        decay = min(0.9, number / (number + 9))
        for name, value in slow.model.state_dict().items():
            mean[name] = decay * mean[name] + (1 - decay) * value

    step.count = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        slow.train(tmp_path / "three")
    for name in ("0.weight", "2.bias", "1.running_mean"):
        torch.testing.assert_close(averaged.model.state_dict()[name], mean[name])


def test_other_settings_are_refused(tmp_path):
    Toy(LOOP).train(tmp_path)
    other = Toy(dataclasses.replace(LOOP, learning_rate=0.01))
    with pytest.raises(ValueError, match=r"toy\.ckpt was written with other settings"):
        other.train(tmp_path)


def test_a_loss_that_is_not_finite_stops(tmp_path):
    toy = Toy(LOOP)

    def loss(step):
        loss, terms = toy.loss(step)
        return loss / (5 - step), terms

    with pytest.raises(RuntimeError, match="loss of toy must be finite, got inf at step 5"):
        train_steps("toy", toy.model, loss, LOOP, tmp_path)


def test_learning_rate_warms_up_and_falls_to_zero():
    config = PretrainConfig(100, 1, warmup_steps=10)
    rates = [pretraining._share_of_peak(config, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5) and rates[100] == pytest.approx(0.0)
    assert all(before > after for before, after in pairwise(rates[10:]))


# In bfloat16 the order of a sum shows in Muon's third digit.
@mock.patch.object(muon, "computes_bf16", lambda device: False)
def train_share(rank, world, folder):
    """Trains on every world-th row of each batch; process 0 keeps the weights."""
    torch.set_num_threads(1)
    if world > 1:
        meeting = f"file://{folder}/meeting"
        torch.distributed.init_process_group(
            "gloo", init_method=meeting, rank=rank, world_size=world
        )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 48, 3), nn.Conv2d(48, 33, 1), nn.Conv2d(33, 2, 1))

    def loss(step):
        generator = torch.Generator().manual_seed(step)
        rows = torch.randn(8, 32, 5, 5, generator=generator)[rank::world]
        return model(rows).square().mean(), {}

    config = PretrainConfig(5, 8, matrix_learning_rate=0.01, warmup_steps=2)
    train_steps("shared", model, loss, config, folder / f"work{world}")
    if rank == 0:
        torch.save(model.state_dict(), folder / f"{world}.pt")
    if world > 1:  # gloo's threads abort a process that ends before its group
        torch.distributed.destroy_process_group()


def test_two_processes_train_as_one(tmp_path):
    """Gradients are averaged, and Muon's work is shared out, without changing the result."""
    train_share(0, 1, tmp_path)
    torch.multiprocessing.spawn(train_share, (2, tmp_path), nprocs=2)
    alone, together = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (1, 2))
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["num_steps", "batch_size", "checkpoint_steps"])
def test_pretraining_settings_are_checked(name):
    with pytest.raises(ValueError, match=f"{name} must be > 0, got 0"):
        PretrainConfig(**{"num_steps": 1, "batch_size": 1, name: 0})


def test_matrices_and_kernels_are_trained_by_muon(tmp_path):
    """An update has singular values near 1, whatever its gradient's are; the rest is Adam's."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 48, 3), nn.Conv2d(48, 8, 1))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    gradients = [torch.randn(p.shape, generator=generator) for p in before]
    config = PretrainConfig(
        1, 1, learning_rate=0.01, matrix_learning_rate=0.1, warmup_steps=1, weight_decay=0.0
    )

    def loss(step):
        pairs = zip(model.parameters(), gradients, strict=True)
        return sum((parameter * gradient).sum() for parameter, gradient in pairs), {}

    train_steps("muon", model, loss, config, tmp_path)
    after = [parameter.detach() for parameter in model.parameters()]
    kernels, *rest = (new - old for new, old in zip(after, before, strict=True))
    # 0.2 sqrt(longer side) gives the update AdamW's size; Newton-Schulz ends near 1, not at it.
    values = torch.linalg.svdvals(kernels.flatten(1)) / (0.1 * 0.2 * (32 * 9) ** 0.5)
    assert values.min() > 0.6 and values.max() < 1.3
    for update, gradient in zip(rest, gradients[1:], strict=True):
        torch.testing.assert_close(update, -0.01 * gradient.sign(), rtol=0.02, atol=1e-5)
