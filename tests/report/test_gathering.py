"""A page from its parts: what is on it at each stage of a run; the whole is tested with its job."""

import dataclasses
import json
import math

import numpy as np
import pytest
from fake_clip import NAMES, FakeClip, config, images, training_features
from small_shard import PLAN, some_images, some_rows, some_settings

from t2ipal.evaluation.runs import find_recognizers
from t2ipal.evaluation.test_sets import TestFeatures
from t2ipal.methods.class_concept import ClassConceptConfig
from t2ipal.methods.t2ipal import T2IPAL
from t2ipal.report.config import ReportConfig
from t2ipal.report.contents import MethodResult
from t2ipal.report.finding import Parts, Trained
from t2ipal.report.gathering import gather_report, page_place, write_report
from t2ipal.report.measured import Measured
from t2ipal.store import (
    Caption,
    RunSettings,
    Section,
    Store,
    commit_shard,
    open_run,
    read_run_so_far,
    write_rejected,
    write_section,
    write_section_captions,
)
from t2ipal.training.loop import TrainingConfig
from t2ipal.training.plans import TrainingRun
from t2ipal.training.recipes import Recipe
from t2ipal.training.runs import load_history, train_runs

SHORT = TrainingConfig(num_epochs=3, batch_size=16)
NOTHING = Parts(None, None, None)
MEASURED = Measured(
    "photographs", 60, NAMES, (MethodResult("ours", "", 5.0, 0.0),), ("ours",), ("a note",)
)


@pytest.fixture
def trained(store):
    """The recognizers of a run; those of two methods were trained, of one with two seeds."""
    concept = Recipe(ClassConceptConfig(NAMES), dataclasses.replace(SHORT, num_epochs=0))
    runs = [
        TrainingRun("class_concept-seed0", concept),
        TrainingRun("t2ipal-seed3", Recipe(config(), dataclasses.replace(SHORT, seed=3))),
        TrainingRun("t2ipal-seed4", Recipe(config(), dataclasses.replace(SHORT, seed=4))),
        TrainingRun("ours-seed0", Recipe(config(adapter="none"), SHORT)),
    ]
    train_runs(runs, lambda: (FakeClip(), training_features()), store, inputs={})
    return store


def begun(store, num_shards=2):
    """A run that was asked for some shards, none of which is there."""
    settings = {**vars(some_settings(pipeline="painter")), "class_names": NAMES}
    open_run(store, RunSettings(**settings))
    captions = [Caption(f"{n}", f"a “dog” number {n}", (n,)) for n in range(3)]
    key = write_section_captions(store, 0, captions)
    write_section(store, 0, Section(0, num_shards, 0, 3, 0, 2, key))
    reasons = ["no class named", "not chosen", "no class named"]
    write_rejected(store, [Caption(f"r{n}", "a house", reason=r) for n, r in enumerate(reasons)])
    return store


def filled(store, *shards):
    rows = [dataclasses.replace(row, labels=(4,)) for row in some_rows()]
    for shard in shards:
        named = [dataclasses.replace(row, key=f"{shard}{row.key[5:]}") for row in rows]
        commit_shard(store, shard, PLAN, named, some_images())
    return store


def gathered(store, parts=NOTHING):
    return gather_report(read_run_so_far(store), parts, ReportConfig())


def parts_of(store, measured=None, test=None):
    backbone = FakeClip()
    backbone.config = backbone.identity.config
    return Parts(Trained(find_recognizers(store), backbone, store), measured, test, ("a hint",))


def test_a_run_that_has_just_begun(store):
    report = gathered(begun(store))
    assert report.subtitle == "3 captions, 0 synthetic images from painter."
    assert (report.counts.captions_read, report.counts.captions_kept) == (6, 4)
    assert report.counts.captions_rejected == {"no class named": 2}
    assert (report.counts.images, report.contact_sheet, report.results) == (0, [], ())
    assert [*report.settings] == ["synthesis"]
    (sentence,) = report.missing
    assert sentence.startswith(
        "The run is not finished: it lacks 2 of 2 shards, and the page shows"
    )


def test_a_run_while_it_is_made(store):
    report = gathered(filled(begun(store), "00001"))
    assert (report.counts.images, report.counts.images_failed) == (2, 1)
    assert [entry.caption for entry in report.contact_sheet] == [
        "a “dog” number 0", "a “dog” number 2"
    ]  # fmt: skip
    assert report.contact_sheet[0].labels == ["dog"]
    assert "it lacks 1 of 2 shards" in report.missing[0]


