"""Training on stored features: one plain loop that knows no method, resumable to the bit.

Owns batches, learning rate, checkpoints and the sum over workers; does not know how the loss is
made (`t2ipal.methods.contract`), nor who started the workers.
"""

import dataclasses
import hashlib
import io
import math
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import torch
from jaxtyping import Int
from torch import Tensor

from t2ipal.config import (
    Bounds,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    added,
    check_fields,
    differences,
    require,
    to_dict,
)
from t2ipal.devices import computes_bf16
from t2ipal.features.sets import TrainingFeatures, packed
from t2ipal.halting import halt_if_asked
from t2ipal.methods.contract import Method
from t2ipal.methods.recognizer import Recognizer
from t2ipal.training.batches import Share, epoch_batches


@dataclass(frozen=True)
class TrainingConfig:
    """How long, how fast and from which seed; what is computed is the method's."""

    num_epochs: NonNegativeInt = 20
    """Passes over the captions, warm-up included (TaI-DPT: 20); 0 leaves the start as it is."""
    batch_size: PositiveInt = 512
    """Captions a step, over all workers together (TaI-DPT: 512)."""
    lr: PositiveFloat = 1e-4
    """Learning rate at the cosine's start (TaI-DPT: 1e-4, NUS-WIDE 1e-3)."""
    prototype_lr: PositiveFloat | None = None
    """The prototypes' own learning rate; None: `lr`."""
    warmup_epochs: NonNegativeInt = 1
    """First epochs at the constant `warmup_lr` (TaI-DPT: 1)."""
    warmup_lr: PositiveFloat = 1e-5
    """Learning rate of everything during warm-up (TaI-DPT)."""
    momentum: Annotated[float, Bounds(ge=0, lt=1)] = 0.9
    """Of SGD (TaI-DPT)."""
    weight_decay: NonNegativeFloat = 5e-4
    """Of SGD, on everything learned (TaI-DPT)."""
    images_per_caption: PositiveInt | None = None
    """Only the first so many images of a caption are drawn from; None: all there are (paper: 6)."""
    seed: NonNegativeInt = 0
    """Of the context's start, the order of captions and the choice of images."""
    precision: Literal["auto", "fp32", "bf16"] = added("auto")
    """Of the text encoder's passes over prompts: `bf16` (autocast) or `fp32`; `auto`: bf16 on a
    CUDA device that has it. Class embeddings, scores and loss are always in float32."""
    data_seed: Annotated[int, Bounds(ge=0)] | None = added(None)
    """Of the order of captions and the choice of images alone; None: `seed`."""
    optimizer: Literal["sgd", "adamw"] = added("sgd")
    """`sgd`, or `adamw` (Tip-Adapter-F), which leaves `momentum` out."""
    drop_last: bool = added(False)
    """Leave out the last captions of an epoch where they fill no batch, as TaI-DPT does."""
    template_captions: bool = added(False)
    """Learn also from template captions such as "a photo of a dog.", each with its one class and
    without an image (TaI-DPT: 89 of each class)."""
    max_per_class: PositiveInt | None = added(None)  # noqa: RUF009
    """Only the first so many captions of a class, each counted for the rarest one that it names
    (TaI-DPT); None: all."""

    def __post_init__(self) -> None:
        check_fields(self)


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


class Checkpoints(Protocol):
    """Where a fit keeps its state between two epochs; `t2ipal.training.runs` has one in a store."""

    def read(self) -> bytes | None:
        """The last one; None where there is none."""
        ...

    def write(self, data: bytes) -> None:
        """Replaces it, whole or not at all."""
        ...

    def is_due(self, is_last: bool) -> bool:
        """Whether to write one after this epoch."""
        ...


