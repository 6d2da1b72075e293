"""What the methods reached: headline numbers, results, average precision by class, modality gap."""

import math

from t2ipal.report import charts
from t2ipal.report.contents import MethodResult, Report
from t2ipal.report.markup import Markup, element
from t2ipal.report.tables import duration, head_cell, percent, signed, table


def headline(report: Report) -> Markup | None:
    """One card per method: mAP, spread, and the difference to the baseline."""
    if not report.results:
        return None
    best = _best(report)
    cards = []
    for series, result in enumerate(report.results):
        change = None
        if len(report.results) > 1:
            baseline = _baseline(report)
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
        items += [("captions", f"{used:,}")] if used else []
        items += [("synthetic images", f"{counts.images:,}")] if counts.images else []
        items += [("failed", f"{counts.images_failed:,}")] if counts.images else []
        items += [("test images", f"{counts.test_images:,}")] if counts.test_images else []
    items += [("classes", f"{len(report.class_names):,}")] if report.class_names else []
    overall = dict(report.judge or ()).get("overall", math.nan)
    if math.isfinite(overall):
        items.append(("of named classes found in their images", f"{100 * overall:.0f}%"))
    if report.seconds:
        items.append(("in all", duration(sum(report.seconds.values()))))
    pairs = [element("li", element("strong", number), f" {what}") for what, number in items]
    return element("ul", pairs, class_="facts") if pairs else None


def results(report: Report) -> Markup | None:
    """One row per method: mAP with spread, difference to the baseline, seeds on an axis."""
    if not report.results:
        return None
    several = len(report.results) > 1
    published = any(result.published for result in report.results)
    values = [value for result in report.results for value in _extent(result)]
    axis = charts.axis(values, 16, 304, limits=(0, 100))
    best, baseline = _best(report), _baseline(report)
    head = [
        head_cell("Method"),
        head_cell("mAP %", "number"),
        head_cell(f"vs {baseline.name}", "number") if several else None,
        element(
            "th", charts.strip_axis(axis), scope="col", class_="plot", aria_label="mAP by seed"
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


def classes(report: Report) -> Markup | None:
    """One row per class: average precision of every method, as dots and as numbers."""
    methods = [(n, result) for n, result in enumerate(report.results) if len(result.per_class)]
    if not methods or not report.class_names:
        return None
    best, baseline = _best(report), _baseline(report)
    compared = best is not baseline and len(best.per_class) and len(baseline.per_class)
    every = [value for _, result in methods for value in result.per_class]
    # The more columns of numbers, the narrower the plot, so that the table fits the page.
    axis = charts.axis(every, 16, max(260, 560 - 50 * len(methods)), limits=(0, 100))
    names = [element("li", charts.swatch(series), result.name) for series, result in methods]
    legend = element("ul", names, class_="legend", aria_hidden="true")
    head = [
        head_cell("Class"),
        element("th", charts.strip_axis(axis), scope="col", class_="plot", aria_label="AP chart"),
        (head_cell((charts.swatch(series), result.name), "number") for series, result in methods),
        head_cell(f"{best.name} vs {baseline.name}", "number") if compared else None,
    ]
    leading = best if len(best.per_class) else methods[-1][1]
    order = sorted(
        range(len(report.class_names)),
        # NaN compares with nothing, so it would leave the order undefined.
        key=lambda n: -leading.per_class[n] if math.isfinite(leading.per_class[n]) else math.inf,
    )
    rows = []
    for index in order:
        values = [(series, float(result.per_class[index])) for series, result in methods]
        finite = [value for _, value in values if math.isfinite(value)]
        cells = [
            element(
                "td",
                element("strong", text)
                if len(values) > 1 and finite and text == percent(max(finite))
                else text,
                class_="number",
            )
            for text in (percent(value) for _, value in values)
        ]
        change = None
        if compared:
            gain = best.per_class[index] - baseline.per_class[index]
            change = element("td", signed(gain), class_="number")
        rows.append(
            element(
                "tr",
                element("th", report.class_names[index], scope="row"),
                element("td", charts.dots(values, axis), class_="plot"),
                cells,
                change,
            )
        )
    caption = f"Average precision of each class in percent, sorted by {leading.name}."
    return table(caption, head, rows, kind="dense", legend=legend if len(methods) > 1 else None)


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


def _best(report: Report) -> MethodResult:
    finite = [result for result in report.results if math.isfinite(result.mAP_mean)]
    return max(finite, key=lambda result: result.mAP_mean, default=report.results[0])


def _baseline(report: Report) -> MethodResult:
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
