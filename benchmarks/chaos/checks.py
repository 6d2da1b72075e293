"""What must hold of a run that was disturbed, beside one of the same requests that was not.

Each check gives its problems as lines; none where all is well.
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from t2ipal.store import (
    Store,
    committed_shards,
    finished_shards,
    read_encoded_images,
    read_manifest,
    read_samples,
    run_status,
)

PARTS = {"tar": "tar", "sidecar": "parquet"}
"""What a marker describes, and the ending of its object."""
SHOWN = 3
"""Examples that a line names."""


def run_contents(store: Store) -> dict[str, Any]:
    """Every object's bytes; of a marker all but the seconds that its shard took."""
    found: dict[str, Any] = {key: store.read(key) for key in store.list()}
    for key, data in found.items():
        if key.startswith("images/") and key.endswith(".json"):
            timed = ("seconds", "other_seconds")
            found[key] = {name: v for name, v in json.loads(data).items() if name not in timed}
    return found


def orphans(keys: Iterable[str]) -> list[str]:
    """Those of a run's keys under images/ that no marker describes."""
    keys = [key for key in keys if key.startswith("images/")]
    trusted = {key.removesuffix(".json") for key in keys if key.endswith(".json")}
    return [key for key in keys if key.rpartition(".")[0] not in trusted]


def fetch(store: Store, folder: Path) -> Store:
    """All objects of a store in a folder: the checks read each one many times."""
    local = Store(folder)
    with ThreadPoolExecutor(4) as pool:
        keys = store.list()
        for key, data in zip(keys, pool.map(store.read, keys), strict=True):
            local.write(key, data)
    return local


def plant_orphan(store: Store) -> None:
    """Leaves another shard's tar and sidecar without a marker, as a worker killed before it."""
    for ending in PARTS.values():
        store.write(f"images/99999.{ending}", store.read(f"images/00000.{ending}"))


def content_problems(store: Store, reference: Store) -> list[str]:
    """Objects that are missing, that differ by a byte, or that are there besides orphans."""
    found, expected = run_contents(store), run_contents(reference)
    more = found.keys() - expected.keys() - {*orphans(found)}
    other = [key for key in found.keys() & expected.keys() if found[key] != expected[key]]
    return [
        *_line("missing", expected.keys() - found.keys()),
        *_line("other bytes", other),
        *_line("not in the undisturbed run", more),
    ]


def marker_problems(store: Store, shards: Iterable[str]) -> list[str]:
    """Of these committed shards, parts that are not what the marker describes."""
    wrong = []
    for shard in shards:
        marker = json.loads(store.read(f"images/{shard}.json"))
        for part, ending in PARTS.items():
            key = f"images/{shard}.{ending}"
            try:
                complete = hashlib.sha256(store.read(key)).hexdigest() == marker[part]["sha256"]
            except FileNotFoundError:
                complete = False
            if not complete:
                wrong.append(key)
    return _line("trusted but not what the marker describes", wrong)


def sample_problems(store: Store, samples: Iterable[tuple[str, int]]) -> list[str]:
    """Samples, as (caption id, k), that are not exactly once in the sidecars and in the tars."""
    markers = committed_shards(store)
    expected, rows = Counter(samples), [*read_samples(store, markers)]
    shards = [marker.shard for marker in markers]
    images = [row for shard in shards for row, _ in read_encoded_images(store, shard)]
    problems = _line("samples that failed", [row.key for row in rows if not row.is_image])
    for place, found in (("sidecars", rows), ("tars", images)):
        counts = Counter((row.caption_id, row.k) for row in found)
        problems += _line(f"samples missing in the {place}", expected - counts)
        problems += _line(f"samples too many in the {place}", counts - expected)
    return problems


def reader_problems(store: Store) -> list[str]:
    """Shards that a reader names although they have no marker, or the other way round."""
    markers = committed_shards(store)
    trusted = {marker.shard for marker in markers}
    unmarked = {key.split("/")[1].rpartition(".")[0] for key in orphans(store.list())}
    rows = {row.key.rpartition("-")[0] for row in read_samples(store, markers)}
    listed = {shard.shard for shard in read_manifest(store).shards}
    return [
        *_line("orphans that a reader trusts", unmarked & (trusted | rows | listed)),
        *_line("rows differ from the markers", rows ^ trusted),
        *_line("the manifest differs from the markers", listed ^ trusted),
    ]


def status_problems(store: Store, reference: Store) -> list[str]:
    """What jobs/status.py counts otherwise than for the undisturbed run."""
    names = ("num_samples", "num_images", "num_failed", "num_shards", "num_shards_done")
    found, expected = (dataclasses.asdict(run_status(each)) for each in (store, reference))
    return [
        f"status: {name} is {found[name]}, expected {expected[name]}"
        for name in (*names, "size_bytes", "seconds_left")
        if found[name] != expected[name]
    ]


def all_problems(store: Store, reference: Store, samples: Iterable[tuple[str, int]]) -> list[str]:
    """The problems of a finished run."""
    checks = {
        "contents": lambda: content_problems(store, reference),
        "markers": lambda: marker_problems(store, finished_shards(store)),
        "samples": lambda: sample_problems(store, samples),
        "readers": lambda: reader_problems(store),
        "status": lambda: status_problems(store, reference),
    }
    problems = []
    for name, check in checks.items():
        try:
            problems += check()
        except (ValueError, OSError, KeyError) as error:  # a reader refuses what it finds
            problems.append(f"{name}: {type(error).__name__}: {error}")
    return problems


def _line(what: str, things: Iterable[Any]) -> list[str]:
    """One line with the number of things and the first of them, or none."""
    things = sorted(things)
    names = ", ".join(map(str, things[:SHOWN]))
    return [f"{what}: {len(things)} ({names}{', ...' * (len(things) > SHOWN)})"] if things else []
