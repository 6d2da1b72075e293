"""Small charts as inline SVG; color comes from the style sheet through the classes `series-N`."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from t2ipal.report.contents import Curve, MethodResult
from t2ipal.report.markup import Markup, element, fragment

NUM_SERIES = 8
"""Colors in the style sheet; more series begin again with another marker."""


def marker(series: int, x: float, y: float, radius: float = 4.5) -> Markup:
    """The sign of a series: color and shape, so that it reads without color too."""
    r = radius
    # Areas that look alike: a square of the same "radius" would look larger than a circle.
    a, b, c = 0.86 * r, 1.2 * r, 1.1 * r
    shape = (
        f"M{x - r:.1f} {y:.1f}a{r:.1f} {r:.1f} 0 1 0 {2 * r:.1f} 0"
        f"a{r:.1f} {r:.1f} 0 1 0 {-2 * r:.1f} 0Z",
        f"M{x:.1f} {y - b:.1f}l{b:.1f} {b:.1f}l{-b:.1f} {b:.1f}l{-b:.1f} {-b:.1f}Z",
        f"M{x - a:.1f} {y - a:.1f}h{2 * a:.1f}v{2 * a:.1f}h{-2 * a:.1f}Z",
        f"M{x:.1f} {y - c:.1f}l{c:.1f} {1.8 * c:.1f}h{-2 * c:.1f}Z",
    )[(series + series // NUM_SERIES) % 4]
    return element("path", d=shape, class_=f"mark series-{series % NUM_SERIES}")


def swatch(series: int) -> Markup:
    """The sign of a series for a legend or a table."""
    sign = marker(series, 7, 7, 5)
    return element("svg", sign, class_="swatch", viewBox="0 0 14 14", aria_hidden="true")


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels, with round ticks at or beyond both ends."""

    ticks: tuple[float, ...]
    start_px: float
    end_px: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high = self.ticks[0], self.ticks[-1]
        return self.start_px + (value - low) / (high - low) * (self.end_px - self.start_px)


