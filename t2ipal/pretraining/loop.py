"""The loop that trains each of the world's models: AdamW or Muon, cosine, averaged weights.

Writes checkpoints and resumes from them. Knows nothing of what the models are: a stage hands in its
modules and the loss of a step.
"""

import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from t2ipal.config import fingerprint, require, to_dict
from t2ipal.pretraining.muon import Muon
from t2ipal.pretraining.processes import rank_and_world, sum_over_processes
from t2ipal.store import Store


@dataclass(frozen=True)
class PretrainConfig:
    """How one of the world's models is trained from scratch."""

    num_steps: int
    """Optimizer steps."""
    batch_size: int
    """Scenes a step; step n reads scenes n * batch_size and on, so no scene comes twice."""
    learning_rate: float = 1e-3
    """Peak of AdamW's learning rate."""
    matrix_learning_rate: float = 0.0
    """Peak of Muon's learning rate (Jordan et al., 2024) for matrices and kernels, in units of
    AdamW's update; 0 leaves them to AdamW."""
    warmup_steps: int = 200
    """Steps of linear warm-up; a cosine to zero follows."""
    weight_decay: float = 0.02
    """AdamW's weight decay, on matrices only."""
    ema_decay: float = 0.0
    """Decay of the averaged weights that are shipped; 0 ships the last weights."""
    checkpoint_steps: int = 100
    """Steps between checkpoints."""
    seed: int = 0
    """Seed of the initial weights and of everything drawn while training."""

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "checkpoint_steps"):
            require(getattr(self, name) > 0, f"{name} must be > 0, got {getattr(self, name)}.")


def step_generator(config: PretrainConfig, step: int) -> torch.Generator:
    """The source of randomness of one step: a resumed run draws what an undisturbed one would."""
    return torch.Generator().manual_seed(config.seed * 1_000_003 + step)


def _share_of_peak(config: PretrainConfig, step: int) -> float:
    """Learning rate of a step, as a share of its peak."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(config.num_steps - config.warmup_steps, 1)
    return 0.5 * (1 + cos(pi * min(done, 1.0)))


class _Optimizer:
    """AdamW and, where the config asks for it, Muon for all that is a matrix or holds kernels."""

    def __init__(self, model: nn.Module, config: PretrainConfig):
        trained = [p for p in model.parameters() if p.requires_grad]
        matrices = [
            p for p in trained if config.matrix_learning_rate and p.ndim >= 2 and _both_sides(p)
        ]
        apart = {id(p) for p in matrices}
        rest = [p for p in trained if id(p) not in apart]
        groups = [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        peak = config.learning_rate
        adamw = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98))
        self.parts: list[tuple[torch.optim.Optimizer, float]] = [(adamw, peak)]
        if matrices:
            peak = config.matrix_learning_rate
            self.parts.append((Muon(matrices, peak, config.weight_decay), peak))

    def step(self, share: float) -> None:
        """Updates the parameters at a share of the peak learning rates."""
        for optimizer, peak in self.parts:
            for group in optimizer.param_groups:
                group["lr"] = share * peak
            optimizer.step()

    def state(self) -> list[dict[str, Any]]:
        """What a checkpoint keeps."""
        return [optimizer.state_dict() for optimizer, _ in self.parts]

    def load(self, states: list[dict[str, Any]]) -> None:
        """Goes on from a checkpoint's state."""
        for (optimizer, _), state in zip(self.parts, states, strict=True):
            optimizer.load_state_dict(state)


def _both_sides(parameter: Tensor) -> bool:
    """Whether a weight is a matrix worth making orthogonal: 32 or more numbers on either side."""
    return min(len(parameter), parameter[0].numel()) >= 32


def _average(averages: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            averages[name].lerp_(value, 1 - decay)
        else:
            averages[name].copy_(value)


def train_steps(
    name: str,
    model: nn.Module,
    loss_of_step: Callable[[int], tuple[Tensor, dict[str, float]]],
    config: PretrainConfig,
    work_dir: Path,
    stage_settings: Any = None,
) -> dict[str, float]:
    """Trains `model` in place and returns the last step's terms and the seconds it all took.

    Args:
        name: of the checkpoint and log in `work_dir`.
        loss_of_step: step -> (loss, terms to log); all its randomness must come from the step.
        stage_settings: the whole config of the stage where it has more than `config`; a checkpoint
            made with another one is refused.

    Raises:
        ValueError: `work_dir` holds a checkpoint of other settings.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    path, log_path = work_dir / f"{name}.ckpt", work_dir / f"{name}.jsonl"
    optimizer = _Optimizer(model, config)
    averages = {key: value.clone() for key, value in model.state_dict().items()}
    terms: dict[str, float] = {}
    first, seconds, settings = 0, 0.0, fingerprint(to_dict(stage_settings or config))
    if path.exists():
        saved = torch.load(path, weights_only=True, map_location="cpu")
        require(
            saved["settings"] == settings,
            f"{path} was written with other settings. Give another --work-dir or remove it.",
        )
        model.load_state_dict(saved["model"])
        optimizer.load(saved["optimizer"])
        for key, value in averages.items():
            value.copy_(saved["averages"][key])
        first, seconds, terms = saved["step"], saved["seconds"], saved.get("terms", {})
    rank, world = rank_and_world()
    started = time.monotonic() - seconds
    model.train()
    bar = tqdm(
        range(first, config.num_steps),
        initial=first,
        total=config.num_steps,
        desc=name,
        mininterval=10,
        disable=rank > 0,
    )
    for step in bar:
        loss, terms = loss_of_step(step)
        if not torch.isfinite(loss):
            raise RuntimeError(
                f"The loss of {name} must be finite, got {loss.item()} at step {step}."
            )
        model.zero_grad(set_to_none=True)
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        sum_over_processes(gradients)
        torch._foreach_div_(gradients, world)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(_share_of_peak(config, step))
        if config.ema_decay:
            _average(averages, model, min(config.ema_decay, (step + 1) / (step + 10)))
        bar.set_postfix({key: f"{value:.3f}" for key, value in terms.items()}, refresh=False)
        if (step + 1) % config.checkpoint_steps == 0 or step + 1 == config.num_steps:
            seconds = time.monotonic() - started
            if rank > 0:
                continue
            with log_path.open("a") as log:
                log.write(
                    json.dumps({"step": step + 1, "seconds": round(seconds, 1), **terms}) + "\n"
                )
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state(),
                "averages": averages,
            }
            state |= {"step": step + 1, "seconds": seconds, "settings": settings, "terms": terms}
            buffer = io.BytesIO()
            torch.save(state, buffer)
            Store(path.parent).write(path.name, buffer.getvalue())
    if config.ema_decay:
        model.load_state_dict(averages)
    model.eval()
    return {**terms, "seconds": seconds}
