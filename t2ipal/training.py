"""Training of prompts and prototypes on stored features: one plain loop, resumable to the bit.

Owns batches, learning rate, checkpoints and the sum over workers; does not know how the loss is
made, nor who started the workers.
"""

import dataclasses
import hashlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from t2ipal.config import differences, require, to_dict
from t2ipal.features import FeatureSet, TrainingFeatures
from t2ipal.methods import T2IPAL
from t2ipal.recognizer import Recognizer

CHECKPOINT_NAME = "checkpoint.pt"


@dataclass(frozen=True)
class TrainingConfig:
    """How long, how fast and from which seed; what is computed is `MethodConfig`."""

    num_epochs: int = 20
    """Passes over the captions, warm-up included (TaI-DPT: 20); 0 leaves the start as it is."""
    batch_size: int = 512
    """Captions a step, over all workers together (TaI-DPT: 512)."""
    lr: float = 1e-4
    """Learning rate at the cosine's start (TaI-DPT: 1e-4, NUS-WIDE 1e-3)."""
    prototype_lr: float | None = None
    """The prototypes' own learning rate; None: `lr`."""
    warmup_epochs: int = 1
    """First epochs at the constant `warmup_lr` (TaI-DPT: 1)."""
    warmup_lr: float = 1e-5
    """Learning rate of everything during warm-up (TaI-DPT)."""
    momentum: float = 0.9
    """Of SGD (TaI-DPT)."""
    weight_decay: float = 5e-4
    """Of SGD, on everything learned (TaI-DPT)."""
    images_per_caption: int | None = None
    """Only the first so many images of a caption are drawn from; None: all there are (paper: 6)."""
    seed: int = 0
    """Of the context's start, the order of captions and the choice of images."""

    def __post_init__(self) -> None:
        for field in ("num_epochs", "warmup_epochs", "weight_decay", "seed"):
            value = getattr(self, field)
            require(value >= 0, f"{field} must be >= 0, got {value}.")
        for field in ("batch_size", "lr", "prototype_lr", "warmup_lr", "images_per_caption"):
            value = getattr(self, field)
            require(value is None or value > 0, f"{field} must be > 0, got {value}.")
        require(0 <= self.momentum < 1, f"momentum must be in [0, 1), got {self.momentum}.")


@dataclass(frozen=True)
class EpochRecord:
    """Mean losses of one epoch: over its captions, and over those of them that have an image."""

    epoch: int
    """Counted from 0."""
    lr: float
    loss: float
    """The weighted total, mean over steps."""
    image_loss: float
    text_loss: float


@dataclass(frozen=True)
class FitResult:
    """What training leaves."""

    recognizer: Recognizer
    """After the last epoch; no epoch is ever chosen."""
    history: tuple[EpochRecord, ...]
    seconds: float
    """Wall time of this call; what came before a resume does not count."""


