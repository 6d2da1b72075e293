"""A run's stored features for training, joined to its samples by their keys."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from t2ipal.config import require
from t2ipal.features.config import FeatureAccess
from t2ipal.features.extraction import FeatureTask, all_tasks
from t2ipal.features.sets import FeatureTable, TrainingFeatures, only_images
from t2ipal.features.table import FeatureFiles, held_if_small
from t2ipal.store import Names, Run, Store, read_kept, read_run


def read_training_features(
    store: Store, folder: str, choice: str | None = None, access: FeatureAccess | None = None
) -> TrainingFeatures:
    """A run's captions and images as training wants them.

    Args:
        store: home of the run.
        folder: of the backbone's features in it.
        choice: name of a choice among the images (jobs/choose.py); None: all of them.
        access: how they are read.

    Raises:
        ValueError: a shard of features that is held in memory is damaged or of other samples, or
            the choice does not know all images of the run. Other shards are looked at when their
            rows are asked for.
        FileNotFoundError: the synthesis is not finished, or features are missing.
    """
    return training_features_of(read_run(store), folder, choice, access)


def training_features_of(
    run: Run, folder: str, choice: str | None = None, access: FeatureAccess | None = None
) -> TrainingFeatures:
    """`read_training_features` of a look at a run."""
    access = access or FeatureAccess()
    tasks, there = all_tasks(run), run.store.entries(f"{folder}/")
    if missing := [task for task in tasks if task.key(folder) not in there]:
        raise FileNotFoundError(
            f"{len(missing)} feature shards are missing in {run.store.uri}/{folder}. Run "
            "jobs/train.py, which computes them."
        )
    texts, images = run.caption_index, run.image_index
    of_texts = [task for task in tasks if task.kind == "texts"]
    ends = [task.captions.stop for task in of_texts]
    of_images = [FeatureTask("images", shard) for shard in images.shards]

    def files(tasks: Sequence[FeatureTask], starts: np.ndarray, keys: Names) -> FeatureFiles:
        shards = [(task.key(folder), there[task.key(folder)]) for task in tasks]
        fingerprint = folder.rpartition("/")[2].partition("-")[0]
        return FeatureFiles(run.store, shards, starts, keys, access, fingerprint)

    text_files = files(of_texts, np.array([0, *ends]), texts.ids)
    image_files = files(of_images, images.starts, images.keys)
    budget, of_text = access.feature_memory_gb * 1e9, text_files.size_bytes
    left = budget - of_text if of_text <= budget else budget
    data = TrainingFeatures(
        held_if_small(text_files, torch.from_numpy(texts.labels), budget),
        held_if_small(image_files, torch.from_numpy(images.labels), left) if of_images else None,
        _image_of_caption(run),
    )
    return data if choice is None else only_images(data, _kept(run, choice))


def read_hashes(run: Run, images: FeatureTable | None) -> Int[Tensor, " images"]:
    """Every image's perceptual hash.

    Raises:
        ValueError: the features were computed before there were hashes.
    """
    if images is None:
        return torch.zeros(0, dtype=torch.int64)
    try:
        return images.column("hashes")
    except KeyError as error:
        raise ValueError(
            f"The features in {run.store.uri} have no hashes of the images. Remove their folder "
            "under features/ and run the command again."
        ) from error


def _kept(run: Run, choice: str) -> Bool[Tensor, " images"]:
    keys, kept = read_kept(run.store, choice)
    places = keys.places(run.image_index.keys)
    unknown = np.flatnonzero(places < 0)
    require(
        not len(unknown),
        f"The choice {choice!r} in {run.store.uri} was made before {len(unknown)} of the run's "
        f"images were there (first: {run.image_index.keys[int(unknown[0])] if len(unknown) else ''}"
        "). Run jobs/choose.py again.",
    )
    return torch.from_numpy(kept[places])


def _image_of_caption(run: Run) -> Int[Tensor, "captions images_per_caption"]:
    images = run.image_index
    # A repaired run has numbers k that few captions have: a column is worth having for all.
    there = np.unique(images.k)
    rows = np.full((len(run.caption_index.ids), max(len(there), 1)), -1, np.int64)
    rows[images.caption, np.searchsorted(there, images.k)] = np.arange(len(images.k))
    return torch.from_numpy(rows)
