"""Photographs of a test set read one by one; those that cannot be are left out, and named."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t2ipal.config import listed, require
from t2ipal.evaluation.photographs import PhotographSet
from t2ipal.features.photographs import load_photograph
from t2ipal.store import Store

NUM_NAMED = 5
"""Photographs that cannot be read, of which a message tells why."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unreadable:
    """A photograph that was left out."""

    file: str
    """Its key in the folder or bucket of the test set."""
    reason: str


class Reader:
    """Goes through the photographs of a set once; knows afterwards which it could not read."""

    def __init__(self, photographs: PhotographSet, size_px: int, max_unreadable_fraction: float):
        """Reads nothing yet.

        Args:
            photographs: to read.
            size_px: side of the square that is seen of each.
            max_unreadable_fraction: of them; more is an error.
        """
        self.photographs, self.size_px = photographs, size_px
        self.max_unreadable_fraction = max_unreadable_fraction
        self.unreadable: list[Unreadable] = []
        self.rows: list[int] = []
        """Of the photographs that were read."""

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """The photographs that can be read, as a backbone sees them.

        Raises:
            ValueError: too many cannot be read; the first ones are named.
        """
        for row, key in enumerate(self.photographs.keys):
            seen = read_photograph(self.photographs.store, key, self.size_px)
            if isinstance(seen, Exception):
                self.unreadable.append(Unreadable(key, str(seen)))
                require_few(self.photographs, self.unreadable, self.max_unreadable_fraction)
                continue
            self.rows.append(row)
            yield seen


def read_photograph(store: Store, key: str, size_px: int) -> NDArray[np.uint8] | Exception:
    """A photograph as a backbone sees it, or why this one cannot be read."""
    try:
        return load_photograph(store.read(key), size_px)
    except (ValueError, FileNotFoundError, PermissionError) as error:
        return error


def require_few(
    photographs: PhotographSet, unreadable: Sequence[Unreadable], max_unreadable_fraction: float
) -> None:
    """Raises ValueError where too many photographs cannot be read; the first ones are named."""
    bad, total, place = len(unreadable), len(photographs.keys), photographs.store.uri
    require(
        bad < total,
        f"None of {total:,} photographs of the test set in {place} can be read: "
        f"{named(unreadable)}.",
    )
    require(
        bad <= max_unreadable_fraction * total,
        f"{bad:,} or more of {total:,} photographs of the test set in {place} cannot be read: "
        f"{named(unreadable)}. Mend them, or remove them together with their labels: "
        f"max_unreadable_fraction is {max_unreadable_fraction:g}.",
    )


def tell_left_out(photographs: PhotographSet, unreadable: Sequence[Unreadable]) -> None:
    """Says which photographs are left out, where there are any."""
    if unreadable:
        logger.warning(
            "%d of %d photographs of the test set in %s cannot be read and are left out: %s.",
            len(unreadable),
            len(photographs.keys),
            photographs.store.uri,
            named(unreadable),
        )


def named(unreadable: Sequence[Unreadable]) -> str:
    """The first ones and their reasons, to read."""
    return listed([f"{each.file} ({each.reason})" for each in unreadable], NUM_NAMED)
