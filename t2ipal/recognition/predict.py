"""Labels and scores of photographs: plain torch, batch after batch, in any order of workers.

A photograph that cannot be read becomes a row with a reason. Knows no file format of its output.
"""

import base64
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps
from tqdm import tqdm

from t2ipal.features.photograph_kinds import ENDINGS, is_photograph
from t2ipal.features.photographs import center_square, open_photograph
from t2ipal.recognition.bundle import Whereabouts, load_bundles, mean_scores
from t2ipal.recognition.config import PredictionOptions
from t2ipal.recognition.rows import Prediction
from t2ipal.store import Store, store_and_key
from t2ipal.store.images import encode_image

NUM_READERS = 4
"""Photographs that are read and decoded at once: a bucket answers slowly, and four of the largest
fit into memory."""
THUMBNAIL_PX = 256
DECIMALS = 6
"""Of scores: what is beyond differs between machines, and would decide between equal classes."""


@dataclass(frozen=True)
class PredictionWork:
    """Everything that a worker needs beside the photographs' names."""

    images: Store
    recognizers: tuple[tuple[Store, str], ...]
    """Store and folder of each; scores are their mean."""
    options: PredictionOptions = field(default_factory=PredictionOptions)
    where: Whereabouts = field(default_factory=Whereabouts)


@dataclass(frozen=True)
class Batch:
    """Photographs that are seen together, wherever: so every worker gives the same scores."""

    keys: tuple[str, ...]
    num_shown: int = 0
    """How many of them, from the first, get a thumbnail."""


Workers = Callable[[PredictionWork, Sequence[Batch]], Iterator[list[Prediction]]]
"""`in_process`, or `t2ipal.engine.prediction.on_ray`, which takes the same."""


@dataclass(frozen=True)
class _Seen:
    pixels: UInt8[np.ndarray, "size size 3"] | None = None
    size: tuple[int, int] = (0, 0)
    thumbnail: str = ""
    reason: str = ""


class Predictor:
    """Loads the recognizers once; then looks at one batch of photographs after another."""

    def __init__(self, work: PredictionWork):
        self.images, self.options = work.images, work.options
        self.bundles = load_bundles(work.recognizers, work.where)
        self.size_px = self.bundles[0].backbone.photograph_size_px
        self.readers = ThreadPoolExecutor(NUM_READERS)

    def __call__(self, batch: Batch) -> list[Prediction]:
        """A row for each photograph, in their order."""
        return self.score(batch, self.read(batch))

    def look(self, data: bytes) -> Prediction:
        """The row of a photograph that is in no store, from its bytes."""
        return self.score(Batch(("",)), [self._see(lambda: data, shown=False)])[0]

    def read(self, batch: Batch) -> list[_Seen]:
        """The photographs as the backbone sees them; may go on beside `score`."""
        shown = [index < batch.num_shown for index in range(len(batch.keys))]
        return list(self.readers.map(self._read_one, batch.keys, shown))

    def score(self, batch: Batch, seen: Sequence[_Seen]) -> list[Prediction]:
        """Labels and scores of what `read` gave."""
        pixels = [each.pixels for each in seen if each.pixels is not None]
        scores = iter(mean_scores(self.bundles, np.stack(pixels)) if pixels else ())
        return [
            self._failed(key, each) if each.pixels is None else self._row(key, each, next(scores))
            for key, each in zip(batch.keys, seen)
        ]

    def _read_one(self, key: str, shown: bool) -> _Seen:
        return self._see(lambda: self.images.read(key), shown)

    def _see(self, read: Callable[[], bytes], shown: bool) -> _Seen:
        try:
            photograph = open_photograph(read())
            pixels = center_square(photograph.image, self.size_px)
        except (ValueError, FileNotFoundError, PermissionError) as error:
            return _Seen(reason=str(error))
        size = photograph.width, photograph.height
        return _Seen(pixels, size, _thumbnail(photograph.image) if shown else "")

    def _row(self, key: str, seen: _Seen, scores: np.ndarray) -> Prediction:
        options, class_names = self.options, self.bundles[0].class_names
        every = scores.astype(np.float64).round(DECIMALS)
        least = -np.inf if options.min_score is None else options.min_score
        best = [i for i in np.argsort(-every, kind="stable")[: options.top_k] if every[i] >= least]
        return Prediction(
            printable(key),
            tuple(class_names[i] for i in best),
            tuple(every[best].tolist()),
            *seen.size,
            "ok",
            "",
            tuple(every.tolist()) if options.all_scores else (),
            seen.thumbnail,
        )

    def _failed(self, key: str, seen: _Seen) -> Prediction:
        return Prediction(printable(key), (), (), 0, 0, "failed", printable(seen.reason))