def axis(
    values: Iterable[float],
    start_px: float,
    end_px: float,
    *,
    num_ticks: int = 4,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> Axis:
    """An axis over the finite `values` with about `num_ticks` round steps, inside `limits`."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if low == high:
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    low, high = max(low, limits[0]), min(high, limits[1])
    rough = (high - low) / num_ticks
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * min((1, 2, 2.5, 5, 10), key=lambda factor: abs(factor * power - rough))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [index * step for index in range(first, last + 1)]
    inside = [tick for tick in ticks if limits[0] <= tick <= limits[1]]
    return Axis(tuple(inside), start_px, end_px)


def tick_text(value: float, ticks: Sequence[float]) -> str:
    """A tick's label with as many decimals as the step between ticks needs."""
    step = ticks[1] - ticks[0]
    decimals = next((n for n in range(7) if math.isclose(round(step, n), step, rel_tol=1e-6)), 7)
    return f"{0.0 if value == 0 else value:.{decimals}f}".replace("-", "−")


def strip_axis(axis: Axis, height: float = 22) -> Markup:
    """The head of a column of strips: ticks and their numbers."""
    labels = [
        _text(axis(tick), height - 8, tick_text(tick, axis.ticks), text_anchor="middle")
        for tick in axis.ticks
    ]
    return _svg(_strip_width(axis), height, labels, class_="strip", aria_hidden="true")


def strip(series: int, result: MethodResult, axis: Axis, height: float = 36) -> Markup:
    """One method on the axis: a dot per seed, a bar of mean plus and minus deviation, the mean."""
    middle = height / 2
    mean = result.mAP_mean
    spread = []
    if len(result.per_seed) > 1:
        low = axis(max(mean - result.mAP_std, axis.ticks[0]))
        high = axis(min(mean + result.mAP_std, axis.ticks[-1]))
        color = f"spread series-{series % NUM_SERIES}"
        spread = [
            element(
                "rect", x=low, y=middle - 9.0, width=high - low, height=18.0, rx=2, class_=color
            ),
            *(
                element("circle", cx=axis(value), cy=middle, r=2.5, class_="dot " + color)
                for value in result.per_seed
            ),
            _line(axis(mean), middle - 11, axis(mean), middle + 11, f"mean {color}"),
        ]
    else:
        spread = [marker(series, axis(mean), middle)] if math.isfinite(mean) else []
    return _svg(
        _strip_width(axis),
        height,
        _grid(axis, height),
        spread,
        class_="strip",
        role="img",
        aria_label="mAP of each seed: "
        + ", ".join(f"{value:.1f}" for value in result.per_seed or [mean] if math.isfinite(value)),
    )


def dots(values: Sequence[tuple[int, float]], axis: Axis, height: float = 28) -> Markup:
    """One class on the axis: a sign for each (series, value), joined from lowest to highest."""
    finite = [(series, value) for series, value in values if math.isfinite(value)]
    pixels = [axis(value) for _, value in finite]
    middle = height / 2
    joined = _line(min(pixels), middle, max(pixels), middle, "range") if pixels else None
    signs = [marker(series, axis(value), middle) for series, value in finite]
    return _svg(
        _strip_width(axis),
        height,
        _grid(axis, height),
        joined,
        signs,
        class_="strip",
        aria_hidden="true",
    )


def bar(share: float, start: float = 0.0, kind: str = "") -> Markup:
    """A bar over `share` of the width, from `start` on; both between 0 and 1."""
    track = element("rect", x=0, y=0, width=100, height=10, class_="track")
    # A stage of no visible length still shows as a hairline.
    width = max(100 * share, 0.4) if share > 0 else 0.0
    fill = element(
        "rect", x=100 * start, y=0, width=width, height=10, class_=f"fill {kind}".strip()
    )
    return element(
        "svg",
        track,
        fill,
        class_="bar",
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def lines(
    curve: Curve, series_of: Sequence[int], width: float = 360, height: float = 240
) -> Markup:
    """A line chart; `series_of` gives each line's color."""
    points = [
        [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
        for _, xs, ys in curve.series
    ]
    every = [point for line in points for point in line]
    across = axis((x for x, _ in every), 38, width - 14, num_ticks=5)
    up = axis((y for _, y in every), height - 40, 30)
    drawn = []
    for series, line in zip(series_of, points, strict=True):
        path = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in line)
        color = f"series-{series % NUM_SERIES}"
        if len(line) > 1:
            drawn.append(element("path", d=f"M{path}", class_=f"line {color}"))
        if line:
            drawn.append(marker(series, across(line[-1][0]), up(line[-1][1]), 4))
    label = f"{curve.title}: {curve.y_label} over {curve.x_label}"
    return _chart(width, height, across, up, curve.x_label, curve.y_label, label, drawn)


def scatter(
    name: str, values: Sequence[float | str | bool], scores: Sequence[float], best: int
) -> Markup:
    """Score over one hyperparameter; the trial at index `best` stands out.

    Numbers lie on a linear axis, or on a logarithmic one where they span more than a factor of 30;
    anything else on one position per value.
    """
    width, height = 360.0, 230.0
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    numbers = [float(v) for v in values if isinstance(v, int | float)]
    tick_names: list[str] | None = None
    if numeric and min(numbers) > 0 and max(numbers) / min(numbers) > 30:
        positions = [math.log10(number) for number in numbers]
        low, high = math.floor(min(positions)), math.ceil(max(positions))
        across = Axis(tuple(float(power) for power in range(low, high + 1)), 38, width - 14)
        tick_names = [f"{10.0**power:g}" for power in across.ticks]
    elif numeric:
        positions = numbers
        across = axis(positions, 38, width - 14, num_ticks=5)
    else:
        names = sorted({str(value) for value in values})
        positions = [float(names.index(str(value))) for value in values]
        across = Axis(tuple(float(n) for n in range(-1, len(names) + 1)), 38, width - 14)
        tick_names = ["", *names, ""]
    up = axis(scores, height - 40, 30)
    drawn = [
        element("circle", cx=across(x), cy=up(score), r=3.5, class_="trial")
        for index, (x, score) in enumerate(zip(positions, scores, strict=True))
        if index != best
    ]
    top_x, top_y = across(positions[best]), up(scores[best])
    drawn.append(element("circle", cx=top_x, cy=top_y, r=5.5, class_="trial best"))
    label = f"mAP over {name}; best {scores[best]:.1f} at {values[best]}"
    return _chart(width, height, across, up, name, "mAP %", label, drawn, tick_names)


def _chart(
    width: float,
    height: float,
    across: Axis,
    up: Axis,
    x_label: str,
    y_label: str,
    label: str,
    drawn: list[Markup],
    tick_names: list[str] | None = None,
) -> Markup:
    left, right, bottom = across.start_px, across.end_px, up.start_px
    names = tick_names or [tick_text(tick, across.ticks) for tick in across.ticks]
    return _svg(
        width,
        height,
        (_line(left, up(tick), right, up(tick), "grid") for tick in up.ticks),
        (
            _text(left - 8, up(tick) + 4, tick_text(tick, up.ticks), text_anchor="end")
            for tick in up.ticks
        ),
        (
            _text(across(tick), bottom + 17, name, text_anchor="middle")
            for tick, name in zip(across.ticks, names, strict=True)
        ),
        _text((left + right) / 2, height - 4, x_label, text_anchor="middle", class_="label"),
        _text(0, 12, y_label, class_="label"),
        drawn,
        class_="chart",
        role="img",
        aria_label=label,
    )


def _strip_width(axis: Axis) -> float:
    return axis.end_px + axis.start_px


def _grid(axis: Axis, height: float) -> Markup:
    return fragment(_line(axis(tick), 0, axis(tick), height, "grid") for tick in axis.ticks)


def _svg(width: float, height: float, *children: object, **attributes: object) -> Markup:
    view = f"0 0 {width:g} {height:g}"
    return element("svg", *children, viewBox=view, width=width, height=height, **attributes)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return element("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=kind)


def _text(x: float, y: float, text: str, **attributes: object) -> Markup:
    return element("text", text, x=float(x), y=float(y), **attributes)
