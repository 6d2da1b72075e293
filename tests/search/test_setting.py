from fake_clip import NAMES, PROMPT_NAMES

from t2ipal.config import field_paths, from_dict, override, to_dict
from t2ipal.search.setting import IDLE, REFUSED, Setting
from t2ipal.training.recipes import Recipe, recipe

RECIPE = recipe("t2ipal", "pictovoc", NAMES, PROMPT_NAMES)
SETTING = Setting(RECIPE.method, RECIPE.training)


def test_a_trial_changes_recipe_normalization_and_images():
    values = {
        "method.sharpness": 2.0,
        "training.lr": 0.1,
        "normalization.mean_weight": 0.5,
        "synthesis.guidance_scale": 3.0,
    }
    trial = override(SETTING, values)
    assert trial.recipe == Recipe(trial.method, trial.training)
    assert (trial.method.sharpness, trial.training.lr) == (2.0, 0.1)
    assert (trial.normalization.mean_weight, trial.synthesis.guidance_scale) == (0.5, 3.0)
    assert from_dict(Setting, to_dict(trial)) == trial


def test_named_options_are_there():
    others = [other for other, _ in IDLE.values()]
    assert {*REFUSED, *IDLE, *others} <= {*field_paths(SETTING)}
