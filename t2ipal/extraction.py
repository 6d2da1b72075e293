"""A run's features: computed once by the frozen backbone, stored in shards, read back for training.

Owns where features lie in a store and which row belongs to which caption. Decodes images so that
training never has to; knows nothing of prompts or losses.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

from t2ipal.config import require
from t2ipal.features import Backbone, FeatureSet, TrainingFeatures, resize_and_crop
from t2ipal.images import decode_image
from t2ipal.quality import only_images, perceptual_hash
from t2ipal.store import (
    Store,
    committed_shards,
    missing_shards,
    read_arrays,
    read_choice,
    read_encoded_images,
    read_manifest,
    read_rows,
    read_sections,
    read_stored_captions,
    write_arrays,
)

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


def feature_folder(backbone: Backbone) -> str:
    """Folder of a backbone's features inside a run; other weights have another one."""
    return f"features/{backbone.fingerprint}"


def feature_tasks(store: Store, folder: str) -> list[FeatureTask]:
    """What is still to be computed for a finished synthesis.

    Raises:
        FileNotFoundError: the store has no manifest, or has grown since and lacks shards.
    """
    read_manifest(store)
    sections = read_sections(store)
    shards = [marker["shard"] for marker in committed_shards(store)]
    if missing := missing_shards(sections, shards):
        raise FileNotFoundError(
            f"{store.uri} was asked for more, and {missing} shards of it are missing. Run "
            "jobs/synthesize.py again with the options of the last time."
        )
    tasks = []
    for section in sections:
        if section.captions_key:  # a run that grew keeps the features of its earlier captions
            end = section.first_caption + section.num_captions
            starts = range(section.first_caption, end, CAPTIONS_PER_SHARD)
            stops = [min(start + CAPTIONS_PER_SHARD, end) for start in starts]
            tasks += [
                FeatureTask("texts", f"{start:08d}-{stop:08d}")
                for start, stop in zip(starts, stops)
            ]
    tasks += [FeatureTask("images", shard) for shard in shards]
    done = set(store.list(f"{folder}/"))
    return [task for task in tasks if task.key(folder) not in done]


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
        arrays = self._texts(task.name) if task.kind == "texts" else self._images(task.name)
        write_arrays(self.store, task.key(self.folder), arrays)
        return len(next(iter(arrays.values())))

    def images_at_hand(self, shard: str, images: Iterable[bytes]) -> None:
        """As for the task of a shard that was just committed, with its images as it stores them."""
        arrays = self._image_arrays(images)
        write_arrays(self.store, FeatureTask("images", shard).key(self.folder), arrays)

    def _texts(self, name: str) -> dict[str, np.ndarray]:
        start, stop = map(int, name.split("-"))
        rows = read_stored_captions(self.store)["caption"].to_pylist()[start:stop]
        features = text_set(self.backbone, rows, torch.zeros(len(rows), 1))
        return _halves(features, ("global_features", "local_features", "mask"))

    def _images(self, shard: str) -> dict[str, np.ndarray]:
        return self._image_arrays(data for _, data in read_encoded_images(self.store, shard))

    def _image_arrays(self, encoded: Iterable[bytes]) -> dict[str, np.ndarray]:
        parts: list[dict[str, np.ndarray]] = []
        # Decoded by batches: a large shard's pixels would take many times its bytes.
        for images in batched(map(decode_image, encoded), BATCH_SIZE):
            with self.turn:
                features = image_set(self.backbone, images, torch.zeros(len(images), 1))
            part = _halves(features, ("global_features", "local_features", "pooled_features"))
            part["hashes"] = perceptual_hash(torch.from_numpy(np.stack(images))).numpy()
            parts.append(part)
        if not parts:
            return {"global_features": np.zeros((0, self.backbone.embed_dim), np.float16)}
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _halves(features: FeatureSet, names: Sequence[str]) -> dict[str, np.ndarray]:
    columns = {name: getattr(features, name) for name in names}
    return {n: (c if c.dtype == torch.bool else c.half()).numpy() for n, c in columns.items()}


def text_set(
    backbone: Backbone, texts: Sequence[str], labels: Float[Tensor, "rows classes"]
) -> FeatureSet:
    """Features of captions, padded to the longest, on the CPU."""
    require(len(texts) > 0, "There must be at least one caption to take features of, got none.")
    starts = range(0, len(texts), BATCH_SIZE)
    parts = [backbone.encode_texts(list(texts[start : start + BATCH_SIZE])) for start in starts]
    length = max(part.mask.shape[1] for part in parts)
    local = [_padded(part.local_features, length) for part in parts]
    mask = [_padded(part.mask, length) for part in parts]
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


