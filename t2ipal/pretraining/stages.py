"""The stages of the world's models, one after the other: each is trained, then measured."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from t2ipal.config import require, to_dict
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.places import LocalPath, Uri
from t2ipal.pretraining.autoencoder import AutoencoderConfig, train_autoencoder
from t2ipal.pretraining.checks import (
    check_autoencoder,
    check_clip,
    check_diffusion,
    check_judge,
    check_real_captions,
)
from t2ipal.pretraining.clip import ClipConfig, train_clip
from t2ipal.pretraining.decoder import DecoderConfig, train_decoder
from t2ipal.pretraining.judge import JudgeConfig, train_judge
from t2ipal.pretraining.unet import DiffusionConfig, train_diffusion

CHECKS: dict[str, Callable[[Path], dict[str, float]]] = {
    "clip": check_clip,
    "judge": check_judge,
    "autoencoder": check_autoencoder,
    "diffusion": check_diffusion,
    "decoder": check_diffusion,
}
"""Stage -> what measures its model, in the order of training."""


@dataclass(frozen=True)
class StagesConfig:
    """Trains one stage or all of them, and measures what was trained."""

    output: LocalPath = "runs/pictovoc"
    """Folder for the finished models: clip, judge, stable-diffusion."""
    work_dir: LocalPath | None = None
    """Folder for checkpoints, logs and cached latents; None: `output`/work."""
    stage: Literal["all", "clip", "judge", "autoencoder", "diffusion", "decoder"] = "all"
    """What to train; later stages need the earlier ones' models in `output`."""
    num_threads: int = 1
    """CPU threads of each process."""
    device: str | None = None
    """Torch device; None: cuda where there is one, else cpu."""
    check_only: bool = False
    """Only measure the models that are there, train nothing."""
    captions: Uri | None = None
    """File of people's captions, such as MS-COCO's, that the check of CLIP ranks too."""
    clip: ClipConfig = field(default_factory=ClipConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)


def run_stages(options: StagesConfig) -> dict[str, Any]:
    """Trains and measures what is asked for; returns each stage's numbers.

    Raises:
        ValueError: options that no stage can use, or a stage without the models it needs.
    """
    torch.set_num_threads(options.num_threads)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    output = Path(options.output)
    require(
        options.captions is None or options.stage in ("all", "clip"),
        f"captions are for the check of CLIP, got stage {options.stage}: leave them out.",
    )
    require(
        options.stage not in ("diffusion", "decoder") or (output / "judge").is_dir(),
        f"The stage {options.stage} ends with the judge's verdict, and there is no {output}/judge: "
        "train it (--stage judge) or copy t2ipal/pictovoc/weights/judge there.",
    )
    joined = "WORLD_SIZE" in os.environ
    if joined:
        require(
            options.stage in ("autoencoder", "diffusion", "decoder"),
            f"Only autoencoder, UNet and decoder train in several processes, got {options.stage}.",
        )
        torch.distributed.init_process_group("gloo" if device == "cpu" else "nccl")
    summary: dict[str, Any] = {}
    for stage in CHECKS if options.stage == "all" else (options.stage,):
        if not options.check_only:
            trained = _train(stage, options, output, device)
            summary[stage] = {"trained": trained, "settings": to_dict(getattr(options, stage))}
        check = CHECKS[stage]
        if not joined or torch.distributed.get_rank() == 0:
            measured = check(output)
            if stage == "clip" and options.captions is not None:
                measured |= check_real_captions(output, options.captions)
            summary.setdefault(stage, {})["measured"] = measured
    if joined:
        torch.distributed.destroy_process_group()
    return summary


def _train(stage: str, options: StagesConfig, output: Path, device: str) -> dict[str, float]:
    work = Path(options.work_dir) if options.work_dir else output / "work"
    pipeline = output / "stable-diffusion"
    if stage == "clip":
        return train_clip(options.clip, work, output / "clip", device)
    if stage == "judge":
        return train_judge(options.judge, work, output / "judge", device)
    backbone = load_backbone(BackboneConfig(model=str((output / "clip").resolve()), device=device))
    if stage == "autoencoder":
        return train_autoencoder(options.autoencoder, backbone, work, pipeline, device)
    if stage == "decoder":
        return train_decoder(options.decoder, backbone, work, pipeline, device)
    return train_diffusion(options.diffusion, backbone, pipeline / "vae", work, pipeline, device)
