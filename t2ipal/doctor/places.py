"""Whether a run can live in a place: a bucket that is there, near and writable, or a folder."""

import os
import socket
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

from t2ipal.doctor.findings import Finding, not_looked_at, ok, wrong
from t2ipal.doctor.machine import check_disk
from t2ipal.store import Store
from t2ipal.store.buckets import PROBE_PREFIX

CONNECT_S = 5.0
RIGHTS = "s3:ListBucket, s3:PutObject, s3:GetObject, s3:DeleteObject"


def check_place(store: Store, region: str | None) -> Iterable[Finding]:
    """Everything about the store of a run.

    Args:
        store: the bucket and prefix, or the folder.
        region: of the machines that are to use it; None: nobody knows.
    """
    if not store.is_bucket:
        yield _check_folder(Path(store.uri))
        return
    if store.endpoint_url:
        _require_server(store.endpoint_url)
    try:
        store.list(PROBE_PREFIX, recursive=False)
    except FileNotFoundError as error:  # there is no such bucket
        yield wrong("bucket", str(error))
        return
    except PermissionError as error:
        yield wrong("bucket", f"{error} It needs {RIGHTS}.")
    else:
        yield ok("bucket", f"{store.uri} is there.")
    yield _check_region(store, region)
    yield from _check_rights(store)


def _require_server(url: str) -> None:
    """Raises within seconds where nobody listens: the store would go on trying for minutes."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), CONNECT_S).close()
    except OSError as error:
        raise ConnectionError(
            f"No server answers at {url} ({error.strerror or error}). Check endpoint_url."
        ) from error


def _check_region(store: Store, region: str | None) -> Finding:
    try:
        there = store.region()
    except OSError as error:
        return wrong("bucket region", str(error))
    if not there or not region:
        what = "the server names none" if not there else f"it is {there}, that of the machines is"
        return not_looked_at("bucket region", f"{what}{'' if not there else ' not known'}.")
    if there != region:
        return wrong(
            "bucket region",
            f"the bucket is in {there}, the machines are in {region}: each byte between them is "
            f"slow and paid for. Take a bucket in {region}.",
        )
    return ok("bucket region", f"{there}, as the machines.")


def _check_rights(store: Store) -> Iterable[Finding]:
    key = f"{PROBE_PREFIX}{uuid.uuid4().hex}"
    rights: list[tuple[str, Callable[[], object]]] = [
        ("s3:PutObject", lambda: store.write(key, b"t2ipal")),
        ("s3:GetObject", lambda: store.read(key)),
        ("s3:DeleteObject", lambda: store.delete(key)),
    ]
    missing = []
    for name, use in rights:
        try:
            use()
        except PermissionError as error:
            missing.append(f"{name}: {error}")
            if name == "s3:PutObject":
                break  # the others need the object
    if missing:
        yield wrong("bucket rights", f"{' '.join(missing)} A run needs {RIGHTS}.")
    else:
        yield ok("bucket rights", "list, put, get and delete.")
    if any(each.startswith("s3:PutObject") for each in missing):
        yield not_looked_at("conditional writes", "nothing can be written.")
    elif store.conditional_writes():
        yield ok("conditional writes", "the server refuses to replace what is there.")
    else:
        yield wrong(
            "conditional writes",
            "this server lacks them: start no two drivers with different settings on one run.",
        )


def _check_folder(folder: Path) -> Finding:
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir():
        return wrong("folder", f"{existing} is a file, {folder} cannot be in it.")
    if not os.access(existing, os.W_OK | os.X_OK):
        return wrong("folder", f"{existing} cannot be written: choose another --output.")
    disk = check_disk(str(existing))
    return Finding("folder", disk.state, f"{folder} can be written. {disk.text}")
