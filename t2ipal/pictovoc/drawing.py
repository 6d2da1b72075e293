"""Vector primitives in a unit box and how a drawing of them lands on a canvas.

A drawing lives in [-1, 1] x [-1, 1], x to the right and y down. Knows nothing of classes or scenes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Part:
    """A filled region: its color role and closed contours, of which a second one cuts a hole."""

    role: str
    contours: tuple[Float[np.ndarray, "points 2"], ...]


@dataclass(frozen=True)
class Drawing:
    """Parts from back to front, ready to be placed: all their points in one array."""

    points: Float[np.ndarray, "points 2"]
    parts: tuple[tuple[str, tuple[tuple[int, int], ...]], ...]
    """(role, ((first, last) of each contour in `points`, ...))."""


def drawing(*parts: Part) -> Drawing:
    """Joins parts, back to front, into one placeable drawing."""
    spans, arrays, start = [], [], 0
    for part in parts:
        contours = []
        for contour in part.contours:
            contours.append((start, start + len(contour)))
            arrays.append(contour)
            start += len(contour)
        spans.append((part.role, tuple(contours)))
    return Drawing(np.concatenate(arrays), tuple(spans))


def poly(role: str, *xy: float) -> Part:
    """A polygon from x, y, x, y, ..."""
    return Part(role, (np.array(xy, dtype=np.float64).reshape(-1, 2),))


def rect(role: str, x0: float, y0: float, x1: float, y1: float, corner: float = 0.0) -> Part:
    """An upright rectangle with corners cut by arcs of radius `corner`."""
    if corner == 0.0:
        return poly(role, x0, y0, x1, y0, x1, y1, x0, y1)
    angles = np.linspace(0, np.pi / 2, 4)
    arc = corner * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    centers = ((x1 - corner, y1 - corner), (x0 + corner, y1 - corner))
    centers += ((x0 + corner, y0 + corner), (x1 - corner, y0 + corner))
    quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])
    points = []
    for center in centers:
        points.append(arc + np.array(center))
        arc = arc @ quarter
    return Part(role, (np.concatenate(points),))


def _circle(cx: float, cy: float, rx: float, ry: float, degrees: float, span: tuple) -> np.ndarray:
    angles = np.radians(np.linspace(span[0], span[1], 20 if span == (0, 360) else 12))
    points = np.stack([rx * np.cos(angles), ry * np.sin(angles)], axis=1)
    turn = np.radians(degrees)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return points @ rotation + np.array([cx, cy])


def oval(
    role: str, cx: float, cy: float, rx: float, ry: float, degrees: float = 0.0, span=(0, 360)
) -> Part:
    """An ellipse, or its sector between the angles `span` (clockwise from the right)."""
    return Part(role, (_circle(cx, cy, rx, ry, degrees, span),))


def ring(role: str, cx: float, cy: float, radius: float, width: float) -> Part:
    """A circle line; what is behind shows through its middle."""
    inner = max(radius - width, 0.01)
    outline = _circle(cx, cy, radius, radius, 0.0, (0, 360))
    return Part(role, (outline, _circle(cx, cy, inner, inner, 0.0, (0, 360))))


def stroke(role: str, width: float, *xy: float) -> list[Part]:
    """A line of straight pieces through x, y, x, y, ...; one part a piece."""
    points = np.array(xy, dtype=np.float64).reshape(-1, 2)
    parts = []
    for start, end in pairwise(points):
        along = (end - start) / max(float(np.hypot(*(end - start))), 1e-6) * width / 2
        across = np.array([-along[1], along[0]])
        start, end = start - along * 0.6, end + along * 0.6
        parts.append(
            Part(role, (np.stack([start + across, end + across, end - across, start - across]),))
        )
    return parts


def placed_parts(
    picture: Drawing, matrix: Float[np.ndarray, "2 2"], center: tuple[float, float]
) -> Iterator[tuple[str, list[Int[np.ndarray, "points 2"]]]]:
    """Each part's role and its contours on the canvas, in 1/2**`SUBPIXEL_BITS` of a pixel."""
    placed = (picture.points @ matrix.T + np.array(center)) * (1 << SUBPIXEL_BITS)
    placed = np.round(placed).astype(np.int32)
    for role, contours in picture.parts:
        yield role, [placed[first:last] for first, last in contours]


def stamp(
    canvas: UInt8[np.ndarray, "height width"],
    picture: Drawing,
    matrix: Float[np.ndarray, "2 2"],
    center: tuple[float, float],
    value: int,
) -> None:
    """Writes `value` wherever `paint` would draw, in place."""
    for _, shapes in placed_parts(picture, matrix, center):
        cv2.fillPoly(canvas, shapes, value, cv2.LINE_8, SUBPIXEL_BITS)


def paint(
    canvas: UInt8[np.ndarray, "height width 3"],
    picture: Drawing,
    matrix: Float[np.ndarray, "2 2"],
    center: tuple[float, float],
    colors: dict[str, tuple[float, float, float]],
) -> None:
    """Draws onto `canvas` in place, antialiased: point p lands at pixel `matrix @ p + center`."""
    for role, shapes in placed_parts(picture, matrix, center):
        cv2.fillPoly(canvas, shapes, colors[role], cv2.LINE_AA, SUBPIXEL_BITS)
