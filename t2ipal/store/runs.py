"""A run as a whole: how it begins, what it keeps while it grows, what it holds in the end.

`config.json` is written once and never changed; `manifest.json` each time that all shards are in.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from t2ipal.config import differences, from_dict, to_dict
from t2ipal.store.index import (
    CaptionIndex,
    ImageIndex,
    read_caption_index,
    read_image_index,
)
from t2ipal.store.objects import Store
from t2ipal.store.records import (
    Caption,
    Manifest,
    ManifestShard,
    Marker,
    RunSettings,
    RunTotals,
    Sample,
    known,
)
from t2ipal.store.sections import Section, read_captions, read_sections
from t2ipal.store.shards import (
    committed_shards,
    count_samples,
    finished_shards,
    missing_shards,
    read_samples,
)
from t2ipal.store.tables import damaged, json_bytes, read_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One look at a run, the same whatever is added to its store meanwhile."""

    store: Store
    manifest: Manifest
    sections: tuple[Section, ...]
    markers: tuple[Marker, ...]
    """Of all its shards, in order of their names."""

    @property
    def num_missing(self) -> int:
        """Shards that it was asked for and that are not there; 0 once it is finished."""
        return missing_shards(self.sections, [marker.shard for marker in self.markers])

    @property
    def settings(self) -> RunTotals:
        """What it was asked for."""
        return self.manifest.settings

    @cached_property
    def captions(self) -> tuple[Caption, ...]:
        """The kept ones, in the run's order; read when first asked for."""
        return tuple(read_captions(self.store, self.sections))

    @cached_property
    def caption_index(self) -> CaptionIndex:
        """What training knows of the captions."""
        return read_caption_index(self.store, self.sections, len(self.settings.class_names))

    @cached_property
    def image_index(self) -> ImageIndex:
        """What training knows of the images."""
        num_classes = len(self.settings.class_names)
        return read_image_index(self.store, self.markers, self.caption_index, num_classes)

    @cached_property
    def images(self) -> tuple[Sample, ...]:
        """The samples that have an image, shard by shard; read when first asked for."""
        return tuple(s for s in read_samples(self.store, self.markers) if s.is_image)


def read_run(store: Store) -> Run:
    """A look at a finished run.

    Raises:
        FileNotFoundError: it is not finished, has grown since and lacks shards, or is not there.
    """
    manifest = read_manifest(store)
    run = Run(store, manifest, tuple(read_sections(store)), tuple(committed_shards(store)))
    if run.num_missing:
        raise FileNotFoundError(
            f"{store.uri} was asked for more, and {run.num_missing} shards of it are missing. Run "
            "jobs/synthesize.py again with the options of the last time."
        )
    return run


def read_run_so_far(store: Store) -> Run:
    """A look at a run that may not be finished; its manifest counts the shards that are there.

    Raises:
        FileNotFoundError: there is no run.
    """
    try:
        return read_run(store)
    except FileNotFoundError:  # it is not finished, or has grown since
        settings = read_settings(store)
    sections, markers = read_sections(store), committed_shards(store)
    manifest = _manifest(_totals(settings, sections), markers)
    return Run(store, manifest, tuple(sections), tuple(markers))


def _totals(settings: RunSettings, sections: Sequence[Section]) -> RunTotals:
    """What these sections ask for."""
    own = {field.name: getattr(settings, field.name) for field in fields(RunSettings)}
    made = [s.first_k + s.num_k for s in sections if not s.extras_key]
    own["synthesis"] = {**settings.synthesis, "images_per_caption": max(made, default=0)}
    num_captions = sum(s.num_captions for s in sections if s.captions_key)
    return RunTotals(**own, num_captions=num_captions, captions="")


def open_run(
    store: Store, settings: RunSettings, defaults: Mapping[str, Any] | None = None
) -> bool:
    """Makes the store the home of a run with these settings; False where it already is.

    The settings are written once: another driver may be at work on them already. Warns where the
    store has no conditional writes.

    Args:
        store: to be the run's home.
        settings: that it keeps while it grows.
        defaults: of those that one of two settings may leave out, to name differences by.

    Raises:
        ValueError: the store holds a run with other settings; every difference is named.
    """
    if not store.conditional_writes():
        logger.warning(
            "%s has no conditional writes: where two write an object at once, the later one stays. "
            "Shards are the same whoever writes them; but start no two drivers with different "
            "settings on this run.",
            store.uri,
        )
    data = json_bytes(to_dict(settings))
    if store.write_if_absent("config.json", data):
        return True
    begun = read_json(store, "config.json")
    lines = differences(json.loads(data), begun, defaults=defaults)
    if lines:
        raise ValueError(
            f"{store.uri} holds another run. Differences: {'; '.join(lines)}. "
            f"Choose another output folder or the same settings.{fresh_start_hint(store)}"
        )
    return False


def fresh_start_hint(store: Store) -> str:
    """What to add where a request is refused: nothing, once the run has a finished shard."""
    if finished_shards(store):
        return ""
    return (
        " No shard of that run is finished: unless it is running now, nothing is lost by removing "
        "config.json and sections/ there to begin anew."
    )


def read_settings(store: Store) -> RunSettings:
    """What `open_run` was given.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: the settings are damaged.
    """
    try:  # a read, not a look: what a server refuses is told in the body of its reply
        return from_dict(RunSettings, known(RunSettings, read_json(store, "config.json")))
    except FileNotFoundError as error:
        none = f"No run in {store.uri}. Run jobs/synthesize.py first."
        raise FileNotFoundError(none) from error
    except (TypeError, ValueError) as error:
        raise ValueError(damaged(store, "config.json")) from error


def write_manifest(store: Store, settings: RunTotals) -> Manifest:
    """Writes and returns manifest.json, what the run holds; for when all its shards are in."""
    manifest = _manifest(settings, committed_shards(store))
    store.write("manifest.json", json_bytes(to_dict(manifest)))
    return manifest


def _manifest(settings: RunTotals, markers: Sequence[Marker]) -> Manifest:
    """The manifest of these shards."""
    num_rows, num_failed = count_samples(markers)
    shards = (ManifestShard(m.shard, m.num_rows, m.num_failed, m.tar, m.sidecar) for m in markers)
    return Manifest(
        settings.class_names, num_rows - num_failed, num_failed, settings, tuple(shards)
    )


def read_manifest(store: Store) -> Manifest:
    """What a finished run holds: class names, counts, settings, shards.

    Raises:
        FileNotFoundError: the run is not finished, or there is none.
        ValueError: the manifest is damaged.
    """
    if not store.exists("manifest.json"):
        raise FileNotFoundError(f"No manifest in {store.uri}. Run jobs/synthesize.py first.")
    try:
        return from_dict(Manifest, known(Manifest, read_json(store, "manifest.json")))
    except (TypeError, ValueError) as error:
        raise ValueError(damaged(store, "manifest.json")) from error


def read_manifest_with_images(store: Store) -> Manifest:
    """The manifest of a run that has something to look at.

    Raises:
        FileNotFoundError: the run is not finished, or has no image.
    """
    manifest = read_manifest(store)
    if manifest.num_images == 0:
        raise FileNotFoundError(
            f"No image in {store.uri}: all {manifest.num_failed:,} samples failed. Remove the "
            "cause, then add --retry-failed to the command of jobs/synthesize.py."
        )
    return manifest
