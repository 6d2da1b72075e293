import dataclasses
import math

import pytest
import torch
from fake_clip import NAMES, PROMPT_NAMES, FakeClip, images, texts, training_features
from tiny_clip import write_tiny_clip
from torch.nn import functional

from t2ipal.features.backbone import load_backbone, load_text_tower
from t2ipal.features.config import BackboneConfig
from t2ipal.methods.pvp import PVP, PVPConfig
from t2ipal.methods.stored import load_recognizer
from t2ipal.store import Store
from t2ipal.training.loop import TrainingConfig, fit

TRAINING = TrainingConfig(num_epochs=6, batch_size=16, lr=0.5)


def config(**changes):
    return PVPConfig(**{"class_names": NAMES, "prompt_names": PROMPT_NAMES, **changes})


def local_score(cosines, mask, temperature):
    """p' of one row and class, number by number."""
    kept = [float(c) for c, counts in zip(cosines, mask) if counts]
    weights = [math.exp((c - max(kept)) / temperature) for c in kept]
    return sum(w * c for w, c in zip(weights, kept)) / sum(weights)


def hinges(scores, labels):
    """The ranking loss, pair by pair: m = 1, s = 4."""
    rows = []
    for row, present in zip(scores, labels):
        pairs = [
            max(0.0, 1 - 4 * float(row[i]) + 4 * float(row[j]))
            for i in range(len(row)) for j in range(len(row)) if present[i] and not present[j]
        ]  # fmt: skip
        rows.append(sum(pairs))
    return sum(rows) / len(rows)


def scored(embeddings, features, temperature):
    whole, local = embeddings
    p = features.global_features @ whole.T
    masks = features.mask
    if masks is None:
        masks = torch.ones(features.local_features.shape[:2], dtype=torch.bool)
    p_local = torch.tensor(
        [
            [local_score(z @ each, mask, temperature) for each in local]
            for z, mask in zip(features.local_features, masks)
        ]
    )
    return p, p_local


def embeddings_of(model, clip):
    features = [clip.encode_pixels(each).global_features for each in model.pixels]
    return [each.detach() for each in features]


def test_stage_1s_loss_is_that_of_its_equations():
    clip, captions = FakeClip(), texts(12)
    model = PVP(config(noise=0.0), clip)
    p, p_local = scored(embeddings_of(model, clip), captions, 0.02)
    expected = hinges(p, captions.labels) + 0.1 * hinges(p_local, captions.labels)
    assert model.loss(None, captions).total.item() == pytest.approx(expected, rel=1e-5)


def test_stage_2s_loss_is_that_of_its_equations():
    clip, captions = FakeClip(), texts(12)
    model = PVP(config(noise=0.0, dropout=0.0, text_share=0.5), clip)
    with torch.no_grad():
        of_prompts = model._of_prompts()
        sets = []
        for adapter, embeddings in zip(model.adapters, (of_prompts, embeddings_of(model, clip))):
            first, second = adapter
            adapted = []
            for x in embeddings:
                hidden = (x @ first.weight.T + first.bias).clamp(min=0)
                mixed = 0.6 * x + 0.4 * (hidden @ second.weight.T + second.bias)
                adapted.append(functional.normalize(mixed, dim=-1))
            sets.append(adapted)
    prompts, pictures = sets
    expected = 0.0
    for embeddings, weight in ((prompts, 1.0), (pictures, 0.1)):
        p, p_local = scored(embeddings, captions, 0.02)
        expected += hinges(p, captions.labels) + weight * hinges(p_local, captions.labels)
    for ours, theirs in zip(prompts, pictures):
        logits = 100 * ours @ theirs.T
        for each in (logits, logits.T):
            expected -= each.log_softmax(dim=1).diagonal().mean().item() / 2
    assert model.loss(None, captions).total.item() == pytest.approx(expected, rel=1e-4)

    test = images(6)
    total = sum(part for each in sets for part in scored(each, test, 0.025))
    torch.testing.assert_close(model.export().scores(test), total, atol=1e-5, rtol=0)


def test_images_start_as_clips_colors():
    model = PVP(config(), FakeClip())
    assert model.pixels.shape == (2, len(NAMES), 3, 8, 8)
    assert model.pixels.mean().item() == pytest.approx(0.5, abs=0.05)
    assert model.pixels.std().item() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(model.pixels, PVP(config(text_share=0.2), FakeClip()).pixels)
    assert not torch.equal(model.pixels, PVP(config(), FakeClip(), 1).pixels)


