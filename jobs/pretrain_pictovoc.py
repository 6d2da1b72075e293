r"""Trains the embedded world's models from scratch: CLIP, judge, autoencoder, UNet, tuned decoder.

Everything, one stage after the other (about two hours on two cores with AVX-512 and bfloat16):

    python jobs/pretrain_pictovoc.py --output runs/pictovoc --num-threads 2

One stage, or the UNet on both cores together:

    python jobs/pretrain_pictovoc.py --stage clip --output runs/pictovoc
    torchrun --nproc-per-node 2 jobs/pretrain_pictovoc.py --stage diffusion --output runs/pictovoc

Only the measures of the CLIP that ships, and how it reads sentences of people:

    python jobs/pretrain_pictovoc.py --stage clip --check-only --output t2ipal/pictovoc/weights \
        --captions captions_val2017.json

The same command again goes on from the last checkpoint. `--output t2ipal/pictovoc/weights` replaces
the models that ship. The last line of the output is a JSON summary.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import tyro

from jobs._job import run_job
from t2ipal.config import require, to_dict
from t2ipal.features import BackboneConfig, load_backbone
from t2ipal.pictovoc.autoencoder import AutoencoderConfig, train_autoencoder
from t2ipal.pictovoc.checks import (
    check_autoencoder,
    check_clip,
    check_diffusion,
    check_judge,
    check_real_captions,
)
from t2ipal.pictovoc.clip import ClipConfig, train_clip
from t2ipal.pictovoc.decoder import DecoderConfig, train_decoder
from t2ipal.pictovoc.diffusion import DiffusionConfig, train_diffusion
from t2ipal.pictovoc.judge import JudgeConfig, train_judge

CHECKS = {
    "clip": check_clip,
    "judge": check_judge,
    "autoencoder": check_autoencoder,
    "diffusion": check_diffusion,
    "decoder": check_diffusion,
}


@dataclass(frozen=True)
class Options:
    """Trains one stage or all of them, and measures what was trained."""

    output: str = "runs/pictovoc"
    """Folder for the finished models: clip, judge, stable-diffusion."""
    work_dir: str | None = None
    """Folder for checkpoints, logs and cached latents; None: `output`/work."""
    stage: Literal["all", "clip", "judge", "autoencoder", "diffusion", "decoder"] = "all"
    """What to train; later stages need the earlier ones' models in `output`."""
    num_threads: int = 1
    """CPU threads of each process."""
    device: str | None = None
    """Torch device; None: cuda where there is one, else cpu."""
    check_only: bool = False
    """Only measure the models that are there, train nothing."""
    captions: str | None = None
    """File of people's captions, such as MS-COCO's, that the check of CLIP ranks too."""
    clip: ClipConfig = field(default_factory=ClipConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)


def _train(stage: str, options: Options, output: Path, device: str) -> dict[str, float]:
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


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    options = tyro.cli(Options, args=arguments, description=__doc__)
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
    print(json.dumps(summary))
    return summary


if __name__ == "__main__":
    run_job(main)
