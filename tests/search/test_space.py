import pytest

from t2ipal.search.space import Dimension, SearchConfig, draw_settings


def test_settings_are_those_that_tune_draws():
    """Searches of versions before, and those of anyone who tunes with the same seed."""
    from ray import tune
    from ray.tune.search.basic_variant import BasicVariantGenerator

    drawn = {
        "c.uniform": (("uniform", (0.5, 2.5)), tune.uniform(0.5, 2.5)),
        "z.log": (("loguniform", (1e-4, 1e-2)), tune.loguniform(1e-4, 1e-2)),
        "b.choice": (("choice", ("local", "none", None)), tune.choice(["local", "none", None])),
        "k.whole": (("randint", (1, 6)), tune.randint(1, 7)),
        "b.grid": (("grid", (1, 2, 3)), tune.grid_search([1, 2, 3])),
        "a.grid": (("grid", ("x", "y")), tune.grid_search(["x", "y"])),
    }
    dimensions = tuple(Dimension(path, *ours) for path, (ours, _) in drawn.items())
    search = SearchConfig(dimensions, num_samples=3, seed=5)
    space = {path: theirs for path, (_, theirs) in drawn.items()}
    generator = BasicVariantGenerator(random_state=5)
    generator.add_configurations({"x": {"run": print, "config": space, "num_samples": 3}})
    expected = []
    while (trial := generator.next_trial()) is not None:
        expected.append(trial.config)
    assert draw_settings(search) == expected and search.num_trials == len(expected) == 18


SHARPNESS = Dimension("method.sharpness", "choice", (1.0, 2.0))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dimensions": ()}, "one option or more to vary"),
        ({"dimensions": (SHARPNESS, SHARPNESS)}, "method.sharpness stands twice"),
        ({"metric": "loss"}, "mode must be min with metric loss, got max"),
        ({"searcher": "grid"}, "takes only grid dimensions, got choice for method.sharpness"),
        ({"minimize": ("loss", "loss")}, "loss is minimized twice"),
        ({"minimize": ("images",)}, "images needs training.images_per_caption among"),
        ({"minimize": ("loss",), "scheduler": "asha"}, r"not go with minimize \(loss\)"),
        ({"scheduler": "asha", "num_validations": 1}, "num_validations must be > 1, got 1"),
        ({"seed": -1}, "seed must be >= 0"),
    ],
)
def test_searches_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        SearchConfig(**{"dimensions": (SHARPNESS,), **changes})


def test_several_objectives():
    images = Dimension("training.images_per_caption", "randint", (1, 6))
    search = SearchConfig((images,), searcher="optuna", minimize=("images", "loss"))
    assert search.minimize == ("images", "loss")
