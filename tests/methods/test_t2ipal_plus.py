import dataclasses
import math

import numpy as np
import pytest
import torch
from fake_clip import NAMES, PROMPT_NAMES, WIDTH, FakeClip, images, training_features, unit
from torch.nn import functional

from t2ipal.features.sets import TrainingFeatures
from t2ipal.methods import t2ipal_plus
from t2ipal.methods.recognizer import FULL
from t2ipal.methods.stored import load_recognizer
from t2ipal.methods.t2ipal import Numbers
from t2ipal.methods.t2ipal_plus import T2IPALPlusConfig
from t2ipal.store import Store
from t2ipal.training.loop import TrainingConfig, fit
from t2ipal.training.recipes import Recipe, recipe
from t2ipal.training.stacked import Stack, stack_key

TRAINING = TrainingConfig(num_epochs=4, batch_size=16, lr=0.05, prototype_lr=0.5)


def synthetic() -> TrainingFeatures:
    """Captions and images, whose CLIP's own output is another feature than the global one."""
    data = training_features()
    own = functional.normalize(data.images.global_features @ unit(WIDTH, WIDTH, seed=3), dim=-1)
    seen = dataclasses.replace(data.images, pooled_features=own)
    return TrainingFeatures(data.texts, seen, data.image_of_caption)


def config(**changes) -> T2IPALPlusConfig:
    return T2IPALPlusConfig(**{"class_names": NAMES, "prompt_names": PROMPT_NAMES, **changes})


def fitted(data=None, training=TRAINING, **changes):
    data = synthetic() if data is None else data
    return fit(config(**changes).build(FakeClip(), training.seed), data, training).recognizer


def slow_whitening(rows, shrinkage):
    """As a textbook has it, in numpy."""
    mean, covariance = rows.mean(axis=0), np.cov(rows.T, bias=True)
    width = len(mean)
    covariance = covariance + shrinkage * np.trace(covariance) / width * np.eye(width)
    values, vectors = np.linalg.eigh(covariance)
    return mean, vectors @ np.diag(values**-0.5) @ vectors.T


def used_images(data):
    return data.images.rows(torch.unique(data.image_of_caption[data.image_of_caption >= 0]))


def slow_evidence(model, rows, one):
    """Of one image, one class and one location at a time, with whitened features."""
    whole = torch.cat([rows.global_features, rows.pooled_features], dim=1).double().numpy()
    mean, matrix = slow_whitening(whole, model.config.shrinkage)
    own = torch.cat([one.global_features, one.pooled_features], dim=1)[0].double().numpy()
    local_mean, local_matrix = slow_whitening(
        rows.local_features.flatten(0, 1).double().numpy(), model.config.shrinkage
    )
    evidence = []
    for at in range(len(NAMES)):
        weights = model.weights[at].detach().double().numpy()
        patch = model.patch_weights[at].detach().double().numpy()
        places = [
            math.exp((place - local_mean) @ local_matrix @ patch)
            for place in one.local_features[0].double().numpy()
        ]
        score = (own - mean) @ matrix @ weights + model.bias[at].item()
        evidence.append(score + math.log(sum(places) / len(places)))
    return np.array(evidence)


def test_scores_and_loss_against_loops():
    data = synthetic()
    model = config(image_weight=0.3, ridge=0.01).build(FakeClip(), 1)
    fit(model, data, TRAINING)
    rows, scorer = used_images(data), model.export().scorer
    evidence = np.stack([slow_evidence(model, rows, rows.rows(slice(i, i + 1))) for i in range(6)])
    test = rows.rows(slice(0, 6))
    assert np.allclose(scorer.parts(test).evidence.numpy(), evidence, atol=2e-4)

    every = np.stack(
        [slow_evidence(model, rows, rows.rows(slice(i, i + 1))) for i in range(len(rows))]
    )
    prompts = scorer.prompted.scores(rows)
    zero_shot = FULL(rows.pooled_features @ scorer.zero_shot_embeddings.T)
    parts = every, prompts.numpy(), zero_shot.numpy()
    scaled = [part / part.std(axis=0).mean() for part in parts]
    wanted = sum(scaled)
    assert np.allclose(scorer.scores(rows).numpy(), wanted, atol=2e-3)

    labels = test.labels.numpy()
    entropy = np.log1p(np.exp(evidence)) - labels * evidence
    squares = model.weights.square().sum() + model.patch_weights.square().sum()
    ours = model.loss(test, None).total - model.prompted.loss(test, None).total
    assert ours.item() == pytest.approx(
        entropy.sum(axis=1).mean() + 0.005 * squares.item(), rel=1e-4
    )


