"""A run's stored features, read back for training and joined to its samples by their keys."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from t2ipal.config import require
from t2ipal.features.extraction import FeatureTask, all_tasks, missing_tasks, multi_hot, padded
from t2ipal.features.sets import FeatureSet, TrainingFeatures, only_images
from t2ipal.store import Run, Store, read_arrays, read_choice, read_run

Arrays = dict[str, np.ndarray]


def read_training_features(
    store: Store, folder: str, choice: str | None = None
) -> TrainingFeatures:
    """A run's captions and images as training wants them.

    Args:
        store: home of the run.
        folder: of the backbone's features in it.
        choice: name of a choice among the images (jobs/choose.py); None: all of them.

    Raises:
        ValueError: a shard of features is of other samples, or the choice does not know all images
            of the run.
        FileNotFoundError: the synthesis is not finished, or features are missing.
    """
    run = read_run(store)
    if tasks := missing_tasks(run, folder):
        raise FileNotFoundError(
            f"{len(tasks)} feature shards are missing in {store.uri}/{folder}. Run jobs/train.py, "
            "which computes them."
        )
    images = _read_images(run, folder)
    data = TrainingFeatures(_read_texts(run, folder), images, _image_of_caption(run))
    return data if choice is None else only_images(data, _kept(run, choice))


def read_hashes(run: Run, folder: str) -> Int[Tensor, " images"]:
    """Every image's perceptual hash, in the order of the run's images.

    Raises:
        ValueError: the features were computed before there were hashes, or are of other images.
    """
    columns = []
    for part in _image_parts(run, folder):
        require(
            "hashes" in part,
            f"The features in {run.store.uri}/{folder} have no hashes of the images. Remove that "
            "folder and run the command again.",
        )
        columns.append(torch.from_numpy(part["hashes"]))
    return torch.cat(columns)


def _kept(run: Run, choice: str) -> Tensor:
    kept = {row.key: row.kept for row in read_choice(run.store, choice)}
    unknown = [sample.key for sample in run.images if sample.key not in kept]
    require(
        not unknown,
        f"The choice {choice!r} in {run.store.uri} was made before {len(unknown)} of the run's "
        f"images were there (first: {unknown[0] if unknown else ''}). Run jobs/choose.py again.",
    )
    return torch.tensor([kept[sample.key] for sample in run.images], dtype=torch.bool)


def _read_texts(run: Run, folder: str) -> FeatureSet:
    tasks = [task for task in all_tasks(run) if task.kind == "texts"]
    parts = []
    for task in tasks:
        captions = run.captions[task.captions]
        parts.append(_joined(run.store, task.key(folder), [c.caption_id for c in captions]))
    length = max(part["mask"].shape[1] for part in parts)
    local = [padded(torch.from_numpy(part["local_features"]), length) for part in parts]
    mask = [padded(torch.from_numpy(part["mask"]), length) for part in parts]
    return FeatureSet(
        torch.cat([torch.from_numpy(part["global_features"]) for part in parts]).float(),
        torch.cat(local).float(),
        torch.cat(mask),
        multi_hot([caption.labels for caption in run.captions], len(run.settings.class_names)),
        keys=np.array([caption.caption_id for caption in run.captions]),
    )


def _read_images(run: Run, folder: str) -> FeatureSet | None:
    if not run.images:
        return None
    parts = _image_parts(run, folder)

    def column(name: str) -> Tensor:
        return torch.cat([torch.from_numpy(part[name]) for part in parts]).float()

    return FeatureSet(
        column("global_features"),
        column("local_features"),
        None,
        multi_hot([sample.labels for sample in run.images], len(run.settings.class_names)),
        column("pooled_features"),
        keys=np.array([sample.key for sample in run.images]),
    )


def _image_of_caption(run: Run) -> Int[Tensor, "captions images_per_caption"]:
    place = {caption.caption_id: index for index, caption in enumerate(run.captions)}
    # A repaired run has numbers k that few captions have: a column is worth having for all.
    column_of = {k: column for column, k in enumerate(sorted({s.k for s in run.images}))}
    rows = torch.full((len(run.captions), max(len(column_of), 1)), -1)
    for index, sample in enumerate(run.images):
        rows[place[sample.caption_id], column_of[sample.k]] = index
    return rows


def _image_parts(run: Run, folder: str) -> list[Arrays]:
    """The stored features of every shard that has images; only what has a marker counts."""
    keys: dict[str, list[str]] = {marker.shard: [] for marker in run.markers}
    for sample in run.images:
        keys[sample.key.rpartition("-")[0]].append(sample.key)
    return [
        _joined(run.store, FeatureTask("images", shard).key(folder), wanted)
        for shard, wanted in keys.items()
        if wanted
    ]


def _joined(store: Store, key: str, wanted: Sequence[str]) -> Arrays:
    """The rows of one feature shard in the order of the samples that are wanted, by their keys.

    Shards from before rows had keys hold their samples in this order, as many as there are.

    Raises:
        ValueError: they are rows of other samples.
    """
    arrays, there = read_arrays(store, key)
    remedy = "Remove it and run the command again: features are computed anew."
    if there is None:
        count = len(arrays["global_features"])
        require(
            count == len(wanted),
            f"{key} in {store.uri} holds the features of {count} samples, the run has "
            f"{len(wanted)} there. {remedy}",
        )
        return arrays
    if there == list(wanted):
        return arrays
    place = {name: row for row, name in enumerate(there)}
    missing = [name for name in wanted if name not in place]
    if missing:
        known = set(wanted)
        others = [name for name in there if name not in known]
        raise ValueError(
            f"{key} in {store.uri} holds the features of other samples: the run has {missing[0]!r} "
            f"there, the features {repr(others[0]) if others else 'do not'}. {remedy}"
        )
    rows = [place[name] for name in wanted]
    return {name: array[rows] for name, array in arrays.items()}
