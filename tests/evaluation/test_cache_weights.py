import dataclasses
import itertools

import pytest
import torch
from fake_clip import NAMES, PROMPT_NAMES, FakeClip, config, images
from labelled_images import labelled_images

from t2ipal.evaluation.cache_weights import RATIOS, SHARPNESSES, with_chosen_weights
from t2ipal.evaluation.evaluate import evaluate
from t2ipal.methods.t2ipal import T2IPAL
from t2ipal.methods.tip_adapter import TipAdapterConfig
from t2ipal.training.loop import TrainingConfig, fit

VALIDATION = images(60, seed=5)


def adapter(num):
    method = TipAdapterConfig(NAMES, PROMPT_NAMES).build(FakeClip())
    return fit(method, labelled_images(num), TrainingConfig(num_epochs=0)).recognizer


def weighted(recognizer, ratio, sharpness):
    settings = dataclasses.replace(recognizer.config, residual_ratio=ratio, sharpness=sharpness)
    scorer = dataclasses.replace(recognizer.scorer, config=settings)
    return dataclasses.replace(recognizer, scorer=scorer)


def test_the_best_pair_of_the_grid_on_validation_images():
    """Against every pair tried one by one, on recognizers as they would be used."""
    plain = [adapter(20), adapter(40)]
    reached = {
        pair: sum(evaluate(weighted(one, *pair), VALIDATION).mAP for one in plain)
        for pair in itertools.product(RATIOS, SHARPNESSES)
    }
    chosen = with_chosen_weights(plain, VALIDATION)
    pairs = {(one.config.residual_ratio, one.config.sharpness) for one in chosen}
    assert len(pairs) == 1
    assert reached[pairs.pop()] == pytest.approx(max(reached.values()))
    for one, before in zip(chosen, plain, strict=True):
        assert torch.equal(one.scorer.keys, before.scorer.keys)


def test_another_method_is_refused():
    other = T2IPAL(config(), FakeClip()).export()
    with pytest.raises(ValueError, match="are chosen for Tip-Adapters, got t2ipal"):
        with_chosen_weights([other], VALIDATION)
