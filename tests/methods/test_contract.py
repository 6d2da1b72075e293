"""Any method that keeps the contract goes through `fit`, the two of the package and a third."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import fake_clip
import pytest
import torch
from fake_clip import NAMES, FakeClip, config, images, training_features
from torch import nn

from t2ipal.evaluation.evaluate import evaluate
from t2ipal.methods.class_concept import ClassConceptConfig
from t2ipal.methods.contract import FrozenBackbone, Losses
from t2ipal.methods.recognizer import Recognizer, detached
from t2ipal.training.loop import TrainingConfig, fit

SHORT = TrainingConfig(num_epochs=6, batch_size=8, lr=0.5, warmup_epochs=0)


@dataclass(frozen=True)
class LinearConfig:
    """A linear head on images alone; no field that another method has but those of the contract."""

    class_names: tuple[str, ...]
    width: int = fake_clip.WIDTH
    method: Literal["linear"] = "linear"

    def build(self, backbone, seed=0):
        return Linear(self, backbone, seed)


@dataclass(frozen=True)
class LinearScorer:
    config: LinearConfig
    weight: torch.Tensor

    @property
    def device(self):
        return self.weight.device

    def scores(self, images):
        return images.global_features @ self.weight.T

    def heatmap(self, local_features):
        return torch.softmax(local_features @ self.weight.T, dim=1).transpose(1, 2)


class Linear(nn.Module):
    uses_images, uses_texts = True, False

    def __init__(self, config, backbone, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.config, self._backbone = config, backbone.identity
        start = torch.randn(len(config.class_names), config.width, generator=generator)
        self.weight = nn.Parameter(0.01 * start)
        self.prepared = 0

    def prepare(self, data):
        self.prepared += 1

    def parameter_groups(self, training):
        return [{"params": [self.weight], "peak_lr": training.lr}]

    def loss(self, images, texts, *, num_images=None, num_texts=None):
        assert texts is None  # it said that it uses none
        wrong = nn.functional.binary_cross_entropy_with_logits(
            images.global_features @ self.weight.T, images.labels, reduction="sum"
        )
        loss = wrong / (len(images) if num_images is None else num_images)
        return Losses(loss, loss, torch.zeros(()))

    def export(self):
        return Recognizer(detached(LinearScorer(self.config, self.weight)), self._backbone)


CONFIGS = [config(), ClassConceptConfig(NAMES), LinearConfig(NAMES)]


@pytest.mark.parametrize("settings", CONFIGS, ids=lambda settings: settings.method)
def test_fit_and_export_know_no_method(settings):
    training = dataclasses.replace(SHORT, lr=0.01)
    if settings.method == "class_concept":
        training = dataclasses.replace(training, num_epochs=0)
    result = fit(settings.build(FakeClip(), 3), training_features(), training)
    assert [record.epoch for record in result.history] == list(range(training.num_epochs))
    recognizer, test = result.recognizer, images(30)
    assert (recognizer.class_names, recognizer.backbone) == (NAMES, FakeClip.identity)
    assert recognizer.scores(test).shape == (30, len(NAMES))
    heatmap = recognizer.scorer.heatmap(test.local_features)
    assert torch.allclose(heatmap.sum(dim=-1), torch.ones(30, len(NAMES)), atol=1e-5)
    assert evaluate(recognizer, test).mAP > 0


def test_a_third_method_learns_resumes_and_is_exported():
    class Memory:
        data, written = None, 0

        def read(self):
            return self.data

        def write(self, data):
            self.data, self.written = data, self.written + 1

        def is_due(self, is_last):
            return True

    class Killed(Exception):
        pass

    def kill(record):
        if record.epoch == 2:
            raise Killed

    data, test = training_features(), images(200, seed=77)
    method = LinearConfig(NAMES).build(FakeClip())
    before = evaluate(method.export(), test).mAP
    whole = fit(method, data, SHORT)
    assert method.prepared == 1
    assert whole.history[-1].loss < whole.history[0].loss
    assert evaluate(whole.recognizer, test).mAP > before + 10

    memory = Memory()
    with pytest.raises(Killed):
        fit(LinearConfig(NAMES).build(FakeClip()), data, SHORT, checkpoints=memory, on_epoch=kill)
    assert memory.written == 3
    resumed = fit(LinearConfig(NAMES).build(FakeClip()), data, SHORT, checkpoints=memory)
    assert memory.written == SHORT.num_epochs and resumed.history == whole.history
    assert torch.equal(resumed.recognizer.scorer.weight, whole.recognizer.scorer.weight)
    with pytest.raises(ValueError, match="width: 24 there, 23 here"):
        fit(LinearConfig(NAMES, 23).build(FakeClip()), data, SHORT, checkpoints=memory)


def test_an_exported_recognizer_is_independent_of_later_steps():
    for settings in (config(), LinearConfig(NAMES)):
        method = settings.build(FakeClip())
        recognizer, test = method.export(), images(5)
        before = recognizer.scores(test)
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(1)
        assert torch.equal(recognizer.scores(test), before)


def test_a_method_that_is_not_trained_takes_no_epochs():
    method = ClassConceptConfig(NAMES).build(FakeClip())
    with pytest.raises(ValueError, match="without anything to train needs num_epochs 0, got 6"):
        fit(method, training_features(), SHORT)


def test_the_fake_clip_is_a_frozen_backbone():
    """As far as names go; the real one is checked where it is built."""
    members = {name for name in vars(FrozenBackbone) if not name.startswith("_")}
    members |= set(FrozenBackbone.__annotations__)
    assert all(hasattr(FakeClip(), name) for name in members)
