import dataclasses
import json
import math

import fake_clip
import pytest
import torch
from fake_clip import FakeClip, config, images, texts, training_features, unit

from t2ipal.config import from_dict, to_dict
from t2ipal.features.prompt_tower import joined
from t2ipal.features.sets import FeatureSet
from t2ipal.methods import scoring
from t2ipal.methods.losses import ranking_losses
from t2ipal.methods.prompts import prompt_tokens, with_context
from t2ipal.methods.t2ipal import T2IPAL, T2IPALConfig, T2IPALScorer
from t2ipal.training.loop import TrainingConfig, fit

CLASSES, WIDTH = len(fake_clip.NAMES), fake_clip.WIDTH


def scorer(dtype=torch.float64, **changes) -> T2IPALScorer:
    """Random constants: every equation has something to do."""
    settings = config(**changes)
    prototypes = None if settings.adapter == "none" else unit(CLASSES, WIDTH, seed=3, dtype=dtype)
    return T2IPALScorer(
        settings,
        unit(CLASSES, WIDTH, seed=1, dtype=dtype),
        unit(CLASSES, WIDTH, seed=2, dtype=dtype),
        prototypes,
        torch.ones((), dtype=dtype),
        torch.tensor(settings.residual_ratio, dtype=dtype),
    )


def features(dtype=torch.float64, batch=6, locations=9):
    return unit(batch, WIDTH, seed=11, dtype=dtype), unit(
        batch, locations, WIDTH, seed=12, dtype=dtype
    )


def as_images(global_features, local_features) -> FeatureSet:
    return FeatureSet(
        global_features, local_features, None, torch.zeros(len(global_features), CLASSES)
    )


def slow_local_scores(local, mask, model, temperature, alpha=1.0):
    """Equations 2 to 6 with loops and lists."""
    beta = model.config.sharpness
    result = torch.zeros(len(local), CLASSES, dtype=torch.float64)
    for b in range(len(local)):
        places = [j for j in range(local.shape[1]) if mask is None or mask[b, j]]
        for i in range(CLASSES):
            p = [float(local[b, j] @ model.local_embeddings[i]) for j in places]
            weights = [math.exp(value / temperature) for value in p]
            weights = [weight / sum(weights) for weight in weights]
            attended = sum(w * local[b, j] for w, j in zip(weights, places))
            prototype = model.prototypes[i] / model.prototypes[i].norm()
            phi = math.exp(-beta * (1 - float(attended @ prototype) / float(attended.norm())))
            result[b, i] = sum(w * value for w, value in zip(weights, p)) + alpha * phi
    return result


@pytest.mark.parametrize("masked", [False, True])
def test_scores_against_loops(masked):
    model = scorer(residual_ratio=0.7, sharpness=2.0)
    global_features, local = features()
    mask = torch.arange(9) < torch.arange(3, 9).unsqueeze(1) if masked else None
    branch = model.branch_scores(global_features, local, mask, 0.1)
    expected = slow_local_scores(local, mask, model, 0.1, alpha=0.7)
    assert torch.allclose(branch.local_scores, expected, rtol=0, atol=1e-12)
    assert torch.allclose(branch.global_scores, global_features @ model.global_embeddings.T)
    model = dataclasses.replace(
        model, config=config(residual_ratio=0.7, sharpness=2.0, image_temperature=0.1)
    )
    if not masked:
        scores = model.scores(as_images(global_features, local))
        assert torch.allclose(scores, (branch.global_scores + expected) / 2)


@pytest.mark.parametrize("aggregation", ["weighted", "mean", "max", "learnable"])
def test_local_score_is_class_embedding_times_attended_feature(aggregation):
    model, (_, local) = scorer(), features()
    mask = torch.arange(9) < torch.arange(3, 9).unsqueeze(1)
    similarities = scoring.local_similarities(local, model.local_embeddings)
    heatmap = scoring.class_wise_heatmap(similarities, mask, 0.02, aggregation)
    attended = scoring.attend(heatmap, local)
    identity = torch.einsum("bcd,cd->bc", attended, model.local_embeddings)
    assert torch.allclose(scoring.aggregate(similarities, heatmap), identity, rtol=0, atol=1e-14)
    assert torch.allclose(heatmap.sum(dim=-1), torch.ones(6, CLASSES, dtype=torch.float64))
    assert not heatmap[~mask.unsqueeze(1).expand_as(heatmap)].any()


