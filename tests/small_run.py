"""A run folder as the jobs leave it, in which every class is named twice; and a short test set."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from t2ipal.captions import Caption, filter_captions, load_vocabulary
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.pictovoc.captions import world_captions
from t2ipal.pictovoc.judge import Judge
from t2ipal.pretraining import checks
from t2ipal.store import Store
from t2ipal.synthesis.making import SynthesisSummary, synthesize
from t2ipal.synthesis.rendering import RenderingSynthesizer
from t2ipal.synthesis.request import SynthesisRequest


def small_captions() -> list[Caption]:
    """Four of the world's, one that names no class, and a ring in which each class has two."""
    names = checks.PROMPT_NAMES
    pairs = [f"A photo of a {a} and a {b}." for a, b in zip(names, (*names[1:], names[0]))]
    ring = [Caption(f"ring-{number}", text) for number, text in enumerate(pairs)]
    world = [Caption(*row) for row in world_captions("validation", 4)]
    return [*world, Caption("none", "A red house."), *ring]


def write_small_run(folder: Path, images_per_caption: int = 2) -> SynthesisSummary:
    """Draws what the captions name, in this process."""
    vocabulary = load_vocabulary("voc2007")
    config = SynthesisConfig(pipeline="rendered", images_per_caption=images_per_caption)
    request = SynthesisRequest(config, vocabulary, filter_captions(small_captions(), vocabulary))
    return synthesize(Store(folder), request, factory=RenderingSynthesizer)


def write_random_judge(weights_dir: Path) -> None:
    """Writes a judge that was never trained, where the jobs look for the shipped one."""
    torch.manual_seed(0)
    (weights_dir / "judge").mkdir()
    save_file(Judge().state_dict(), weights_dir / "judge" / "judge.safetensors")


FEW_SCENES = 150
"""Test scenes that still show every class."""
