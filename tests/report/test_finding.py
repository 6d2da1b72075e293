"""The parts of a page: those that are there, what is said of the others, and what is an error."""

import shutil

import pytest
from small_recognizer import NAMES, write_photographs, write_recognizers

from t2ipal.evaluation.config import EvaluationOptions
from t2ipal.evaluation.results import evaluate_run
from t2ipal.evaluation.runs import find_recognizers, load_same_backbone
from t2ipal.evaluation.test_sets import test_set_features as set_features
from t2ipal.features.config import BackboneConfig
from t2ipal.report.config import ReportSources
from t2ipal.report.finding import find_parts
from t2ipal.store import Store, json_bytes


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Recognizers, a folder of labelled photographs, and what was measured on it."""
    folder = tmp_path_factory.mktemp("made")
    trained = Store(folder / "trained")
    write_recognizers(trained, folder / "clip")
    write_photographs(Store(folder / "photographs"))
    rows = [f"{n}.png,{NAMES[n % 4]};{NAMES[(n + 1) % 4]}" for n in range(7)]
    (folder / "photographs" / "labels.csv").write_text("\n".join(["file,labels", *rows]))
    backbone, recognizers = load_same_backbone(
        trained, find_recognizers(trained, ""), config_of(folder), ""
    )
    test = set_features(str(folder / "photographs"), None, backbone, NAMES)
    evaluate_run(Store(folder / "measured"), recognizers, test, EvaluationOptions())
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy, to be damaged."""
    shutil.copytree(made, tmp_path / "made")
    text = (tmp_path / "made/measured/evaluation.json").read_text()
    moved = text.replace(str(made), str(tmp_path / "made"))
    (tmp_path / "made/measured/evaluation.json").write_text(moved)
    return tmp_path / "made"


def config_of(folder):
    return BackboneConfig(model=str(folder / "clip"))


def find(folder, **sources):
    return find_parts(Store(folder / "run"), ReportSources(**sources), config_of(folder), 3)


def elsewhere(folder):
    return {"recognizers": str(folder / "trained"), "evaluation": str(folder / "measured")}


def test_nothing_is_there(folder):
    parts = find(folder)
    assert (parts.trained, parts.measured, parts.test) == (None, None, None)
    run = folder / "run"
    assert parts.missing == (
        f"Losses and heatmaps are left out: No recognizer in {run}/train. Run jobs/train.py first.",
        f"Results are left out: No evaluation.json in {run}. Run jobs/evaluate.py first.",
    )


def test_everything_lies_elsewhere(folder):
    parts = find(folder, **elsewhere(folder))
    assert parts.missing == ()
    assert [*parts.trained.recognizers["t2ipal"]] == [0, 1]
    assert parts.trained.shown(parts.measured) is parts.trained.recognizers["t2ipal"][0]
    assert parts.measured.num_images == 7 and parts.measured.class_names == NAMES
    assert len(parts.test.previews) == len(parts.test.features) == 3  # no more than is drawn on
    named = str(folder / "measured" / "evaluation.json")
    assert find(folder, evaluation=named).measured == parts.measured


def test_the_run_itself_is_looked_at(folder):
    shutil.copytree(folder / "trained", folder / "run" / "train")
    shutil.copy(folder / "measured" / "evaluation.json", folder / "run")
    parts = find(folder)
    assert parts.trained and parts.measured and parts.test and not parts.missing


def test_measured_without_recognizers(folder):
    parts = find(folder, evaluation=str(folder / "measured"))
    assert parts.measured is not None and parts.test is None
    (sentence,) = parts.missing
    assert "No recognizer" in sentence


