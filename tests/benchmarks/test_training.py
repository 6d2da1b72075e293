"""What the benchmark of the training step demands, and how it counts."""

import math

import pytest
from tiny_clip import RESNET, write_tiny_clip

from benchmarks.training import (
    CONTESTANTS,
    Options,
    compare,
    exponent,
    largest_difference,
    shortfalls,
)
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig

GOOD = {
    "loss_difference": 1e-6,
    "over_usual_loop_80": 25.0,
    "prompts_over_77_tokens": 16.0,
    "peak_mib": {"usual": 5000, "ours_1000": 2048},
}


@pytest.mark.parametrize(
    "change, message",
    [
        ({}, None),
        ({"peak_mib": {}}, None),  # not measured
        ({"loss_difference": 2e-4}, "Loss curves must agree to 0.0001, they differ by 2.0e-04."),
        ({"loss_difference": math.nan}, "Loss curves must agree to 0.0001, they differ by nan."),
        ({"over_usual_loop_80": 24.9}, "over_usual_loop_80 must be 25 or more, got 24.9."),
        ({"prompts_over_77_tokens": 3.0}, "prompts_over_77_tokens must be 16 or more, got 3.0."),
        ({"peak_mib": {"ours_1000": 2049}}, "1000 classes must fit into 2048 MiB, they took 2049."),
    ],
)
def test_shortfalls(change, message):
    assert shortfalls({**GOOD, **change}) == ([] if message is None else [message])


def test_exponent():
    assert exponent((10, 20, 40), (3.0, 12.0, 48.0)) == 2.0


def test_contestants_have_one_loss_curve(tmp_path):
    folder = write_tiny_clip(tmp_path, RESNET)
    backbone = load_backbone(BackboneConfig(model=str(folder)))
    runners = compare(backbone, 20, Options(batch_size=3, rounds=2))
    assert tuple(runners) == CONTESTANTS
    assert [len(runner.losses) for runner in runners.values()] == [2] * 4
    assert 0 <= largest_difference(runners) < 1e-5
    runners["cached"].losses[0] *= 1.01
    assert largest_difference(runners) == pytest.approx(0.01, rel=1e-3)
    runners["cached"].losses[0] = math.nan
    assert math.isnan(largest_difference(runners))