def fit(
    method: T2IPAL,
    data: TrainingFeatures,
    config: TrainingConfig,
    *,
    checkpoint_dir: Path | str | None = None,
    resume: bool = True,
    rank: int = 0,
    world_size: int = 1,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> FitResult:
    """Trains `method` in place; the same seed gives the same result, resumed or not.

    Each epoch goes once over all captions in random order and draws one of the good images of each.
    Every worker draws the same batches and takes its part of the rows; gradients are summed, so the
    objective does not depend on `world_size`.

    Args:
        method: built with the same seed on every worker.
        data: all captions and images, the same on every worker.
        config: optimizer and schedule.
        checkpoint_dir: where rank 0 writes a checkpoint after every epoch; None: nowhere.
        resume: go on from the checkpoint there, if any.
        rank: this worker's number.
        world_size: above 1, torch.distributed must be initialized.
        on_epoch: called on every worker after each epoch's checkpoint.

    Raises:
        ValueError: no captions, no usable images although they have weight, or a checkpoint of
            other settings.
    """
    started = time.monotonic()
    images_of, weight = usable_images(data, config), method.config.image_weight
    require(len(data.texts) > 0, "Training needs captions, got none.")
    if weight > 0:
        require(
            data.images is not None and bool((images_of >= 0).any()),
            f"image_weight {weight} needs synthetic images, got none. "
            "Synthesize or choose some, or set image_weight to 0.",
        )
    optimizer = make_optimizer(method, config)
    settings = _settings(method, data, config)
    path = None if checkpoint_dir is None else Path(checkpoint_dir) / CHECKPOINT_NAME
    history: list[EpochRecord] = []
    if path is not None and resume and path.is_file():
        history = _load_checkpoint(path, method, optimizer, settings)

    device = next(method.parameters()).device
    for epoch in range(len(history), config.num_epochs):
        generator = epoch_generator(config.seed, epoch)
        order = torch.randperm(len(data.texts), generator=generator)
        chosen = choose_images(images_of, generator)
        _set_lr(optimizer, config, epoch)
        sums, steps = torch.zeros(3, device=device), 0
        for batch in order.split(config.batch_size):
            image_rows = chosen[batch]
            with_image = int((image_rows >= 0).sum())
            part, image_part = batch[rank::world_size], image_rows[rank::world_size]
            losses = method.loss(
                _rows(data.images, image_part[image_part >= 0], device) if weight > 0 else None,
                _rows(data.texts, part, device) if weight < 1 else None,
                num_images=max(with_image, 1),
                num_texts=len(batch),
            )
            optimizer.zero_grad()
            losses.total.backward()
            if world_size > 1:
                _sum_gradients(method)
            optimizer.step()
            sums, steps = sums + torch.stack(losses).detach(), steps + 1
        if world_size > 1:
            torch.distributed.all_reduce(sums)
        history.append(EpochRecord(epoch, lr_at(config, epoch), *(sums / steps).tolist()))
        if path is not None and rank == 0:
            _save_checkpoint(path, method, optimizer, settings, history)
        if on_epoch is not None:
            on_epoch(history[-1])
    return FitResult(method.export(), tuple(history), time.monotonic() - started)


def lr_at(config: TrainingConfig, epoch: int) -> float:
    """Warm-up, then lr (1 + cos(pi (epoch - warm-up) / num_epochs)) / 2, as TaI-DPT steps it."""
    if epoch < config.warmup_epochs:
        return config.warmup_lr
    return config.lr * _cosine(config, epoch)


def _cosine(config: TrainingConfig, epoch: int) -> float:
    return (1 + math.cos(math.pi * (epoch - config.warmup_epochs) / config.num_epochs)) / 2


def make_optimizer(method: T2IPAL, config: TrainingConfig) -> torch.optim.SGD:
    """SGD over everything learned; the prototypes are a group of their own."""
    prototypes = [] if method.prototypes is None else [method.prototypes]
    others = [p for p in method.parameters() if all(p is not prototype for prototype in prototypes)]
    groups = [
        {"params": others, "peak_lr": config.lr},
        {"params": prototypes, "peak_lr": config.prototype_lr or config.lr},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )


def _set_lr(optimizer: torch.optim.SGD, config: TrainingConfig, epoch: int) -> None:
    warm = epoch < config.warmup_epochs
    for group in optimizer.param_groups:
        peak = group["peak_lr"]
        group["lr"] = config.warmup_lr if warm else peak * _cosine(config, epoch)


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Randomness of one epoch, from its number alone: a resumed run needs no random state."""
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))


def usable_images(data: TrainingFeatures, config: TrainingConfig) -> Int[Tensor, "captions k"]:
    """Image rows of each caption that may be drawn, good ones first, then -1."""
    rows = data.image_of_caption[:, : config.images_per_caption]
    order = torch.argsort((rows < 0).int(), dim=1, stable=True)
    return rows.gather(1, order)


def choose_images(
    images_of: Int[Tensor, "captions k"], generator: torch.Generator
) -> Int[Tensor, " captions"]:
    """One of the good images of each caption, all equally likely; -1 where there is none."""
    draw = torch.rand(len(images_of), generator=generator, dtype=torch.float64)
    if images_of.shape[1] == 0:
        return images_of.new_full((len(images_of),), -1)
    count = (images_of >= 0).sum(dim=1)
    position = (draw * count).long().clamp(max=images_of.shape[1] - 1)
    return images_of.gather(1, position.unsqueeze(1)).squeeze(1)


def _rows(
    features: FeatureSet | None, rows: Int[Tensor, " batch"], device: torch.device
) -> FeatureSet | None:
    return None if features is None else features.rows(rows).to(device)


def _sum_gradients(method: T2IPAL) -> None:
    """Each worker's loss is its part of the batch's mean, so gradients add up."""
    for parameter in method.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        torch.distributed.all_reduce(parameter.grad)


def _settings(method: T2IPAL, data: TrainingFeatures, config: TrainingConfig) -> dict[str, Any]:
    return {
        "method": to_dict(method.config),
        "training": to_dict(config),
        "num_captions": len(data.texts),
        "num_images": 0 if data.images is None else len(data.images),
    }


def _save_checkpoint(
    path: Path,
    method: T2IPAL,
    optimizer: torch.optim.Optimizer,
    settings: dict[str, Any],
    history: list[EpochRecord],
) -> None:
    """Whole or not at all: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    torch.save(
        {
            "settings": settings,
            "history": [dataclasses.asdict(record) for record in history],
            "method": method.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
        unfinished,
    )
    os.replace(unfinished, path)


def _load_checkpoint(
    path: Path, method: T2IPAL, optimizer: torch.optim.Optimizer, settings: dict[str, Any]
) -> list[EpochRecord]:
    device = next(method.parameters()).device
    stored = torch.load(path, map_location=device, weights_only=True)
    changed = differences(settings, stored["settings"])
    require(
        not changed,
        f"{path} was written with other settings ({'; '.join(changed)}). Use another folder, or "
        "resume=False to write over it.",
    )
    method.load_state_dict(stored["method"])
    optimizer.load_state_dict(stored["optimizer"])
    return [EpochRecord(**record) for record in stored["history"]]
