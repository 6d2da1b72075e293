"""Drawings of things that are no class: what a recognizer must not mistake for one."""

from collections.abc import Callable
from functools import cache
from math import cos, pi, sin

from t2ipal.pictovoc.drawing import Drawing, Part, drawing, oval, poly, rect, ring, stroke


def _tree() -> list[Part]:
    return [
        rect("wood-", -0.1, 0.1, 0.1, 0.98),
        oval("leaf-", 0.0, -0.3, 0.6, 0.6),
        oval("leaf", -0.2, -0.46, 0.34, 0.34),
    ]


def _fir() -> list[Part]:
    return [
        rect("wood-", -0.08, 0.6, 0.08, 0.98),
        *[
            poly("leaf-", -w, y, 0.0, y - 0.7, w, y)
            for w, y in ((0.6, 0.7), (0.48, 0.3), (0.34, -0.1))
        ],
    ]


def _house() -> list[Part]:
    return [
        rect("a", -0.7, -0.2, 0.7, 0.9),
        poly("b", -0.9, -0.18, 0.0, -0.9, 0.9, -0.18),
        rect("wood-", -0.16, 0.3, 0.16, 0.9),
        rect("glass", -0.54, 0.0, -0.26, 0.28),
        rect("glass", 0.26, 0.0, 0.54, 0.28),
    ]


def _ball() -> list[Part]:
    return [oval("a", 0.0, 0.0, 0.7, 0.7), poly("b", -0.7, -0.1, 0.7, -0.1, 0.7, 0.14, -0.7, 0.14)]


def _umbrella() -> list[Part]:
    return [
        *stroke("wood-", 0.07, 0.0, -0.4, 0.0, 0.84, 0.18, 0.9),
        oval("a", 0.0, -0.1, 0.9, 0.7, 0.0, (180, 360)),
        oval("b", 0.0, -0.1, 0.32, 0.7, 0.0, (180, 360)),
    ]


def _clock() -> list[Part]:
    return [
        oval("a", 0.0, 0.0, 0.8, 0.8),
        oval("white", 0.0, 0.0, 0.64, 0.64),
        *stroke("black", 0.1, 0.0, 0.0, 0.0, -0.46),
        *stroke("black", 0.1, 0.0, 0.0, 0.34, 0.14),
    ]


def _lamp() -> list[Part]:
    return [
        *stroke("metal", 0.08, 0.0, -0.4, 0.0, 0.9),
        rect("metal", -0.34, 0.86, 0.34, 0.96),
        poly("a", -0.26, -0.96, 0.26, -0.96, 0.56, -0.3, -0.56, -0.3),
    ]


def _cup() -> list[Part]:
    return [
        ring("a", 0.48, 0.1, 0.34, 0.14),
        poly("a", -0.56, -0.5, 0.5, -0.5, 0.38, 0.7, -0.44, 0.7),
        oval("a+", -0.03, -0.5, 0.53, 0.14),
    ]


def _book() -> list[Part]:
    return [
        poly("a", -0.95, -0.5, 0.0, -0.36, 0.95, -0.5, 0.95, 0.5, 0.0, 0.66, -0.95, 0.5),
        poly("white", -0.86, -0.44, 0.0, -0.3, 0.0, 0.54, -0.86, 0.4),
        poly("white", 0.86, -0.44, 0.0, -0.3, 0.0, 0.54, 0.86, 0.4),
        *stroke("metal", 0.05, 0.0, -0.3, 0.0, 0.56),
    ]


def _fence() -> list[Part]:
    return [
        *[rect("wood", x, -0.5, x + 0.16, 0.6) for x in (-0.9, -0.5, -0.1, 0.3, 0.7)],
        rect("wood-", -0.98, -0.28, 0.98, -0.12),
        rect("wood-", -0.98, 0.22, 0.98, 0.38),
    ]


def _kite() -> list[Part]:
    return [
        poly("a", 0.0, -0.95, 0.5, -0.3, 0.0, 0.4, -0.5, -0.3),
        poly("b", 0.0, -0.95, 0.5, -0.3, 0.0, -0.3),
        *stroke("black", 0.04, 0.0, 0.4, 0.14, 0.6, -0.1, 0.78, 0.1, 0.96),
    ]


def _rock() -> list[Part]:
    return [
        poly("metal", -0.9, 0.5, -0.6, -0.2, 0.0, -0.5, 0.6, -0.2, 0.9, 0.5),
        poly("white", -0.5, -0.1, 0.0, -0.4, 0.16, -0.14),
    ]


def _sign() -> list[Part]:
    octagon = [
        v
        for k in range(8)
        for v in (0.5 * cos(pi * (k + 0.5) / 4), -0.4 + 0.5 * sin(pi * (k + 0.5) / 4))
    ]
    return [
        rect("metal", -0.06, 0.0, 0.06, 0.98),
        poly("red", *octagon),
        rect("white", -0.34, -0.48, 0.34, -0.32),
    ]


def _box() -> list[Part]:
    return [
        rect("a", -0.7, -0.4, 0.7, 0.7),
        poly("a+", -0.7, -0.4, -0.46, -0.7, 0.9, -0.7, 0.7, -0.4),
        rect("b", -0.12, -0.4, 0.12, 0.7),
    ]


CLUTTER_SHAPES: dict[str, tuple[Callable[[], list[Part]], float, str]] = {
    "tree": (_tree, 1.2, "outdoor"),
    "pine tree": (_fir, 1.2, "outdoor"),
    "house": (_house, 1.3, "outdoor"),
    "ball": (_ball, 0.4, "any"),
    "umbrella": (_umbrella, 0.7, "any"),
    "clock": (_clock, 0.4, "indoor"),
    "lamp": (_lamp, 0.8, "indoor"),
    "cup": (_cup, 0.4, "indoor"),
    "book": (_book, 0.45, "indoor"),
    "fence": (_fence, 0.9, "outdoor"),
    "kite": (_kite, 0.5, "outdoor"),
    "rock": (_rock, 0.5, "outdoor"),
    "stop sign": (_sign, 0.8, "outdoor"),
    "box": (_box, 0.5, "indoor"),
}
"""Name in captions -> (shape, relative size, where it belongs)."""


@cache
def clutter_drawing(name: str) -> Drawing:
    """The drawing of one thing that is no class, built on first use."""
    return drawing(*CLUTTER_SHAPES[name][0]())
