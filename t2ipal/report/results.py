"""What the methods reached: headline numbers, results, modality gap; and what the page lacks."""

import math

from t2ipal.report import charts
from t2ipal.report.contents import MethodResult, Report
from t2ipal.report.markup import Markup, element
from t2ipal.report.tables import duration, head_cell, percent, signed, table


def headline(report: Report) -> Markup | None:
    """One card per method: mAP, spread, and the difference to the baseline."""
    if not report.results:
        return None
    best = best_of(report)
    cards = []
    for series, result in enumerate(report.results):
        change = None
        if len(report.results) > 1:
            baseline = baseline_of(report)
            change = (
                element("p", "baseline", class_="change")
                if result is baseline
                else element(
                    "p", _difference(result, baseline), f" vs {baseline.name}", class_="change"
                )
            )
        cards.append(
            element(
                "div",
                element("h2", charts.swatch(series), result.name),
                element(
                    "p",
                    element("span", percent(result.mAP_mean), class_="mean"),
                    element("span", f" {spread}", class_="spread-text")
                    if (spread := _spread(result))
                    else None,
                    class_="value",
                ),
                change,
                class_="card best" if result is best and len(report.results) > 1 else "card",
            )
        )
    label = "Mean average precision of each method in percent"
    return element("div", cards, class_="cards", role="group", aria_label=label)


def facts(report: Report) -> Markup | None:
    """A quiet line of how much went into the run."""
    counts, items = report.counts, []
    if counts:
        used = counts.captions_kept if counts.captions_used is None else counts.captions_used
        items += [_counted(used, "caption")] if used else []
        items += [_counted(counts.images, "synthetic image")] if counts.images else []
        items += [("failed", f"{counts.images_failed:,}")] if counts.images else []
        items += [_counted(counts.test_images, "test image")] if counts.test_images else []
    items += [_counted(len(report.class_names), "class", "classes")] if report.class_names else []
    if report.judge is not None:
        items.append(("of named classes found in their images", f"{100 * report.judge.share:.0f}%"))
    if report.seconds:
        items.append(("in all", duration(sum(report.seconds.values()))))
    pairs = [element("li", element("strong", number), f" {what}") for what, number in items]
    return element("ul", pairs, class_="facts") if pairs else None


def _counted(number: int, noun: str, plural: str | None = None) -> tuple[str, str]:
    return noun if number == 1 else plural or f"{noun}s", f"{number:,}"


def missing(report: Report) -> Markup | None:
    """What the page lacks, and what to do."""
    if not report.missing:
        return None
    return element("ul", (element("li", sentence) for sentence in report.missing), class_="missing")


def results(report: Report) -> Markup | None:
    """One row per method: mAP with spread, difference to the baseline, seeds on an axis."""
    if not report.results:
        return None
    several = len(report.results) > 1
    published = any(result.published for result in report.results)
    values = [value for result in report.results for value in _extent(result)]
    axis = charts.axis(values, 16, 304, limits=(0, 100))
    best, baseline = best_of(report), baseline_of(report)
    head = [
        head_cell("Method"),
        head_cell(f"{report.measure} %", "number"),
        head_cell(f"vs {baseline.name}", "number") if several else None,
        element(
            "th",
            charts.strip_axis(axis),
            scope="col",
            class_="plot",
            aria_label=f"{report.measure} by seed",
        ),
        head_cell("Seeds", "number"),
        head_cell("Published", "number") if published else None,
    ]
    rows = []
    for series, result in enumerate(report.results):
        change = "–" if result is baseline else _difference(result, baseline)
        mean = element("strong" if result is best and several else "span", percent(result.mAP_mean))
        about = element("span", result.description, class_="about") if result.description else None
        name = element("span", charts.swatch(series), result.name, class_="name")
        rows.append(
            element(
                "tr",
                element("th", name, about, scope="row"),
                element("td", mean, " ", element("small", _spread(result)), class_="number"),
                element("td", change, class_="number") if several else None,
                element("td", charts.strip(series, result, axis), class_="plot"),
                element("td", _seeds(result), class_="number"),
                element("td", result.published or "–", class_="number") if published else None,
            )
        )
    caption = (
        "Mean average precision on the test set in percent, with its standard deviation over "
        "seeds. In the plot, a dot is one seed and the band is the mean plus and minus that "
        "deviation; the axis does not begin at zero."
    )
    return table(caption, head, rows)


def modality_gap(report: Report) -> Markup | None:
    """One row per method: how close its class embeddings are to what shows or names the class."""
    measured = [(n, result) for n, result in enumerate(report.results) if result.modality_gap]
    if not measured:
        return None
    columns = list(dict.fromkeys(name for _, result in measured for name in result.modality_gap))
    head = [head_cell("Method"), (head_cell(name, "number") for name in columns)]
    rows = []
    for series, result in measured:
        cosines = (result.modality_gap.get(name) for name in columns)
        name = element("span", charts.swatch(series), result.name, class_="name")
        rows.append(
            element(
                "tr",
                element("th", name, scope="row"),
                (element("td", "–" if c is None else f"{c:.3f}", class_="number") for c in cosines),
            )
        )
    caption = (
        "Mean cosine of each class's embedding with what shows or names the class; the higher, "
        "the smaller the gap between texts and images."
    )
    return table(caption, head, rows)


def best_of(report: Report) -> MethodResult:
    """The method of the highest mAP; the first one where none is known."""
    finite = [result for result in report.results if math.isfinite(result.mAP_mean)]
    return max(finite, key=lambda result: result.mAP_mean, default=report.results[0])


def baseline_of(report: Report) -> MethodResult:
    """The method that the others are compared with."""
    named = (result for result in report.results if result.name == report.baseline)
    return next(named, report.results[0])


def _extent(result: MethodResult) -> list[float]:
    values = [result.mAP_mean, *result.per_seed]
    if len(result.per_seed) > 1:
        values += [result.mAP_mean - result.mAP_std, result.mAP_mean + result.mAP_std]
    return values


def _spread(result: MethodResult) -> str:
    return f"± {result.mAP_std:.1f}" if len(result.per_seed) > 1 else ""


def _difference(result: MethodResult, baseline: MethodResult) -> str:
    return signed(result.mAP_mean - baseline.mAP_mean)


def _seeds(result: MethodResult) -> str:
    return str(len(result.seeds)) if len(result.seeds) > 1 else "–"