def test_temperature_limits_are_mean_and_max():
    model, (_, local) = scorer(), features()
    similarities = scoring.local_similarities(local, model.local_embeddings)

    def pooled(temperature, aggregation="weighted"):
        heatmap = scoring.class_wise_heatmap(similarities, None, temperature, aggregation)
        return scoring.aggregate(similarities, heatmap)

    assert torch.allclose(pooled(1e9), similarities.mean(dim=-1), rtol=0, atol=1e-9)
    assert torch.allclose(pooled(1.0, "mean"), similarities.mean(dim=-1), rtol=0, atol=1e-14)
    assert torch.equal(pooled(1e-6), similarities.amax(dim=-1))
    assert torch.equal(pooled(1.0, "max"), similarities.amax(dim=-1))


def test_affinity_is_one_where_feature_is_prototype():
    prototypes = unit(CLASSES, WIDTH, seed=3, dtype=torch.float64)
    attended = (0.2 * prototypes).expand(4, CLASSES, WIDTH)
    ones = torch.ones(4, CLASSES, dtype=torch.float64)
    assert torch.allclose(scoring.affinity(attended, prototypes * 5, 5.5), ones)
    opposite = scoring.affinity(-attended, prototypes, 5.5)
    assert torch.allclose(opposite, ones * math.exp(-11))
    assert torch.equal(scoring.affinity(attended, prototypes, 0.0), ones)


@pytest.mark.parametrize("aggregation", ["weighted", "mean", "max"])
def test_affinity_of_attended_features_without_them(aggregation):
    model, (_, local) = scorer(), features()
    mask = torch.arange(9) < torch.arange(3, 9).unsqueeze(1)
    results = []
    for form in (
        lambda heatmap, w: scoring.affinity(scoring.attend(heatmap, local), w, 5.5),
        lambda heatmap, w: scoring.attended_affinity(heatmap, local, w, 5.5),
    ):
        similarities = scoring.local_similarities(local, model.local_embeddings).requires_grad_()
        prototypes = (3 * model.prototypes).requires_grad_()
        heatmap = scoring.class_wise_heatmap(similarities, mask, 0.1, aggregation)
        affinities = form(heatmap, prototypes)
        affinities.sum().backward()
        results.append((affinities, prototypes.grad, similarities.grad))
    for expected, found in zip(*results):
        assert (expected is None) == (found is None)  # "mean" and "max" have no gradient there
        assert found is None or torch.allclose(found, expected, rtol=1e-12, atol=1e-13)
    nothing = torch.zeros_like(local)
    none = scoring.attended_affinity(torch.ones(6, CLASSES, 9).double() / 9, nothing, prototypes, 2)
    assert torch.allclose(none, torch.full_like(none, math.exp(-2)))


def test_residual_forms():
    prior, phi = torch.tensor([[0.2, 0.4]]), torch.tensor([[1.0, 0.5]])
    assert torch.allclose(scoring.residual(prior, phi, 0.5, "add"), torch.tensor([[0.7, 0.65]]))
    assert torch.allclose(scoring.residual(prior, phi, 0.5, "mix"), torch.tensor([[0.6, 0.45]]))
    assert torch.equal(scoring.residual(prior, phi, 1.0, "mix"), phi)
    assert torch.equal(scoring.residual(prior, phi, 0.0, "mix"), prior)


def test_global_adapter():
    model = scorer(adapter="global", residual_ratio=0.5, sharpness=2.0)
    global_features, local = features()
    plain = scorer(adapter="none").branch_scores(global_features, local, None, 0.02)
    branch = model.branch_scores(global_features, local, None, 0.02)
    phi = torch.exp(-2 * (1 - global_features @ model.prototypes.T))
    assert torch.allclose(branch.global_scores, plain.global_scores + 0.5 * phi)
    assert torch.equal(branch.local_scores, plain.local_scores)


def test_order_of_locations_changes_nothing():
    global_features, local = features()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    model = scorer()
    scores = model.scores(as_images(global_features, local))
    permuted = model.scores(as_images(global_features, local[:, order]))
    assert torch.allclose(scores, permuted, rtol=0, atol=1e-14)
    assert torch.allclose(model.heatmap(local)[..., order], model.heatmap(local[:, order]))


