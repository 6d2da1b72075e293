"""A run's features, computed once by the frozen backbone and stored in shards.

Owns where features lie in a store, and that each row carries the key of its sample. Decodes images
so that training never has to.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor
from tqdm import tqdm

from t2ipal.config import require
from t2ipal.features.backbone import Backbone, load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.hashing import perceptual_hash
from t2ipal.features.sets import FeatureSet, TextFeatures
from t2ipal.features.table import BACKBONE, GLOBAL, LENGTHS, LOCAL, POOLED, SCALES
from t2ipal.halting import halt_if_asked
from t2ipal.store import (
    Caption,
    Run,
    Store,
    read_captions,
    read_encoded_images,
    read_run,
    write_arrays,
)
from t2ipal.store.images import decode_image

CAPTIONS_PER_SHARD = 4096
BATCH_SIZE = 128


@dataclass(frozen=True)
class FeatureTask:
    """One shard of features to compute."""

    kind: str
    """`images` or `texts`."""
    name: str
    """Name of the image shard, or the first caption and the one after the last."""

    def key(self, folder: str) -> str:
        """Where its features are stored."""
        return f"{folder}/{self.kind}-{self.name}.safetensors"

    @property
    def captions(self) -> slice:
        """Which of the run's captions it is of, where its kind is `texts`."""
        return slice(*map(int, self.name.split("-")))


def feature_folder(backbone: Backbone) -> str:
    """Folder of a backbone's features inside a run; other weights have another one."""
    kind = backbone.config.feature_format
    return f"features/{backbone.fingerprint}" + ("" if kind == "fp16" else f"-{kind}")


def all_tasks(run: Run) -> list[FeatureTask]:
    """Every feature shard that a run has once all are computed, captions first."""
    tasks = []
    for section in run.sections:
        if section.captions_key:  # a run that grew keeps the features of its earlier captions
            end = section.first_caption + section.num_captions
            starts = range(section.first_caption, end, CAPTIONS_PER_SHARD)
            stops = [min(start + CAPTIONS_PER_SHARD, end) for start in starts]
            tasks += [
                FeatureTask("texts", f"{start:08d}-{stop:08d}")
                for start, stop in zip(starts, stops)
            ]
    return tasks + [FeatureTask("images", marker.shard) for marker in run.markers]


def missing_tasks(run: Run, folder: str) -> list[FeatureTask]:
    """Those of them that are still to be computed."""
    done = set(run.store.list(f"{folder}/"))
    return [task for task in all_tasks(run) if task.key(folder) not in done]


class FeatureExtractor:
    """Turns feature tasks into stored feature shards with one backbone."""

    def __init__(
        self,
        store: Store,
        backbone: Backbone,
        turn: AbstractContextManager[Any] | None = None,
    ):
        """Nothing is computed yet.

        Args:
            store: of the run.
            backbone: gives the features.
            turn: held while the backbone looks at images, where its device has other work too.
        """
        self.store, self.backbone, self.turn = store, backbone, turn or nullcontext()
        self.folder = feature_folder(backbone)

    def __call__(self, task: FeatureTask) -> int:
        """Computes and stores one shard; returns its number of rows."""
        if task.kind == "images":
            encoded = read_encoded_images(self.store, task.name)
            return self._store_images(task, ((sample.key, data) for sample, data in encoded))
        captions = self._captions[task.captions]
        rows = [caption.caption for caption in captions]
        features = text_set(self.backbone, rows, torch.zeros(len(rows), 1))
        keys = [caption.caption_id for caption in captions]
        self._write(task, stored_columns(features, self.backbone.config.feature_format), keys)
        return len(rows)

    @cached_property
    def _captions(self) -> list[Caption]:
        """The run's, read once for all tasks of this extractor: a run only grows."""
        return read_captions(self.store)

    def after_commit(self, shard: str, images: Mapping[str, bytes]) -> None:
        """As for the task of a shard that was just committed, with its encoded images by key."""
        self._store_images(FeatureTask("images", shard), images.items())

    def _store_images(self, task: FeatureTask, encoded: Iterable[tuple[str, bytes]]) -> int:
        keys: list[str] = []
        parts: list[dict[str, np.ndarray]] = []
        # Decoded by batches: a large shard's pixels would take many times its bytes.
        for batch in batched(encoded, BATCH_SIZE):
            images = [decode_image(data) for _, data in batch]
            with self.turn:
                features = image_set(self.backbone, images, torch.zeros(len(images), 1))
            part = stored_columns(features, self.backbone.config.feature_format)
            part["hashes"] = perceptual_hash(torch.from_numpy(np.stack(images))).numpy()
            parts.append(part)
            keys += [key for key, _ in batch]
        arrays = concatenated(parts)
        if not parts:
            arrays = {GLOBAL: np.zeros((0, self.backbone.embed_dim), np.float16)}
        self._write(task, arrays, keys)
        return len(keys)

    def _write(
        self, task: FeatureTask, arrays: Mapping[str, np.ndarray], keys: Sequence[str]
    ) -> None:
        facts = {BACKBONE: self.backbone.fingerprint}
        write_arrays(self.store, task.key(self.folder), arrays, keys, facts)


def extracting(
    config: BackboneConfig, store: Store, device: AbstractContextManager[Any]
) -> Callable[[str, Mapping[str, bytes]], None]:
    """What a synthesis does after each commit to take the images' features where they are drawn.

    `partial(extracting, config)` is the `after_commit` of `t2ipal.synthesis.making.synthesize`.
    """
    backbone = load_backbone(config)
    # An accelerator that draws has no memory to spare for features meanwhile.
    turn = None if backbone.device.type == "cpu" else device
    return FeatureExtractor(store, backbone, turn).after_commit


