"""Tables, and numbers as the page prints them."""

import math
from typing import Any

from t2ipal.report.markup import Markup, element

MAX_ITEMS = 100
"""Of a list that is a setting: it may name thousands of classes."""


def table(
    caption: str,
    head: object,
    rows: object,
    kind: str | None = None,
    legend: Markup | None = None,
) -> Markup:
    """A table with its caption, in a box that scrolls where the screen is narrow."""
    table = element(
        "table",
        element("caption", caption, legend),
        element("thead", element("tr", head)),
        element("tbody", rows),
        class_=kind,
    )
    # A table that is wider than the screen scrolls by itself, with the keyboard too.
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=caption)


def head_cell(content: object, kind: str | None = None) -> Markup:
    """A column head; an empty one is a plain cell, since a head must say something."""
    return element(
        "th" if content else "td", content, scope="col" if content else None, class_=kind
    )


def percent(value: float) -> str:
    """A percentage with the one decimal that the literature prints; a dash where undefined."""
    return f"{value:.1f}" if math.isfinite(value) else "–"


def signed(value: float) -> str:
    """A difference in percentage points with its sign."""
    if not math.isfinite(value):
        return "–"
    return f"{value:+.1f}".replace("-", "−") if abs(value) >= 0.05 else "0.0"


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        whole = round(seconds)
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def plain(value: Any) -> str:
    """A setting as text."""
    if isinstance(value, list | tuple):
        more = [f"and {len(value) - MAX_ITEMS:,} more"] if len(value) > MAX_ITEMS else []
        return ", ".join([*map(str, value[:MAX_ITEMS]), *more]) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
