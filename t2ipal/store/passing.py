"""Chosen images of a shard, read while its tar passes by piece by piece.

A tar of a gigabyte takes no more memory than a small one; `shards.py` reads whole ones.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from t2ipal.store.images import ENDINGS, RGBImage, decode_image
from t2ipal.store.objects import Store
from t2ipal.store.records import Marker, Sample
from t2ipal.store.shards import naming_a_lost_part, remedy, require_digest
from t2ipal.store.tables import sample_of


def read_chosen_images(
    store: Store, marker: Marker, keys: Iterable[str]
) -> Iterator[tuple[str, RGBImage]]:
    """Some images of a committed shard with their keys, in the order of its tar.

    Whether the tar is the right one shows at its end: where that raises, the images before it
    count for nothing.

    Raises:
        FileNotFoundError: the tar is gone.
        ValueError: it is not the one that the marker describes, or an image cannot be read.
    """
    wanted = {*keys}
    with naming_a_lost_part(store, marker, "tar") as key:
        passing = _Passing(store.pieces(key))
        # What cannot be read as a tar has another digest too.
        with suppress(tarfile.TarError), tarfile.open(fileobj=passing, mode="r|") as tar:
            for member in tar:
                name, _, ending = member.name.rpartition(".")
                file = tar.extractfile(member) if name in wanted else None
                if file is not None and ending in ENDINGS.values():
                    yield name, _decoded(file.read(), f"{member.name} in {store.uri}/{key}", marker)
        passing.finish()
    require_digest(store, marker, "tar", passing.digest.hexdigest())


def first_images(store: Store, marker: Marker, most: int) -> list[tuple[Sample, bytes]]:
    """The first images of a committed shard, as they are stored, one of each caption; to look at.

    No more of the tar is read than holds them, so that nothing is known of its digest: where it
    cannot be read, there are fewer.
    """
    found: dict[str, tuple[Sample, bytes]] = {}
    image, passing = b"", _Passing(store.pieces(f"images/{marker.shard}.tar"))
    unreadable = tarfile.TarError, ValueError, TypeError, KeyError
    with suppress(*unreadable), tarfile.open(fileobj=passing, mode="r|") as tar:
        for member in tar:
            ending, file = member.name.rpartition(".")[2], tar.extractfile(member)
            if file is not None and ending in ENDINGS.values():
                image = file.read()  # the row that describes it follows
            elif file is not None and ending == "json":
                row = sample_of(json.loads(file.read()))
                found.setdefault(row.caption_id, (row, image))
            if len(found) == most:
                break
    return [*found.values()]


def _decoded(data: bytes, place: str, marker: Marker) -> RGBImage:
    try:
        return decode_image(data)
    except Exception as error:  # a decoder raises what it likes on bytes that are damaged
        raise ValueError(f"{place} is damaged. {remedy(marker)}") from error


class _Passing(io.RawIOBase):
    """Pieces of an object as a file that is read once, and their digest."""

    def __init__(self, pieces: Iterator[bytes]):
        self._pieces, self._piece, self.digest = pieces, io.BytesIO(), hashlib.sha256()

    def readinto(self, buffer: Any) -> int:
        """The next bytes, no more than the piece at hand has; none at the end."""
        part = self._piece.read(len(buffer)) or self._next().read(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def finish(self) -> None:
        """Digests what was not read."""
        while self._next().getbuffer():
            pass

    def _next(self) -> io.BytesIO:
        piece = next(self._pieces, b"")
        self.digest.update(piece)
        self._piece = io.BytesIO(piece)
        return self._piece