def in_process(
    store: Store, config: BackboneConfig, tasks: Sequence[FeatureTask]
) -> Iterator[FeatureTask]:
    """Computes every task here, without Ray; yields each one that is done."""
    extract = FeatureExtractor(store, load_backbone(config))
    for task in tasks:
        extract(task)
        yield task


Workers = Callable[..., Iterator[FeatureTask]]
"""`in_process`, or `t2ipal.engine.extraction.on_ray`, which takes the same."""


def extract_run(
    store: Store,
    config: BackboneConfig,
    *,
    workers: Workers = in_process,
    progress: bool = False,
) -> str:
    """Computes and stores every missing feature shard of a run; returns their folder in the store.

    Args:
        store: of a finished synthesis.
        config: of the backbone; it is loaded here once, on the CPU, to name the folder.
        workers: who computes.
        progress: show a bar of shards.

    Raises:
        FileNotFoundError: the synthesis is not finished.
    """
    run = read_run(store)
    folder = feature_folder(load_backbone(dataclasses.replace(config, device="cpu")))
    tasks = missing_tasks(run, folder)
    if tasks:
        with tqdm(total=len(tasks), desc="features", unit="shard", disable=not progress) as bar:
            for _ in workers(store, config, tasks):
                bar.update()
                halt_if_asked()
    return folder


def stored_columns(features: FeatureSet, feature_format: str) -> dict[str, np.ndarray]:
    """What a shard holds of some features: halves, captions one behind the other.

    Raises:
        ValueError: the backbone gave what is infinite or no number.
    """
    columns = {GLOBAL: features.global_features, LOCAL: features.local_features}
    if features.pooled_features is not None:
        columns[POOLED] = features.pooled_features
    require(
        all(bool(column.isfinite().all()) for column in columns.values()),
        "The backbone gave features that are infinite or no numbers. Its weights are damaged, or "
        "its precision is too small: try --precision fp32.",
    )
    if features.mask is not None:
        columns[LOCAL] = features.local_features[features.mask]
    if feature_format == "int8":
        columns[LOCAL], columns[SCALES] = in_8_bits(columns[LOCAL])
    halves = {n: c.half() if c.is_floating_point() else c for n, c in columns.items()}
    arrays = {name: column.numpy() for name, column in halves.items()}
    if features.mask is not None:
        arrays[LENGTHS] = features.mask.sum(dim=1).int().numpy()
    return arrays


def concatenated(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The columns of several batches, one behind the other; none of none."""
    names = parts[0] if parts else ()
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def in_8_bits(
    features: Float[Tensor, "*places width"],
) -> tuple[Int8[Tensor, "*places width"], Float[Tensor, "*places"]]:
    """Whole numbers of -127 to 127, and for each place the half that they are multiplied by."""
    scales = (features.abs().amax(dim=-1) / 127).clamp(min=1e-6).half()
    return (features / scales.float().unsqueeze(-1)).round().clamp(-127, 127).to(torch.int8), scales


class TextEncoder(Protocol):
    """What features of captions need of a frozen CLIP; `Backbone` is one."""

    def encode_texts(self, texts: list[str]) -> TextFeatures:
        """Features of captions, without gradient."""
        ...


def text_set(
    backbone: TextEncoder, captions: Sequence[str], labels: Float[Tensor, "rows classes"]
) -> FeatureSet:
    """Features of captions, padded to the longest, on the CPU."""
    require(len(captions) > 0, "There must be at least one caption to take features of, got none.")
    starts = range(0, len(captions), BATCH_SIZE)
    parts = [backbone.encode_texts(list(captions[start : start + BATCH_SIZE])) for start in starts]
    length = max(part.mask.shape[1] for part in parts)
    local = [padded(part.local_features, length) for part in parts]
    mask = [padded(part.mask, length) for part in parts]
    joined = torch.cat([part.global_features for part in parts])
    return FeatureSet(joined.cpu(), torch.cat(local).cpu(), torch.cat(mask).cpu(), labels)


def image_set(
    backbone: Backbone,
    images: Iterable[UInt8[np.ndarray, "height width 3"]],
    labels: Float[Tensor, "rows classes"],
) -> FeatureSet:
    """Features of images of one size, on the CPU."""
    parts = [
        backbone.encode_images(torch.from_numpy(np.stack(batch)))
        for batch in batched(images, BATCH_SIZE)
    ]
    require(bool(parts), "There must be at least one image to take features of, got none.")
    columns = ("global_features", "local_features", "pooled_features")
    joined = [torch.cat([getattr(part, name) for part in parts]).cpu() for name in columns]
    return FeatureSet(joined[0], joined[1], None, labels, joined[2])


def batched(items: Iterable, size: int) -> Iterator[list]:
    """Lists of up to `size` consecutive items."""
    batch: list = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def multi_hot(rows: Sequence[Sequence[int]], num_classes: int) -> Float[Tensor, "rows classes"]:
    """Class indices of each row as ones in a matrix of zeros."""
    labels = torch.zeros(len(rows), num_classes)
    for row, indices in enumerate(rows):
        labels[row, list(indices)] = 1.0
    return labels


def padded(rows: Tensor, length: int) -> Tensor:
    """The rows with zeros behind them, so that each has `length` places."""
    padding = rows.new_zeros(len(rows), length - rows.shape[1], *rows.shape[2:])
    return torch.cat([rows, padding], dim=1)
