"""Figures of a reproduction as files of SVG that stand by themselves."""

import html
import textwrap
from collections.abc import Sequence
from typing import Any

from t2ipal.report.charts import lines, marker
from t2ipal.report.contents import Curve
from t2ipal.report.markup import Markup, element, fragment

WIDTH, HEIGHT, LEGEND = 360.0, 240.0, 24.0
CARD_WIDTH, LINE_HEIGHT, CHARACTERS = 300.0, 16.0, 44
PICTURE = 150.0
STYLE = """
svg { font: 12px system-ui, sans-serif; color: #1b1d21; }
text { fill: #1b1d21; stroke: none; } .grid { stroke: #ecece8; }
.line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.mark { fill: currentColor; } .title { font-weight: 600; } .paper { fill: #ffffff; }
.series-0 { color: #717783; } .series-1 { color: #c2571a; } .series-2 { color: #2b57c8; }
.series-3 { color: #0d7f69; } .series-4 { color: #8446c0; } .series-5 { color: #bf3674; }
.bar { stroke: currentColor; stroke-width: 1.5; }
"""
"""Light, on paper of its own: such a file is shown on pages whose colors it cannot know."""


def chart(panel: dict[str, Any]) -> Markup:
    """One chart of a figure."""
    series = [
        (
            each["title"],
            [point["x"] for point in each["points"] if "std" in point],
            [point["mean"] for point in each["points"] if "std" in point],
        )
        for each in panel["series"]
    ]
    curve = Curve(panel["title"], panel["x_label"], "mAP %", series)
    return lines(curve, range(1, len(series) + 1), WIDTH, HEIGHT)


def chart_file(panels: Sequence[dict[str, Any]]) -> str:
    """Charts side by side below a legend."""
    names = [series["title"] for series in panels[0]["series"]]
    signs = [
        element(
            "g",
            marker(1 + at, 7, 7, 5),
            _text(20, 11, name),
            transform=f"translate({8 + 150 * at} 6)",
        )
        for at, name in enumerate(names)
    ]
    drawn = []
    for at, panel in enumerate(panels):
        inner = element("svg", chart(panel), x=at * (WIDTH + 24) + 8, y=LEGEND + 24)
        title = _text(at * (WIDTH + 24) + 8, LEGEND + 16, panel["title"], class_="title")
        drawn += [title, inner]
    return _file(len(panels) * (WIDTH + 24) + 16, HEIGHT + LEGEND + 40, [*signs, *drawn])


def card_file(cards: Sequence[dict[str, Any]], columns: int = 4) -> str:
    """Cards in rows: a picture where there is one, a heading, lines."""
    folded = [_folded(card) for card in cards]
    columns = min(columns, len(cards)) or 1
    rows = [range(at, min(at + columns, len(cards))) for at in range(0, len(cards), columns)]
    drawn, y = [], 12.0
    for row in rows:
        pictures = any("image" in cards[at] for at in row)
        top = y + (PICTURE + 8 if pictures else 0)
        for column, at in enumerate(row):
            x = 12 + column * (CARD_WIDTH + 12)
            if "image" in cards[at]:
                drawn.append(element("image", href=cards[at]["image"], x=x, y=y, height=PICTURE))
            for number, (words, kind) in enumerate(folded[at]):
                place = top + LINE_HEIGHT * (number + 1)
                drawn.append(_text(x, place, words, class_=kind or None))
        y = top + LINE_HEIGHT * (1 + max(len(folded[at]) for at in row)) + 12
    return _file(columns * (CARD_WIDTH + 12) + 12, y, drawn)


def _folded(card: dict[str, Any]) -> list[tuple[str, str]]:
    """A card's texts in lines that fit."""
    titles = [(line, "title") for line in textwrap.wrap(card["title"], CHARACTERS)]
    bodies = [(line, "") for text in card["lines"] for line in textwrap.wrap(text, CHARACTERS)]
    return titles + bodies


def _text(x: float, y: float, text: str, **attributes: object) -> Markup:
    return element("text", text, x=float(x), y=float(y), **attributes)


def _file(width: float, height: float, drawn: Sequence[Markup]) -> str:
    paper = element("rect", width=width, height=height, class_="paper")
    body = fragment(element("style", Markup(html.escape(STYLE, quote=False))), paper, drawn)
    view = f"0 0 {width:g} {height:g}"
    whole = element(
        "svg", body, xmlns="http://www.w3.org/2000/svg", viewBox=view, width=width, height=height
    )
    return f"{whole}\n"
