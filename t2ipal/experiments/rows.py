"""What a table or figure is made of: systems, where they are measured, claims about them.

Plain values; trains nothing and knows no table of the paper.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from t2ipal.evaluation.protocols import NUM_EPISODES
from t2ipal.experiments.fitting import Changes, Fit
from t2ipal.experiments.sources import Captions, Data, Labels, Source
from t2ipal.training.recipes import DEFAULTS, METHODS


@dataclass(frozen=True)
class System:
    """A way to a recognizer, or two whose scores are mixed."""

    method: str
    """Name of a recipe."""
    source: Source = Captions()  # noqa: RUF009
    changes: Changes = ()
    backbone: str = "main"
    normalization: Literal["none", "full", "partial"] = "none"
    """Of each image's scores; partly as is best on validation images."""
    partner: "System | None" = None
    """Another one whose scores are mixed in."""
    ratio: float | None = None
    """Share of the partner's scores, each matrix scaled to 0 to 1; None: class concepts, whose
    logits are added."""

    @property
    def name(self) -> str:
        """Of its recipe, with its partner's, what is changed but for the number of images, and how
        each image's scores are normalized."""
        own = [each for each in self.changes if each[0] != "training.images_per_caption"]
        changed = "".join(f", {path.rpartition('.')[2]} {value}" for path, value in own)
        partner = "" if self.partner is None else f" + {self.partner.method}"
        forms = {"none": "", "full": ", normalized", "partial": ", partly normalized"}
        return f"{self.method}{partner}{changed}{forms[self.normalization]}"

    def fits(self, seeds: Sequence[int]) -> list[Fit]:
        """One for each seed, where a seed changes anything; the partner's are `partner.fits`.

        Of episodes there are ten, or four of two seeds and less; each is a draw of images.
        """
        if isinstance(self.source, Labels) and self.source.episode is not None:
            return [
                Fit(self.method, replace(self.source, episode=n), n, self.changes, self.backbone)
                for n in range(NUM_EPISODES if len(seeds) > 2 else 4)
            ]
        seeds = seeds if self._is_drawn() else seeds[:1]
        return [Fit(self.method, self.source, s, self.changes, self.backbone) for s in seeds]

    def systems(self) -> Iterator["System"]:
        """Itself and its partner."""
        yield replace(self, partner=None, ratio=None)
        if self.partner is not None:
            yield from self.partner.systems()

    def missing(self, data: Data) -> str:
        """Why it cannot be trained, its partner left aside; empty where it can."""
        needs_sets = METHODS[self.method].learns_from == "captions"
        return data.missing(self.source, self.backbone, self.changes, needs_sets)

    def _is_drawn(self) -> bool:
        """Whether a seed changes anything."""
        named = METHODS[self.method]
        changes = {**DEFAULTS.get(named.config, {}), **named.changes}
        few = isinstance(self.source, Labels) and self.source.shots is not None
        return few or changes.get("training.num_epochs") != 0

    @property
    def needs_scores(self) -> bool:
        """Whether the numbers that a fit writes down are not enough."""
        return self.partner is not None or self.normalization == "partial"

    def changed(self, **changes: Any) -> "System":
        """With further changes of the recipe; `__` stands for the dot in their names."""
        more = tuple((name.replace("__", "."), value) for name, value in changes.items())
        return replace(self, changes=(*self.changes, *more))


@dataclass(frozen=True)
class At:
    """A system on a test set."""

    system: System
    test_set: str


@dataclass(frozen=True)
class Told:
    """A published number."""

    value: float
    backbone: str
    source: str


@dataclass(frozen=True)
class Mean:
    """Of the numbers of a row, seed by seed."""

    of: tuple[At, ...]


Cell = At | Mean | Told | None
"""What stands in a table; None where there is nothing to ask."""


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    title: str
    cells: tuple[Cell, ...]
    """One a column."""


@dataclass(frozen=True)
class Claim:
    """What the paper says of two systems, or of a line of them."""

    words: str
    kind: Literal["higher", "equal", "interior"]
    """The first is higher than the second; they are within `EQUAL` of each other; or the best of
    all is neither the first nor the last."""
    systems: tuple[System, ...]
    test_sets: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table of the paper."""

    name: str
    """table1 ..."""
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Series:
    """A line of a chart."""

    title: str
    points: tuple[tuple[float, At], ...]


@dataclass(frozen=True)
class Panel:
    """One chart."""

    title: str
    x_label: str
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Figure:
    """A figure of the paper: charts, or pictures that `pictures` names."""

    name: str
    """fig3 ..."""
    title: str
    panels: tuple[Panel, ...] = ()
    pictures: str = ""
    """Name of what draws it; empty for charts."""
    systems: tuple[System, ...] = ()
    """Whose scores the pictures need."""
    sources: tuple[Source, ...] = ()
    """Whose captions and images they show."""
    notes: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()


Item = Table | Figure


def systems_of(item: Item) -> Iterator[System]:
    """Every system that an item asks for, with mixtures as they stand."""
    if isinstance(item, Table):
        cells = [cell for row in item.rows for cell in row.cells]
        yield from (cell.system for cell in cells if isinstance(cell, At))
        yield from (at.system for cell in cells if isinstance(cell, Mean) for at in cell.of)
    else:
        yield from (at.system for panel in item.panels for s in panel.series for _, at in s.points)
        yield from item.systems
    for claim in item.claims:
        yield from claim.systems