def test_padding_changes_nothing():
    model, (global_features, local) = scorer(), features()
    mask = torch.ones(6, 9, dtype=torch.bool)
    padded = torch.cat([local, 100 * torch.ones(6, 4, WIDTH)], dim=1)
    padded_mask = torch.cat([mask, torch.zeros(6, 4, dtype=torch.bool)], dim=1)
    for aggregation in ("weighted", "mean", "max"):
        model = scorer(aggregation=aggregation)
        first = model.branch_scores(global_features, local, mask, 0.02).local_scores
        second = model.branch_scores(global_features, padded, padded_mask, 0.02).local_scores
        assert torch.allclose(first, second, rtol=0, atol=1e-13)


# Limits of the module


def test_no_adapter_and_no_images_is_tai_dpt():
    """Scores, loss and gradient against TaI-DPT written out; alpha = 0 and no adapter agree."""
    captions, zero = texts(), dict(image_weight=0.0)
    none = T2IPAL(config(adapter="none", **zero), FakeClip(), seed=5)
    alpha = T2IPAL(config(residual_ratio=0.0, **zero), FakeClip(), seed=5)
    global_embeddings, local_embeddings = none.class_embeddings()
    similarities = torch.einsum("bnd,cd->bnc", captions.local_features, local_embeddings)
    weights = similarities.masked_fill(~captions.mask.unsqueeze(2), float("-inf")) / 0.02
    local = (weights.softmax(dim=1) * similarities).sum(dim=1)
    scores = captions.global_features @ global_embeddings.T
    expected = sum(ranking_losses(s, captions.labels, 1.0, 4.0).mean() for s in (scores, local))
    expected.backward()
    expected_gradients = [parameter.grad.clone() for parameter in none.parameters()]
    none.zero_grad()
    for method in (none, alpha):
        # The images, of another number and with other labels, must play no part.
        loss = method.loss(images(7, seed=3), captions)
        assert torch.allclose(loss.total, expected)
        assert loss.image == 0
        loss.total.backward()
        got = [method.global_context.grad, method.local_context.grad]
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(got, expected_gradients))
    assert not alpha.prototypes.grad.any()
    test = images(20, seed=8)
    assert torch.equal(none.export().scores(test), alpha.export().scores(test))


def test_tai_is_the_global_half_of_tai_dpt():
    captions = texts()
    tai = T2IPAL(config(adapter="none", image_weight=0.0, local_scores=False), FakeClip(), seed=5)
    assert [name for name, _ in tai.named_parameters()] == ["global_context"]
    dpt = T2IPAL(config(adapter="none", image_weight=0.0), FakeClip(), seed=5)
    branch = dpt.scorer().branch_scores(
        captions.global_features, captions.local_features, captions.mask, 0.02
    )
    loss = ranking_losses(branch.global_scores, captions.labels, 1.0, 4.0).mean()
    assert torch.allclose(tai.loss(None, captions).total, loss)
    test = images(20)
    assert torch.allclose(
        tai.export().scores(test), test.global_features @ dpt.class_embeddings()[0].T
    )
    assert tai.export().scorer.heatmap(test.local_features).shape == (20, CLASSES, 9)


def test_untrained_with_words_is_zero_shot_clip():
    clip, test = FakeClip(), images(20)
    embeddings = clip.encode_text([f"a photo of a {name}." for name in fake_clip.PROMPT_NAMES])
    zero_shot = dict(context_init="a photo of a", adapter="none", global_feature="pooled")
    method = T2IPAL(config(**zero_shot, local_scores=False), clip)
    assert torch.allclose(
        method.export().scores(test), test.pooled_features @ embeddings.T, atol=1e-6
    )

    local = T2IPAL(config(**zero_shot, aggregation="max"), clip).export().scorer
    assert torch.allclose(local.global_embeddings, embeddings, atol=1e-6)
    # One batch holds both halves; a matrix product may round its rows differently.
    assert torch.allclose(local.global_embeddings, local.local_embeddings, atol=1e-6)
    best = (test.local_features @ embeddings.T).amax(dim=1)
    expected = (test.pooled_features @ embeddings.T + best) / 2
    assert torch.allclose(local.scores(test), expected, atol=1e-6)

    # alpha = 0 instead of no adapter: the same.
    alpha = T2IPAL(
        config(**zero_shot | dict(adapter="local", residual_ratio=0.0, aggregation="max")), clip
    )
    assert torch.equal(alpha.export().scores(test), local.scores(test))


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_image_weight(weight):
    pictures, captions = images(30), texts(20, seed=4)
    both = T2IPAL(config(image_weight=0.5), FakeClip(), seed=1).loss(pictures, captions)
    loss = T2IPAL(config(image_weight=weight), FakeClip(), seed=1).loss(pictures, captions)
    assert torch.allclose(loss.total, weight * both.image + (1 - weight) * both.text)
    if weight == 0:
        other = T2IPAL(config(image_weight=0.0), FakeClip(), seed=1).loss(None, captions)
        assert torch.equal(loss.total, other.total)
    if weight == 1:
        other = T2IPAL(config(image_weight=1.0), FakeClip(), seed=1).loss(pictures, None)
        assert torch.equal(loss.total, other.total)


