import dataclasses
import io
import math
import os

import pytest
import torch
from fake_clip import FakeClip, config, images, texts, training_features, unit
from torch.utils._python_dispatch import TorchDispatchMode

from t2ipal.config import from_dict, to_dict
from t2ipal.evaluation.evaluate import evaluate
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.sets import TrainingFeatures
from t2ipal.methods.t2ipal import T2IPAL
from t2ipal.training.loop import (
    TrainingConfig,
    autocast,
    choose_images,
    epoch_generator,
    fit,
    lr_at,
    make_optimizer,
    usable_images,
)

SHORT = TrainingConfig(num_epochs=4, batch_size=16, lr=0.01)


class Memory:
    """A checkpoint after every epoch, kept here."""

    data = None

    def __str__(self):
        return "this process"

    def read(self):
        return self.data

    def write(self, data):
        self.data = data

    def is_due(self, is_last):
        return True


def train(data=None, training=SHORT, *, changes=None, **arguments):
    method = T2IPAL(config(**(changes or {})), FakeClip(), seed=training.seed)
    return fit(method, data or training_features(), training, **arguments)


def constants(result):
    values = vars(result.recognizer.scorer).values()
    return [value for value in values if isinstance(value, torch.Tensor)]


def same(first, second):
    return first.history == second.history and all(
        torch.equal(a, b) for a, b in zip(constants(first), constants(second), strict=True)
    )


def test_learns():
    test = images(200, seed=77)
    method = T2IPAL(config(), FakeClip())
    before = evaluate(method.export(), test).mAP
    training = TrainingConfig(num_epochs=15, batch_size=16, lr=0.003, warmup_epochs=0)
    result = fit(method, training_features(), training)
    assert result.history[-1].loss < 0.9 * result.history[0].loss
    assert evaluate(result.recognizer, test).mAP > before + 6
    weight = config().image_weight
    for record in result.history:
        total = weight * record.image_loss + (1 - weight) * record.text_loss
        assert record.loss == pytest.approx(total, rel=1e-5)


def test_same_seed_same_result():
    first, second = train(), train()
    assert same(first, second)
    other = train(training=dataclasses.replace(SHORT, seed=1))
    assert not same(first, other)


@pytest.mark.parametrize("stop", [1, 3])
def test_resumed_is_uninterrupted(stop):
    class Killed(Exception):
        pass

    def kill(record):
        if record.epoch == stop - 1:
            raise Killed

    whole = train(changes={"aggregation": "learnable", "residual": "learnable"})
    changes = {"aggregation": "learnable", "residual": "learnable"}
    memory = Memory()
    with pytest.raises(Killed):
        train(changes=changes, checkpoints=memory, on_epoch=kill)
    seen = []
    resumed = train(
        changes=changes, checkpoints=memory, on_epoch=lambda record: seen.append(record.epoch)
    )
    assert seen == list(range(stop, 4))
    assert same(whole, resumed)
    again = train(changes=changes, checkpoints=memory)  # nothing left to do
    assert same(whole, again)


def test_a_checkpoint_is_written_when_it_is_due():
    class Seldom(Memory):
        def __init__(self):
            self.asked, self.written = [], 0

        def write(self, data):
            super().write(data)
            self.written += 1

        def is_due(self, is_last):
            self.asked.append(is_last)
            return len(self.asked) == 2

    seldom = Seldom()
    train(checkpoints=seldom)
    assert seldom.asked == [False, False, False, True] and seldom.written == 1
    seen = []
    train(checkpoints=seldom, on_epoch=lambda record: seen.append(record.epoch))
    assert seen == [2, 3]
    other = Seldom()
    train(checkpoints=other, rank=1)  # only the first worker writes
    assert other.asked == [] and other.data is None


def test_checkpoint_of_other_settings():
    memory = Memory()
    train(checkpoints=memory)
    message = r"in this process was .*training.lr: 0.01 there, 0.1 here.*Remove it, or use another"
    with pytest.raises(ValueError, match=message):
        train(training=dataclasses.replace(SHORT, lr=0.1), checkpoints=memory)
    with pytest.raises(ValueError, match=r"method\.sharpness"):
        train(changes={"sharpness": 2.0}, checkpoints=memory)
    with pytest.raises(ValueError, match="num_captions: 40 there, 30 here"):
        train(training_features(30), checkpoints=memory)
    fresh = train(training=dataclasses.replace(SHORT, lr=0.1), checkpoints=Memory())
    assert len(fresh.history) == 4


@pytest.mark.parametrize("cut", [0, 10, -100])
def test_a_damaged_checkpoint_is_named(cut):
    memory = Memory()
    train(checkpoints=memory)
    memory.data = memory.data[:cut]
    with pytest.raises(ValueError, match=r"checkpoint in this process is damaged\. Remove it\."):
        train(checkpoints=memory)