def test_each_part_alone_ranks_the_images_of_a_class_as_it_does():
    data, test = synthetic(), images(20, seed=9)
    alone = fitted(data, image_weight=0.6, discriminant_weight=0.0, zero_shot_weight=0.0)
    start = recipe("t2ipal", "coco2014", NAMES, PROMPT_NAMES)
    theirs = fit(start.method.build(FakeClip(), 0), data, TRAINING).recognizer.scores(test)
    spread = alone.scorer.spreads[1]
    torch.testing.assert_close(alone.scores(test) * spread, theirs, rtol=0, atol=1e-5)
    zero = fitted(data, discriminant_weight=0.0, prompt_weight=0.0)
    words = [f"a photo of a {name}." for name in PROMPT_NAMES]
    cosines = test.pooled_features @ FakeClip().encode_text(words).T
    scaled = FULL(cosines) / zero.scorer.spreads[2]
    torch.testing.assert_close(zero.scores(test), scaled, rtol=0, atol=1e-5)


def test_what_is_learned_beside_each_other_does_not_meet():
    """Discriminants change nothing of T2I-PAL's part, and learn nothing from captions."""
    data = synthetic()
    ours = fitted(data, image_weight=0.6).scorer
    start = recipe("t2ipal", "coco2014", NAMES, PROMPT_NAMES)
    theirs = fit(start.method.build(FakeClip(), 0), data, TRAINING).recognizer.scorer
    assert torch.equal(ours.prototypes, theirs.prototypes)
    assert torch.equal(ours.global_embeddings, theirs.global_embeddings)
    turned = dataclasses.replace(data.texts, labels=1 - data.texts.labels)
    other = TrainingFeatures(turned, data.images, data.image_of_caption)
    other = fitted(other, image_weight=0.6).scorer
    assert torch.equal(ours.global_weights, other.global_weights)
    assert not torch.equal(ours.global_embeddings, other.global_embeddings)


def test_images_that_training_may_not_draw_change_nothing():
    data = synthetic()
    few = dataclasses.replace(TRAINING, images_per_caption=1)
    first = data.image_of_caption.clone()
    first[first[:, 0] < 0, 0] = first[first[:, 0] < 0, 1]
    unused = torch.tensor(sorted(set(range(80)) - set(first[:, 0].tolist())))
    spoiled = {
        name: getattr(data.images, name).index_copy(0, unused, values)
        for name, values in {
            "global_features": unit(len(unused), WIDTH, seed=5),
            "pooled_features": unit(len(unused), WIDTH, seed=6),
            "local_features": unit(len(unused), 9, WIDTH, seed=7),
            "labels": 1 - data.images.labels[unused],
        }.items()
    }
    pair = [
        fitted(TrainingFeatures(data.texts, part, data.image_of_caption), few).scorer
        for part in (data.images, dataclasses.replace(data.images, **spoiled))
    ]
    for name in ("global_weights", "bias", "patch_weights", "spreads"):
        assert torch.equal(getattr(pair[0], name), getattr(pair[1], name)), name


def test_it_starts_at_the_log_odds_of_each_class():
    data = synthetic()
    labels = data.images.labels.clone()
    labels[:, 0] = 0
    part = dataclasses.replace(data.images, labels=labels)
    model = config().build(FakeClip())
    model.prepare(TrainingFeatures(data.texts, part, data.image_of_caption))
    rows = torch.unique(data.image_of_caption[data.image_of_caption >= 0])
    odds = labels[rows].sum(dim=0).clamp(min=0.5) / len(rows)
    torch.testing.assert_close(model.bias.detach(), torch.log(odds / (1 - odds)))
    assert not model.weights.any() and not model.patch_weights.any()


