"""Photographs found again under the names that lists, tables and annotations give them.

Such a name may have folders that are not there, or lack some that are; it may be written with `\\`,
in other case, or without its ending.
"""

import unicodedata
from collections.abc import Iterable

from t2ipal.config import require
from t2ipal.features.photograph_kinds import is_photograph


class Files:
    """The keys of a store's files, by their names."""

    def __init__(self, place: str, keys: Iterable[str]):
        """Looks at the keys alone.

        Args:
            place: of the files, for messages.
            keys: of them.
        """
        self.place, self.keys = place, set(keys)
        self._by_name: dict[str, list[tuple[str, str]]] = {}
        for key in sorted(self.keys):
            spellings = [key, key.rpartition(".")[0]] if is_photograph(key) else [key]
            for spelling in spellings:
                self._by_name.setdefault(_name(spelling), []).append((spelling, key))

    def find(self, file: str) -> str | None:
        """The key of a file; None where there is none.

        The name itself counts first; then the longest key that it ends with; then a key that ends
        with it. Those in the same case come before others.

        Raises:
            ValueError: it may be any of several.
        """
        path = file.strip().replace("\\", "/").removeprefix("./").lstrip("/")
        if path in self.keys:
            return path
        named = self._by_name.get(_name(path), [])
        for same in (str, _plain):
            whole = f"/{same(path)}"
            within = [(len(text), key) for text, key in named if whole.endswith(f"/{same(text)}")]
            found = [key for length, key in within if length == max(within)[0]]
            found = found or [key for text, key in named if f"/{same(text)}".endswith(whole)]
            require(
                len(found) < 2,
                f"{file} in {self.place} may be {' or '.join(found[:3])}: write the path.",
            )
            if found:
                return found[0]
        return None


def _name(path: str) -> str:
    return _plain(path).rpartition("/")[2]


def _plain(path: str) -> str:
    """Letters as they compare: in one case, and an accent in one way."""
    return unicodedata.normalize("NFC", path.casefold())