def test_a_run_with_all_its_shards(store):
    report = gathered(filled(begun(store), "00000", "00001"))
    assert report.counts.images == 4 and report.missing == []


def test_a_run_whose_images_are_gone(store):
    filled(begun(store), "00000", "00001").delete("images/00001.tar")
    report = gathered(store)
    assert report.contact_sheet == [] and report.counts.images == 4
    (sentence,) = report.missing
    assert sentence.startswith("Images are left out: images/00001.tar in ")
    store.write("images/00001.tar", b"damaged")
    with pytest.raises(
        ValueError, match=r"images/00001.tar in .* is not what its marker describes"
    ):
        gathered(store)


def test_a_run_all_of_whose_samples_failed(store):
    commit_shard(begun(store, 1), "00000", PLAN, some_rows(failed=(0, 1, 2)), [None] * 3)
    assert gathered(store).missing == ["No image is there: 3 samples failed."]


def test_a_trained_run_that_was_not_measured(trained):
    report = gathered(filled(begun(trained), "00000"), parts_of(trained))
    assert report.subtitle == "3 captions, 2 synthetic images from painter, backbone fake."
    assert [*report.settings] == ["synthesis", "backbone", "method"]
    assert report.settings["method"]["class_names"] == list(NAMES)
    assert report.missing[-1] == "a hint"
    # The losses are those of the first seed of each, and none of what is not trained.
    (curve,) = report.curves
    assert [name for name, _, _ in curve.series] == ["ours", "T2I-PAL"]
    for (_, epochs, losses), folder in zip(curve.series, ("ours-seed0", "t2ipal-seed3")):
        history, _ = load_history(trained, f"train/{folder}")
        assert epochs == [1.0, 2.0, 3.0] and losses == [record.loss for record in history]


def test_a_run_that_was_measured(trained):
    previews = [np.zeros((8, 8, 3), np.uint8)] * 60
    test = TestFeatures("photographs", NAMES, images(60, seed=9), None, previews)
    report = gathered(filled(begun(trained), "00000", "00001"), parts_of(trained, MEASURED, test))
    assert report.subtitle == (
        "3 captions, 4 synthetic images from painter, backbone fake, "
        "measured on 60 images of photographs."
    )
    assert report.results == MEASURED.results and report.notes == ("a note",)
    assert report.counts.test_images == 60 and len(report.heatmaps) == 6
    assert report.baseline is None and report.missing == ["a hint"]


def test_an_evaluation_of_another_run_is_refused(store):
    filled(begun(store), "00000")
    other = dataclasses.replace(MEASURED, class_names=NAMES[::-1])
    with pytest.raises(ValueError, match=r"The evaluation must be of the classes of "):
        gathered(store, Parts(None, other, None))


def test_recognizers_without_a_history_have_no_curve(store):
    T2IPAL(config(), FakeClip()).export().save(begun(store), "train/t2ipal-seed0")
    assert gathered(store, parts_of(store)).curves == []
    for text in ("{", "{}", '{"history": [{"epok": 1}], "seconds": 1}'):
        store.write("train/t2ipal-seed0/history.json", text.encode())
        message = r"t2ipal-seed0/history.json in .* is damaged. Remove it and run jobs/train.py"
        with pytest.raises(ValueError, match=message):
            gathered(store, parts_of(store))


def test_trials_of_a_search(store):
    trial = {"values": {"lr": 1.0}, "reason": "", "loss": 1.0, "seconds": 1.0}
    scores = [("ok", 5.0), ("stopped", 7.0), ("failed", None)]
    trials = [{**trial, "status": s, "validation_mAP": score} for s, score in scores]
    begun(store).write("tune/trials.json", json.dumps({"trials": trials}).encode())
    found = gathered(store).trials
    assert [trial.values for trial in found] == [{"lr": 1.0}] * 3
    assert found[0].score == 5.0 and all(math.isnan(trial.score) for trial in found[1:])


def test_a_place_of_its_own_for_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = begun(Store(tmp_path / "run"))
    report = gathered(run)
    for output, place in (
        (None, "run/report.html"), ("pages", "pages/report.html"), ("pages/a.html", "pages/a.html")
    ):  # fmt: skip
        assert write_report(report, *page_place(run, output)) == str(tmp_path / place)
        assert (tmp_path / place).read_text().startswith("<!DOCTYPE html>")
    (tmp_path / "file").write_text("")
    message = r"No page can be written in .*file: name another place with --output. Cannot write to"
    with pytest.raises(OSError, match=message):
        page_place(run, "file/page.html")
