"""Shards of images: a tar, its parquet sidecar, and the marker that says both are complete.

`images/00000.tar`, `.parquet` and `.json` are one shard; `images/00000-retry1.*` holds another
attempt at those of its samples that failed, with other seeds. The same rows and images give the
same bytes, whoever writes them. Readers trust markers only: a tar without a marker does not exist.
"""

import hashlib
import io
import json
import random
import tarfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyarrow as pa

from t2ipal.config import differences, fingerprint, from_dict, require, to_dict
from t2ipal.store.images import ENDINGS, RGBImage, decode_image
from t2ipal.store.objects import Store
from t2ipal.store.records import ManifestShard, Marker, Part, Sample, ShardCounts, known
from t2ipal.store.sections import Section
from t2ipal.store.tables import (
    damaged,
    from_parquet,
    json_bytes,
    read_json,
    sample_of,
    sidecar_samples,
    sidecar_table,
    to_parquet,
)

READERS = 16
"""Markers that are read at once."""
PARTS = {"tar": "tar", "sidecar": "parquet"}
"""What a marker describes, and the ending of its name."""
TRIES, MAX_PAUSE_S = 5, 2.0
"""Of writers with different bytes, to make a shard whole again; and the longest pause between."""
Counted = Marker | ManifestShard | ShardCounts


def commit_shard(
    store: Store,
    shard: str,
    plan: Mapping[str, Any],
    rows: Sequence[Sample],
    images: Sequence[bytes | None],
    seconds: float = 0.0,
    image_format: str = "jpeg",
    versions: Mapping[str, str] | None = None,
    other_seconds: Mapping[str, float] | None = None,
) -> Marker:
    """Writes tar and sidecar, then the marker that makes them count, and returns the marker.

    Args:
        shard: name of the shard, e.g. "00000".
        plan: plain values that fix what the shard holds; their hash goes into the marker.
        rows: the sidecar's rows, in order.
        images: encoded bytes of each row, None where its status is "failed".
        seconds: that a device worked to make them; kept in the marker.
        image_format: of those bytes: it decides the ending of their names in the tar.
        versions: of what made them; kept in the marker, and no part of its hash.
        other_seconds: of other steps before, by their names; kept in the marker, where those that
            tar and sidecar take here join them as `store`; None: no times are kept.

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
    started = time.monotonic()
    tar = _tar(rows, images, image_format)
    sidecar = to_parquet(sidecar_table(rows))
    store.write(f"images/{shard}.tar", tar)
    store.write(f"images/{shard}.parquet", sidecar)
    steps = dict(other_seconds or {}, store=time.monotonic() - started)
    marker = Marker(
        shard=shard,
        plan=dict(plan),
        plan_hash=fingerprint(dict(plan)),
        num_rows=len(rows),
        num_failed=sum(image is None for image in images),
        tar=_part(tar),
        sidecar=_part(sidecar),
        seconds=round(seconds, 3),
        versions=dict(versions or {}),
        other_seconds=other_seconds and {name: round(spent, 3) for name, spent in steps.items()},
    )
    if store.write_if_absent(key, json_bytes(to_dict(marker))):
        return marker
    # Someone else was first, or this marker was sent twice: then it is there as it is here.
    other = _committed(store, key, plan)
    if (other.tar, other.sidecar) == (marker.tar, marker.sidecar):
        return other
    for _ in range(TRIES):
        if _whole(store, other):
            return other
        time.sleep(random.uniform(0.0, MAX_PAUSE_S))  # the others may be as far as this
        store.write(f"images/{shard}.tar", tar)
        store.write(f"images/{shard}.parquet", sidecar)
        store.write(key, json_bytes(to_dict(marker)))
        other = _committed(store, key, plan)
    for part in PARTS:
        _checked(store, other, part)
    return other


def _part(data: bytes) -> Part:
    return Part(hashlib.sha256(data).hexdigest(), len(data))


def describes(
    marker: Marker,
    rows: Sequence[Sample],
    images: Sequence[bytes | None],
    image_format: str,
) -> bool:
    """Whether a marker's tar is of these images: who was first may have made it of others."""
    return marker.tar == _part(_tar(rows, images, image_format))