def test_loss_of_parts_adds_up():
    pictures, captions = images(30), texts(20, seed=4)
    method = T2IPAL(config(), FakeClip())
    whole = method.loss(pictures, captions)
    parts = [
        method.loss(
            pictures.rows(slice(start, None, 2)),
            captions.rows(slice(start, None, 2)),
            num_images=30,
            num_texts=20,
        )
        for start in range(2)
    ]
    assert torch.allclose(whole.total, parts[0].total + parts[1].total)
    nothing = method.loss(
        pictures.rows(slice(0, 0)), captions.rows(slice(0, 0)), num_images=1, num_texts=1
    )
    nothing.total.backward()
    assert nothing.total == 0


# What is learned


@pytest.mark.parametrize(
    "changes, names",
    [
        ({}, {"global_context", "local_context", "prototypes"}),
        ({"adapter": "none"}, {"global_context", "local_context"}),
        (
            {"aggregation": "learnable", "residual": "learnable"},
            {
                "global_context",
                "local_context",
                "prototypes",
                "temperature_log_factor",
                "residual_ratio",
            },
        ),
    ],
)
def test_gradient_reaches_what_is_learned_and_nothing_else(changes, names):
    clip = FakeClip()
    frozen = {name: value.clone() for name, value in vars(clip).items()}
    method = T2IPAL(config(**changes), clip)
    assert {name for name, _ in method.named_parameters()} == names
    assert set(method.state_dict()) == names
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    method.loss(images(), texts()).total.backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    optimizer.step()
    for name, value in frozen.items():
        assert torch.equal(getattr(clip, name), value), name
        assert getattr(clip, name).grad is None


def test_prototypes_start_from_class_embeddings():
    for adapter, which in (("global", 0), ("local", 1)):
        method = T2IPAL(config(adapter=adapter), FakeClip())
        assert torch.equal(method.prototypes, method.class_embeddings()[which])


def test_learned_scalars_start_where_the_fixed_ones_are():
    test = images(20)
    plain = T2IPAL(config(residual_ratio=0.4), FakeClip(), seed=2).export()
    learned = T2IPAL(
        config(residual_ratio=0.4, aggregation="learnable", residual="learnable"),
        FakeClip(),
        seed=2,
    ).export()
    assert torch.equal(plain.scores(test), learned.scores(test))


