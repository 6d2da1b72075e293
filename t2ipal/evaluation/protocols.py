"""Which labelled images and labels an image-trained method sees: few-shot, novel, partial labels.

Owns the literature's draws, to the bit where it says how it drew; knows neither files of images nor
methods. Rows are positions in a data set's own list of images.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike, NDArray

from t2ipal.config import parse_json, require

Rows = Int[np.ndarray, " rows"]

NOVEL_COCO = (1, 8, 11, 14, 24, 29, 31, 37, 41, 42, 44, 50, 56, 66, 68, 75)
"""MS-COCO's 16 novel classes of LaSO: indices into its categories by id."""
NOVEL_PICTOVOC = (4, 5, 9, 17)
"""The embedded world's: bottle, bus, cow and sofa, one of each kind; chosen before any was seen."""
NUM_EPISODES = 10
"""Of few images of the novel classes, for each number of shots; a result is their mean."""

MASKS: Mapping[str, str] = {
    "voc2007": "masks of numpy's seed 0, those of SARB and of the published numbers on VOC2007",
    "coco2014": "masks of numpy's seed 0, as SARB's; the ancestor's reruns drew others after seed "
    "1, DualCoOp's own numbers others without a seed",
    "nuswide": "masks of numpy's seed 0; the published numbers are of others, drawn after seed 1",
    "pictovoc": "masks of numpy's seed 0",
}
"""Schedule of a data set -> which labels are known in a number with partial labels, in words."""


def few_shot_rows(labels: ArrayLike, shots: int, seed: int) -> Rows:
    """For each class `shots` images that show it; sorted, each once, to be used with all labels.

    Classes draw apart from each other, and more shots keep the images of fewer. [chosen]

    Args:
        labels: [images, classes], 1 where a class is in an image.
        shots: images of each class.
        seed: of the draw.

    Raises:
        ValueError: a class has fewer images.
    """
    shown = np.asarray(labels) > 0
    require(shown.ndim == 2, f"labels must be [images, classes], got shape {shown.shape}.")
    require(shots > 0, f"shots must be > 0, got {shots}.")
    chosen = []
    for column, here in enumerate(shown.T):
        rows = np.flatnonzero(here)
        require(
            len(rows) >= shots,
            f"{shots} shots need as many images of every class, class {column} has {len(rows)}: "
            "take fewer shots, or more labelled images.",
        )
        chosen.append(np.random.default_rng([seed, column]).permutation(rows)[:shots])
    return np.unique(np.concatenate(chosen))


def episodes_of(
    labels: ArrayLike, novel: Sequence[int], shots: int, seed: int = 0
) -> tuple[Rows, ...]:
    """`NUM_EPISODES` draws of `few_shot_rows` for novel classes.

    Args:
        labels: [images, classes], of all classes.
        novel: columns of the novel ones.
        shots: images of each of them.
        seed: of all draws.
    """
    columns = np.asarray(labels)[:, list(novel)]
    draws = (NUM_EPISODES * seed + number for number in range(NUM_EPISODES))
    return tuple(few_shot_rows(columns, shots, draw) for draw in draws)


def read_episodes(path: str | Path) -> dict[int, tuple[Rows, ...]]:
    """LaSO's episodes by their number of shots: rows of `coco2014_train`, the json's own order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else.
    """
    try:
        content = parse_json(_read(path))
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON: {error}.") from error
    by_shots = content.get("episodes") if isinstance(content, dict) else None
    sound = isinstance(by_shots, dict) and all(
        str(shots).isdecimal()
        and isinstance(episodes, list)
        and all(_are_positions(episode) for episode in episodes)
        for shots, episodes in by_shots.items()
    )
    require(
        sound,
        f'{path} must hold "episodes": a number of shots -> lists of positions in train2014.',
    )
    return {
        int(shots): tuple(np.array(episode, np.int64) for episode in episodes)
        for shots, episodes in (by_shots or {}).items()
    }


def known_from(
    num_images: int, num_classes: int, seed: int = 0
) -> Float[np.ndarray, "images classes"]:
    """The share of known labels from which on each label is known; at a share p those below p are.

    With seed 0 these are SARB's masks: numpy's old generator, images in the order of their list.
    """
    return np.random.RandomState(seed).random_sample((num_images, num_classes))


def read_masks(
    path: str | Path, shape: tuple[int, int] | None = None
) -> Bool[np.ndarray, "images classes"]:
    """Which labels are known, from a file of masks that others shipped.

    Files of numpy (.npy, .npz), torch (.pt, .pth; DualCoOp's), Matlab (.mat) or text (.txt, .csv).
    They hold 0 and 1, 1 known; or labels of -1, 0 and 1, 0 unknown. Nothing in them is executed.
    DualCoOp's rows on MS-COCO are the images that have annotations, in the annotations' order.

    Args:
        path: of the file.
        shape: images and classes that it must be of; None: any.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or of another shape.
    """
    ending = Path(path).suffix.lower()
    require(
        ending in _READERS,
        f"Masks must be a file of {', '.join(_READERS)}, got {path}.",
    )
    data = _read(path)
    try:
        values = np.asarray(_READERS[ending](data))
    except Exception as error:  # a reader raises what it likes on bytes that it was not made for
        text = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as masks: {text}") from error
    others = (
        {*np.unique(values).tolist()} - {-1, 0, 1}
        if values.dtype.kind in "biuf"
        else {str(values.dtype)}
    )
    require(
        not others,
        f"{path} must hold 0 and 1 (1: known), or -1, 0 and 1 (0: unknown), got "
        f"{', '.join(map(str, [*others][:1]))}.",
    )
    if values.ndim == 3 and (values == values[:, :1]).all():  # DualCoOp's: one for each size
        values = values[:, 0]
    require(values.ndim == 2, f"{path} must be [images, classes], got shape {values.shape}.")
    require(
        shape is None or values.shape == shape,
        f"{path} must hold masks of {shape} images and classes, got {values.shape}.",
    )
    return values != 0


def _are_positions(episode: object) -> bool:
    return isinstance(episode, list) and all(
        isinstance(at, int) and not isinstance(at, bool) and at >= 0 for at in episode
    )


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"No file {path}.") from error


def _only(arrays: Mapping[str, NDArray]) -> NDArray:
    """The one array of a file."""
    names = [name for name in arrays if not name.startswith("__")]
    require(len(names) == 1, f"it must hold one array, got {', '.join(names) or 'none'}.")
    return arrays[names[0]]


def _from_numpy(data: bytes) -> NDArray:
    loaded = np.load(io.BytesIO(data), allow_pickle=False)
    return loaded if isinstance(loaded, np.ndarray) else _only(dict(loaded))


def _from_torch(data: bytes) -> NDArray:
    import torch

    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True).numpy()


def _from_matlab(data: bytes) -> NDArray:
    from scipy.io import loadmat

    return _only(loadmat(io.BytesIO(data)))


def _from_text(data: bytes) -> NDArray:
    return np.loadtxt(io.StringIO(data.decode("utf-8-sig").replace(",", " ")), ndmin=2)


_READERS = {
    ".npy": _from_numpy,
    ".npz": _from_numpy,
    ".pt": _from_torch,
    ".pth": _from_torch,
    ".mat": _from_matlab,
    ".txt": _from_text,
    ".csv": _from_text,
}
