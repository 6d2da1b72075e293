"""Copies of a bucket's objects on this machine: a folder of bounded size for all its processes.

What was used longest ago gives way. A copy is there whole or not at all, and it stays readable for
who has it open when it goes.
"""

import contextlib
import errno
import hashlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from t2ipal.store.arrays import require_digest_of_arrays
from t2ipal.store.objects import TEMPORARY_PREFIX, Store

try:
    import fcntl
except ImportError:  # Windows: two processes may then fetch an object twice, which harms nobody
    fcntl = None

ENDING = ".copy"
NUM_LOCKS = 256
FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)
LOOKS = 20
"""The folder is looked through again after each such part of its size: others write to it too."""
TRIES = 3
"""Of a copy that is not what its head tells."""
ABANDONED_S = 3600.0
"""After which a copy that is being written is one that a killed process left."""


class LocalCopies:
    """Fetches objects once for all processes of a machine, those that two want at once too."""

    def __init__(self, folder: Path, max_bytes: int):
        """Touches nothing yet.

        Args:
            folder: of the copies; nothing else may lie in it.
            max_bytes: of all copies; some percent more where several processes fetch at once, or
                hold copies open that have given way.
        """
        self.folder, self.max_bytes = folder, max_bytes
        self._room: int | None = None  # not looked yet
        self._looking = threading.Lock()

    def __reduce__(self):
        return LocalCopies, (self.folder, self.max_bytes)

    def fetch(self, store: Store, key: str, version: str) -> Path:
        """The copy of an object of arrays, made where there is none.

        Args:
            store: where the object is.
            key: of the object.
            version: that a listing told.

        Raises:
            FileNotFoundError: there is no such object.
            ValueError: it is damaged in the store too.
            OSError: the folder cannot be written.
        """
        named = f"{store.endpoint_url}|{store.uri}|{key}|{version}"
        digest = hashlib.sha256(named.encode()).hexdigest()[:40]
        path = self.folder / f"{digest}{ENDING}"
        if self._touch(path):
            return path
        with self._clear_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked(digest):
                if not self._touch(path):  # who had the lock may have fetched it
                    self._copy(store, key, path)
        return path

    def _touch(self, path: Path) -> bool:
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        except OSError:  # a copy that others made can be read all the same
            return path.is_file()
        return True

    def _copy(self, store: Store, key: str, path: Path) -> None:
        part = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
        try:
            for attempt in range(1, TRIES + 1):
                size = self._received(store, key, part)
                try:
                    require_digest_of_arrays(part, f"{key} in {store.uri}")
                    break
                except ValueError:
                    if attempt == TRIES:
                        raise
            self._make_room(size)
            part.replace(path)
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def _received(self, store: Store, key: str, part: Path) -> int:
        try:
            return _receive(store, key, part)
        except OSError as error:
            if error.errno not in FULL_ERRORS:
                raise
        with self._looking:  # the disk is smaller than the bound
            self.max_bytes = self._remove(self._remove(self.max_bytes) // 2)
            self._room = 0
        return _receive(store, key, part)

    def _make_room(self, size: int) -> None:
        """Keeps account of the bound; looks through the folder every now and then alone."""
        with self._looking:
            if self._room is None or self._room < size:
                total = self._remove(max(self.max_bytes - size, 0))
                self._room = min(self.max_bytes - total, self.max_bytes // LOOKS)
            self._room -= size

    def _remove(self, bound: int) -> int:
        """Removes the copies used longest ago until the others fit; the bytes that are left."""
        found, old = [], time.time() - ABANDONED_S
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    there = entry.stat()
                    if entry.name.endswith(ENDING):
                        found.append((there.st_mtime, there.st_size, entry.path))
                    elif entry.name.startswith(TEMPORARY_PREFIX) and there.st_mtime < old:
                        os.unlink(entry.path)
        total = sum(size for _, size, _ in found)
        for _, size, name in sorted(found):
            if total <= bound:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            total -= size
        return total

    @contextlib.contextmanager
    def _locked(self, digest: str) -> Iterator[None]:
        """One process or thread at a time for a copy; all at once where locks are not known."""
        if fcntl is None:
            yield
            return
        with (self.folder / f"lock-{int(digest[:8], 16) % NUM_LOCKS:03d}").open("ab") as file:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """Says of errors of this folder, and not of the store, what to do about them."""
        try:
            yield
        except OSError as error:
            if error.errno is None or isinstance(error, FileNotFoundError):
                raise  # the store's own
            kind = PermissionError if error.errno in (errno.EROFS, errno.EACCES) else OSError
            raise kind(
                f"Copies of a bucket's features lie in {self.folder}, which cannot be written "
                f"({error.strerror}). Make room there or make it writable, or name another folder "
                "with feature_cache, or a smaller feature_cache_gb."
            ) from error


def _receive(store: Store, key: str, part: Path) -> int:
    """Writes an object into a file; returns its size."""
    with part.open("wb") as file:
        for piece in store.pieces(key):
            file.write(piece)
        return file.tell()