def test_seed_decides_the_start():
    first, same, other = (T2IPAL(config(), FakeClip(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.global_context, same.global_context)
    assert not torch.equal(first.global_context, other.global_context)
    assert not torch.equal(first.global_context, first.local_context)
    assert first.global_context.std().item() == pytest.approx(0.02, rel=0.2)


def test_export_is_independent_of_later_steps():
    method = T2IPAL(config(), FakeClip())
    constants = method.export().scorer
    before = constants.prototypes.clone()
    with torch.no_grad():
        method.prototypes.add_(1)
    assert torch.equal(constants.prototypes, before)
    assert not constants.global_embeddings.requires_grad


# Prompts


def test_prompts_are_start_context_name_end():
    clip = FakeClip()
    tokens = prompt_tokens(fake_clip.PROMPT_NAMES, clip, context_length=3)
    assert tokens.num_context == 3
    assert tokens.embeddings.shape == (CLASSES, 1 + 3 + 2 + 1 + 1, fake_clip.TEXT_WIDTH)
    assert tokens.end.tolist() == [6, 6, 7, 7, 6]  # "potted plant" and "tv monitor" are two words
    plain = clip.embed_tokens(clip.tokenize([f"x x x {name}." for name in fake_clip.PROMPT_NAMES]))
    contexts = torch.tensor([8.0, 9.0]).view(2, 1, 1).expand(-1, 3, fake_clip.TEXT_WIDTH)
    own = torch.arange(CLASSES).view(1, -1, 1, 1).expand(2, -1, 3, fake_clip.TEXT_WIDTH).float()
    for placed, expected in (
        (with_context(tokens.embeddings, contexts), contexts.unsqueeze(1)),
        (with_context(tokens.embeddings, own), own),
    ):
        whole = joined(*placed)
        assert whole.shape[:3] == (2, CLASSES, 8)
        assert (whole[:, :, 1:4] == expected).all()
        assert (whole[:, :, 0] == plain[:, 0]).all()
        assert (whole[:, :, 4:] == plain[:, 4:8]).all()


def test_cutting_behind_the_longest_end_changes_nothing():
    clip = FakeClip()
    tokens = clip.tokenize(list(fake_clip.PROMPT_NAMES))
    end = tokens.argmax(dim=-1)
    long = clip.encode_token_embeddings(clip.embed_tokens(tokens), end)
    short = clip.encode_token_embeddings(clip.embed_tokens(tokens[:, : end.max() + 1]), end)
    assert torch.allclose(long, short)


def test_class_specific_context_starts_shared_words():
    shared = T2IPAL(config(context_init="a photo of a"), FakeClip())
    own = T2IPAL(config(context_init="a photo of a", class_specific_context=True), FakeClip())
    assert shared.global_context.shape == (4, fake_clip.TEXT_WIDTH)
    assert own.global_context.shape == (CLASSES, 4, fake_clip.TEXT_WIDTH)
    assert torch.equal(shared.class_embeddings()[0], own.class_embeddings()[0])


def test_too_long_a_prompt_is_named():
    with pytest.raises(ValueError, match="prompt for 'bird' must fit into 30 tokens with its 27"):
        T2IPAL(config(context_length=27), FakeClip())


# Settings


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"aggregation": "weigthed"}, "Did you mean 'weighted'"),
        ({"adapter": "locl"}, "Did you mean 'local'"),
        ({"residual": "addd"}, "Did you mean 'add'"),
        ({"global_feature": "pool"}, "Did you mean 'pooled'"),
        ({"residual_ratio": -1.0}, "residual_ratio must be >= 0, got -1.0"),
        (
            {"residual": "mix", "residual_ratio": 1.5},
            r'residual_ratio must be in 0\.\.1 with residual "mix", got 1.5',
        ),
        ({"sharpness": -0.5}, "sharpness must be >= 0"),
        ({"image_temperature": 0.0}, "image_temperature must be > 0"),
        ({"image_weight": 1.1}, r"image_weight must be in 0\.\.1, got 1.1"),
        ({"context_length": 0}, "context_length must be > 0"),
        ({"context_init": " "}, "context_init must be"),
        ({"prompt_names": ("bird",)}, "one prompt name, got 1 for 5"),
        ({"class_names": ("bird",), "prompt_names": ("bird",)}, "2 classes or more, got 1"),
        ({"local_scores": False}, 'adapter "local" needs local_scores'),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_pooled_features_are_asked_for():
    test = dataclasses.replace(images(5), pooled_features=None)
    with pytest.raises(ValueError, match="needs pooled_features"):
        scorer(torch.float32, global_feature="pooled").scores(test)


def test_config_survives_json():
    settings = config(context_init="a photo of a", residual="mix")
    assert from_dict(T2IPALConfig, json.loads(json.dumps(to_dict(settings)))) == settings


@pytest.mark.parametrize("name", ["texts", "images"])
def test_labels_that_are_not_known_are_refused(name):
    data = training_features()
    part = getattr(data, name)
    partial = dataclasses.replace(part, known_from=torch.rand(part.labels.shape))
    data = dataclasses.replace(data, **{name: partial})
    with pytest.raises(ValueError, match=r"all labels must be known, got .*known_from.*DualCoOp"):
        T2IPAL(config(), FakeClip()).prepare(data)


def test_fixed_templates_take_no_context_and_an_adapter_all_the_same():
    model = T2IPAL(config(templates="imagenet", adapter="none"), FakeClip())
    assert not [*model.parameters()] and not model.parameter_groups(TrainingConfig())
    model = T2IPAL(config(templates="imagenet"), FakeClip())
    data, before = training_features(), model.export().scorer
    result = fit(model, data, TrainingConfig(num_epochs=2, lr=1.0)).recognizer.scorer
    assert torch.equal(result.global_embeddings, before.global_embeddings)
    assert not torch.equal(result.prototypes, before.prototypes)
