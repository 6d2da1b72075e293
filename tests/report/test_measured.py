"""An evaluation as a page shows it, what it left out, and one that is damaged."""

import copy
import math

import pytest

from t2ipal.evaluation.published import PUBLISHED
from t2ipal.report.measured import _published, read_measured
from t2ipal.store import Store, json_bytes
from t2ipal.training.recipes import METHODS

EVALUATION = {
    "test_set": "voc2007",
    "num_images": 60,
    "definition": "non-interpolated average precision",
    "class_names": ["bird", "boat", "dog"],
    "methods": {
        "t2ipal": {
            "mean": 80.0,
            "std": 0.5,
            "seeds": [3, 4],
            "mAPs": [79.5, 80.5],
            "per_class": [70.0, 80.0, 90.0],
            "modality_gap": {"synthetic_images": 0.5, "adapted_synthetic_images": None},
        },
        "ours": {
            "mean": 60.0,
            "std": 0.0,
            "seeds": [0],
            "mAPs": [60.0],
            "per_class": [60.0, 60.0, 60.0],
        },
    },
}


def written(store, key="evaluation.json", **changes):
    store.write(key, json_bytes({**EVALUATION, **changes}))
    return store


def test_results_have_titles_and_what_was_published(store):
    measured = read_measured(written(store), model="RN101")
    assert (measured.test_set, measured.num_images) == ("voc2007", 60)
    assert measured.class_names == ("bird", "boat", "dog")
    assert measured.methods == ("ours", "t2ipal")
    ours, t2ipal = measured.results
    assert (t2ipal.name, t2ipal.published) == ("T2I-PAL", "91.5 (RN101)")
    assert (t2ipal.mAP_mean, t2ipal.mAP_std) == (80.0, 0.5)
    assert (list(t2ipal.seeds), t2ipal.per_seed) == ([3, 4], [79.5, 80.5])
    assert t2ipal.per_class == [70.0, 80.0, 90.0]
    gap = {"synthetic images": 0.5, "adapted synthetic images": None}
    assert t2ipal.modality_gap == gap
    assert (ours.name, ours.description, ours.published) == ("ours", "ours", None)
    assert measured.notes[0].startswith("mAP is non-interpolated average precision, mean over cla")
    for model in ("pictovoc", None):
        results = read_measured(store, model=model).results
        assert not any(result.published for result in results)


def test_an_evaluation_elsewhere(store):
    written(store, "far/numbers.json", num_images=7)
    assert read_measured(store, "far/numbers.json").num_images == 7
    with pytest.raises(FileNotFoundError, match=r"No evaluation.json in .*Run jobs/evaluate.py"):
        read_measured(store)


def test_classes_without_a_positive_have_no_number(store):
    methods = copy.deepcopy(EVALUATION["methods"])
    methods["t2ipal"]["per_class"] = [None, 80.0, 90.0]
    methods["ours"].update(per_class=[None, 60.0, None], mean=None, mAPs=[None])
    images = [{"file": f"{n}.jpg", "reason": "empty file"} for n in range(12)]
    written(store, methods=methods, absent_classes=["bird"], unreadable=images)
    measured = read_measured(store)
    ours, t2ipal = measured.results  # the one without a number first
    assert math.isnan(ours.mAP_mean) and math.isnan(ours.per_seed[0])
    assert math.isnan(t2ipal.per_class[0]) and t2ipal.per_class[1:] == [80.0, 90.0]
    assert measured.notes[2:] == (
        "Left out of the mean, for no image shows them: bird.",
        "Images left out, for they cannot be read: "
        f"{', '.join(f'{n}.jpg (empty file)' for n in range(10))} and 2 more.",
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"methods": ["t2ipal"]},
        {"methods": {"t2ipal": {}}},
        {"methods": {"t2ipal": {**EVALUATION["methods"]["t2ipal"], "mean": "high"}}},
        {"methods": {"t2ipal": {**EVALUATION["methods"]["t2ipal"], "per_class": [1.0]}}},
        {"methods": {"t2ipal": {**EVALUATION["methods"]["t2ipal"], "mAPs": [1.0]}}},
        {"methods": {"t2ipal": {**EVALUATION["methods"]["t2ipal"], "mean": 2**70}}},
        {"methods": {"t2ipal": {**EVALUATION["methods"]["t2ipal"], "std": True}}},
        {"class_names": None},
        {"num_images": None},
    ],
)
def test_a_damaged_evaluation_is_named(tmp_path, changes):
    store = written(Store(tmp_path), **changes)
    message = r"evaluation.json in .* is damaged. Remove it and run jobs/evaluate.py again."
    with pytest.raises(ValueError, match=message):
        read_measured(store)


@pytest.mark.parametrize(
    ("method", "test_set", "model", "expected"),
    [
        ("zsclip", "voc2007", "RN50", "76.2 (RN50)"),
        ("tai_dpt", "coco2014", "RN50-quickgelu", "65.1 (RN50)"),
        ("t2ipal", "nuswide", "RN101", "47.4 (RN101)"),
        ("t2ipal_images_only", "voc2007", "RN101", "90.8 (RN101)"),
        ("t2ipal_one_image", "voc2007", "RN101", "91.1 (RN101)"),
        ("t2ipal", "pictovoc", "RN101", None),
        ("t2ipal", "voc2007", "ViT-B-16", None),
        ("t2ipal_max", "voc2007", "RN101", None),
    ],
)
def test_only_numbers_of_the_same_kind_are_put_beside_ours(method, test_set, model, expected):
    assert _published(method, test_set, model) == expected


def test_published_rows_are_called_as_our_methods_are():
    titles = {method.title for method in METHODS.values()}
    others = {row.method for row in PUBLISHED if row.setting == "zero_shot"} - titles
    assert others == {
        "BAC-GCN", "Class concept + TaI-DPT", "Class concept + ZSCLIP", "PIAA, ITACLIP",
        "PIAA, SC-CLIP", "SPARC", "T2I-PAL, LLM captions", "TagCLIP", "TagCLIP + SPARC",
    }  # fmt: skip