def in_process(work: PredictionWork, batches: Sequence[Batch]) -> Iterator[list[Prediction]]:
    """Looks at every batch here, without Ray; while one is scored, the next one is read."""
    predictor = Predictor(work)
    with ThreadPoolExecutor(1) as ahead:
        waiting: list[tuple[Batch, Future[list[_Seen]]]] = []
        for batch in batches:
            waiting.append((batch, ahead.submit(predictor.read, batch)))
            if len(waiting) > 1:
                done, seen = waiting.pop(0)
                yield predictor.score(done, seen.result())
        for done, seen in waiting:
            yield predictor.score(done, seen.result())


def predict_photographs(
    work: PredictionWork,
    keys: Sequence[str],
    *,
    num_shown: int = 0,
    workers: Workers = in_process,
    progress: bool = False,
) -> Iterator[list[Prediction]]:
    """Predictions of photographs in the order of `keys`, batch by batch.

    Args:
        work: who looks, and where the photographs are.
        keys: of the photographs.
        num_shown: how many of them, from the first, get a thumbnail.
        workers: who does the work.
        progress: show a bar of photographs.

    Raises:
        ValueError: the recognizers and the backbone do not belong together.
        RuntimeError: a worker on Ray could not load them, or the store failed it.
    """
    size = work.options.batch_size
    starts = range(0, len(keys), size)
    batches = [Batch(tuple(keys[s : s + size]), max(min(num_shown - s, size), 0)) for s in starts]
    with tqdm(total=len(keys), desc="predict", unit="photo", disable=not progress) as bar:
        for rows in workers(work, batches):
            bar.update(len(rows))
            yield rows


def find_photographs(
    images: str, recursive: bool = False, endpoint_url: str | None = None
) -> tuple[Store, list[str]]:
    """The store and the sorted keys of the photographs in a folder, or of a single one.

    Args:
        images: folder or file, local or s3://.
        recursive: also those in folders below.
        endpoint_url: server of an S3 store that is not on AWS.

    Raises:
        FileNotFoundError: there is none.
    """
    if is_photograph(images):
        store, name = store_and_key(images, endpoint_url)
        if store.exists(name):
            return store, [name]
    store = Store(images if "://" in images else Path(images).expanduser(), endpoint_url)
    keys = [key for key in store.list(recursive=recursive) if is_photograph(key)]
    if keys:
        return store, keys
    deeper = not recursive and any(map(is_photograph, store.list()))
    hint = " There are some in folders below: add --recursive." if deeper else ""
    raise FileNotFoundError(f"No photograph ({', '.join(ENDINGS)}) in {store.uri}.{hint}")


def printable(text: str) -> str:
    """The text where a file's name holds bytes that are no UTF-8: these become question marks."""
    return text.encode("utf-8", "replace").decode()


def _thumbnail(image: Image.Image) -> str:
    square = ImageOps.fit(image, (THUMBNAIL_PX, THUMBNAIL_PX))
    return base64.b64encode(encode_image(np.asarray(square), "jpeg", 80, "4:2:0")).decode()
