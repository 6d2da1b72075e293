"""The synthetic images that a page shows, and what the judge finds in a run's images.

They are chosen from the run's tables, and no others are decoded: a page of a million images takes
hardly more memory than one of a hundred.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt64

from t2ipal.features.extraction import batched
from t2ipal.pictovoc import WEIGHTS_DIR
from t2ipal.pictovoc.judge import NAMED_THRESHOLD, Judge, found_share, load_judge
from t2ipal.pictovoc.scenes import CLASS_NAMES
from t2ipal.report.config import ReportConfig
from t2ipal.report.contents import JudgedImages, SheetEntry
from t2ipal.report.pictures import as_shown
from t2ipal.store import Marker, Run, Sample, read_chosen_images, read_shard_samples

DECODED_AT_ONCE = 32
PIPELINES_OF_THE_WORLD = ("pictovoc", "rendered")
"""Whose images are of the kind that the judge was trained on."""


@dataclass(frozen=True, eq=False)
class _Seen:
    """An image that was looked at."""

    sample: Sample
    shown: UInt8[np.ndarray, "height width 3"] | None
    """At the size of the page; None where it is not on it."""
    found: Bool[np.ndarray, " classes"] | None
    """What the judge sees; None where there is none."""


def look_at_images(run: Run, config: ReportConfig) -> tuple[list[SheetEntry], JudgedImages | None]:
    """Some captions with their images, and what the judge says of a run of the embedded world.

    Raises:
        FileNotFoundError: a table or a tar of the run is gone.
        ValueError: it is damaged.
    """
    digests = [_caption_digests(run, marker) for marker in run.markers]
    counts = [len(part) for part in digests]
    num_images = sum(counts)
    if num_images == 0:
        return [], None
    judge = load_judge(WEIGHTS_DIR / "judge") if _is_of_the_world(run) else None
    judged = drawn_evenly(num_images, config.num_judged if judge else 0)
    captions = _some_captions(np.concatenate(digests), config.num_captions)
    shown = [rows[: config.images_per_caption] for rows in captions]
    seen = dict(_look(run, counts, np.concatenate(shown), judged, judge))
    sheet = [
        _sheet_entry([seen[row] for row in rows.tolist()], len(of_caption), run)
        for rows, of_caption in zip(shown, captions)
    ]
    return sheet, _judged([seen[row] for row in judged.tolist()], num_images)


def _is_of_the_world(run: Run) -> bool:
    """Whether the judge, who was shown the embedded world's drawings alone, can say something."""
    settings = run.settings
    return (
        settings.class_names == CLASS_NAMES
        and settings.synthesis["pipeline"] in PIPELINES_OF_THE_WORLD
        and (WEIGHTS_DIR / "judge" / "judge.safetensors").is_file()
    )


def _images_of(run: Run, marker: Marker) -> list[Sample]:
    """The samples of a shard that have an image."""
    return [sample for sample in read_shard_samples(run.store, marker) if sample.is_image]


def _caption_digests(run: Run, marker: Marker) -> UInt64[np.ndarray, " images"]:
    """Eight bytes in place of each image's caption: a million captions are large."""
    captions = (sample.caption.encode() for sample in _images_of(run, marker))
    digests = (hashlib.blake2b(caption, digest_size=8).digest() for caption in captions)
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def _some_captions(
    digests: UInt64[np.ndarray, " images"], count: int
) -> list[Int[np.ndarray, " images_of_caption"]]:
    """The rows of the images of each of some captions from all over the run."""
    first = np.sort(np.unique(digests, return_index=True)[1])
    chosen = first[:: max(len(first) // count, 1)][:count]
    return [np.flatnonzero(digests == digests[row]) for row in chosen]


def drawn_evenly(num_rows: int, count: int) -> Int[np.ndarray, " drawn"]:
    """`count` rows, one drawn from each of as many equal stretches; all where there are no more."""
    if num_rows <= count:
        return np.arange(num_rows)
    within = np.random.default_rng(0).random(count)
    return ((np.arange(count) + within) * num_rows / max(count, 1)).astype(np.int64)


def _look(
    run: Run,
    counts: Sequence[int],
    shown: Int[np.ndarray, " shown"],
    judged: Int[np.ndarray, " judged"],
    judge: Judge | None,
) -> Iterator[tuple[int, _Seen]]:
    """What is seen in the images of these rows, of which a few are held at a time."""
    on_page = set(shown.tolist())
    decoded = _decoded(run, counts, np.union1d(shown, judged))
    for batch in batched(decoded, DECODED_AT_ONCE):
        probs = judge.probs([image for _, _, image in batch]) if judge else [None] * len(batch)
        for (row, sample, image), of_image in zip(batch, probs):
            found = None if of_image is None else of_image > NAMED_THRESHOLD
            yield row, _Seen(sample, as_shown(image) if row in on_page else None, found)


def _decoded(
    run: Run, counts: Sequence[int], wanted: Int[np.ndarray, " wanted"]
) -> Iterator[tuple[int, Sample, UInt8[np.ndarray, "height width 3"]]]:
    """Row, sample and pixels of the images at some rows; reads no shard that holds none of them."""
    start = 0
    for marker, count in zip(run.markers, counts):
        rows = wanted[(wanted >= start) & (wanted < start + count)]
        if len(rows):
            samples = _images_of(run, marker)
            row_of = {samples[row - start].key: row for row in rows.tolist()}
            for key, image in read_chosen_images(run.store, marker, row_of):
                yield row_of[key], samples[row_of[key] - start], image
        start += count


def _sheet_entry(seen: Sequence[_Seen], num_images: int, run: Run) -> SheetEntry:
    names, sample = run.settings.class_names, seen[0].sample
    found = [
        [names[c] for c in np.flatnonzero(image.found)] for image in seen if image.found is not None
    ]
    return SheetEntry(
        sample.caption,
        [names[c] for c in sample.labels],
        [image.shown for image in seen if image.shown is not None],
        found or None,
        num_images,
    )


def _judged(seen: Sequence[_Seen], num_images: int) -> JudgedImages | None:
    found = [image.found for image in seen if image.found is not None]
    if not found:
        return None
    share, by_class = found_share(np.stack(found), [image.sample.labels for image in seen])
    return JudgedImages(share, by_class, len(found), num_images)
