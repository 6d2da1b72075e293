"""Caption files as people have them: one or many, folders and patterns, packed, in any encoding.

Owns which files a caption source is made of and how bytes become text; `rows.py` owns the formats.
"""

import bz2
import fnmatch
import glob
import gzip
import io
import lzma
import os
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from t2ipal.config import require, unknown
from t2ipal.places import local_path
from t2ipal.store import Store, marked_encoding, read_bytes

Tell = Callable[[str], None]
"""Takes a line for a person: what was guessed, what was left out."""
TEXT_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".tab", ".txt", ".token")
SUFFIXES = (*TEXT_SUFFIXES, ".parquet")
"""Of caption files, each of which may be packed."""
_PACKED = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_PACKED_STARTS = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\x00": ".xz"}
MANY_BYTES = 2**28
"""From which on what was packed to less than a 200th is no text, but made to fill a memory."""
PIECE_BYTES = 2**20
_OTHER_KINDS = (
    (b"PK\x03\x04", "a zip archive or an Excel table", "Unpack it, or save it as CSV."),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "Unpack it first."),
    (b"PAR1", "parquet", "Name it .parquet."),
    (b"version https://git-lfs", "a pointer of git LFS", "Run `git lfs pull`."),
    (b"<!DOCTYPE", "a web page", "Download the file itself."),
    (b"<!doctype", "a web page", "Download the file itself."),
    (b"<html", "a web page", "Download the file itself."),
)
"""First bytes of what is often given in place of captions, and what to do about it."""


def file_format(uri: str) -> str:
    """The suffix that names a file's format, in lower case, without that of a packer."""
    path = PurePosixPath(uri.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in _PACKED else path.suffix


def caption_files(uris: Sequence[str | Path], endpoint_url: str | None = None) -> list[str]:
    """The files that paths, folders and patterns name, each once, those of one entry sorted.

    Args:
        uris: of files, folders, or patterns with `*`, `?` or `[...]`: local, or s3://.
        endpoint_url: server of an S3 bucket that is not on AWS.

    Raises:
        FileNotFoundError: a pattern or folder holds no caption file.
        ValueError: a file of an unknown format, or a folder with files of several.
    """
    require(len(uris) > 0, "captions must name a file, got none.")
    files: dict[str, None] = {}
    for uri in map(str, uris):
        place = uri if uri.startswith("s3://") else local_path(uri)
        files.update(dict.fromkeys(_files_of(place, endpoint_url)))
    for file in files:
        if file_format(file) not in SUFFIXES:
            raise unknown(f"suffix of the caption file {file}:", file_format(file), SUFFIXES)
    return list(files)


def _files_of(uri: str, endpoint_url: str | None) -> list[str]:
    remote = uri.startswith("s3://")
    if not remote and os.path.isdir(uri):
        return _of_folder(uri, [str(path) for path in Path(uri).iterdir() if path.is_file()])
    if remote and (uri.endswith("/") or file_format(uri) not in SUFFIXES) and "*" not in uri:
        place = uri.rstrip("/")
        keys = Store(place, endpoint_url).list(recursive=False)
        return _of_folder(uri, [f"{place}/{key}" for key in keys]) if keys else [uri]
    if not re.search(r"[*?\[]", uri) or (not remote and os.path.exists(uri)):
        return [uri]
    if remote:
        folder, _, pattern = uri.rpartition("/")
        require(
            not re.search(r"[*?\[]", folder),
            f"A pattern on s3:// must stand in the last part of the name, got {uri}.",
        )
        keys = Store(folder, endpoint_url).list(recursive=False)
        found = [f"{folder}/{key}" for key in keys if fnmatch.fnmatchcase(key, pattern)]
    else:
        found = [path for path in glob.glob(uri, recursive=True) if os.path.isfile(path)]
    if not found:
        raise FileNotFoundError(f"No file matches {uri}.")
    return sorted(found)


def _of_folder(uri: str, files: Sequence[str]) -> list[str]:
    """The caption files of a folder; which of several formats is meant is not guessed."""
    by_format: dict[str, list[str]] = {}
    for file in sorted(files):
        if file_format(file) in SUFFIXES and not PurePosixPath(file).name.startswith("."):
            by_format.setdefault(file_format(file), []).append(file)
    if not by_format:
        raise FileNotFoundError(f"No caption file ({', '.join(SUFFIXES)}) in the folder {uri}.")
    require(
        len(by_format) == 1,
        f"The folder {uri} holds files of several formats ({', '.join(sorted(by_format))}). "
        f'Say which, e.g. "{uri.rstrip("/")}/*{next(iter(by_format))}".',
    )
    return next(iter(by_format.values()))


def read_file(uri: str, endpoint_url: str | None = None) -> bytes:
    """The bytes of a file, unpacked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the packed file is damaged, or holds far more than texts would.
    """
    data = read_bytes(uri, endpoint_url)
    packer = next((p for start, p in _PACKED_STARTS.items() if data.startswith(start)), None)
    if packer is None:
        return data
    pieces, total, most = [], 0, max(MANY_BYTES, 200 * len(data))
    try:
        with _PACKED[packer](io.BytesIO(data)) as unpacked:
            while piece := unpacked.read(PIECE_BYTES):
                pieces.append(piece)
                total += len(piece)
                require(total <= most, f"it unpacks to more than {most:,} bytes")
        return b"".join(pieces)
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"{uri} is a damaged {packer[1:]} file: {error}.") from error


def decode(data: bytes, uri: str, tell: Tell) -> str:
    """The text of a file.

    Single bytes that are no UTF-8 in a file that is become lone surrogates, for the reader to
    reject that row alone; a file without any UTF-8 is read as Windows-1252, and told.

    Raises:
        ValueError: it is something else than text.
    """
    start = data[:64].lstrip()
    for mark, kind, remedy in _OTHER_KINDS:
        require(not start.startswith(mark), f"{uri} must be text, got {kind}. {remedy}")
    encoding = marked_encoding(data) or _unmarked_encoding(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        if not encoding.startswith("utf-8"):
            raise ValueError(f"{uri} is damaged {encoding.upper()}: {error.reason}.") from error
        lenient = data.decode(encoding, errors="surrogateescape")
        if re.search("[\u0080-\ud7ff\ue000-\U0010ffff]", lenient):
            return lenient
        require(
            b"\0" not in data, f"{uri} must be text, got byte 0 and others that are in no text."
        )
        tell(
            f"{uri} is no UTF-8 (byte 0x{data[error.start]:02x} in line {line}): "
            "read as Windows-1252."
        )
        return data.decode("cp1252", errors="replace")


def _unmarked_encoding(data: bytes) -> str:
    """UTF-8, unless zeros beside its first letters show UTF-16."""
    if len(data) >= 4 and len(data) % 2 == 0:
        if data[1] == data[3] == 0 != data[0]:
            return "utf-16-le"
        if data[0] == data[2] == 0 != data[1]:
            return "utf-16-be"
    return "utf-8"
