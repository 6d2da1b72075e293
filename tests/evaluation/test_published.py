from collections import Counter

import numpy as np
import pytest

from t2ipal.evaluation.published import PUBLISHED


def find(setting: str, method: str, test_set: str, **fields: object) -> list[float]:
    return [
        row.mAP
        for row in PUBLISHED
        if (row.setting, row.method, row.test_set) == (setting, method, test_set)
        and all(getattr(row, name) == value for name, value in fields.items())
    ]


@pytest.mark.parametrize(
    ("setting", "method", "test_set", "fields", "value"),
    [
        ("zero_shot", "T2I-PAL", "coco2014", {"backbone": "RN101"}, 71.4),
        ("zero_shot", "T2I-PAL", "nuswide", {"backbone": "RN50"}, 45.5),
        ("zero_shot", "TaI-DPT", "nuswide", {"backbone": "RN50"}, 46.5),
        ("zero_shot", "TaI-DPT", "coco2014", {"backbone": "RN101"}, 68.0),
        ("zero_shot", "Class concept + TaI-DPT", "nuswide", {}, 49.1),
        ("zero_shot", "SPARC", "voc2007", {"backbone": "RN101"}, 89.7),
        ("zero_shot", "TagCLIP + SPARC", "coco2014", {}, 73.8),
        ("zero_shot", "BAC-GCN", "coco2014", {"backbone": "ViT-B/16"}, 72.2),
        ("zero_shot", "PIAA, ITACLIP", "nuswide", {}, 49.1),
        ("zero_shot", "T2I-PAL, LLM captions", "voc2007", {}, 91.6),
        ("partial_labels", "SARB", "voc2007", {"amount": 90}, 92.9),
        ("partial_labels", "DualCoOp", "coco2014", {"amount": 10}, 78.7),
        ("few_shot", "CoOp + T2I-PAL", "coco2014", {"amount": 16}, 74.1),
        ("few_shot_mean", "CoOp + TaI-DPT", "voc2007", {}, 89.3),
        ("novel_classes", "T2I-PAL", "coco2014", {"amount": 0}, 66.3),
        ("modality_gap", "T2I-PAL", "coco2014", {}, 0.611),
    ],
)
def test_some_values(setting, method, test_set, fields, value):
    assert find(setting, method, test_set, **fields) == [value]


def test_counts_and_sources():
    assert Counter(row.setting for row in PUBLISHED) == {
        "zero_shot": 53, "partial_labels": 116, "partial_labels_mean": 13, "few_shot": 10,
        "few_shot_mean": 4, "novel_classes": 6, "modality_gap": 1,
    }  # fmt: skip
    places = Counter((r.setting, r.method, r.backbone, r.test_set, r.amount) for r in PUBLISHED)
    assert set(places.values()) == {1}
    assert all(row.source and row.test_set and row.method for row in PUBLISHED)
    assert all(row.backbone for row in PUBLISHED if row.setting == "zero_shot")


@pytest.mark.parametrize("test_set", ["voc2007", "coco2014", "nuswide"])
@pytest.mark.parametrize("method", ["SARB", "DualCoOp", "DualCoOp (rerun)", "DualCoOp + TaI-DPT"])
def test_means_are_of_their_rows(method, test_set):
    values, means = (
        find(setting, method, test_set) for setting in ("partial_labels", "partial_labels_mean")
    )
    assert len(values) == 9 * len(means)
    assert all(np.mean(values) == pytest.approx(mean, abs=0.06) for mean in means)


def test_few_shot_means_are_of_their_rows():
    for test_set in ("voc2007", "coco2014"):
        values = find("few_shot", "CoOp + T2I-PAL", test_set)
        (mean,) = find("few_shot_mean", "CoOp + T2I-PAL", test_set)
        assert np.mean(values) == pytest.approx(mean, abs=0.06)
