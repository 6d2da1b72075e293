"""What is refused and what is said before anything is trained."""

import dataclasses
from pathlib import Path

import pytest
from small_shard import PLAN, some_images, some_rows, some_settings

from t2ipal.recognition.making import TrainingRequest, check_request
from t2ipal.store import (
    Caption,
    RunTotals,
    Section,
    Store,
    commit_shard,
    write_manifest,
    write_section,
    write_section_captions,
)

REQUEST = TrainingRequest(methods=("tai_dpt", "zsclip"), seeds=(0,), schedule="coco2014")


def run_of(folder: Path, labels) -> Store:
    """A finished run with a caption for each tuple of classes."""
    store = Store(folder)
    captions = [Caption(f"{at}", f"caption {at}", classes) for at, classes in enumerate(labels)]
    key = write_section_captions(store, 0, captions)
    write_section(store, 0, Section(0, 1, 0, len(captions), 0, 1, key))
    commit_shard(store, "00000", PLAN, some_rows(), some_images())
    settings = some_settings(images_per_caption=1)
    write_manifest(store, RunTotals(**vars(settings), num_captions=len(captions), captions="0"))
    return store


def test_classes_without_a_caption(tmp_path):
    whole = run_of(tmp_path / "whole", [(0,), (0, 1)])
    assert "No caption names" not in " ".join(check_request(whole, REQUEST)[1])
    lacking = run_of(tmp_path / "lacking", [(0,), (0,)])
    runs, remarks = check_request(lacking, REQUEST)
    assert [run.name for run in runs] == ["tai_dpt-seed0", "zsclip-seed0"]
    assert any(remark.startswith("No caption names cat: ") for remark in remarks)
    strict = dataclasses.replace(REQUEST, unnamed_classes="refuse")
    message = "Every class must be named by a caption, none names cat. Add captions, or train such"
    with pytest.raises(ValueError, match=message):
        check_request(lacking, strict)
    check_request(whole, strict)


def test_a_batch_larger_than_the_data(tmp_path):
    store = run_of(tmp_path, [(0,), (1,), (0, 1)])
    said = "The batch size 512 is larger than the 3 captions: each epoch is one step. A smaller one"
    assert any(remark.startswith(said) for remark in check_request(store, REQUEST)[1])
    small = dataclasses.replace(REQUEST, changes={"training.batch_size": 3})
    assert not any("batch size" in remark for remark in check_request(store, small)[1])
    untrained = dataclasses.replace(REQUEST, methods=("zsclip",))
    assert not any("batch size" in remark for remark in check_request(store, untrained)[1])


@pytest.mark.parametrize("method", ["coop", "dualcoop", "tip_adapter_f"])
def test_methods_that_learn_from_labelled_images_are_refused(tmp_path, method):
    request = dataclasses.replace(REQUEST, methods=("tai_dpt", method))
    message = f"{method} learns from labelled images, and a run has captions.* jobs/reproduce.py"
    with pytest.raises(ValueError, match=message):
        check_request(run_of(tmp_path, [(0,), (1,)]), request)
