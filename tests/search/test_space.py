from pathlib import Path

import pytest
from fake_clip import NAMES, PROMPT_NAMES

from t2ipal.config import override
from t2ipal.search.space import Dimension, SearchConfig, draw_settings, load_space
from t2ipal.training.recipes import recipe

SPACES = Path(__file__).parents[2] / "tune_spaces"
RECIPE = override(
    recipe("t2ipal", "pictovoc", NAMES, PROMPT_NAMES),
    {"training.num_epochs": 2, "training.batch_size": 16},
)


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_spaces_are_valid(path):
    search = load_space(path, RECIPE)
    assert {"method.residual_ratio", "method.sharpness", "training.images_per_caption"} <= {
        dimension.path for dimension in search.dimensions
    }


def space(tmp_path, text):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return load_space(path, RECIPE)


def test_space_is_read(tmp_path):
    search = space(
        tmp_path,
        """
        searcher: random
        num_samples: 3
        space:
          method.residual_ratio: {uniform: [0, 4]}
          training.lr: {loguniform: [1.0e-4, 0.1]}
          training.images_per_caption: {randint: [1, 6]}
          method.aggregation: {choice: [weighted, max]}
          training.seed: {grid: [0, 1]}
        """,
    )
    assert (search.searcher, search.num_samples, search.metric) == ("random", 3, "validation_mAP")
    assert search.dimensions == (
        Dimension("method.residual_ratio", "uniform", (0.0, 4.0)),
        Dimension("training.lr", "loguniform", (1e-4, 0.1)),
        Dimension("training.images_per_caption", "randint", (1, 6)),
        Dimension("method.aggregation", "choice", ("weighted", "max")),
        Dimension("training.seed", "grid", (0, 1)),
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("space: {method.residual_ration: {grid: [1]}}", "Did you mean 'method.residual_ratio'"),
        ("space: {method.sharpness: {gird: [1]}}", "kind of method.sharpness 'gird'.*'grid'"),
        ("space: {method.sharpness: [1, 2]}", "needs exactly one of grid, choice"),
        ("space: {method.sharpness: {grid: 3}}", "needs a list of values, got 3"),
        ("space: {method.sharpness: {grid: []}}", "needs a list of values"),
        ("space: {method.sharpness: {uniform: [1, -1]}}", "low must be below high"),
        ("space: {method.sharpness: {uniform: [-1, 1]}}", "sharpness must be >= 0, got -1.0"),
        ("space: {method.image_weight: {uniform: [0, 2]}}", "in 0..1, got 2.0"),
        ("space: {training.lr: {loguniform: [0, 1]}}", "loguniform needs low > 0, got 0"),
        ("space: {training.lr: {loguniform: [1e-4, 1]}}", "YAML takes 1e-4 for text.*1.0e-3"),
        ("space: {training.lr: {grid: [1e-4]}}", "training.lr must be float.*YAML takes 1e-4"),
        ("space: {training.lr: {uniform: [1]}}", r"needs \[low, high\] as numbers"),
        ("space: {training.seed: {randint: [0, 2.5]}}", "as whole numbers"),
        ("space: {training.seed: {uniform: [0, 2]}}", "training.seed must be int, got 0.0"),
        ("space: {training.images_per_caption: {randint: [0, 6]}}", "must be > 0, got 0"),
        ("space: {method.aggregation: {choice: [weighted, men]}}", "Did you mean 'mean'"),
        ("space: {}", "one option or more to vary"),
        ("sapce: {}", "options to vary under `space`"),
        ("- 1", "must be a mapping .* got list"),
        ("space: {a: [}", "is no YAML"),
        ("num_sample: 3\nspace: {method.sharpness: {grid: [1]}}", "Did you mean 'num_samples'"),
        ("num_samples: x\nspace: {method.sharpness: {grid: [1]}}", "num_samples must be int"),
        ("num_samples: 0\nspace: {method.sharpness: {grid: [1]}}", "num_samples must be >= 1"),
        ("searcher: optun\nspace: {method.sharpness: {grid: [1]}}", "Did you mean 'optuna'"),
        ("searcher: optuna\nspace: {method.sharpness: {grid: [1]}}", "takes no grid dimension"),
        ("searcher: grid\nspace: {method.sharpness: {uniform: [1, 2]}}", "takes only grid"),
        ("metric: test_mAP\nspace: {method.sharpness: {grid: [1]}}", "'validation_mAP'"),
        ("mode: maximum\nspace: {method.sharpness: {grid: [1]}}", "Did you mean 'max'"),
        ("scheduler: ahsa\nspace: {method.sharpness: {grid: [1]}}", "Did you mean 'asha'"),
        ("validation_fraction: 1\nspace: {method.sharpness: {grid: [1]}}", "between 0 and 1"),
    ],
)
def test_bad_spaces(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        space(tmp_path, text)
    assert "space.yaml" in str(error.value)


def test_missing_space(tmp_path):
    with pytest.raises(FileNotFoundError, match="No space file"):
        load_space(tmp_path / "none.yaml", RECIPE)


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
