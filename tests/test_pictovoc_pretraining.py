import dataclasses
import json
from itertools import pairwise

import pytest
import torch
from torch import nn

from t2ipal.pictovoc import pretraining
from t2ipal.pictovoc.pretraining import PretrainConfig, step_generator, train_steps

LOOP = PretrainConfig(
    12, 4, learning_rate=0.05, warmup_steps=3, ema_decay=0.9, checkpoint_steps=4, seed=3
)


class Toy:
    """Linear regression whose data are drawn from the step's own generator."""

    def __init__(self, config, stop_at=None):
        torch.manual_seed(config.seed)
        self.model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))
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


@pytest.mark.parametrize("ema_decay", [0.9, 0.0])
def test_resumed_training_ends_at_the_same_weights(tmp_path, ema_decay):
    config = dataclasses.replace(LOOP, ema_decay=ema_decay)
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
    config = PretrainConfig(100, 1, learning_rate=2.0, warmup_steps=10)
    rates = [pretraining._learning_rate(config, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0) and rates[100] == pytest.approx(0.0)
    assert all(before > after for before, after in pairwise(rates[10:]))


def test_gradients_are_averaged_over_processes(monkeypatch):
    model = nn.Linear(2, 3)
    model(torch.ones(1, 2)).sum().backward()
    mine = [p.grad.clone() for p in model.parameters()]
    # The other process has three times these gradients.
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.mul_(4))
    pretraining._share_gradients(model, 2)
    for parameter, grad in zip(model.parameters(), mine, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * grad)


@pytest.mark.parametrize("name", ["num_steps", "batch_size", "checkpoint_steps"])
def test_pretraining_settings_are_checked(name):
    with pytest.raises(ValueError, match=f"{name} must be > 0, got 0"):
        PretrainConfig(**{"num_steps": 1, "batch_size": 1, name: 0})
