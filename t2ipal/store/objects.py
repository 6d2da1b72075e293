"""Named objects in a local folder or an S3 bucket, behind the same few operations.

Owns atomic and conditional writes to a folder; `buckets.py` owns those to a bucket. Knows nothing
of what the bytes mean.
"""

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from t2ipal.config import require
from t2ipal.places import local_path
from t2ipal.store.buckets import PIECE_BYTES, Bucket
from t2ipal.store.entries import Entry

OLD_UPLOAD_S = 24 * 3600.0
"""No upload of a process that lives takes so long."""
TEMPORARY_PREFIX = ".part-"
"""Of files that are being written; no listing shows them."""
GUARD_S = 10.0
"""For which a guard that a killed writer left holds up the next one; nobody else needs so long."""
UNKNOWN = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system says to a call that it does not know."""
NO_LINKS = UNKNOWN | {errno.EPERM, errno.EACCES, errno.EMLINK, errno.EXDEV}
"""What those without hard links say to one: exFAT, and mounts of buckets and other machines."""
logger = logging.getLogger(__name__)
_KEPT = "What was written before is kept: {} and run the same command again."


class Store:
    """A folder of named objects: `read`, `write`, `write_if_absent`, `delete`, `exists`, `list`.

    A write is all or nothing: a reader sees the old bytes, the new ones or no object, never a part.
    A store can be pickled; each process opens its own connection.
    """

    def __init__(self, uri: str | Path, endpoint_url: str | None = None):
        """Opens nothing yet.

        Args:
            uri: local path, or `s3://bucket/prefix`.
            endpoint_url: server of an S3 bucket that is not on AWS; None: AWS_ENDPOINT_URL_S3 or
                AWS_ENDPOINT_URL of the process that makes the store, not of those it is sent to.
        """
        uri = str(uri)
        self.endpoint_url = endpoint_url
        self._backend: Bucket | _Folder
        if uri.startswith("s3://"):
            self._backend = Bucket(uri, endpoint_url)
            self.endpoint_url = self._backend.endpoint_url
            self.uri = uri.rstrip("/")
        else:
            # Not the working directory: that is what an unset variable of a shell script gives.
            require(uri.strip() != "", f"A store is a local path or s3://..., got {uri!r}.")
            self._backend = _Folder(Path(local_path(uri)).absolute())
            self.uri = str(self._backend.folder)

    def __reduce__(self):
        return Store, (self.uri, self.endpoint_url)

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    @property
    def is_bucket(self) -> bool:
        """Whether it is no folder of this machine."""
        return isinstance(self._backend, Bucket)

    def read(self, key: str) -> bytes:
        """All bytes of one object.

        Raises:
            FileNotFoundError: there is no such object.
        """
        return self._backend.read(key)

    def pieces(self, key: str) -> Iterator[bytes]:
        """The bytes of one object in order, of which no more than a piece is held at once.

        Raises:
            FileNotFoundError: there is no such object.
        """
        return self._backend.pieces(key)

    def write(self, key: str, data: bytes) -> None:
        """Creates or replaces one object."""
        self._backend.write(key, data)

    def require_writable(self, key: str) -> None:
        """Raises what `write` of an object would, before the work whose result it is to hold.

        Raises:
            OSError: it cannot be written.
        """
        self._backend.require_writable(key)

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Creates one object; False, and nothing written, where it exists. One writer wins.

        False may also mean that this call wrote the object: its request is sent again where the
        reply was lost, and the server refuses the second one. So compare what is there. And all
        writers of an object must write what can stand for each other: a server may lack conditional
        writes (`conditional_writes`), or let several racing writers win as OpenStack Swift does.
        """
        return self._backend.write_if_absent(key, data)

    def delete(self, key: str) -> None:
        """Removes one object; nothing happens where there is none.

        Raises:
            PermissionError: who may write may not delete.
        """
        self._backend.delete(key)

    def conditional_writes(self) -> bool:
        """Whether `write_if_absent` can leave it to the store to refuse what exists.

        A folder always can. A server is asked once, by writing and deleting a small object: for the
        driver of a run, not for each worker. Where the answer was no, `write_if_absent` looks first
        and writes then, and the last of several racing writers wins.
        """
        return self._backend.conditional_writes()

    def abort_uploads(self, min_age_s: float) -> int:
        """Ends uploads to this store that began at least so long ago; how many there were.

        A process that is killed while it uploads in parts leaves them in a bucket, where no listing
        shows them and they are paid for ever; in a folder it leaves a temporary file. A store that
        is a whole bucket may hold those of others: there none is ended.

        Raises:
            OSError: the server does not list uploads, or refuses to (PermissionError).
        """
        return self._backend.abort_uploads(min_age_s)

    def region(self) -> str:
        """Where the bucket is, as its server names it; "" where it names none, as for a folder.

        Raises:
            OSError: the server does not tell (PermissionError: for want of rights).
        """
        return self._backend.region()

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        return self._backend.exists(key)

    def folders(self, beginning: str = "") -> list[str]:
        """Sorted names of the folders at the top that begin so; what is in them is not listed."""
        return sorted(self._backend.folders(beginning))

    def list(self, prefix: str = "", recursive: bool = True) -> list[str]:
        """Sorted keys of all objects whose key starts with `prefix`.

        Args:
            prefix: e.g. `train/`.
            recursive: also those with a further `/` behind it; without, folders below are not read.
        """
        return sorted(self._backend.entries(prefix, recursive))

    def entries(self, prefix: str = "", recursive: bool = True) -> dict[str, Entry]:
        """What a listing tells of each object that `list` names, by its key."""
        return dict(sorted(self._backend.entries(prefix, recursive).items()))

    def times(self, prefix: str = "") -> dict[str, float]:
        """When each of those objects was last written, in seconds since 1970, by its key."""
        return {key: entry.modified_s for key, entry in self.entries(prefix).items()}

    def local_path(self, key: str) -> Path | None:
        """The file that an object is; None in a bucket."""
        return None if isinstance(self._backend, Bucket) else self._backend.folder / key


