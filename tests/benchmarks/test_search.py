"""What the benchmark of the search demands and compares, and a short form of its own parts."""

import math

import pytest
import torch
from fake_clip import NAMES, PROMPT_NAMES, FakeClip, training_features
from small_run import write_small_run

from benchmarks.search import (
    Options,
    compare_scores,
    largest_difference,
    main,
    ratio,
    shortfalls,
)
from benchmarks.search_before.method import T2IPAL
from benchmarks.search_before.trials import evaluate, fit
from benchmarks.search_world import all_in_memory, space, trials
from t2ipal.config import override
from t2ipal.evaluation.evaluate import evaluate as evaluate_now
from t2ipal.search.space import draw_settings
from t2ipal.training.loop import fit as fit_now
from t2ipal.training.recipes import recipe

START = recipe("t2ipal", "pictovoc", NAMES, PROMPT_NAMES)
GOOD = {
    "over_tune_trials_before": 3.5,
    "stacked_over_one_by_one": 1.5,
    "over_usual_loop": 20.0,
    "loss_difference": 1e-9,
    "best_behind_mAP": 0.5,
}


@pytest.mark.parametrize(
    "change, options, words",
    [
        ({}, {}, None),
        ({"over_tune_trials_before": 3.4}, {}, "over_tune_trials_before must be 3.5 or more"),
        ({"stacked_over_one_by_one": 1.4}, {}, "stacked_over_one_by_one must be 1.5 or more"),
        ({"stacked_over_one_by_one": 9.9}, {"device": "cuda"}, "must be 10 or more, got 9.9."),
        ({"over_usual_loop": 19.0}, {}, "over_usual_loop must be 20 or more, got 19.0."),
        ({"over_usual_loop": 19.0}, {"quick": True}, None),
        ({"best_behind_mAP": 0.6}, {}, "equally good trial, to 0.5 mAP; they differ by 0.6."),
        ({"loss_difference": 2e-5}, {"quick": True}, "differ by 2.0e-05."),
        ({"loss_difference": math.nan}, {}, "differ by nan."),
    ],
)
def test_shortfalls(change, options, words):
    found = shortfalls({**GOOD, **change}, Options(**options))
    assert found == [] if words is None else len(found) == 1 and words in found[0]


def test_nothing_is_demanded_of_parts_that_were_not_measured():
    assert shortfalls({}, Options()) == []


def test_two_tables_of_the_same_trials():
    assert compare_scores([60.0, 62.0, 61.0], [60.5, 61.0, 61.25]) == {
        "same_best": False,
        "best_behind_mAP": 1.0,
        "largest_difference_mAP": 1.0,
        "rank_correlation": 0.5,
    }
    same = compare_scores([1.0, 2.0], [1.0, 2.0])
    assert same["same_best"] and same["rank_correlation"] == 1.0


def test_ratio_and_difference():
    assert ratio([9.0, 3.0, 1.0], [2.0]) == 1.5
    assert largest_difference([[1.0, 2.2]], [[1.0, 2.0]]) == pytest.approx(0.1)
    assert math.isnan(largest_difference([[math.nan]], [[1.0]]))


def test_a_longer_search_begins_with_the_same_trials():
    assert draw_settings(space(9))[:4] == draw_settings(space(4))
    assert trials(START, 3, 8)[0] == override(
        START, {"training.num_epochs": 8, "training.data_seed": 0}
    )


class TowerOfBefore(FakeClip):
    def encode_token_embeddings(self, embeddings, end):
        return super().encode_token_embeddings(embeddings[None], end)[0]


def test_the_step_of_before_learns_the_same():
    data = all_in_memory(training_features(60))
    values = {"training.num_epochs": 3, "training.batch_size": 16, "training.lr": 1e-3}
    now = override(START, {**values, "training.prototype_lr": None})
    method = T2IPAL(now.method, TowerOfBefore(), seed=0)  # type: ignore
    recognizer, losses = fit(method, data, now.training)
    known = fit_now(now.method.build(FakeClip(), 0), data, now.training)
    assert losses == pytest.approx([record.loss for record in known.history], rel=1e-5)
    score = evaluate_now(known.recognizer, data.images).mAP
    assert evaluate(recognizer, data.images) == pytest.approx(score, abs=0.5)


def test_its_parts_in_short(tmp_path):
    write_small_run(tmp_path)
    words = ["--run", str(tmp_path), "--quick", "--parts", "stacked", "usual", "growth"]
    result = main(words)
    assert torch.get_default_dtype() == torch.float32
    assert result["stacked_over_one_by_one"] > 0 and result["over_usual_loop"] > 1
    assert result["loss_difference"] < 1e-9 and result["usual_loss_difference"] < 1e-4
    assert result["peak_mib"]["2"] > 100 and result["ms_of_trials"]["2"] > 0