def test_noise_has_its_size_and_depends_on_the_epoch_alone():
    model, captions = PVP(config(), FakeClip()), texts(20)
    first = [model._noisy(captions), model._noisy(captions)]
    model.start_epoch(3)
    later = model._noisy(captions)
    model.start_epoch(0)
    assert torch.equal(model._noisy(captions).local_features, first[0].local_features)
    assert not torch.equal(first[0].global_features, first[1].global_features)
    assert not torch.equal(first[0].global_features, later.global_features)
    norms = first[0].local_features.norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    cosines = (first[0].global_features * captions.global_features).sum(dim=-1)
    expected = 1 / math.sqrt(1 + captions.global_features.shape[1] * 0.04**2)
    assert cosines.mean().item() == pytest.approx(expected, abs=0.01)


def test_stages_learn_what_is_theirs():
    data = training_features()
    model = PVP(config(text_share=0.5), FakeClip())
    seen = []

    def note(record):
        seen.append([p.detach().clone() for p in (model.pixels, model.context)])

    start = model.pixels.detach().clone(), model.context.detach().clone()
    history = fit(model, data, TRAINING, on_epoch=note).history
    assert history[2].loss < history[0].loss
    # Epochs 0 to 2 are stage 1, 3 to 5 are stage 2.
    assert torch.equal(seen[2][1], start[1]) and not torch.equal(seen[2][0], start[0])
    assert not torch.equal(seen[5][1], seen[2][1]) and not torch.equal(seen[5][0], seen[3][0])
    alone = PVP(config(), FakeClip())
    fit(alone, data, dataclasses.replace(TRAINING, num_epochs=3))
    torch.testing.assert_close(alone.pixels, seen[2][0])


def test_rates_of_the_stages():
    rates = []
    model = PVP(config(text_share=1 / 6), FakeClip())
    training = dataclasses.replace(TRAINING, num_epochs=12, lr=0.1)
    groups = model.parameter_groups(training)
    assert [group["stages"] for group in groups] == [
        [(10, 0.1), (2, 5e-5)], [(10, 0.0), (2, 5e-5)], [(10, 0.0), (2, 1e-3)],
    ]  # fmt: skip
    from t2ipal.training.loop import _set_lr, make_optimizer

    optimizer = make_optimizer(groups, training)
    for epoch in range(12):
        _set_lr(optimizer, training, epoch)
        rates.append([group["lr"] for group in optimizer.param_groups])
    assert rates[0] == [1e-5, 0, 0] and rates[1] == [0.1, 0, 0]
    assert rates[6][0] == pytest.approx(0.05) and rates[10] == [1e-5, 1e-5, 1e-5]
    assert rates[11] == pytest.approx([5e-5, 5e-5, 1e-3])


def test_resumed_is_the_same_to_the_bit():
    class Memory:
        data = None

        def read(self):
            return self.data

        def write(self, data):
            self.data = data

        def is_due(self, is_last):
            return True

    class Killed(Exception):
        pass

    def kill(record):
        if record.epoch == 4:
            raise Killed

    data, memory, settings = training_features(), Memory(), config(text_share=0.5)
    whole = fit(PVP(settings, FakeClip()), data, TRAINING)
    with pytest.raises(Killed):
        fit(PVP(settings, FakeClip()), data, TRAINING, checkpoints=memory, on_epoch=kill)
    resumed = fit(PVP(settings, FakeClip()), data, TRAINING, checkpoints=memory)
    assert resumed.history == whole.history
    assert torch.equal(
        *(each.recognizer.scorer.text_global for each in (resumed, whole)),
    )


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_saved_and_read_back(tmp_path, share):
    recognizer = PVP(config(text_share=share), FakeClip()).export()
    recognizer.save(Store(str(tmp_path)), "a")
    back, test = load_recognizer(Store(str(tmp_path)), "a"), images(5)
    assert torch.equal(back.scores(test), recognizer.scores(test))
    assert back.config == recognizer.config


def test_gradients_reach_pixels_through_a_real_tower_and_not_its_weights(tmp_path):
    clip = load_backbone(BackboneConfig(model=str(write_tiny_clip(tmp_path))))
    colors = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    pixels = (colors.permute(0, 3, 1, 2) / 255).requires_grad_()
    features, known = clip.encode_pixels(pixels), clip.encode_images(colors)
    for name, values in vars(known).items():
        torch.testing.assert_close(getattr(features, name), values)
    features.global_features[:, 0].sum().backward()
    assert pixels.grad is not None and (pixels.grad != 0).any()
    assert all(parameter.grad is None for parameter in clip.model.parameters())
    with pytest.raises(RuntimeError, match="encode_pixels needs the visual tower"):
        load_text_tower(clip.config).encode_pixels(pixels)


def test_unknown_labels_are_refused():
    data = training_features()
    partial = dataclasses.replace(data.texts, known_from=torch.rand(data.texts.labels.shape))
    with pytest.raises(ValueError, match="all labels must be known"):
        PVP(config(), FakeClip()).prepare(dataclasses.replace(data, texts=partial))
