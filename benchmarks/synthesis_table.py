"""What benchmarks/synthesis.py prints: rows of numbers, one a round, and their spread."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Row:
    """One thing that was measured, or was not."""

    part: str
    """a, b, c or d."""
    subject: str
    """Generator or model."""
    what: str
    """What the numbers are, with their unit."""
    values: tuple[float, ...] = ()
    """One a round; none: not measured."""
    note: str = ""
    """What the numbers should be compared with, or why there are none."""

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.values)


def ratio(part: str, subject: str, above: Row, below: Row, what: str, note: str = "") -> Row:
    """Two contestants, compared round by round."""
    values = tuple(a / b for a, b in zip(above.values, below.values, strict=True))
    return Row(part, subject, f"**{what}**", values, note)


def rows_of_rates(
    part: str, subject: str, rates: Mapping[str, Sequence[float]], unit: str = "images/s"
) -> dict[str, Row]:
    """A row for each contestant, by its name."""
    return {name: Row(part, subject, f"{name}, {unit}", tuple(v)) for name, v in rates.items()}


def markdown(rows: Sequence[Row]) -> str:
    """Medians and, in brackets, the least and the most of the rounds."""
    lines = ["| | generator | what | median (least to most) | |", "|---|---|---|---|---|"]
    for row in rows:
        cells = [row.part, row.subject, row.what, _spread(row.values), row.note]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return NOT_MEASURED
    middle = f"{statistics.median(values):.4g}"
    return f"{middle} ({min(values):.4g} to {max(values):.4g})" if len(values) > 1 else middle
