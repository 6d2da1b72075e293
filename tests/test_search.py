import dataclasses
import json
from pathlib import Path

import pytest
import torch
from fake_clip import NAMES, PROMPT_NAMES, FakeClip, training_features

from t2ipal.config import override
from t2ipal.evaluation import evaluate
from t2ipal.methods import T2IPAL
from t2ipal.recipes import recipe
from t2ipal.search import (
    Dimension,
    SearchConfig,
    SearchResult,
    Trial,
    load_space,
    run_trial,
    split_captions,
    write_search,
)
from t2ipal.training import fit

SPACES = Path(__file__).parents[1] / "tune_spaces"
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
        ("space: {method.image_weight: {uniform: [0, 2]}}", "between 0 and 1, got 2.0"),
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


def test_split_holds_captions_out_with_all_their_images():
    data = training_features(100, k=3)
    train, validation = split_captions(data, 0.2, seed=0)
    kept = set(train.image_of_caption[train.image_of_caption >= 0].tolist())
    all_rows = set(data.image_of_caption[data.image_of_caption >= 0].tolist())
    held = all_rows - kept
    assert len(validation) == len(held)
    expected = data.images.global_features[sorted(held)]
    order = lambda features: features[features[:, 0].argsort()]  # noqa: E731
    assert torch.equal(order(validation.global_features), order(expected))
    assert not {row % 100 for row in held} & {row % 100 for row in kept}
    with_images = int((data.image_of_caption >= 0).any(dim=1).sum())
    assert len(data.texts) - len(train.texts) == round(0.2 * with_images)
    again = split_captions(data, 0.2, seed=0)[1]
    assert torch.equal(again.global_features, validation.global_features)
    other = split_captions(data, 0.2, seed=1)[1]
    assert not torch.equal(other.global_features[:5], validation.global_features[:5])


def test_split_has_every_class_on_the_validation_side():
    data = training_features(40)
    labels = data.texts.labels.clone()
    labels[:, 0] = 0
    labels[[3, 4], 0] = 1  # a rare class
    data = dataclasses.replace(data, texts=dataclasses.replace(data.texts, labels=labels))
    for seed in range(8):
        train, _ = split_captions(data, 0.1, seed)
        assert train.texts.labels[:, 0].sum() == 1
    with pytest.raises(ValueError, match="needs synthetic images to validate on"):
        split_captions(dataclasses.replace(data, images=None), 0.1, 0)


def test_trial_is_fit_and_evaluate():
    train, validation = split_captions(training_features(100), 0.3, 0)
    seen = []
    metrics = run_trial(RECIPE, train, validation, FakeClip(), seen.append)
    method = T2IPAL(RECIPE.method, FakeClip(), seed=RECIPE.training.seed)
    result = fit(method, train, RECIPE.training)
    assert metrics["validation_mAP"] == evaluate(result.recognizer, validation).mAP
    assert metrics["loss"] == result.history[-1].loss
    assert len(seen) == 2 and seen[-1] == metrics
    with pytest.raises(ValueError, match="num_epochs must be > 0"):
        run_trial(override(RECIPE, {"training.num_epochs": 0}), train, validation, FakeClip())


def test_result_table(tmp_path):
    dimension = Dimension("method.sharpness", "grid", (1.0, 2.0, 3.0))
    trials = (
        Trial({"method.sharpness": 1.0}, "failed", "no memory, sorry", None, None, 1.0),
        Trial({"method.sharpness": 2.0}, "ok", "", 80.0, 1.5, 2.0),
        Trial({"method.sharpness": 3.0}, "ok", "", 81.0, 1.6, 2.0),
        Trial({"method.sharpness": 4.0}, "stopped", "", 95.0, 1.0, 2.0),
    )
    result = SearchResult(SearchConfig((dimension,)), trials)
    assert result.best() is trials[2]
    by_loss = SearchConfig((dimension,), metric="loss", mode="min")
    assert SearchResult(by_loss, trials).best() is trials[1]
    write_search(result, tmp_path)
    assert json.loads((tmp_path / "best.json").read_text())["values"] == {"method.sharpness": 3.0}
    assert len(json.loads((tmp_path / "trials.json").read_text())["trials"]) == 4
    lines = (tmp_path / "trials.csv").read_text().splitlines()
    assert lines[0] == "method.sharpness,status,reason,validation_mAP,loss,seconds"
    assert lines[1] == '1.0,failed,"no memory, sorry",,,1.0'
    assert lines[2] == "2.0,ok,,80.0,1.5,2.0"
    with pytest.raises(RuntimeError, match="None of 1 trials succeeded; the first: no memory"):
        SearchResult(by_loss, trials[:1]).best()
