"""Shards of images: a tar, its parquet sidecar, and the marker that says both are complete.

A run folder holds `config.json` (the settings), `sections/` (what was asked for),
`images/00000.tar`, `.parquet` and `.json` for every shard, and `manifest.json` once all shards are
in. `images/00000-retry1.*` holds another attempt at those samples of a shard that failed, with
other seeds. The same rows and images give the same bytes, whoever writes them. Readers trust
markers only: a tar without a marker does not exist.
"""

import hashlib
import io
import json
import logging
import random
import tarfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from t2ipal.config import differences, fingerprint, require
from t2ipal.images import ENDINGS, RGBImage, decode_image
from t2ipal.store.objects import Store
from t2ipal.store.sections import Section
from t2ipal.store.tables import (
    SIDECAR_SCHEMA,
    damaged,
    json_bytes,
    read_json,
    sidecar_rows,
    to_parquet,
)

READERS = 16
"""Markers that are read at once."""
PARTS = {"tar": "tar", "sidecar": "parquet"}
"""What a marker describes, and the ending of its name."""
TRIES, MAX_PAUSE_S = 5, 2.0
"""Of writers with different bytes, to make a shard whole again; and the longest pause between."""
logger = logging.getLogger(__name__)


def open_run(
    store: Store, settings: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> bool:
    """Makes the store the home of a run with these settings; False where it already is.

    The settings are written once: another driver may be at work on them already. Warns where the
    store has no conditional writes.

    Args:
        store: to be the run's home.
        settings: plain values.
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
    if store.write_if_absent("config.json", json_bytes(settings)):
        return True
    begun = read_json(store, "config.json")
    lines = differences(json.loads(json_bytes(settings)), begun, defaults=defaults)
    if lines:
        raise ValueError(
            f"{store.uri} holds another run. Differences: {'; '.join(lines)}. "
            f"Choose another output folder or the same settings.{how_to_begin_anew(store)}"
        )
    return False


def how_to_begin_anew(store: Store) -> str:
    """What to add where a request is refused: nothing, once the run has a finished shard."""
    if finished_shards(store):
        return ""
    return (
        " No shard of that run is finished: unless it is running now, nothing is lost by removing "
        "config.json and sections/ there to begin anew."
    )


def read_settings(store: Store) -> dict[str, Any]:
    """What `open_run` was given.

    Raises:
        FileNotFoundError: there is no run.
    """
    if not store.exists("config.json"):
        raise FileNotFoundError(f"No run in {store.uri}. Run jobs/synthesize.py first.")
    return read_json(store, "config.json")


def commit_shard(
    store: Store,
    shard: str,
    plan: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    images: Sequence[bytes | None],
    seconds: float = 0.0,
    image_format: str = "jpeg",
    versions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Writes tar and sidecar, then the marker that makes them count, and returns the marker.

    Args:
        shard: name of the shard, e.g. "00000".
        plan: plain values that fix what the shard holds; their hash goes into the marker.
        rows: the sidecar's rows (`SIDECAR_SCHEMA`), in order.
        images: encoded bytes of each row, None where its status is "failed".
        seconds: that a device worked to make them; kept in the marker.
        image_format: of those bytes: it decides the ending of their names in the tar.
        versions: of what made them; kept in the marker, and no part of its hash.

    Of several writers at once the first to write its marker wins, where all have the same bytes.
    Where theirs differ, as those of two kinds of device do, one has written over the other's tar:
    it stores its own once more, marker and all, until what is there belongs together. If it is
    killed before, or the store lets both win, readers will refuse that shard and say what to do.

    Raises:
        ValueError: the shard was already committed from another plan; the differences are named. Or
            others kept writing it over.
    """
    key = f"images/{shard}.json"
    if (there := read_marker(store, shard, plan)) is not None:
        return there
    tar = _tar(rows, images, image_format)
    sidecar = to_parquet(pa.Table.from_pylist([dict(row) for row in rows], SIDECAR_SCHEMA))
    marker = {
        "shard": shard,
        "plan": dict(plan),
        "plan_hash": fingerprint(dict(plan)),
        "num_rows": len(rows),
        "num_failed": sum(image is None for image in images),
        "tar": {"sha256": hashlib.sha256(tar).hexdigest(), "size_bytes": len(tar)},
        "sidecar": {"sha256": hashlib.sha256(sidecar).hexdigest(), "size_bytes": len(sidecar)},
        "seconds": round(seconds, 3),
        "versions": dict(versions or {}),
    }
    store.write(f"images/{shard}.tar", tar)
    store.write(f"images/{shard}.parquet", sidecar)
    if store.write_if_absent(key, json_bytes(marker)):
        return marker
    # Someone else was first, or this marker was sent twice: then it is there as it is here.
    other = _committed(store, key, plan)
    if all(other[part] == marker[part] for part in PARTS):
        return other
    for _ in range(TRIES):
        if _whole(store, other):
            return other
        time.sleep(random.uniform(0.0, MAX_PAUSE_S))  # the others may be as far as this
        store.write(f"images/{shard}.tar", tar)
        store.write(f"images/{shard}.parquet", sidecar)
        store.write(key, json_bytes(marker))
        other = _committed(store, key, plan)
    for part in PARTS:
        _checked(store, other, part)
    return other


def describes(
    marker: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    images: Sequence[bytes | None],
    image_format: str,
) -> bool:
    """Whether a marker's tar is of these images: who was first may have made it of others."""
    digest = hashlib.sha256(_tar(rows, images, image_format)).hexdigest()
    return marker["tar"]["sha256"] == digest


def read_marker(store: Store, shard: str, plan: Mapping[str, Any]) -> dict[str, Any] | None:
    """The marker of one shard; None while it is not finished.

    Raises:
        ValueError: it is damaged, or the shard was made from another plan.
    """
    key = f"images/{shard}.json"
    return _committed(store, key, plan) if store.exists(key) else None


def _committed(store: Store, key: str, plan: Mapping[str, Any]) -> dict[str, Any]:
    """The marker of a shard that someone else finished: the same bytes, if from the same plan."""
    marker = _read_marker(store, key)
    check_plan(store, marker, plan)
    return marker


def retry_name(shard: str, attempt: int) -> str:
    """Name of the shard that holds another attempt, from 1, at a shard's failed samples."""
    return f"{shard}-retry{attempt}"


def split_retry(shard: str) -> tuple[str, int]:
    """Name of the shard whose samples a shard holds, and which attempt at them, from 0."""
    name, _, attempt = shard.partition("-retry")
    return name, int(attempt or 0)


def is_retry(shard: str) -> bool:
    """Whether a shard holds another attempt at samples of an earlier one."""
    return "-retry" in shard


def count_samples(markers: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """(samples, those without an image) of a run; a failed sample made by a retry has its image."""
    num_samples = num_failed = 0
    for marker in markers:
        if is_retry(marker["shard"]):
            num_failed -= marker["num_rows"] - marker["num_failed"]
        else:
            num_samples += marker["num_rows"]
            num_failed += marker["num_failed"]
    return num_samples, num_failed


def check_plan(store: Store, marker: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    """Raises ValueError, naming the differences, unless the marker was made from this plan."""
    if marker["plan_hash"] != fingerprint(dict(plan)):
        lines = differences(json.loads(json_bytes(plan)), marker["plan"])
        require(bool(lines), damaged(store, f"images/{marker['shard']}.json"))
        raise ValueError(
            f"Shard {marker['shard']} in {store.uri} was made from another plan. "
            f"Differences: {'; '.join(lines)}."
        )


def committed_shards(store: Store) -> list[dict[str, Any]]:
    """The markers of all finished shards, in order of their names.

    Raises:
        ValueError: a marker cannot be read.
    """
    keys = [f"images/{shard}.json" for shard in finished_shards(store)]
    # A bucket answers after some milliseconds, to many at once as to one.
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(partial(_read_marker, store), keys))


def finished_shards(store: Store) -> list[str]:
    """Names of all shards that have a marker, in order."""
    keys = [key for key in store.list("images/") if key.endswith(".json")]
    return [key.removeprefix("images/").removesuffix(".json") for key in keys]


def missing_shards(sections: Iterable[Section], finished: Iterable[str]) -> int:
    """How many shards a run with these sections lacks, of these names of finished ones."""
    num_asked = sum(section.num_shards for section in sections)
    return max(num_asked - sum(not is_retry(shard) for shard in finished), 0)


def failure_reasons(store: Store, markers: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many samples failed at their last attempt for each reason, the most frequent first.

    Reads the sidecars of shards with such samples, and no others.
    """
    last = _without_retried(markers)
    reasons: Counter[str] = Counter()
    with ThreadPoolExecutor(READERS) as pool:
        failed = [marker for marker in last if marker["num_failed"]]
        for rows in pool.map(partial(read_shard_rows, store), failed):
            reasons.update(filter(None, rows["reason"].to_pylist()))
    return dict(reasons.most_common())


def _without_retried(markers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The markers of those shards whose failed samples were not tried again later."""
    names = {marker["shard"] for marker in markers}

    def next_name(shard: str) -> str:
        name, attempt = split_retry(shard)
        return retry_name(name, attempt + 1)

    return [marker for marker in markers if next_name(marker["shard"]) not in names]


def _read_marker(store: Store, key: str) -> dict[str, Any]:
    marker = read_json(store, key)
    whole = _is_marker(marker) and f"images/{marker['shard']}.json" == key
    require(whole, damaged(store, key))
    return marker


def _is_marker(marker: Mapping[str, Any]) -> bool:
    """Whether a record has all that is read of a marker."""
    kinds = {
        "shard": str, "plan": dict, "plan_hash": str, "num_rows": int, "num_failed": int,
        "tar": dict, "sidecar": dict, "seconds": int | float,
    }  # fmt: skip
    return (
        all(isinstance(marker.get(name), kind) for name, kind in kinds.items())
        and all({"sha256", "size_bytes"} <= {*marker[part]} for part in ("tar", "sidecar"))
        and 0 <= marker["num_failed"] <= marker["num_rows"]
    )


def write_manifest(
    store: Store, class_names: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes and returns manifest.json, what the run holds; for when all its shards are in."""
    markers = committed_shards(store)
    num_rows, num_failed = count_samples(markers)
    names = ("shard", "num_rows", "num_failed", "tar", "sidecar")
    manifest = {
        "class_names": list(class_names),
        "num_images": num_rows - num_failed,
        "num_failed": num_failed,
        "settings": dict(settings),
        "shards": [{name: marker[name] for name in names} for marker in markers],
    }
    store.write("manifest.json", json_bytes(manifest))
    return manifest


def read_manifest(store: Store) -> dict[str, Any]:
    """What a finished run holds: class names, counts, settings, shards.

    Raises:
        FileNotFoundError: the run is not finished, or there is none.
    """
    if not store.exists("manifest.json"):
        raise FileNotFoundError(f"No manifest in {store.uri}. Run jobs/synthesize.py first.")
    manifest = read_json(store, "manifest.json")
    names = {"class_names", "num_images", "num_failed", "settings", "shards"}
    require(names <= {*manifest}, damaged(store, "manifest.json"))
    return manifest


def read_rows(store: Store) -> pa.Table:
    """The sidecar rows of all committed shards in one table, those that failed included.

    Of a sample that was tried again there is the last attempt alone.
    """
    markers = committed_shards(store)
    last = {marker["shard"] for marker in _without_retried(markers)}
    tables = []
    for marker in markers:
        rows = read_shard_rows(store, marker)
        tables.append(rows if marker["shard"] in last else rows.filter(pc.field("status") == "ok"))
    return pa.concat_tables(tables) if tables else SIDECAR_SCHEMA.empty_table()


def read_shard_rows(store: Store, marker: Mapping[str, Any]) -> pa.Table:
    """The sidecar rows of one committed shard.

    Raises:
        ValueError: the sidecar is not the one that the marker describes.
    """
    return sidecar_rows(_checked(store, marker, "sidecar"))


def read_images(store: Store, shard: str) -> Iterator[tuple[dict[str, Any], RGBImage]]:
    """Each image of a committed shard with its row; failed samples have none and are left out.

    Raises:
        ValueError: the tar is not the one that the marker describes.
    """
    for row, data in read_encoded_images(store, shard):
        yield row, decode_image(data)


def read_encoded_images(store: Store, shard: str) -> Iterator[tuple[dict[str, Any], bytes]]:
    """As `read_images`, the images as the bytes that are stored."""
    data = _checked(store, _read_marker(store, f"images/{shard}.json"), "tar")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: member for member in tar.getmembers()}
        for name in members:
            key, _, ending = name.rpartition(".")
            if ending in ENDINGS.values():
                row = _member(tar, members[f"{key}.json"])
                yield {"attempt": 0, **json.loads(row)}, _member(tar, members[name])


def _tar(
    rows: Sequence[Mapping[str, Any]], images: Sequence[bytes | None], image_format: str
) -> bytes:
    """A tar that depends on its content alone: sorted members, no times, no owners."""
    members = {}
    for row, image in zip(rows, images, strict=True):
        if image is not None:
            members[f"{row['key']}.{ENDINGS[image_format]}"] = image
            members[f"{row['key']}.json"] = json_bytes(row)
            members[f"{row['key']}.txt"] = str(row["caption"]).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(members):
            member = tarfile.TarInfo(name)  # mtime, uid and gid are 0, owner names empty
            member.size = len(members[name])
            tar.addfile(member, io.BytesIO(members[name]))
    return buffer.getvalue()


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def _whole(store: Store, marker: Mapping[str, Any]) -> bool:
    """Whether tar and sidecar are those that a marker describes."""
    try:
        for part in PARTS:
            _checked(store, marker, part)
    except (FileNotFoundError, ValueError):
        return False
    return True


def _checked(store: Store, marker: Mapping[str, Any], part: str) -> bytes:
    """The bytes of a part.

    Raises:
        FileNotFoundError: it is gone.
        ValueError: it is another than the marker describes.
    """
    key = f"images/{marker['shard']}.{PARTS[part]}"
    remedy = f"Remove the marker images/{marker['shard']}.json and run jobs/synthesize.py again."
    try:
        data = store.read(key)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{key} in {store.uri} is gone, though its marker is there. {remedy}"
        ) from error
    if hashlib.sha256(data).hexdigest() != marker[part]["sha256"]:
        raise ValueError(f"{key} in {store.uri} is not what its marker describes. {remedy}")
    return data