def test_the_best_method_is_shown_where_there_is_no_t2ipal(folder):
    for name in ("ours", "worse", "unmeasured"):
        shutil.copytree(folder / "trained/t2ipal-seed0", folder / f"trained/{name}-seed5")
    shutil.rmtree(folder / "trained/t2ipal-seed0")
    shutil.rmtree(folder / "trained/t2ipal-seed1")
    numbers = {"mean": 60.0, "std": 0.0, "seeds": [5], "mAPs": [60.0], "per_class": [60.0] * 4}
    store = Store(folder / "measured")
    evaluation = {
        "test_set": str(folder / "photographs"),
        "num_images": 7,
        "definition": "non-interpolated average precision",
        "class_names": NAMES,
        "methods": {"ours": numbers, "worse": {**numbers, "mean": 5.0}, "gone": numbers},
    }
    store.write("evaluation.json", json_bytes(evaluation))
    parts = find(folder, **elsewhere(folder))
    recognizers = parts.trained.recognizers
    assert parts.trained.shown(parts.measured) is recognizers["ours"][5]
    assert parts.trained.shown(None) is recognizers["ours"][5]  # the first one
    assert not parts.missing


@pytest.mark.parametrize("damage", ["gone", "moved"])
def test_without_its_photographs_an_evaluation_has_no_heatmaps(folder, damage):
    photographs = folder / "photographs"
    if damage == "gone":
        (photographs / "0.png").unlink()
    else:
        photographs.rename(folder / "photos")
    said = {"gone": "0.png", "moved": f"No labelled photographs in {photographs}"}[damage]
    parts = find(folder, **elsewhere(folder))
    assert parts.test is None and len(parts.measured.results) == 1
    (sentence,) = parts.missing
    assert sentence.startswith("Heatmaps are left out: ") and said in sentence
    # Who names the test set is told what is wrong with it.
    with pytest.raises(FileNotFoundError) as caught:
        find(folder, **elsewhere(folder), test_set=str(photographs))
    assert said in str(caught.value)


def test_photographs_that_cannot_be_read_have_no_heatmaps(folder):
    for number in range(3):
        (folder / "photographs" / f"{number}.png").write_bytes(b"no picture")
        parts = find(folder, **elsewhere(folder))
        (sentence,) = parts.missing
        if number < 2:
            assert len(parts.test.previews) == len(parts.test.features) == 2 - number
            assert sentence.startswith("Some heatmaps are left out: 0.png (not an image)")
    assert parts.test is None
    assert sentence.startswith("Heatmaps are left out: None of 3 photographs of the test set in ")


def test_a_test_set_that_was_not_measured_on_can_be_named(folder):
    recognizers = str(folder / "trained")
    parts = find(folder, recognizers=recognizers)
    assert parts.missing[1] == (
        "Heatmaps are left out: No test set was measured on. Give --test-set to draw on one."
    )
    parts = find(folder, recognizers=recognizers, test_set=str(folder / "photographs"))
    assert len(parts.test.previews) == 3 and len(parts.missing) == 1
    with pytest.raises(ValueError, match="draw on the evaluated one"):
        find(folder, recognizers=recognizers, test_set="pictovoc")


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"recognizers": "none"}, r"No recognizer in .*none.*Run jobs/train.py first"),
        ({"evaluation": "none"}, r"No evaluation.json in .*none. Run jobs/evaluate.py first"),
        ({"evaluation": "none/x.json"}, r"No x.json in .*none. Run jobs/evaluate.py first"),
    ],
)
def test_what_is_named_must_be_there(folder, monkeypatch, sources, message):
    monkeypatch.chdir(folder)
    with pytest.raises(FileNotFoundError, match=message):
        find(folder, **sources)


def test_what_is_damaged_is_named(folder):
    path = folder / "trained" / "t2ipal-seed1" / "recognizer.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"t2ipal-seed1/recognizer.json in .* is damaged"):
        find(folder, **elsewhere(folder))
    path.write_text(whole)
    other = BackboneConfig()
    with pytest.raises(ValueError, match="was trained on features of another backbone"):
        find_parts(Store(folder / "run"), ReportSources(**elsewhere(folder)), other, 3)