def join_key(folder: str, name: str) -> str:
    """Key of an object in a folder of a store; `folder` may be "", the store itself."""
    return f"{folder}/{name}" if folder else name


def end_old_uploads(store: Store, min_age_s: float = OLD_UPLOAD_S) -> None:
    """Ends what killed processes left, for the driver of a run; says how many, or why it cannot."""
    try:
        count = store.abort_uploads(min_age_s)
    except OSError as error:
        logger.warning(
            "Uploads that killed processes left in %s, if any, stay there: %s A lifecycle rule of "
            "the bucket can end them.",
            store.uri,
            error,
        )
        return
    if count:
        logger.warning(
            "Removed what %d writes of killed processes left in %s more than %g hours ago.",
            count,
            store.uri,
            min_age_s / 3600,
        )


def read_bytes(uri: str | Path, endpoint_url: str | None = None) -> bytes:
    """All bytes of one file on a local path or at `s3://bucket/key`.

    Raises:
        FileNotFoundError: there is no such file.
    """
    store, key = store_and_key(uri, endpoint_url)
    return store.read(key)


def store_and_key(uri: str | Path, endpoint_url: str | None = None) -> tuple[Store, str]:
    """The store of the folder that something lies in, and its key there."""
    folder, name = split_uri(uri)
    return Store(folder, endpoint_url), name


def split_uri(uri: str | Path) -> tuple[str, str]:
    """The store that something lies in, and its key there; a slash at its end does not count."""
    text = str(uri)
    if not text.startswith("s3://"):  # `.` and `~` have a name and a folder too
        text = os.path.abspath(local_path(text))
    folder, _, name = text.rstrip("/").rpartition("/")
    require(not folder.endswith(":/"), f"{text} names a bucket, expected something in it.")
    return folder or "/", name


def clear_error(error: OSError, path: Path, size_bytes: int) -> OSError:
    """What to do about a file that could not be written."""
    place = f"{path.parent} ({error.strerror})"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OSError(
            f"No space left in {path.parent}: {path.name} needs {size_bytes:,} bytes"
            f"{_free(path)}. {_KEPT.format('make room')}"
        )
    if error.errno == errno.EROFS:
        return PermissionError(f"Cannot write to {place}. {_KEPT.format('make it writable')}")
    if isinstance(error, PermissionError | NotADirectoryError | FileExistsError):
        return PermissionError(f"Cannot write to {place}. Choose another folder.")
    return OSError(f"Cannot write {path} ({error.strerror}).")


def _unreadable(error: OSError, path: str | Path) -> OSError:
    return type(error)(f"Cannot read {path} ({error.strerror}).")


def _free(path: Path) -> str:
    """What is left on the disk, to read; nothing where nobody knows."""
    try:
        return f", {shutil.disk_usage(path.parent).free:,} are free"
    except OSError:
        return ""


@contextlib.contextmanager
def _clear_reading(path: Path) -> Iterator[Path]:
    """Names the file in what its reading raises."""
    try:
        yield path
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"No file {path}.") from error
    except IsADirectoryError as error:
        raise FileNotFoundError(f"{path} is a folder, expected a file.") from error
    except OSError as error:
        raise _unreadable(error, path) from error