def read_marker(store: Store, shard: str, plan: Mapping[str, Any]) -> Marker | None:
    """The marker of one shard; None while it is not finished.

    Raises:
        ValueError: it is damaged, or the shard was made from another plan.
    """
    key = f"images/{shard}.json"
    return _committed(store, key, plan) if store.exists(key) else None


def _committed(store: Store, key: str, plan: Mapping[str, Any]) -> Marker:
    """The marker of a shard that someone else finished: the same bytes, if from the same plan."""
    marker = stored_marker(store, key)
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


def count_samples(markers: Iterable[Counted]) -> tuple[int, int]:
    """(samples, those without an image) of a run; a failed sample made by a retry has its image."""
    num_samples = num_failed = 0
    for marker in markers:
        if is_retry(marker.shard):
            num_failed -= marker.num_rows - marker.num_failed
        else:
            num_samples += marker.num_rows
            num_failed += marker.num_failed
    return num_samples, num_failed


def check_plan(store: Store, marker: Marker, plan: Mapping[str, Any]) -> None:
    """Raises ValueError, naming the differences, unless the marker was made from this plan."""
    if marker.plan_hash != fingerprint(dict(plan)):
        lines = differences(json.loads(json_bytes(plan)), marker.plan)
        require(bool(lines), damaged(store, f"images/{marker.shard}.json"))
        raise ValueError(
            f"Shard {marker.shard} in {store.uri} was made from another plan. "
            f"Differences: {'; '.join(lines)}."
        )


def committed_shards(store: Store) -> list[Marker]:
    """The markers of all finished shards, in order of their names.

    Raises:
        ValueError: a marker cannot be read.
    """
    keys = [f"images/{shard}.json" for shard in finished_shards(store)]
    # A bucket answers after some milliseconds, to many at once as to one.
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(partial(stored_marker, store), keys))


def finished_shards(store: Store) -> list[str]:
    """Names of all shards that have a marker, in order."""
    keys = [key for key in store.list("images/") if key.endswith(".json")]
    return [key.removeprefix("images/").removesuffix(".json") for key in keys]


def missing_shards(sections: Iterable[Section], finished: Iterable[str]) -> int:
    """How many shards a run with these sections lacks, of these names of finished ones."""
    num_asked = sum(section.num_shards for section in sections)
    return len({f"{number:05d}" for number in range(num_asked)} - {*finished})


def failure_reasons(store: Store, markers: Sequence[Marker]) -> dict[str, int]:
    """How many samples failed at their last attempt for each reason, the most frequent first.

    Reads the sidecars of shards with such samples, and no others.
    """
    last = last_attempts(markers)
    reasons: Counter[str] = Counter()
    with ThreadPoolExecutor(READERS) as pool:
        failed = [marker for marker in last if marker.num_failed]
        for rows in pool.map(partial(read_shard_samples, store), failed):
            reasons.update(row.reason for row in rows if row.reason)
    return dict(reasons.most_common())


def last_attempts(markers: Sequence[Marker]) -> list[Marker]:
    """The markers of those shards whose failed samples were not tried again later."""
    names = {marker.shard for marker in markers}

    def next_name(shard: str) -> str:
        name, attempt = split_retry(shard)
        return retry_name(name, attempt + 1)

    return [marker for marker in markers if next_name(marker.shard) not in names]


def stored_marker(store: Store, key: str) -> Marker:
    """A marker; raises ValueError where it is damaged."""
    values = known(Marker, read_json(store, key))
    try:
        marker = from_dict(Marker, values)
    except (TypeError, ValueError) as error:
        raise ValueError(damaged(store, key)) from error
    whole = 0 <= marker.num_failed <= marker.num_rows and f"images/{marker.shard}.json" == key
    require(whole, damaged(store, key))
    return marker