def test_many_images_are_read_in_blocks_and_thinned(monkeypatch):
    data = synthetic()
    rows = used_images(data)
    for name, value in (("BLOCK_VALUES", 7 * 9 * WIDTH), ("WHITENED", 30), ("REFERENCE", 20)):
        monkeypatch.setattr(t2ipal_plus, name, value)
    model = config().build(FakeClip())
    model.prepare(data)
    some = rows.local_features[torch.arange(30) * len(rows) // 30].flatten(0, 1)
    mean, matrix = slow_whitening(some.double().numpy(), 0.1)
    assert np.allclose(model._local.mean.numpy(), mean, atol=1e-6)
    assert np.allclose(model._local.matrix.numpy(), matrix, atol=1e-3)
    few = rows.rows(torch.arange(20) * len(rows) // 20)
    with torch.no_grad():
        model.weights.normal_(generator=torch.Generator().manual_seed(0))
    scorer = model.export().scorer
    spreads = [part.std(dim=0, correction=0).mean() for part in scorer.parts(few)]
    torch.testing.assert_close(scorer.spreads, torch.stack(spreads))


def test_few_classes_keep_their_zero_shot_scores():
    """Two normalized scores are always 1 and -1, whatever they were."""
    data, columns = synthetic(), slice(0, 2)
    texts, part = (
        dataclasses.replace(each, labels=each.labels[:, columns])
        for each in (data.texts, data.images)
    )
    few = {"class_names": NAMES[columns], "prompt_names": PROMPT_NAMES[columns]}
    model = config(**few).build(FakeClip())
    scorer = fit(model, TrainingFeatures(texts, part, data.image_of_caption), TRAINING)
    test = images(6)
    wanted = test.pooled_features @ scorer.recognizer.scorer.zero_shot_embeddings.T
    assert torch.equal(scorer.recognizer.scorer.parts(test).zero_shot, wanted)


def test_parts_of_a_batch_add_up():
    model, data = config().build(FakeClip()), synthetic()
    fit(model, data, TRAINING)
    test = used_images(data).rows(slice(0, 10))
    whole = model.loss(test, None).total
    parts = [
        model.loss(test.rows(part), None, num_images=10).total
        for part in (slice(0, 3), slice(3, 10), slice(10, 10))
    ]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-5)


def test_trials_are_stacked():
    data, test = synthetic(), images(20, seed=9)
    recipes = [
        Recipe(config(**changes), dataclasses.replace(TRAINING, lr=5e-3, seed=seed, data_seed=0))
        for seed, changes in enumerate(
            (
                {"ridge": 0.1, "zero_shot_weight": 0.0},
                {"discriminant_lr": 0.05},
                {"image_weight": 0.2, "prompt_weight": 2.0},
            )
        )
    ]
    assert len({stack_key(each) for each in recipes}) == 1
    methods = [each.method.build(FakeClip(), each.training.seed) for each in recipes]
    stack = Stack(methods, [each.training for each in recipes], data)
    while stack.epoch < stack.num_epochs:
        stack.train_epoch()
    for trial, (each, scores) in enumerate(zip(recipes, stack.scores(test), strict=True)):
        method = each.method.build(FakeClip(), each.training.seed)
        alone = fit(method, data, each.training).recognizer
        torch.testing.assert_close(scores, alone.scores(test), rtol=0, atol=2e-3)
        out = stack.recognizer(trial)
        torch.testing.assert_close(out.scores(test), alone.scores(test), rtol=0, atol=2e-3)


def test_it_has_t2ipals_numbers_and_its_own():
    names = t2ipal_plus.PlusNumbers._fields
    assert names[: len(Numbers._fields)] == Numbers._fields
    slow, fast = (fitted(discriminant_lr=rate).scorer.bias for rate in (1e-4, 0.2))
    assert not torch.allclose(slow, fast, atol=1e-3)


def test_trials_with_other_images_are_not_stacked():
    """The whitening is of one set of images; T2I-PAL's trials may share what they are given."""
    keys = {
        method: {
            stack_key(Recipe(made, dataclasses.replace(TRAINING, images_per_caption=n)))
            for n in (1, 2)
        }
        for method, made in (
            ("plus", config()),
            ("t2ipal", recipe("t2ipal", "coco2014", NAMES, PROMPT_NAMES).method),
        )
    }
    assert {name: len(each) for name, each in keys.items()} == {"plus": 2, "t2ipal": 1}


@pytest.mark.parametrize("changes", [{}, {"patches": False}, {"adapter": "none"}], ids=str)
def test_stored_and_read_back(tmp_path, changes):
    recognizer, test = fitted(**changes), images(5, seed=3)
    recognizer.save(Store(str(tmp_path)), "here")
    back = load_recognizer(Store(str(tmp_path)), "here")
    assert torch.equal(back.scores(test), recognizer.scores(test))
    heatmap = back.scorer.heatmap(test.local_features)
    if back.config.patches:
        evidence = test.local_features[2] @ back.scorer.patch_weights[1] + back.scorer.patch_bias[1]
        torch.testing.assert_close(heatmap[2, 1], torch.softmax(evidence, dim=0))
    else:
        assert torch.equal(heatmap, back.scorer.prompted.heatmap(test.local_features))


def test_a_class_that_no_image_shows_and_images_all_alike_stay_finite():
    data = synthetic()
    labels = data.images.labels.clone()
    labels[:, 0] = 0
    labels[:, 1] = 1
    same = data.images.rows(torch.zeros(80, dtype=torch.long))
    for part in (dataclasses.replace(data.images, labels=labels), same):
        found = fitted(TrainingFeatures(data.texts, part, data.image_of_caption))
        assert found.scores(images(5)).isfinite().all()


def test_what_it_cannot_learn_from_is_refused():
    data = synthetic()
    nothing = torch.full_like(data.image_of_caption, -1)
    with pytest.raises(ValueError, match="learns from synthetic images, got 0"):
        fitted(TrainingFeatures(data.texts, data.images, nothing), image_weight=0.0)
    old = dataclasses.replace(data.images, pooled_features=None)
    with pytest.raises(ValueError, match="needs pooled_features"):
        fitted(TrainingFeatures(data.texts, old, data.image_of_caption))
    with pytest.raises(RuntimeError, match="prepare must be called"):
        config().build(FakeClip()).export()
