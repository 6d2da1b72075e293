import dataclasses
import math

import fake_clip
import pytest
import torch
from fake_clip import FakeClip
from torch.nn import functional

from t2ipal.evaluation import modality_gap as module
from t2ipal.evaluation.modality_gap import ModalityGap, modality_gap, present_cosines
from t2ipal.features.sets import FeatureSet
from t2ipal.methods.t2ipal import T2IPAL, T2IPALConfig, T2IPALScorer

NAMES = ("bird", "boat", "bus")
WIDTH, LOCATIONS = 6, 5


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(
        torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1
    )


def scorer(**changes):
    config = T2IPALConfig(NAMES, NAMES, **changes)
    return T2IPALScorer(
        config,
        unit(3, WIDTH, seed=1),
        unit(3, WIDTH, seed=2),
        None if config.adapter == "none" else unit(3, WIDTH, seed=3),
        torch.tensor(1.0, dtype=torch.float64),
        torch.tensor(config.residual_ratio, dtype=torch.float64),
    )


def features(rows=4, seed=5, captions=False):
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(rows, 3, generator=generator) < 0.5).float()
    labels[0] = torch.tensor([1.0, 0.0, 1.0])
    mask = torch.arange(LOCATIONS)[None] <= torch.arange(rows)[:, None] if captions else None
    pooled = None if captions else unit(rows, WIDTH, seed=seed + 2)
    local = unit(rows, LOCATIONS, WIDTH, seed=seed + 1)
    return FeatureSet(unit(rows, WIDTH, seed=seed), local, mask, labels, pooled)


def slow_pairs(model, rows, temperature, adapted):
    """Cosines of every (row, present class), number by number."""
    config, cosines = model.config, []
    for row in range(len(rows)):
        for index in range(3):
            if not rows.labels[row, index]:
                continue
            embedding = model.local_embeddings[index]
            places = [
                place for place in range(LOCATIONS) if rows.mask is None or rows.mask[row, place]
            ]
            vectors = [rows.local_features[row, place] for place in places]
            weights = [math.exp(float(v @ embedding) / temperature) for v in vectors]
            seen = sum(w * v for w, v in zip(weights, vectors)) / sum(weights)
            if adapted:
                prototype = model.prototypes[index]
                near = float(seen @ prototype) / float(seen.norm() * prototype.norm())
                answer = math.exp(-config.sharpness * (1 - near))
                kept = 1 - config.residual_ratio if config.residual == "mix" else 1
                seen = kept * seen + config.residual_ratio * answer * embedding
            cosines.append(float(seen @ embedding) / float(seen.norm()))
    return cosines


@pytest.mark.parametrize("residual", ["add", "mix"])
@pytest.mark.parametrize("captions", [False, True])
@pytest.mark.parametrize("adapted", [False, True])
def test_against_loops(adapted, captions, residual):
    model = scorer(
        residual=residual, residual_ratio=0.7, image_temperature=0.3, text_temperature=0.5
    )
    rows = features(captions=captions)
    expected = slow_pairs(model, rows, 0.5 if captions else 0.3, adapted)
    found = present_cosines(model, rows, adapted=adapted)
    assert len(expected) > 4 and found.tolist() == pytest.approx(expected)


def test_batches_change_nothing(monkeypatch):
    model, rows = scorer(), features(rows=7)
    whole = present_cosines(model, rows)
    monkeypatch.setattr(module, "BATCH_SIZE", 3)
    # Products of three rows may be summed in another order than those of seven.
    torch.testing.assert_close(present_cosines(model, rows), whole, rtol=1e-12, atol=1e-12)


def test_the_adapted_feature_scores_what_the_adapter_does():
    """Before normalization its product with the embedding is phat' (eq. 6)."""
    model, rows = scorer(residual_ratio=0.6), features()
    scores = model.branch_scores(rows.global_features, rows.local_features, None, 0.02)
    plain = dataclasses.replace(model, residual_ratio=torch.tensor(0.0, dtype=torch.float64))
    before = plain.branch_scores(rows.global_features, rows.local_features, None, 0.02)
    grown = (scores.local_scores - before.local_scores)[rows.labels > 0]
    assert (grown > 0).all()
    assert (present_cosines(model, rows, adapted=True) > present_cosines(model, rows)).all()
    assert torch.allclose(present_cosines(plain, rows, adapted=True), present_cosines(model, rows))


@pytest.mark.parametrize(
    ("changes", "captions", "name"),
    [
        ({"adapter": "global"}, False, "global_features"),
        ({"adapter": "none", "local_scores": False}, True, "global_features"),
        (
            {"adapter": "none", "local_scores": False, "global_feature": "pooled"},
            False,
            "pooled_features",
        ),
        (
            {"adapter": "none", "local_scores": False, "global_feature": "pooled"},
            True,
            "global_features",
        ),
    ],
)
def test_global_features_where_the_method_has_no_local_ones(changes, captions, name):
    model, rows = scorer(**changes), features(captions=captions)
    whole = getattr(rows, name) @ model.global_embeddings.T
    assert torch.allclose(present_cosines(model, rows), whole[rows.labels > 0])


def test_the_table():
    model = scorer()
    test, captions, synthetic = features(seed=5), features(seed=6, captions=True), features(seed=7)
    gap = modality_gap(model, test, captions, synthetic)
    assert dataclasses.astuple(gap) == pytest.approx(
        (
            float(present_cosines(model, test).mean()),
            float(present_cosines(model, captions).mean()),
            float(present_cosines(model, synthetic).mean()),
            float(present_cosines(model, synthetic, adapted=True).mean()),
        )
    )
    bare = modality_gap(scorer(adapter="none"), test, captions, synthetic)
    assert bare == ModalityGap(gap.test_images, gap.captions, gap.synthetic_images, None)


def test_bad_input():
    rows = features()
    with pytest.raises(ValueError, match="no adapter; take adapted=False"):
        present_cosines(scorer(adapter="none"), rows, adapted=True)
    empty = dataclasses.replace(rows, labels=torch.zeros(4, 3))
    with pytest.raises(ValueError, match="a row with a label, got none"):
        present_cosines(scorer(), empty)
    with pytest.raises(ValueError, match="a row with a label, got none"):
        modality_gap(scorer(), rows, rows.rows(slice(0, 0)), rows)


def test_a_method_in_training_has_the_gap_of_what_it_exports():
    method = T2IPAL(fake_clip.config(residual="learnable"), FakeClip(), seed=1)
    sets = (fake_clip.images(6), fake_clip.texts(6), fake_clip.images(5, seed=3))
    exported = method.export().scorer
    assert modality_gap(method.scorer(), *sets) == modality_gap(exported, *sets)
    assert not present_cosines(method.scorer(), sets[0]).requires_grad
