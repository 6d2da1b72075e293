"""What the methods reached on each class."""

import math
from collections.abc import Sequence

from t2ipal.report import charts
from t2ipal.report.contents import MethodResult, Report
from t2ipal.report.markup import Markup, element, fragment
from t2ipal.report.results import baseline_of, best_of
from t2ipal.report.tables import head_cell, percent, signed, table

MAX_CLASSES = 100
"""With more of them only some are drawn."""
NUM_ENDS = 20
"""So many of the best and of the worst."""
Methods = Sequence[tuple[int, MethodResult]]
"""With the number of its color each."""
Pair = tuple[MethodResult, MethodResult]
"""The best method and the one it is compared with."""


def classes(report: Report) -> Markup | None:
    """One row per class: average precision of every method, as dots and as numbers.

    Of very many classes the best and the worst, and the others folded, in numbers alone.
    """
    methods = [(n, result) for n, result in enumerate(report.results) if len(result.per_class)]
    if not methods or not report.class_names:
        return None
    best, baseline = best_of(report), baseline_of(report)
    leading = best if len(best.per_class) else methods[-1][1]
    order = sorted(
        range(len(report.class_names)),
        # NaN compares with nothing, so it would leave the order undefined.
        key=lambda n: -leading.per_class[n] if math.isfinite(leading.per_class[n]) else math.inf,
    )
    compared = best is not baseline and len(best.per_class) and len(baseline.per_class)
    pair = (best, baseline) if compared else None
    every = [value for _, result in methods for value in result.per_class]
    # The more columns of numbers, the narrower the plot, so that the table fits the page.
    axis = charts.axis(every, 16, max(260, 560 - 50 * len(methods)), limits=(0, 100))
    names = [element("li", charts.swatch(series), result.name) for series, result in methods]
    legend = element("ul", names, class_="legend", aria_hidden="true")
    caption, folded = f"Average precision of each class in percent, sorted by {leading.name}.", None
    if len(order) > MAX_CLASSES:
        finite = [n for n in order if math.isfinite(leading.per_class[n])]
        ends = {*finite[:NUM_ENDS], *finite[-NUM_ENDS:]}
        others = [n for n in order if n not in ends]
        order = [n for n in order if n in ends]
        caption = (
            f"Average precision in percent of the {NUM_ENDS} best and the {NUM_ENDS} worst of "
            f"{len(report.class_names):,} classes, sorted by {leading.name}."
        )
        folded = _other_classes(report, methods, others, pair)
    if any(not math.isfinite(value) for value in every):
        caption += " A dash: the test set has no positive of the class."
    head = [
        head_cell("Class"),
        element("th", charts.strip_axis(axis), scope="col", class_="plot", aria_label="AP chart"),
        *_class_heads(methods, pair),
    ]
    rows = [
        element(
            "tr",
            element("th", report.class_names[n], scope="row"),
            element(
                "td",
                charts.dots([(k, float(result.per_class[n])) for k, result in methods], axis),
                class_="plot",
            ),
            _class_numbers(methods, n, pair),
        )
        for n in order
    ]
    several = legend if len(methods) > 1 else None
    return fragment(table(caption, head, rows, kind="dense", legend=several), folded)


def _other_classes(
    report: Report, methods: Methods, order: Sequence[int], compared: Pair | None
) -> Markup:
    """The numbers of classes that are not shown one by one, folded."""
    rows = [
        element(
            "tr",
            element("th", report.class_names[n], scope="row"),
            _class_numbers(methods, n, compared),
        )
        for n in order
    ]
    head = [head_cell("Class"), *_class_heads(methods, compared)]
    number = f"{len(order):,} classes"
    return element(
        "details",
        element("summary", element("strong", "The others"), element("span", number)),
        table("Average precision of the other classes in percent.", head, rows, kind="dense"),
    )


def _class_heads(methods: Methods, compared: Pair | None) -> list[Markup]:
    heads = [
        head_cell((charts.swatch(series), result.name), "number") for series, result in methods
    ]
    if compared is None:
        return heads
    best, baseline = compared
    return [*heads, head_cell(f"{best.name} vs {baseline.name}", "number")]


def _class_numbers(methods: Methods, index: int, compared: Pair | None) -> list[Markup]:
    """Each method's number of a class, the highest one strong, and a difference."""
    values = [float(result.per_class[index]) for _, result in methods]
    finite = [value for value in values if math.isfinite(value)]
    highest = percent(max(finite)) if len(values) > 1 and finite else None
    texts = map(percent, values)
    cells = [
        element("td", element("strong", text) if text == highest else text, class_="number")
        for text in texts
    ]
    if compared is None:
        return cells
    best, baseline = compared
    gain = best.per_class[index] - baseline.per_class[index]
    return [*cells, element("td", signed(gain), class_="number")]