def test_a_checkpoint_of_a_stranger_runs_nothing(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    memory, buffer = Memory(), io.BytesIO()
    torch.save({"settings": Trap()}, buffer)
    memory.data = buffer.getvalue()
    with pytest.raises(ValueError, match=r"checkpoint in this process is damaged\. Remove it\."):
        train(checkpoints=memory)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("change", ["no history", "no optimizer", "other shapes", "a list"])
def test_a_checkpoint_of_another_version(change):
    memory = Memory()
    train(checkpoints=memory)
    stored = torch.load(io.BytesIO(memory.data), weights_only=True)
    if change == "other shapes":
        stored["method"] = {name: value[..., :1] for name, value in stored["method"].items()}
    elif change == "a list":
        stored = [1]
    else:
        del stored[change.removeprefix("no ")]
    buffer = io.BytesIO()
    torch.save(stored, buffer)
    memory.data = before = buffer.getvalue()
    message = "The checkpoint in this process was written by another version of t2ipal, .* Remove"
    with pytest.raises(ValueError, match=message):
        train(checkpoints=memory)
    assert memory.data == before


def test_a_checkpoint_of_another_precision():
    memory = Memory()
    train(checkpoints=memory)
    with pytest.raises(ValueError, match=r"precision: missing there, 'bf16' here|precision"):
        train(training=dataclasses.replace(SHORT, precision="bf16"), checkpoints=memory)


def test_image_choice():
    rows = torch.tensor([[4, 5, 6], [-1, 7, -1], [-1, -1, -1], [-1, 8, 9]])
    data = dataclasses.replace(training_features(4), image_of_caption=rows)
    usable = usable_images(data, TrainingConfig())
    assert usable.tolist() == [[4, 5, 6], [7, -1, -1], [-1, -1, -1], [8, 9, -1]]
    two = usable_images(data, TrainingConfig(images_per_caption=2))
    assert two.tolist() == [[4, 5], [7, -1], [-1, -1], [8, -1]]
    draws = torch.stack([choose_images(usable, epoch_generator(0, e)) for e in range(600)])
    assert set(draws[:, 0].tolist()) == {4, 5, 6}
    assert set(draws[:, 1].tolist()) == {7}
    assert set(draws[:, 2].tolist()) == {-1}
    for row in (4, 5, 6):
        assert (draws[:, 0] == row).float().mean() == pytest.approx(1 / 3, abs=0.07)


def test_epochs_see_every_caption_once_with_its_own_images(monkeypatch):
    data, seen = training_features(), []
    captions = {tuple(row.tolist()): i for i, row in enumerate(data.texts.global_features)}
    pictures = {tuple(row.tolist()): i for i, row in enumerate(data.images.global_features)}
    plain = T2IPAL.loss

    def spy(self, images, texts, **counts):
        seen.append(
            (
                [pictures[tuple(r.tolist())] for r in images.global_features],
                [captions[tuple(r.tolist())] for r in texts.global_features],
                counts,
            )
        )
        return plain(self, images, texts, **counts)

    monkeypatch.setattr(T2IPAL, "loss", spy)
    train(data, dataclasses.replace(SHORT, num_epochs=2))
    for epoch in (seen[:3], seen[3:]):
        assert sorted(row for _, rows, _ in epoch for row in rows) == list(range(40))
        for image_rows, rows, counts in epoch:
            owners = [row % 40 for row in image_rows]
            assert owners == [row for row in rows if (data.image_of_caption[row] >= 0).any()]
            assert counts == {"num_images": len(image_rows), "num_texts": len(rows)}
    assert seen[0][1] != seen[3][1]


def test_weights_leave_branches_out():
    data = training_features()
    texts_only = train(data, changes={"image_weight": 0.0})
    assert all(record.image_loss == 0 for record in texts_only.history)
    without = dataclasses.replace(data, images=None)
    assert same(texts_only, train(without, changes={"image_weight": 0.0})) is True
    images_only = train(data, changes={"image_weight": 1.0})
    assert all(record.text_loss == 0 for record in images_only.history)


def test_no_epochs_leave_the_start():
    method = T2IPAL(config(), FakeClip(), seed=3)
    start = method.export().scorer
    result = fit(method, training_features(), TrainingConfig(num_epochs=0))
    assert result.history == ()
    scorer = result.recognizer.scorer
    assert torch.equal(scorer.prototypes, start.prototypes)
    assert torch.equal(scorer.global_embeddings, start.global_embeddings)


def test_learning_rate():
    training = TrainingConfig(lr=1.0)
    rates = [lr_at(training, epoch) for epoch in range(20)]
    assert rates[:2] == [1e-5, 1.0]
    assert rates[11] == pytest.approx(0.5)
    assert rates[19] == pytest.approx((1 + math.cos(math.pi * 18 / 20)) / 2)


def test_prototypes_own_learning_rate():
    slow = dataclasses.replace(SHORT, prototype_lr=1e-9, weight_decay=0.0, warmup_epochs=0)
    start = T2IPAL(config(), FakeClip()).export().scorer.prototypes
    assert torch.allclose(train(training=slow).recognizer.scorer.prototypes, start, atol=1e-6)
    assert not torch.allclose(train().recognizer.scorer.prototypes, start, atol=1e-3)


def test_bad_input():
    data = training_features()
    with pytest.raises(ValueError, match=r"image_weight 0.6 needs synthetic images, got none"):
        train(dataclasses.replace(data, images=None))
    none = torch.full_like(data.image_of_caption, -1)
    with pytest.raises(ValueError, match="needs synthetic images"):
        train(dataclasses.replace(data, image_of_caption=none))
    for changes, message in [
        ({"num_epochs": -1}, "num_epochs must be >= 0, got -1"),
        ({"batch_size": 0}, "batch_size must be > 0, got 0"),
        ({"lr": 0.0}, "lr must be > 0"),
        ({"prototype_lr": -1.0}, "prototype_lr must be > 0"),
        ({"images_per_caption": 0}, "images_per_caption must be > 0"),
        ({"momentum": 1.0}, "momentum must be >= 0 and < 1, got 1.0"),
        ({"seed": -1}, "seed must be >= 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            TrainingConfig(**changes)


def test_config_survives_json():
    assert from_dict(TrainingConfig, to_dict(SHORT)) == SHORT


class Forbid(TorchDispatchMode):
    """Refuses what waits for a device."""

    waits = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal")

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        name = function.overloadpacket.__name__
        masked = name == "index" and any(
            index is not None and index.dtype == torch.bool for index in arguments[1]
        )
        assert name not in self.waits and not masked, name
        return function(*arguments, **(named or {}))


@pytest.fixture(scope="module")
def true_method():
    """T2I-PAL before the CLIP that ships, and a batch."""
    backbone = load_backbone(BackboneConfig())
    method = T2IPAL(config(aggregation="learnable", residual="learnable"), backbone)

    def as_wide(features):
        columns = {
            name: unit(*value.shape[:-1], backbone.embed_dim, seed=3)
            for name, value in vars(features).items()
            if name.endswith("features") and value is not None
        }
        return dataclasses.replace(features, **columns)

    data = TrainingFeatures(as_wide(texts()), as_wide(images()), torch.arange(40).unsqueeze(1))
    method.prepare(data)
    return method, data


def gradients(method, loss, data):
    method.zero_grad()
    total = loss(data.images, data.texts, num_images=40, num_texts=40).total
    total.backward()
    return [total.detach(), *(parameter.grad.clone() for parameter in method.parameters())]


def test_a_step_waits_for_no_device(true_method):
    method, data = true_method
    optimizer = make_optimizer(method.parameter_groups(SHORT), SHORT)
    with Forbid():
        gradients(method, method.loss, data)
        optimizer.step()
    with pytest.raises(AssertionError, match="nonzero"), Forbid():
        data.texts.labels.nonzero()


def test_a_step_is_one_graph(true_method):
    """With the same numbers: no shape depends on what a tensor holds, nothing is asked midway."""
    method, data = true_method
    compiled = torch.compile(method.loss, fullgraph=True, backend="eager")
    for expected, found in zip(
        gradients(method, method.loss, data), gradients(method, compiled, data)
    ):
        assert torch.allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_precision(true_method):
    """bf16 reaches the text encoder; what it gives, the scores and the loss stay in float32."""
    method, data = true_method
    cpu = torch.device("cpu")
    exact = gradients(method, method.loss, data)
    with autocast("auto", cpu):
        assert all(map(torch.equal, exact, gradients(method, method.loss, data)))
    with autocast("bf16", cpu):
        rough = gradients(method, method.loss, data)
        assert all(part.dtype == torch.float32 for part in method.class_embeddings())
    assert rough[0] != exact[0] and torch.allclose(rough[0], exact[0], rtol=1e-2)
    assert not any(map(torch.equal, exact[1:3], rough[1:3]))
    first = fit(method, data, dataclasses.replace(SHORT, precision="bf16"))
    assert first.recognizer.scorer.global_embeddings.dtype == torch.float32
    assert to_dict(SHORT) == to_dict(dataclasses.replace(SHORT, precision="auto"))
    with pytest.raises(ValueError, match="Unknown precision 'fp16'"):
        TrainingConfig(precision="fp16")
