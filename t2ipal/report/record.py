"""How the run went and how to repeat it: curves, trials, caption filter, time, settings."""

import math
from collections.abc import Mapping
from typing import Any

from t2ipal.report import charts
from t2ipal.report.contents import Curve, Report
from t2ipal.report.markup import Markup, element, fragment
from t2ipal.report.tables import duration, head_cell, percent, plain, table

_MAX_REASONS = 10
"""Rejection reasons shown one by one; rarer ones are summed."""


def curves(report: Report) -> Markup | None:
    """Line charts side by side."""
    if not report.curves:
        return None
    return element("div", (_curve(curve, report) for curve in report.curves), class_="plots")


def _curve(curve: Curve, report: Report) -> Markup:
    known = {result.name: series for series, result in enumerate(report.results)}
    names = [name for name, _, _ in curve.series]
    # Lines that are methods keep the method's color; the others take the free ones.
    free = iter(n for n in range(len(known) + len(names)) if n not in known.values())
    series_of = [known[name] if name in known else next(free) for name in names]
    legend = [
        element("li", charts.swatch(n), name) for n, name in zip(series_of, names, strict=True)
    ]
    return element(
        "figure",
        element("figcaption", curve.title),
        element("ul", legend, class_="legend") if len(names) > 1 else None,
        charts.lines(curve, series_of),
    )


def search(report: Report) -> Markup | None:
    """Score over each hyperparameter that varied, and the best trials."""
    trials = [trial for trial in report.trials if math.isfinite(trial.score)]
    if not trials:
        return None
    scores = [trial.score for trial in trials]
    best = scores.index(max(scores))
    names = list(dict.fromkeys(name for trial in trials for name in trial.values))
    varied = [name for name in names if len({trial.values.get(name) for trial in trials}) > 1]
    plots = []
    for name in varied:
        having = [trial for trial in trials if name in trial.values]
        top = max(range(len(having)), key=lambda n: having[n].score)
        column = [trial.values[name] for trial in having]
        chart = charts.scatter(name, column, [trial.score for trial in having], top)
        plots.append(element("figure", element("figcaption", name), chart))
    ranked = sorted(trials, key=lambda trial: -trial.score)[:10]
    rows = [
        element(
            "tr",
            element("th", str(place), scope="row"),
            element("td", percent(trial.score), class_="number"),
            (element("td", plain(trial.values.get(name, "–")), class_="number") for name in names),
        )
        for place, trial in enumerate(ranked, 1)
    ]
    head = [
        head_cell("Rank"),
        head_cell("mAP %", "number"),
        (head_cell(name, "number") for name in names),
    ]
    failed = len(report.trials) - len(trials)
    counted = f"{len(trials)} trials" + (f", and {failed} that failed" if failed else "")
    return fragment(
        element(
            "p",
            f"{counted}. The best, drawn large, reaches {percent(scores[best])} mAP.",
            class_="lead",
        ),
        element("div", plots, class_="plots") if plots else None,
        table(f"The best {len(ranked)} trials.", head, rows, kind="dense"),
    )


def pipeline(report: Report) -> Markup | None:
    """What the caption filter let through, and the time of each stage."""
    parts: list[object] = []
    counts = report.counts
    if counts and counts.captions_read:
        rejected = sorted(counts.captions_rejected.items(), key=lambda pair: (-pair[1], pair[0]))
        rarer = sum(number for _, number in rejected[_MAX_REASONS:])
        reasons = rejected[:_MAX_REASONS] + ([("other reasons", rarer)] if rarer else [])
        bars = [_bar_row("read", 1.0, f"{counts.captions_read:,}")]
        left = 1.0
        for reason, number in reasons:
            share = number / counts.captions_read
            left = max(left - share, 0.0)
            bars.append(_bar_row(f"− {reason}", share, f"{number:,}", left, "bad"))
        passed = [("kept", counts.captions_kept), ("used for images", counts.captions_used)]
        bars += [
            _bar_row(name, number / counts.captions_read, f"{number:,}", kind="good")
            for name, number in passed
            if number is not None
        ]
        caption = "Captions read, kept, and rejected by reason; share of all captions read."
        head = [
            head_cell("Captions"),
            head_cell(""),
            head_cell("Number", "number"),
            head_cell("Share", "number"),
        ]
        parts += [element("div", element("h3", "Caption filter"), table(caption, head, bars))]
    total = sum(report.seconds.values())
    if total > 0:
        rows, start = [], 0.0
        for stage, seconds in report.seconds.items():
            rows.append(_bar_row(stage, seconds / total, duration(seconds), start / total))
            start += seconds
        caption = f"Wall-clock time of each stage, one after another; {duration(total)} in all."
        head = [
            head_cell("Stage"),
            head_cell(""),
            head_cell("Time", "number"),
            head_cell("Share", "number"),
        ]
        parts += [element("div", element("h3", "Where the time went"), table(caption, head, rows))]
    return element("div", parts, class_="pipeline") if parts else None


def _bar_row(
    name: str, share: float, number: str, start: float = 0.0, kind: str = "strong"
) -> Markup:
    return element(
        "tr",
        element("th", name, scope="row"),
        element("td", charts.bar(share, start, kind), class_="plot"),
        element("td", number, class_="number"),
        element("td", f"{100 * share:.1f}%", class_="number"),
    )


def notes(report: Report) -> Markup | None:
    """Definitions and reservations."""
    if not report.notes:
        return None
    return element("ul", (element("li", note) for note in report.notes), class_="notes")


def settings(report: Report) -> Markup | None:
    """Commands, and every setting and version, folded."""
    if not (report.settings or report.versions or report.commands):
        return None
    groups: dict[str, Mapping[str, Any]] = {}
    for name, value in report.settings.items():
        if isinstance(value, Mapping):
            groups[name] = value
        else:
            groups.setdefault("general", {})
            groups["general"] = {**groups["general"], name: value}
    commands = None
    if report.commands:
        text = element("code", "\n".join(report.commands))
        label = "Commands that make this page again"
        commands = fragment(
            element("h3", "Commands"),
            element("pre", text, tabindex="0", role="region", aria_label=label),
        )
    folded = [_folded(name, values) for name, values in groups.items()]
    if report.versions:
        folded.append(_folded("versions", report.versions))
    return fragment(commands, folded)


def _folded(name: str, values: Mapping[str, Any]) -> Markup:
    rows = [
        element("tr", element("th", key, scope="row"), element("td", plain(value)))
        for key, value in _flat(values)
    ]
    number = f"{len(rows)} value" + ("s" if len(rows) != 1 else "")
    return element(
        "details",
        element("summary", element("strong", name), element("span", number)),
        table(f"Settings: {name}", [head_cell("Name"), head_cell("Value")], rows, kind="settings"),
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", value))
    return pairs