def fit(
    method: Method,
    data: TrainingFeatures,
    config: TrainingConfig,
    *,
    checkpoints: Checkpoints | None = None,
    rank: int = 0,
    world_size: int = 1,
    on_epoch: Callable[[EpochRecord], Any] | None = None,
) -> FitResult:
    """Trains `method` in place; the same seed gives the same result, resumed or not.

    Each epoch goes once over all captions in random order and draws one of the good images of each.
    Every worker draws the same batches and takes its part of the rows; gradients are summed, so the
    objective does not depend on `world_size`.

    Args:
        method: built with the same seed on every worker.
        data: all captions and images, the same on every worker.
        config: optimizer and schedule.
        checkpoints: read by rank 0 before the first epoch, and written by it; None: none.
        rank: this worker's number.
        world_size: above 1, torch.distributed must be initialized.
        on_epoch: called on every worker after each epoch's checkpoint.

    Raises:
        ValueError: no captions, data from which the method cannot learn, epochs for a method that
            is not trained, or a checkpoint of other settings.
    """
    started = time.monotonic()
    images_of = usable_images(data, config)
    require(len(data.texts) > 0, "Training needs captions, got none.")
    method.prepare(dataclasses.replace(data, image_of_caption=images_of))
    groups = method.parameter_groups(config)
    require(
        bool(groups) or config.num_epochs == 0,
        f"A method without anything to train needs num_epochs 0, got {config.num_epochs}.",
    )
    settings = _settings(method, data, config, groups)
    history: list[EpochRecord] = []
    optimizer = make_optimizer(groups, config) if groups else None
    if optimizer is not None and checkpoints is not None:
        history = _resume(checkpoints, method, optimizer, settings, rank, world_size)

    for epoch in range(len(history), config.num_epochs):
        assert optimizer is not None
        losses = _epoch(method, data, images_of, optimizer, config, epoch, rank, world_size)
        history.append(EpochRecord(epoch, lr_at(config, epoch), *losses))
        is_last = epoch + 1 == config.num_epochs
        if checkpoints is not None and rank == 0 and checkpoints.is_due(is_last):
            checkpoints.write(_checkpoint(method, optimizer, settings, history))
        if on_epoch is not None:
            on_epoch(history[-1])
        halt_if_asked()
    return FitResult(method.export(), tuple(history), time.monotonic() - started)


def _epoch(
    method: Method,
    data: TrainingFeatures,
    images_of: Int[Tensor, "captions k"],
    optimizer: torch.optim.Optimizer,
    config: TrainingConfig,
    epoch: int,
    rank: int,
    world_size: int,
) -> list[float]:
    """One pass over all captions; the mean losses of its steps, over all workers."""
    device = optimizer.param_groups[0]["params"][0].device
    generator = epoch_generator(data_seed(config), epoch)
    order = torch.randperm(len(data.texts), generator=generator)
    chosen = choose_images(images_of, generator)
    _set_lr(optimizer, config, epoch)
    if hasattr(method, "start_epoch"):
        method.start_epoch(epoch)  # type: ignore
    sums, steps = torch.zeros(3, device=device), 0
    share = Share(rank, world_size, device, method.uses_images, method.uses_texts)
    order = order[: whole_batches(config, len(order))]
    for batch in epoch_batches(data, order, chosen, config.batch_size, share):
        with autocast(config.precision, device):
            losses = method.loss(
                batch.images,
                batch.texts,
                num_images=max(batch.num_images, 1),
                num_texts=batch.num_texts,
            )
        optimizer.zero_grad()
        losses.total.backward()
        if world_size > 1:
            _sum_gradients(optimizer)
        optimizer.step()
        sums, steps = sums + torch.stack(losses).detach(), steps + 1
    if world_size > 1:
        torch.distributed.all_reduce(sums)
    return (sums / steps).tolist()


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """What the loss is computed under; a method leaves it where float32 is needed."""
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(precision, device))


def uses_bf16(precision: str, device: torch.device) -> bool:
    """What a precision of the config comes to on a device."""
    fast = device.type == "cuda" and computes_bf16(str(device))
    return precision == "bf16" or (precision == "auto" and fast)


def lr_at(config: TrainingConfig, epoch: int) -> float:
    """Warm-up, then lr (1 + cos(pi (epoch - warm-up) / num_epochs)) / 2, as TaI-DPT steps it."""
    if epoch < config.warmup_epochs:
        return config.warmup_lr
    return config.lr * cosine(config, epoch)


def cosine(config: TrainingConfig, epoch: int) -> float:
    """What share of its peak the learning rate is, after the warm-up."""
    return (1 + math.cos(math.pi * (epoch - config.warmup_epochs) / config.num_epochs)) / 2


def make_optimizer(
    groups: list[dict[str, Any]], config: TrainingConfig
) -> torch.optim.SGD | torch.optim.AdamW:
    """Over a method's parameter groups, each with a peak of its own."""
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )


