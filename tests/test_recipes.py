import pytest
import torch
from fake_clip import NAMES, PROMPT_NAMES, FakeClip, images, training_features

from t2ipal.config import from_dict, override, to_dict
from t2ipal.methods import T2IPAL
from t2ipal.recipes import DATA_SETS, METHODS, Recipe, recipe
from t2ipal.training import fit


@pytest.mark.parametrize("data_set", DATA_SETS)
@pytest.mark.parametrize("method", METHODS)
def test_every_recipe_is_valid_and_survives_json(method, data_set):
    settings = recipe(method, data_set, NAMES, PROMPT_NAMES, seed=3)
    assert settings.training.seed == 3
    assert from_dict(Recipe, to_dict(settings)) == settings


@pytest.mark.parametrize("method", METHODS)
def test_every_recipe_trains(method):
    settings = recipe(method, "pictovoc", NAMES, PROMPT_NAMES)
    if settings.training.num_epochs:
        settings = override(settings, {"training.num_epochs": 2})
    model = T2IPAL(settings.method, FakeClip(), seed=0)
    result = fit(model, training_features(), settings.training)
    scores = result.recognizer.predict(images(10))
    assert scores.shape == (10, len(NAMES)) and torch.isfinite(scores).all()


def test_zero_shot_is_clip():
    test = images(10)
    settings = recipe("zsclip", "voc2007", NAMES, PROMPT_NAMES)
    result = fit(T2IPAL(settings.method, FakeClip()), training_features(), settings.training)
    names = FakeClip().encode_text([f"a photo of a {name}." for name in PROMPT_NAMES])
    expected = test.pooled_features @ names.T
    assert torch.allclose(result.recognizer.predict(test), expected, atol=1e-6)


def test_paper_defaults():
    settings = recipe("t2ipal", "voc2007", NAMES, PROMPT_NAMES)
    training, method = settings.training, settings.method
    assert (training.num_epochs, training.batch_size, training.lr) == (20, 512, 1e-4)
    assert (method.residual_ratio, method.sharpness, method.margin, method.scale) == (1, 5.5, 1, 4)
    assert recipe("tai_dpt", "nuswide", NAMES, PROMPT_NAMES).training.lr == 1e-3


def test_unknown_names():
    with pytest.raises(ValueError, match="Did you mean 'tai_dpt'"):
        recipe("tai-dpt", "voc2007", NAMES, PROMPT_NAMES)
    with pytest.raises(ValueError, match="Did you mean 'voc2007'"):
        recipe("t2ipal", "voc07", NAMES, PROMPT_NAMES)
