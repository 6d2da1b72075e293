"""The stages of pretraining, and the job that runs them."""

import json

import pytest
import torch

from t2ipal.commands import pretrain_pictovoc
from t2ipal.pictovoc import WEIGHTS_DIR
from t2ipal.pretraining import stages
from t2ipal.pretraining.stages import StagesConfig


@pytest.mark.parametrize(
    ("stage", "card"),
    [
        ("clip", "clip"),
        ("judge", "judge"),
        ("autoencoder", "stable-diffusion"),
        ("diffusion", "stable-diffusion"),
        ("decoder", "stable-diffusion"),
    ],
)
def test_defaults_are_the_settings_of_what_ships(stage, card):
    optim = getattr(StagesConfig(), stage).optim
    text = (WEIGHTS_DIR / card / "README.md").read_text()
    assert f"{optim.num_steps:,} steps of {optim.batch_size}" in text


def test_the_check_of_clip_ranks_captions_of_people(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch, "set_num_threads", int)  # other tests keep theirs
    monkeypatch.setitem(stages.CHECKS, "clip", lambda folder: {"worst_class_AP": 1.0})
    monkeypatch.setattr(stages, "check_real_captions", lambda folder, path: {path: str(folder)})
    arguments = ["--stage", "clip", "--check-only", "--output", str(tmp_path)]
    summary = pretrain_pictovoc.main([*arguments, "--captions", "said.txt"])
    assert summary == {"clip": {"measured": {"worst_class_AP": 1.0, "said.txt": str(tmp_path)}}}
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == summary
    assert pretrain_pictovoc.main(arguments)["clip"]["measured"] == {"worst_class_AP": 1.0}
    with pytest.raises(ValueError, match="captions are for the check of CLIP, got stage judge"):
        pretrain_pictovoc.main(["--stage", "judge", "--captions", "said.txt"])


@pytest.mark.parametrize("stage", ["diffusion", "decoder"])
def test_a_check_without_a_judge_is_refused_before_training(stage, tmp_path):
    message = rf"ends with the judge's verdict, and there is no {tmp_path}/judge: train it"
    with pytest.raises(ValueError, match=message):
        pretrain_pictovoc.main(["--stage", stage, "--output", str(tmp_path)])
