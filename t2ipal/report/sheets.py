"""Sheets of small pictures with text, and line charts, drawn with Pillow alone.

Owns how they look; knows nothing of what they show.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from t2ipal.report.charts import axis, tick_text

Color = tuple[int, int, int]
PAPER, INK, FAINT, GRID = (255, 255, 255), (38, 42, 48), (112, 118, 128), (224, 227, 232)
GOOD, BAD, BLUE, ORANGE = (18, 128, 62), (200, 44, 40), (43, 87, 200), (194, 87, 26)
GAP = 8


@cache
def font(size: int) -> Any:
    """Pillow's own, so that the pictures look the same on every machine."""
    return ImageFont.load_default(size)


def note(
    text: str | Sequence[tuple[str, Color]], width: int, size: int = 18, center: bool = False
) -> Image.Image:
    """Text wrapped to a width; pieces of other colors stay in one piece each."""
    pieces = [(word, INK) for word in text.split()] if isinstance(text, str) else list(text)
    space, lines = font(size).getlength(" "), [[]]
    for word, color in pieces:
        used = sum(font(size).getlength(w) + space for w, _ in lines[-1])
        if lines[-1] and used + font(size).getlength(word) > width:
            lines.append([])
        lines[-1].append((word, color))
    step = round(1.28 * size)
    image = Image.new("RGB", (width, step * len(lines)), PAPER)
    draw = ImageDraw.Draw(image)
    for row, line in enumerate(lines):
        length = sum(font(size).getlength(w) + space for w, _ in line) - space
        x = (width - length) / 2 if center else 0.0
        for word, color in line:
            draw.text((x, row * step), word, fill=color, font=font(size))
            x += font(size).getlength(word) + space
    return image


def enlarged(pixels: np.ndarray, side: int) -> Image.Image:
    """A small picture made large enough to look at."""
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


def grid(rows: Sequence[Sequence[Image.Image]], gap: int = GAP) -> Image.Image:
    """Pictures in rows and columns, each at the top left of its cell."""
    columns = max(len(row) for row in rows)
    widths = [max(row[k].width for row in rows if k < len(row)) for k in range(columns)]
    heights = [max(cell.height for cell in row) for row in rows]
    size = sum(widths) + gap * (columns - 1), sum(heights) + gap * (len(rows) - 1)
    sheet = Image.new("RGB", size, PAPER)
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            sheet.paste(cell, (sum(widths[:c]) + gap * c, sum(heights[:r]) + gap * r))
    return sheet


def in_rows(cells: Sequence[Image.Image], columns: int, gap: int = GAP) -> Image.Image:
    """Pictures one after the other, row by row."""
    return grid([cells[k : k + columns] for k in range(0, len(cells), columns)], gap)


@dataclass(frozen=True)
class Panel:
    """A line chart."""

    title: str
    x_label: str
    lines: Sequence[tuple[str, Color, Sequence[tuple[float, float, float]]]]
    """Name, color and points x, y, standard deviation."""
    level: tuple[str, float] | None = None
    """A horizontal line to compare with."""


def line_chart(panel: Panel, width: int = 520, height: int = 400, zoom: int = 3) -> Image.Image:
    """Drawn larger and averaged down, since Pillow draws no smooth lines."""
    image = Image.new("RGB", (width * zoom, height * zoom), PAPER)
    draw, large = ImageDraw.Draw(image), font(17 * zoom)

    def scaled(*xy: float) -> Any:
        return [value * zoom for value in xy]

    level = [] if panel.level is None else [panel.level[1]]
    points = [point for _, _, line in panel.lines for point in line]
    ends = [y + sign * std for _, y, std in points for sign in (-1, 1)]
    across = axis([x for x, _, _ in points], 52, width - 112, num_ticks=5)
    up = axis([*ends, *level], height - 58, 50)
    for tick in up.ticks:
        draw.line(scaled(52, up(tick), width - 112, up(tick)), GRID, zoom)
        label = tick_text(tick, up.ticks)
        draw.text(scaled(44, up(tick)), label, FAINT, large, anchor="rm")
    for tick in across.ticks:
        label = tick_text(tick, across.ticks)
        draw.text(scaled(across(tick), height - 44), label, FAINT, large, anchor="mm")
    draw.text(scaled((width - 60) / 2, height - 14), panel.x_label, INK, large, anchor="mm")
    draw.text(scaled(8, 18), panel.title, INK, font(19 * zoom), anchor="lm")
    names = []
    if panel.level is not None:
        y = up(panel.level[1])
        for x in range(52, width - 112, 10):
            draw.line(scaled(x, y, x + 5, y), FAINT, 2 * zoom)
        names.append((y, panel.level[0], FAINT))
    for name, color, line in panel.lines:
        path = [(across(x) * zoom, up(y) * zoom) for x, y, _ in line]
        draw.line(path, color, 3 * zoom, joint="curve")
        for x, y, std in line:
            draw.line(scaled(across(x), up(y - std), across(x), up(y + std)), color, 2 * zoom)
            draw.circle(scaled(across(x), up(y)), 5 * zoom, color)
        names.append((up(line[-1][1]), name, color))
    lowest = -math.inf
    for y, name, color in sorted(names):
        lowest = max(y, lowest + 21)  # names of lines that end together stand below each other
        draw.text(scaled(width - 104, lowest), name, color, large, anchor="lm")
    return image.resize((width, height), Image.Resampling.LANCZOS)