def read_training_features(
    store: Store, folder: str, choice: str | None = None
) -> TrainingFeatures:
    """A run's captions and images as training wants them.

    Args:
        store: home of the run.
        folder: of the backbone's features in it.
        choice: name of a choice among the images (jobs/choose.py); None: all of them.

    Raises:
        ValueError: the choice does not know all images of the run.
        FileNotFoundError: the synthesis is not finished, or features are missing.
    """
    tasks = feature_tasks(store, folder)
    if tasks:
        raise FileNotFoundError(
            f"{len(tasks)} feature shards are missing in {store.uri}/{folder}. Run jobs/train.py, "
            "which computes them."
        )
    num_classes = len(read_manifest(store)["class_names"])
    captions = read_stored_captions(store)
    caption_ids = captions["caption_id"].to_pylist()
    keys = [key for key in store.list(f"{folder}/texts-") if key.endswith(".safetensors")]
    texts = [read_arrays(store, key) for key in keys]
    length = max(part["mask"].shape[1] for part in texts)
    local = [_padded(torch.from_numpy(part["local_features"]), length) for part in texts]
    mask = [_padded(torch.from_numpy(part["mask"]), length) for part in texts]
    text_features = FeatureSet(
        torch.cat([torch.from_numpy(part["global_features"]) for part in texts]).float(),
        torch.cat(local).float(),
        torch.cat(mask),
        multi_hot(captions["labels"].to_pylist(), num_classes),
    )
    images, image_of_caption = _read_images(store, folder, caption_ids, num_classes)
    data = TrainingFeatures(text_features, images, image_of_caption)
    return data if choice is None else only_images(data, _kept(store, choice))


def image_rows(store: Store) -> list[dict[str, Any]]:
    """The sidecar rows of all images, in the order of their features."""
    return [row for row in read_rows(store).to_pylist() if row["status"] == "ok"]


def read_hashes(store: Store, folder: str) -> Int[Tensor, " images"]:
    """Every image's perceptual hash.

    Raises:
        ValueError: the features were computed before there were hashes.
    """
    columns = []
    for part in _image_parts(store, folder):
        require(
            "hashes" in part,
            f"The features in {store.uri}/{folder} have no hashes of the images. Remove that "
            "folder and run the command again.",
        )
        columns.append(torch.from_numpy(part["hashes"]))
    return torch.cat(columns)


def _kept(store: Store, choice: str) -> Bool[Tensor, " images"]:
    table = read_choice(store, choice)
    kept = dict(zip(table["key"].to_pylist(), table["kept"].to_pylist()))
    keys = [row["key"] for row in image_rows(store)]
    unknown = [key for key in keys if key not in kept]
    require(
        not unknown,
        f"The choice {choice!r} in {store.uri} was made before {len(unknown)} of the run's images "
        f"were there (first: {unknown[0] if unknown else ''}). Run jobs/choose.py again.",
    )
    return torch.tensor([kept[key] for key in keys], dtype=torch.bool)


def _image_parts(store: Store, folder: str) -> list[dict[str, np.ndarray]]:
    """The stored features of every shard that has images; only what has a marker counts."""
    markers = committed_shards(store)
    keys = [FeatureTask("images", marker["shard"]).key(folder) for marker in markers]
    return [part for key in keys if len((part := read_arrays(store, key))["global_features"])]


def _padded(rows: Tensor, length: int) -> Tensor:
    padding = rows.new_zeros(len(rows), length - rows.shape[1], *rows.shape[2:])
    return torch.cat([rows, padding], dim=1)


def _read_images(
    store: Store, folder: str, caption_ids: list[str], num_classes: int
) -> tuple[FeatureSet | None, Tensor]:
    rows = image_rows(store)
    place = {caption_id: index for index, caption_id in enumerate(caption_ids)}
    # A repaired run has numbers k that few captions have: a column is worth having for all.
    column_of = {k: column for column, k in enumerate(sorted({row["k"] for row in rows}))}
    image_of_caption = torch.full((len(caption_ids), max(len(column_of), 1)), -1)
    for index, row in enumerate(rows):
        image_of_caption[place[row["caption_id"]], column_of[row["k"]]] = index
    if not rows:
        return None, image_of_caption
    parts = _image_parts(store, folder)

    def column(name: str) -> Tensor:
        return torch.cat([torch.from_numpy(part[name]) for part in parts]).float()

    labels = multi_hot([row["labels"] for row in rows], num_classes)
    local, pooled = column("local_features"), column("pooled_features")
    images = FeatureSet(column("global_features"), local, None, labels, pooled)
    require(
        len(images) == len(rows),
        f"The features in {store.uri}/{folder} have {len(images)} images, the run has {len(rows)}. "
        "Remove that folder and run jobs/train.py again.",
    )
    return images, image_of_caption


def load_photograph(path: Path | str, size_px: int) -> UInt8[np.ndarray, "size size 3"]:
    """A photograph as CLIP sees it: shorter side to `size_px` (bicubic), center cropped."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    (height, width), (top, left) = resize_and_crop(image.height, image.width, size_px)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(image.crop((left, top, left + size_px, top + size_px)))
