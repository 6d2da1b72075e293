"""Where scenes happen: backgrounds painted in code, and which classes live there.

Backgrounds are drawn on a square canvas in place; horizons are fractions of its side from the top.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import cv2
import numpy as np
from jaxtyping import UInt8

Canvas = UInt8[np.ndarray, "side side 3"]
Color = tuple[int, int, int]


@dataclass(frozen=True)
class Place:
    """A kind of place: how it is painted, where its ground begins and who is found there."""

    paint: Callable[[Canvas, Random, float], None]
    horizon: tuple[float, float]
    indoor: bool
    phrases: tuple[str, ...]
    """Endings of a caption."""
    weights: dict[str, float]
    """Class name -> how often it joins a scene here."""


def _vary(rng: Random, color: Color, amount: int = 22) -> Color:
    red, green, blue = (min(255, max(0, c + rng.randint(-amount, amount))) for c in color)
    return red, green, blue


def _gradient(canvas: Canvas, top: Color, bottom: Color, y0: int, y1: int) -> None:
    if y1 > y0:
        share = np.linspace(0.0, 1.0, y1 - y0)[:, None, None]
        canvas[y0:y1] = (np.array(top) * (1 - share) + np.array(bottom) * share).astype(np.uint8)


def _blob(canvas: Canvas, color: Color, x: float, y: float, rx: float, ry: float) -> None:
    side = len(canvas)
    center, axes = (int(x * side), int(y * side)), (max(int(rx * side), 1), max(int(ry * side), 1))
    cv2.ellipse(canvas, center, axes, 0, 0, 360, color, -1, cv2.LINE_AA)


def _box(canvas: Canvas, color: Color, x0: float, y0: float, x1: float, y1: float) -> None:
    side = len(canvas)
    canvas[max(int(y0 * side), 0) : int(y1 * side), max(int(x0 * side), 0) : int(x1 * side)] = color


def _sky(canvas: Canvas, rng: Random, bottom: float) -> None:
    tops = ((96, 160, 224), (140, 190, 236), (170, 178, 190), (236, 170, 120), (60, 80, 140))
    top = _vary(rng, rng.choices(tops, (5, 5, 3, 1.5, 1))[0])
    low = _vary(rng, (min(top[0] + 70, 250), min(top[1] + 46, 240), min(top[2] + 16, 245)), 10)
    _gradient(canvas, top, low, 0, int(bottom * len(canvas)))
    for _ in range(rng.randint(0, 3)):
        x, y, size = rng.random(), rng.uniform(0.05, 0.9) * bottom, rng.uniform(0.05, 0.12)
        for step in (-0.8, 0.0, 0.8):
            _blob(canvas, _vary(rng, (240, 240, 240), 8), x + step * size, y, size, size * 0.45)


def _sky_only(canvas: Canvas, rng: Random, horizon: float) -> None:
    _sky(canvas, rng, 1.0)
    for _ in range(rng.randint(0, 2)):
        x, y, size = rng.random(), rng.random(), rng.uniform(0.08, 0.2)
        for step in (-0.9, 0.0, 0.9):
            _blob(canvas, _vary(rng, (236, 238, 242), 10), x + step * size, y, size, size * 0.4)


def _hills(canvas: Canvas, rng: Random, horizon: float) -> None:
    if rng.random() < 0.6:
        color = _vary(rng, (88, 128, 100))
        for _ in range(rng.randint(1, 3)):
            size = rng.uniform(0.2, 0.5)
            _blob(canvas, color, rng.random(), horizon + 0.03, size, rng.uniform(0.06, 0.2))


def _ground(canvas: Canvas, rng: Random, horizon: float, color: Color, marks: int) -> None:
    near = _vary(rng, color)
    far = _vary(rng, (color[0] + 20, color[1] + 16, color[2] + 10), 8)
    _gradient(canvas, far, near, int(horizon * len(canvas)), len(canvas))
    for _ in range(marks):
        x, y = rng.random(), rng.uniform(horizon + 0.03, 1.0)
        _blob(canvas, _vary(rng, near, 26), x, y, rng.uniform(0.01, 0.06), 0.012)


def _field(canvas: Canvas, rng: Random, horizon: float) -> None:
    _sky(canvas, rng, horizon)
    _hills(canvas, rng, horizon)
    colors = ((96, 158, 70), (126, 168, 78), (176, 160, 90))
    _ground(canvas, rng, horizon, rng.choices(colors, (5, 3, 2))[0], rng.randint(4, 14))


def _beach(canvas: Canvas, rng: Random, horizon: float) -> None:
    _sky(canvas, rng, horizon)
    _ground(canvas, rng, horizon, (66, 128, 178), 0)
    _ground(canvas, rng, horizon + 0.16, (222, 198, 148), rng.randint(3, 9))


def _snow(canvas: Canvas, rng: Random, horizon: float) -> None:
    _sky(canvas, rng, horizon)
    _hills(canvas, rng, horizon)
    _ground(canvas, rng, horizon, (224, 230, 236), rng.randint(2, 8))


def _water(canvas: Canvas, rng: Random, horizon: float) -> None:
    _sky(canvas, rng, horizon)
    _hills(canvas, rng, horizon)
    color = rng.choice(((52, 116, 172), (40, 132, 150), (86, 120, 140)))
    _ground(canvas, rng, horizon, color, 0)
    for _ in range(rng.randint(5, 14)):
        x, y = rng.random(), rng.uniform(horizon + 0.03, 1.0)
        _blob(canvas, _vary(rng, (150, 190, 214), 20), x, y, rng.uniform(0.03, 0.09), 0.006)


def _buildings(canvas: Canvas, rng: Random, horizon: float) -> None:
    x = -0.05
    while x < 1.0:
        width, top = rng.uniform(0.12, 0.3), horizon - rng.uniform(0.1, 0.42)
        color = _vary(
            rng, rng.choice(((170, 120, 100), (150, 150, 156), (196, 180, 150), (120, 110, 120)))
        )
        _box(canvas, color, x, max(top, 0.0), x + width, horizon)
        pane = _vary(rng, (92, 110, 130), 30)
        for row in range(int((horizon - top) / 0.11)):
            for column in range(int(width / 0.09)):
                left, up = x + 0.025 + column * 0.09, top + 0.03 + row * 0.11
                _box(canvas, pane, left, up, left + 0.04, up + 0.055)
        x += width + rng.choice((0.0, 0.0, 0.06))


def _street(canvas: Canvas, rng: Random, horizon: float) -> None:
    _sky(canvas, rng, horizon)
    if rng.random() < 0.75:
        _buildings(canvas, rng, horizon)
    else:
        _hills(canvas, rng, horizon)
    _ground(canvas, rng, horizon, (168, 162, 154), 0)
    _ground(canvas, rng, horizon + 0.07, (98, 98, 104), rng.randint(0, 6))
    y = rng.uniform(horizon + 0.2, 0.95)
    for k in range(5):
        _box(canvas, (226, 222, 200), 0.05 + k * 0.22, y, 0.15 + k * 0.22, y + 0.022)


def _railway(canvas: Canvas, rng: Random, horizon: float) -> None:
    _sky(canvas, rng, horizon)
    if rng.random() < 0.4:
        _buildings(canvas, rng, horizon)
    else:
        _hills(canvas, rng, horizon)
    _ground(canvas, rng, horizon, rng.choice(((128, 120, 110), (110, 130, 84))), rng.randint(6, 16))
    y = rng.uniform(horizon + 0.22, 0.9)
    for k in range(12):
        _box(canvas, (96, 70, 52), k / 11.5, y - 0.02, k / 11.5 + 0.04, y + 0.06)
    _box(canvas, (176, 178, 184), 0.0, y, 1.0, y + 0.018)


def _wall(canvas: Canvas, rng: Random, horizon: float) -> None:
    colors = (
        (222, 208, 184),
        (176, 196, 206),
        (206, 176, 172),
        (186, 200, 172),
        (228, 228, 224),
        (150, 126, 150),
    )
    color = _vary(rng, rng.choice(colors), 14)
    _gradient(canvas, color, _vary(rng, color, 12), 0, int(horizon * len(canvas)))
    darker = (int(color[0] * 0.9), int(color[1] * 0.9), int(color[2] * 0.9))
    pattern = rng.random()
    if pattern < 0.25:
        step = rng.uniform(0.08, 0.16)
        for k in range(int(1 / step) + 1):
            _box(canvas, darker, k * step, 0.0, k * step + step * 0.45, horizon)
    elif pattern < 0.42:
        for row in range(int(horizon / 0.09) + 1):
            y = row * 0.09
            _box(canvas, darker, 0.0, y, 1.0, min(y + 0.014, horizon))
            for k in range(6):
                x = k * 0.2 + (row % 2) * 0.1
                _box(canvas, darker, x, y, x + 0.014, min(y + 0.09, horizon))
    elif pattern < 0.55:
        for row in range(int(horizon / 0.12)):
            for k in range(8):
                _blob(
                    canvas,
                    darker,
                    0.06 + k * 0.125 + (row % 2) * 0.06,
                    0.06 + row * 0.12,
                    0.018,
                    0.018,
                )
    if rng.random() < 0.4:
        x, y = rng.uniform(0.05, 0.7), rng.uniform(0.05, 0.16)
        width, height = rng.uniform(0.16, 0.28), rng.uniform(0.16, 0.26)
        _box(
            canvas,
            _vary(rng, (236, 232, 224), 12),
            x - 0.02,
            y - 0.02,
            x + width + 0.02,
            y + height + 0.02,
        )
        _box(canvas, _vary(rng, (160, 200, 228), 30), x, y, x + width, y + height)
        _box(canvas, (236, 232, 224), x + width / 2 - 0.01, y, x + width / 2 + 0.01, y + height)


def _room(canvas: Canvas, rng: Random, horizon: float) -> None:
    _wall(canvas, rng, horizon)
    floors = (
        (160, 112, 70),
        (120, 84, 60),
        (176, 168, 160),
        (150, 60, 60),
        (90, 110, 100),
        (200, 190, 170),
    )
    color = rng.choice(floors)
    _ground(canvas, rng, horizon, color, 0)
    darker = (int(color[0] * 0.84), int(color[1] * 0.84), int(color[2] * 0.84))
    if rng.random() < 0.6:
        side, top = len(canvas), int(horizon * len(canvas))
        for k in range(-3, 10):
            far, near = int(side * (0.5 + (k - 3) * 0.11)), int(side * (0.5 + (k - 3) * 0.3))
            cv2.line(canvas, (far, top), (near, side), darker, 1, cv2.LINE_AA)
        if rng.random() < 0.5:
            for k in range(4):
                y = int(top + (side - top) * ((k + 1) / 4.5) ** 1.6)
                cv2.line(canvas, (0, y), (side, y), darker, 1, cv2.LINE_AA)
    _box(canvas, _vary(rng, (230, 226, 218), 14), 0.0, horizon - 0.02, 1.0, horizon + 0.012)


def _studio(canvas: Canvas, rng: Random, horizon: float) -> None:
    color = _vary(
        rng, rng.choice(((225, 225, 225), (120, 130, 150), (190, 150, 120), (90, 140, 130))), 25
    )
    _gradient(canvas, color, _vary(rng, color, 30), 0, len(canvas))


PLACES: dict[str, Place] = {
    "field": Place(
        _field,
        (0.34, 0.55),
        False,
        (
            "in a field",
            "in a grassy field",
            "in a pasture",
            "on the grass",
            "in the countryside",
            "on a farm",
        ),
        {
            "cow": 6,
            "horse": 6,
            "sheep": 6,
            "dog": 2,
            "person": 4,
            "bird": 2,
            "aeroplane": 0.4,
            "bicycle": 0.7,
        },
    ),
    "park": Place(
        _field,
        (0.34, 0.52),
        False,
        ("in a park", "in the park", "in a garden", "on a lawn", "outside", "in a yard"),
        {
            "dog": 4,
            "person": 6,
            "bicycle": 4,
            "bird": 3,
            "cat": 2,
            "chair": 1.5,
            "pottedplant": 2,
            "horse": 1,
            "bottle": 0.6,
        },
    ),
    "street": Place(
        _street,
        (0.38, 0.52),
        False,
        (
            "on a street",
            "on a city street",
            "on the road",
            "in the city",
            "in traffic",
            "in a parking lot",
        ),
        {
            "car": 7,
            "bus": 5,
            "motorbike": 4,
            "bicycle": 4,
            "person": 6,
            "dog": 1,
            "train": 0.4,
            "bird": 0.5,
            "chair": 0.4,
            "pottedplant": 0.5,
        },
    ),
    "water": Place(
        _water,
        (0.3, 0.5),
        False,
        ("on the water", "on a lake", "in the ocean", "on a river", "in a harbor", "at sea"),
        {"boat": 9, "bird": 3, "person": 3, "aeroplane": 0.6, "dog": 0.5},
    ),
    "beach": Place(
        _beach,
        (0.28, 0.42),
        False,
        ("on the beach", "at the beach", "by the sea", "on the sand"),
        {
            "person": 6,
            "dog": 3,
            "bird": 3,
            "boat": 3,
            "horse": 1.5,
            "chair": 1.5,
            "bicycle": 1,
            "bottle": 1,
            "car": 0.5,
        },
    ),
    "snow": Place(
        _snow,
        (0.34, 0.54),
        False,
        ("in the snow", "on a snowy day", "on a snowy hill", "in winter"),
        {
            "person": 6,
            "dog": 3,
            "horse": 2,
            "bird": 2,
            "car": 2,
            "train": 1.5,
            "sheep": 1,
            "bus": 1,
        },
    ),
    "sky": Place(
        _sky_only,
        (0.9, 1.0),
        False,
        (
            "in the sky",
            "flying in the air",
            "against a blue sky",
            "high up in the air",
            "in a cloudy sky",
        ),
        {"aeroplane": 8, "bird": 6},
    ),
    "runway": Place(
        _street,
        (0.42, 0.56),
        False,
        ("on a runway", "at an airport", "on the tarmac"),
        {"aeroplane": 8, "person": 3, "car": 2, "bus": 2, "bird": 0.6},
    ),
    "railway": Place(
        _railway,
        (0.34, 0.5),
        False,
        ("on the tracks", "at a station", "on a railway", "on train tracks"),
        {"train": 9, "person": 4, "car": 1, "bicycle": 0.7, "bird": 0.5, "cow": 0.6},
    ),
    "living room": Place(
        _room,
        (0.5, 0.66),
        True,
        ("in a living room", "in a room", "in the house", "at home", "on the floor"),
        {
            "sofa": 6,
            "tvmonitor": 5,
            "person": 5,
            "cat": 4,
            "dog": 3,
            "pottedplant": 4,
            "chair": 4,
            "bottle": 1.5,
        },
    ),
    "dining room": Place(
        _room,
        (0.48, 0.62),
        True,
        ("in a kitchen", "in a dining room", "in a restaurant", "for dinner"),
        {
            "diningtable": 8,
            "chair": 6,
            "bottle": 5,
            "person": 5,
            "pottedplant": 2,
            "cat": 1.5,
            "dog": 0.7,
            "tvmonitor": 0.7,
        },
    ),
    "office": Place(
        _room,
        (0.5, 0.66),
        True,
        ("in an office", "on a desk", "in a bedroom", "in a classroom"),
        {
            "tvmonitor": 7,
            "chair": 6,
            "person": 5,
            "bottle": 3,
            "pottedplant": 3,
            "cat": 1.5,
            "sofa": 1,
            "bicycle": 0.5,
        },
    ),
    "studio": Place(
        _studio,
        (0.4, 0.6),
        True,
        ("", "in front of a plain background", "up close", "on display"),
        dict.fromkeys(
            (
                "bottle",
                "pottedplant",
                "cat",
                "dog",
                "bird",
                "motorbike",
                "bicycle",
                "car",
                "tvmonitor",
                "chair",
                "person",
                "sofa",
                "bus",
                "boat",
            ),
            1.0,
        ),
    ),
}
