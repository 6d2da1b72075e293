"""The paper's tables and figures, and those beyond it, by the names that `--items` takes."""

from collections.abc import Callable, Sequence

from t2ipal.config import one_of
from t2ipal.experiments import beyond
from t2ipal.experiments import paper_figures as figures
from t2ipal.experiments import paper_tables as tables
from t2ipal.experiments.points import Points
from t2ipal.experiments.rows import Item

ITEMS: dict[str, Callable[[Points], Item]] = {
    each.__name__: each
    for each in (
        tables.table1, tables.table2, tables.table3, tables.table4, tables.table5, tables.table6,
        tables.table7, tables.table8, tables.table9, tables.table10, tables.table11,
        tables.table12, tables.table13, tables.table14, figures.fig3, figures.fig4, figures.fig5,
        figures.fig6, figures.fig7, figures.fig8, figures.fig9, figures.fig10,
    )
}  # fmt: skip
BEYOND: dict[str, Callable[[Points], Item]] = {
    each.__name__: each
    for each in (
        beyond.plus, beyond.plus_parts, beyond.plus_settings, beyond.rendered, beyond.shown,
    )
}  # fmt: skip
"""What the paper has not; "all" is the paper's."""


def choose_items(names: Sequence[str], points: Points) -> list[Item]:
    """The items of some names, "all" the paper's, in its order and then what is beyond it.

    Raises:
        ValueError: there is no such item; the nearest one is named.
    """
    for name in names:
        one_of("item", name, (*ITEMS, *BEYOND, "all"))
    chosen = {*names, *(ITEMS if "all" in names else ())}
    return [make(points) for name, make in (ITEMS | BEYOND).items() if name in chosen]