def whole_batches(config: TrainingConfig, num_captions: int) -> int:
    """Captions of an epoch; a set smaller than a batch is one batch all the same."""
    left_over = num_captions % config.batch_size if config.drop_last else 0
    return num_captions - left_over or num_captions


def _set_lr(optimizer: torch.optim.Optimizer, config: TrainingConfig, epoch: int) -> None:
    for group in optimizer.param_groups:
        of_stage, peak, within = config, group.get("peak_lr", 0.0), epoch
        for num_epochs, stage_peak in group.get("stages", ()):
            of_stage, peak = dataclasses.replace(config, num_epochs=num_epochs), stage_peak
            if within < num_epochs:
                break
            within -= num_epochs
        warm = within < config.warmup_epochs
        group["lr"] = config.warmup_lr if warm and peak > 0 else peak * cosine(of_stage, within)


def data_seed(config: TrainingConfig) -> int:
    """Of the order of captions and the choice of images."""
    return config.seed if config.data_seed is None else config.data_seed


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Randomness of one epoch, from its number alone: a resumed run needs no random state."""
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))


def usable_images(data: TrainingFeatures, config: TrainingConfig) -> Int[Tensor, "captions k"]:
    """Image rows of each caption that may be drawn, good ones first, then -1.

    Raises:
        ValueError: the captions are not those that the config asks for.
    """
    made = data.num_templates > 0, data.max_per_class
    require(
        made == (config.template_captions, config.max_per_class),
        f"Training with template_captions {config.template_captions} and max_per_class "
        f"{config.max_per_class} needs captions chosen so, got {made[0]} and {made[1]}: pass the "
        "features through t2ipal.training.captions.captions_for first.",
    )
    return packed(data.image_of_caption[:, : config.images_per_caption])


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


def _sum_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Each worker's loss is its part of the batch's mean, so gradients add up."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if not parameter.requires_grad:
                continue  # it waits for its stage, on every worker
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)


def _settings(
    method: Method, data: TrainingFeatures, config: TrainingConfig, groups: list[dict[str, Any]]
) -> dict[str, Any]:
    # What `auto` comes to: a checkpoint of one precision never goes on in another one.
    used = groups and uses_bf16(config.precision, groups[0]["params"][0].device)
    return {
        **({"precision": "bf16"} if used else {}),
        "method": to_dict(method.config),
        "training": to_dict(config),
        "num_captions": len(data.texts),
        "num_images": 0 if data.images is None else len(data.images),
    }


def agreed(value: Any, world_size: int) -> Any:
    """What the first worker says, on every worker: a store may change between two looks at it."""
    if world_size == 1:
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def _checkpoint(
    method: Method,
    optimizer: torch.optim.Optimizer,
    settings: dict[str, Any],
    history: list[EpochRecord],
) -> bytes:
    buffer = io.BytesIO()
    torch.save(
        {
            "settings": settings,
            "history": [dataclasses.asdict(record) for record in history],
            "method": method.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
        buffer,
    )
    return buffer.getvalue()


def _resume(
    checkpoints: Checkpoints,
    method: Method,
    optimizer: torch.optim.Optimizer,
    settings: dict[str, Any],
    rank: int,
    world_size: int,
) -> list[EpochRecord]:
    """The history of the epochs that were done, with method and optimizer as they were then."""
    data = agreed(checkpoints.read() if rank == 0 else None, world_size)
    if data is None:
        return []
    device = optimizer.param_groups[0]["params"][0].device
    try:
        stored = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except (EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise ValueError(f"The checkpoint in {checkpoints} is damaged. Remove it.") from error
    another_version = (
        f"The checkpoint in {checkpoints} was written by another version of t2ipal, whose state "
        "this one cannot take over. Remove it: the run then begins anew."
    )
    whole = isinstance(stored, dict) and stored.keys() >= {"settings", "history", "method"}
    require(whole, another_version)
    changed = differences(settings, stored["settings"])
    require(
        not changed,
        f"The checkpoint in {checkpoints} was written with other settings ({'; '.join(changed)}). "
        "Remove it, or use another output folder.",
    )
    try:
        method.load_state_dict(stored["method"])
        optimizer.load_state_dict(stored["optimizer"])
        return [EpochRecord(**record) for record in stored["history"]]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(another_version) from error
