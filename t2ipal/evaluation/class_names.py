"""Class names as other people write them: "Potted plant" is "pottedplant"."""

from dataclasses import dataclass
from functools import cached_property

from t2ipal.config import unknown


@dataclass(frozen=True)
class ClassNames:
    """The recognizer's class names, found again however they are written."""

    class_names: tuple[str, ...]

    def column(self, name: str) -> int | None:
        """Of the class of this name; None: there is none, or there are several."""
        if name in self.class_names:
            return self.class_names.index(name)
        alike = self._columns.get(_plain(name), ())
        return alike[0] if len(alike) == 1 else None

    def require(self, name: str, place: str) -> int:
        """Raises ValueError, with the nearest name, where there is no such class."""
        column = self.column(name)
        if column is None:
            raise unknown(f"class in {place}", name, self.class_names)
        return column

    @cached_property
    def _columns(self) -> dict[str, list[int]]:
        """By what counts of the names."""
        columns: dict[str, list[int]] = {}
        for at, name in enumerate(self.class_names):
            columns.setdefault(_plain(name), []).append(at)
        return columns


def _plain(name: str) -> str:
    """What counts of a name: letters and digits, in one case."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