def read_samples(store: Store, markers: Sequence[Marker]) -> Iterator[Sample]:
    """The samples of these shards in their order, those that failed included.

    Of a sample that was tried again there is the last attempt alone.
    """
    last = {marker.shard for marker in last_attempts(markers)}
    for marker in markers:
        rows = read_shard_samples(store, marker)
        yield from rows if marker.shard in last else (row for row in rows if row.is_image)


def read_shard_samples(store: Store, marker: Marker) -> list[Sample]:
    """The samples of one committed shard, in the order of its sidecar.

    Raises:
        ValueError: the sidecar is not the one that the marker describes.
    """
    return sidecar_samples(_checked(store, marker, "sidecar"))


def sidecar_columns(store: Store, marker: Marker, columns: Sequence[str]) -> pa.Table:
    """Some columns of the sidecar of one committed shard.

    Raises:
        ValueError: the sidecar is not the one that the marker describes.
    """
    return from_parquet(_checked(store, marker, "sidecar"), columns)


def read_images(store: Store, shard: str) -> Iterator[tuple[Sample, RGBImage]]:
    """Each image of a committed shard with its row; failed samples have none and are left out.

    Raises:
        ValueError: the tar is not the one that the marker describes.
    """
    for row, data in read_encoded_images(store, shard):
        yield row, decode_image(data)


def read_encoded_images(store: Store, shard: str) -> Iterator[tuple[Sample, bytes]]:
    """As `read_images`, the images as the bytes that are stored."""
    data = _checked(store, stored_marker(store, f"images/{shard}.json"), "tar")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: member for member in tar.getmembers()}
        for name in members:
            key, _, ending = name.rpartition(".")
            if ending in ENDINGS.values():
                row = json.loads(_member(tar, members[f"{key}.json"]))
                yield sample_of(row), _member(tar, members[name])


def _tar(rows: Sequence[Sample], images: Sequence[bytes | None], image_format: str) -> bytes:
    """A tar that depends on its content alone: sorted members, no times, no owners."""
    members = {}
    for row, image in zip(rows, images, strict=True):
        if image is not None:
            members[f"{row.key}.{ENDINGS[image_format]}"] = image
            members[f"{row.key}.json"] = json_bytes(to_dict(row))
            members[f"{row.key}.txt"] = row.caption.encode()
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


def _whole(store: Store, marker: Marker) -> bool:
    """Whether tar and sidecar are those that a marker describes."""
    try:
        for part in PARTS:
            _checked(store, marker, part)
    except (FileNotFoundError, ValueError):
        return False
    return True


def _checked(store: Store, marker: Marker, part: str) -> bytes:
    """The bytes of a part.

    Raises:
        FileNotFoundError: it is gone.
        ValueError: it is another than the marker describes.
    """
    with naming_a_lost_part(store, marker, part) as key:
        data = store.read(key)
    require_digest(store, marker, part, hashlib.sha256(data).hexdigest())
    return data


@contextmanager
def naming_a_lost_part(store: Store, marker: Marker, part: str) -> Iterator[str]:
    """The key of a part, and which it is where reading it finds nothing."""
    key = f"images/{marker.shard}.{PARTS[part]}"
    try:
        yield key
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{key} in {store.uri} is gone, though its marker is there. {remedy(marker)}"
        ) from error


def require_digest(store: Store, marker: Marker, part: str, sha256: str) -> None:
    """Raises ValueError unless a part has the digest that the marker names."""
    require(
        sha256 == getattr(marker, part).sha256,
        f"images/{marker.shard}.{PARTS[part]} in {store.uri} is not what its marker describes. "
        f"{remedy(marker)}",
    )


def remedy(marker: Marker) -> str:
    """What to do about a shard that is damaged."""
    return f"Remove the marker images/{marker.shard}.json and run jobs/synthesize.py again."
