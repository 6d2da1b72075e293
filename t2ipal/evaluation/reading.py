"""Photographs of a test set read one by one; those that cannot be are left out, and named."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t2ipal.config import listed, require
from t2ipal.evaluation.photographs import PhotographSet
from t2ipal.features.photographs import load_photograph

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
            try:
                pixels = load_photograph(self.photographs.store.read(key), self.size_px)
            except (ValueError, FileNotFoundError, PermissionError) as error:
                self.unreadable.append(Unreadable(key, str(error)))
                self._check()
                continue
            self.rows.append(row)
            yield pixels

    def _check(self) -> None:
        bad, total = len(self.unreadable), len(self.photographs.keys)
        place = self.photographs.store.uri
        require(
            bad < total,
            f"None of {total:,} photographs of the test set in {place} can be read: "
            f"{named(self.unreadable)}.",
        )
        require(
            bad <= self.max_unreadable_fraction * total,
            f"{bad:,} or more of {total:,} photographs of the test set in {place} cannot be read: "
            f"{named(self.unreadable)}. Mend them, or remove them together with their labels: "
            f"max_unreadable_fraction is {self.max_unreadable_fraction:g}.",
        )

    def tell(self) -> None:
        """Says what was left out."""
        if self.unreadable:
            logger.warning(
                "%d of %d photographs of the test set in %s cannot be read and are left out: %s.",
                len(self.unreadable),
                len(self.photographs.keys),
                self.photographs.store.uri,
                named(self.unreadable),
            )


def named(unreadable: Sequence[Unreadable]) -> str:
    """The first ones and their reasons, to read."""
    return listed([f"{each.file} ({each.reason})" for each in unreadable], NUM_NAMED)