class _Folder:
    """Objects as files under a local folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def _path(self, key: str) -> Path:
        inside = not key.startswith("/") and ".." not in key.split("/")
        known = inside and "\0" not in key and not re.search("[\ud800-\udc7f\udd00-\udfff]", key)
        require(known, f"No file of {self.folder} can be called {key!r}.")
        return self.folder / key

    def read(self, key: str) -> bytes:
        with _clear_reading(self._path(key)) as path:
            return path.read_bytes()

    def pieces(self, key: str) -> Iterator[bytes]:
        with _clear_reading(self._path(key)) as path, path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece

    def write(self, key: str, data: bytes) -> None:
        with self._complete_file(key, data) as (part, path):
            part.replace(path)

    def require_writable(self, key: str) -> None:
        with self._complete_file(key, b"") as (_, path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))

    def write_if_absent(self, key: str, data: bytes) -> bool:
        with self._complete_file(key, data) as (part, path):
            # A hard link appears at once, with all its bytes, and fails where the name is taken.
            try:
                os.link(part, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                return _rename_if_absent(part, path)
        return True

    def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
        except (NotADirectoryError, IsADirectoryError):
            return
        except OSError as error:
            raise type(error)(f"Cannot remove {path} ({error.strerror}).") from error

    def abort_uploads(self, min_age_s: float) -> int:
        latest, count = time.time() - min_age_s, 0
        for path in self.folder.rglob(TEMPORARY_PREFIX + 32 * "[0-9a-f]"):
            with contextlib.suppress(FileNotFoundError):  # its writer lives, and has just finished
                if path.stat().st_mtime <= latest:
                    path.unlink()
                    count += 1
        return count

    def conditional_writes(self) -> bool:
        return True

    def region(self) -> str:
        return ""

    @contextlib.contextmanager
    def _complete_file(self, key: str, data: bytes) -> Iterator[tuple[Path, Path]]:
        """A finished temporary file beside the final path; removed afterwards if still there."""
        path = self._path(key)
        part = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                _sync(file.fileno())
            yield part, path
        except OSError as error:
            raise clear_error(error, path, len(data)) from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def exists(self, key: str) -> bool:
        path = self._path(key)
        try:
            return stat.S_ISREG(path.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise _unreadable(error, path) from error

    def entries(self, prefix: str, recursive: bool = True) -> dict[str, Entry]:
        # Only the folder that the prefix names can hold matches: a run has many others.
        start, found = self.folder / prefix.rpartition("/")[0], {}
        for parent, folders, names in os.walk(start, onerror=_raise_unreadable):
            if not recursive:
                folders.clear()
            # Texts, not paths: a run may have a hundred thousand files.
            within = os.path.relpath(parent, self.folder).replace(os.sep, "/")
            before = "" if within == "." else f"{within}/"
            for name in names:
                key = before + name
                if key.startswith(prefix) and not name.startswith(TEMPORARY_PREFIX):
                    path = os.path.join(parent, name)
                    try:
                        there = os.stat(path)
                    except PermissionError as error:
                        raise _unreadable(error, Path(path)) from error
                    except FileNotFoundError:  # gone meanwhile, or a link to nothing
                        continue
                    version = f"{there.st_size}-{there.st_mtime_ns}"
                    found[key] = Entry(there.st_mtime, there.st_size, version)
        return found

    def folders(self, beginning: str) -> list[str]:
        try:
            return [
                entry.name
                for entry in os.scandir(self.folder)
                if entry.name.startswith(beginning) and entry.is_dir()
            ]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(error, self.folder) from error


def _rename_if_absent(part: Path, path: Path) -> bool:
    """Gives a file its name where that is not taken; False, and nothing done, where it is.

    Only who creates the guard, an empty file beside it, may look and rename.
    """
    name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]
    guard, started = path.with_name(TEMPORARY_PREFIX + name), time.monotonic()
    while True:
        try:
            guard.open("xb").close()
            break
        except FileExistsError:
            if path.exists() or time.monotonic() - started > GUARD_S:
                break
            time.sleep(0.02)
    try:
        if path.exists():
            return False
        part.rename(path)
        return True
    finally:
        guard.unlink(missing_ok=True)


def _sync(descriptor: int) -> None:
    """Waits until a file is on the disk, where its file system can tell."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise


def _raise_unreadable(error: OSError) -> None:
    """What `os.walk` would pass over, but for folders that are not there."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise _unreadable(error, error.filename) from error
