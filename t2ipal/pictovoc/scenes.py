"""Scenes: which objects stand where in which place, and their picture. Deterministic from (split, index).

Knows drawings and places; knows nothing of captions or models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from t2ipal.config import one_of, require
from t2ipal.pictovoc.clutter import CLUTTER_SHAPES, clutter_drawing
from t2ipal.pictovoc.domains import (
    CLUTTER_COUNTS,
    Look,
    background,
    choose_look,
    develop,
    paint_object,
    recolor,
)
from t2ipal.pictovoc.drawing import Drawing, stamp
from t2ipal.pictovoc.places import PLACES, Place
from t2ipal.pictovoc.shapes import CLASS_SHAPES, MATERIALS, class_drawings

IMAGE_SIZE_PX = 64
CLASS_NAMES = tuple(CLASS_SHAPES)
SPLITS = {"train": 1, "validation": 2, "test": 3}
TEST_SCENES = 2000
LOOK_STREAM = 1_000_000
"""Stream of randomness of a scene's look, apart from its contents and captions."""

COLORS = {
    "red": (206, 46, 44), "orange": (232, 134, 42), "yellow": (236, 200, 62), "green": (62, 146, 74),
    "blue": (48, 96, 190), "purple": (126, 72, 158), "pink": (230, 130, 160), "brown": (124, 82, 50),
    "black": (44, 44, 50), "white": (236, 236, 232), "gray": (140, 144, 150), "silver": (188, 192, 198),
    "tan": (202, 168, 120),
}  # fmt: skip
_VEHICLE = ("red", "blue", "yellow", "green", "white", "black", "silver", "orange")
_FURNITURE = ("brown", "red", "blue", "green", "gray", "black", "white", "tan", "purple")
_FUR = ("brown", "black", "white", "gray", "tan", "orange")
_ANY = (
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "brown",
    "black",
    "white",
    "gray",
)

SIZES: dict[str, tuple[float, tuple[str, ...], float]] = {
    "aeroplane": (1.15, ("white", "silver", "red", "blue", "gray"), 14), "bicycle": (1.0, _ANY, 6),
    "bird": (0.74, ("blue", "red", "brown", "white", "black", "yellow", "gray"), 14),
    "boat": (1.1, _VEHICLE, 5), "bottle": (0.72, ("green", "brown", "blue", "white", "red"), 5),
    "bus": (1.2, ("red", "yellow", "blue", "white", "green", "orange"), 3), "car": (1.05, _VEHICLE, 4),
    "cat": (0.8, _FUR, 6), "chair": (0.9, _FURNITURE, 5), "cow": (1.05, _FUR, 4),
    "diningtable": (1.15, ("brown", "tan", "white", "black"), 2), "dog": (0.86, _FUR, 6),
    "horse": (1.1, _FUR, 5), "motorbike": (1.0, _VEHICLE, 6), "person": (1.12, _ANY, 5),
    "pottedplant": (0.86, ("brown", "orange", "white", "blue", "red"), 4),
    "sheep": (0.92, ("white", "gray", "black", "tan"), 5), "sofa": (1.18, _FURNITURE, 2),
    "train": (1.25, ("red", "blue", "green", "yellow", "black", "silver"), 2),
    "tvmonitor": (0.86, ("blue", "green", "gray", "black", "purple"), 3),
}  # fmt: skip
"""Class -> (relative size, its usual colors, rotation in degrees, one standard deviation)."""

CLASSES_PER_SCENE = (0.30, 0.30, 0.22, 0.12, 0.06)
SIZE_BY_COUNT = (0.33, 0.27, 0.225, 0.2, 0.185, 0.17)
MAX_OBJECTS = 6
MAX_COVERED = 0.4
STRAY_SHARE = 0.06
"""Chance that a joining class is any class at all, wherever the scene is."""


@dataclass(frozen=True)
class SceneObject:
    """One drawn object of a class."""

    class_name: str
    color: str
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 as fractions of the image side."""


@dataclass(frozen=True)
class Scene:
    """A drawn scene with everything that is known about it."""

    image: UInt8[np.ndarray, "side side 3"]
    objects: tuple[SceneObject, ...]
    clutter: tuple[str, ...]
    place: str
    class_map: UInt8[np.ndarray, "side side"] | None = None
    """What each pixel shows: 1 + class index, 0 for anything else; None unless asked for."""
    part_map: Float[np.ndarray, "side side 3"] | None = None
    """Which part of an object each pixel shows: the number of the class's drawing, and x and y in
    the drawing's own unit box, -1 to 1; zeros where no class is, None unless asked for."""

    @property
    def labels(self) -> UInt8[np.ndarray, "classes"]:
        """Multi-hot over `CLASS_NAMES`."""
        present = {scene_object.class_name for scene_object in self.objects}
        return np.array([name in present for name in CLASS_NAMES], dtype=np.uint8)


@dataclass
class _Placed:
    """An object with its place on the canvas, before it is drawn."""

    picture: Drawing
    matrix: np.ndarray
    center: tuple[float, float]
    box: tuple[float, float, float, float]
    colors: dict
    class_name: str = ""
    color: str = ""
    behind: float = 0.0

    def part_at(self, pixels: Float[np.ndarray, "n 2"], side: int) -> Float[np.ndarray, "n 3"]:
        """Number of the drawing, and x and y in its unit box, at pixels x, y of a canvas."""
        number = [d is self.picture for d in class_drawings(self.class_name)].index(True)
        inside = (pixels / side - np.array(self.center)) @ np.linalg.inv(self.matrix).T
        return np.column_stack([np.full(len(pixels), number), inside.clip(-1, 1)])


def random_of(split: str, index: int, stream: int = 0) -> Random:
    """The source of randomness of one scene (or, with another stream, of its captions)."""
    one_of("split", split, SPLITS)
    return Random((SPLITS[split] * 1_000_003 + stream) * 100_000_007 + index)


@cache
def _places_of(class_name: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    here = {
        name: place.weights[class_name]
        for name, place in PLACES.items()
        if class_name in place.weights
    }
    totals = {name: weight / sum(PLACES[name].weights.values()) for name, weight in here.items()}
    return tuple(totals), tuple(totals.values())


def _choose_classes(rng: Random, place: Place, first: str, count: int) -> list[str]:
    chosen = [first]
    while len(chosen) < count:
        if rng.random() < STRAY_SHARE:
            name = rng.choice(CLASS_NAMES)
        else:
            name = rng.choices(tuple(place.weights), tuple(place.weights.values()))[0]
        if name not in chosen:
            chosen.append(name)
        elif len(chosen) >= len(place.weights):
            break
    return chosen


def _tones(rng: Random, color: str, second: str) -> dict[str, tuple[float, ...]]:
    def jitter(rgb: tuple[int, int, int]) -> tuple[float, ...]:
        return tuple(min(255.0, max(0.0, c + rng.uniform(-18, 18))) for c in rgb)

    a, b = jitter(COLORS[color]), jitter(COLORS[second])
    skin = rng.choice(((242, 206, 178), (222, 172, 134), (176, 122, 84), (112, 74, 52)))
    hair = rng.choice(((40, 30, 26), (92, 60, 34), (216, 178, 96), (150, 146, 144), (168, 74, 40)))
    tones: dict[str, tuple[float, ...]] = dict(MATERIALS)
    tones |= {"a": a, "b": b, "skin": skin, "hair": hair, "wool": a}
    tones["a-"] = tuple(c * 0.66 for c in a)
    tones["a+"] = tuple(c * 0.55 + 114 for c in a)
    dark_fleece = sum(a) < 240
    tones["face"] = (226, 214, 200) if dark_fleece else (62, 52, 50)
    return tones


def _overlap(box: tuple, other: tuple) -> float:
    """Intersection over the smaller of the two areas."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return width * height / smaller


def _place_one(
    rng: Random,
    picture: Drawing,
    size: float,
    tilt: float,
    zone: str,
    horizon: float,
    placed: list[_Placed],
) -> _Placed | None:
    """Finds room for a drawing of half-extent `size`; None where there is none."""
    for attempt in range(14):
        scale = size * rng.uniform(0.78, 1.22) * (1.0 if attempt < 8 else 0.8)
        turn = np.radians(rng.gauss(0.0, tilt))
        stretch, shear = rng.uniform(0.88, 1.14), rng.gauss(0.0, 0.06)
        flip = -1.0 if rng.random() < 0.5 else 1.0
        shape = np.array([[flip * stretch, shear], [0.0, 1.0 / stretch]]) * scale
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ shape
        extent = picture.points @ matrix.T
        (x0, y0), (x1, y1) = extent.min(axis=0), extent.max(axis=0)
        x = rng.uniform(-x0 - 0.04, max(1.04 - x1, -x0))
        if zone == "air":
            y = rng.uniform(-y0 + 0.01, max(horizon - 0.02 - y1, -y0 + 0.02))
        else:
            low = min(max(horizon + 0.05, y1 - y0), 0.97)
            y = rng.uniform(low, 1.0) - y1
        box = (float(x + x0), float(y + y0), float(x + x1), float(y + y1))
        if all(_overlap(box, other.box) <= MAX_COVERED for other in placed):
            return _Placed(picture, matrix, (x, y), box, {}, behind=box[3])
    return None


def _on_table(rng: Random, bottle: _Placed, placed: list[_Placed]) -> None:
    """Stands a bottle on a table of the scene, where there is one."""
    tables = [other for other in placed if other.class_name == "diningtable"]
    if tables:
        x0, y0, x1, y1 = tables[0].box
        x = rng.uniform(x0 + 0.25 * (x1 - x0), x0 + 0.75 * (x1 - x0)) - bottle.center[0]
        y = y0 + 0.28 * (y1 - y0) - bottle.box[3]
        if bottle.box[1] + y > 0.0:
            moved = (bottle.box[0] + x, bottle.box[1] + y, bottle.box[2] + x, bottle.box[3] + y)
            bottle.center = (bottle.center[0] + x, bottle.center[1] + y)
            bottle.box, bottle.behind = moved, y1 + 0.001


def _place_objects(rng: Random, place: Place, horizon: float, classes: list[str]) -> list[_Placed]:
    names = list(classes)
    for name in classes:
        extra = rng.choices((0, 1, 2), (0.8, 0.14, 0.06))[0]
        names += [name] * extra
    names = names[:MAX_OBJECTS]
    placed: list[_Placed] = []
    for name in sorted(names, key=lambda n: -SIZES[n][0]):
        relative, palette, tilt = SIZES[name]
        size = SIZE_BY_COUNT[len(names) - 1] * relative
        flies = name in ("aeroplane", "bird") and not place.indoor and rng.random() < 0.6
        picture = rng.choice(class_drawings(name))
        found = _place_one(rng, picture, size, tilt, "air" if flies else "ground", horizon, placed)
        if found is None:
            continue
        color = rng.choice(palette if rng.random() < 0.9 else _ANY)
        second = rng.choice([c for c in (_FUR if palette is _FUR else _ANY) if c != color])
        found.class_name, found.color, found.colors = name, color, _tones(rng, color, second)
        if name == "bottle" and rng.random() < 0.7:
            _on_table(rng, found, placed)
        placed.append(found)
    return placed


def _place_clutter(
    rng: Random, place: Place, horizon: float, placed: list[_Placed], count: int
) -> list[_Placed]:
    kinds = [
        n
        for n, shape in CLUTTER_SHAPES.items()
        if shape[2] in ("any", "indoor" if place.indoor else "outdoor")
    ]
    added = []
    for _ in range(count):
        name = rng.choice(kinds)
        size = 0.2 * CLUTTER_SHAPES[name][1]
        found = _place_one(rng, clutter_drawing(name), size, 4.0, "ground", horizon, placed + added)
        if found is not None:
            color = rng.choice(_ANY)
            found.color, found.colors = name, _tones(rng, color, rng.choice(_ANY))
            added.append(found)
    return added


def _finish(
    rng: Random, canvas: np.ndarray, size_px: int, grain: bool
) -> UInt8[np.ndarray, "side side 3"]:
    """Texture, camera noise and exposure: no two pixels of a wall are alike in a photograph."""
    noise = np.random.Generator(np.random.PCG64(rng.getrandbits(64)))
    image = cv2.resize(canvas, (size_px, size_px), interpolation=cv2.INTER_AREA).astype(np.float32)
    coarse = noise.standard_normal((size_px // 4, size_px // 4, 1), dtype=np.float32)
    texture = rng.uniform(1.0, 6.0) * cv2.resize(coarse, (size_px, size_px))[:, :, None]
    fine = rng.uniform(1.0, 5.0) * noise.standard_normal((size_px, size_px, 1), dtype=np.float32)
    if grain:
        image += texture
        image += fine
    gain = np.array([rng.uniform(0.92, 1.08) for _ in range(3)], dtype=np.float32) * rng.uniform(
        0.85, 1.12
    )
    return np.clip((image - 128.0) * rng.uniform(0.85, 1.1) + 128.0 * gain, 0, 255).astype(np.uint8)


def draw_scene(
    split: str,
    index: int,
    size_px: int = IMAGE_SIZE_PX,
    domain: str = "photo",
    *,
    grain: bool = True,
    with_map: bool = False,
) -> Scene:
    """Scene number `index` of a split; the same arguments always give the same scene.

    Drawn at twice the size and averaged down. Other sizes show the same scene (but other noise),
    other domains show its objects in another look; without `grain` it has no camera noise;
    `with_map` adds its `class_map` and `part_map`.
    """
    rng = random_of(split, index)
    look = choose_look(domain, random_of(split, index, stream=LOOK_STREAM))
    first = rng.choice(CLASS_NAMES)
    place_name = rng.choices(*_places_of(first))[0]
    horizon = rng.uniform(*PLACES[place_name].horizon)
    count = rng.choices((1, 2, 3, 4, 5), CLASSES_PER_SCENE)[0]
    classes = _choose_classes(rng, PLACES[place_name], first, count)
    return _draw(rng, place_name, horizon, classes, size_px, look, grain, with_map)


def draw_classes(
    class_names: Sequence[str], seed: int, size_px: int = IMAGE_SIZE_PX, domain: str = "photo"
) -> Scene:
    """A scene of just these classes, in a place where the first of them is found."""
    require(len(class_names) > 0, "A scene needs at least one class, got none.")
    for name in class_names:
        one_of("class", name, CLASS_NAMES)
    rng = Random(seed)
    place_name = rng.choices(*_places_of(class_names[0]))[0]
    horizon = rng.uniform(*PLACES[place_name].horizon)
    look = choose_look(domain, Random(seed + 1))
    return _draw(rng, place_name, horizon, list(class_names), size_px, look)


def _draw(
    rng: Random,
    place_name: str,
    horizon: float,
    classes: list[str],
    size_px: int,
    look: Look,
    grain: bool = True,
    with_map: bool = False,
) -> Scene:
    place = PLACES[place_name]
    placed = _place_objects(rng, place, horizon, classes)
    count = rng.choices((0, 1, 2, 3), (0.35, 0.35, 0.2, 0.1))[0]
    if look.kind == "clutter":
        count = rng.choice(CLUTTER_COUNTS)
    clutter = _place_clutter(rng, place, horizon, placed, count)
    side = 2 * size_px
    canvas = np.empty((side, side, 3), dtype=np.uint8)
    place.paint(canvas, rng, horizon)
    background(canvas, look)
    shown = np.zeros((side, side), dtype=np.uint8)
    items = sorted(placed + clutter, key=lambda item: item.behind)
    for number, item in enumerate(items, 1):
        center = (item.center[0] * side, item.center[1] * side)
        paint_object(canvas, item.picture, item.matrix * side, center, item.colors, look)
        if with_map:
            stamp(shown, item.picture, item.matrix * side, center, number)
    canvas = recolor(canvas, look)
    objects = tuple(SceneObject(item.class_name, item.color, item.box) for item in placed)
    image = develop(_finish(rng, canvas, size_px, grain), look, grain)
    names = tuple(item.color for item in clutter)
    maps = _maps(shown, items) if with_map else (None, None)
    return Scene(image, objects, names, place_name, *maps)


def _maps(
    shown: UInt8[np.ndarray, "canvas canvas"], items: list[_Placed]
) -> tuple[UInt8[np.ndarray, "side side"], Float[np.ndarray, "side side 3"]]:
    """`class_map` and `part_map` at half the canvas, from which item each of its pixels shows."""
    half = shown[1::2, 1::2]
    class_map = np.zeros(half.shape, dtype=np.uint8)
    part_map = np.zeros((*half.shape, 3), dtype=np.float32)
    for number, item in enumerate(items, 1):
        rows, columns = np.nonzero(half == number)
        if item.class_name and len(rows):
            class_map[rows, columns] = 1 + CLASS_NAMES.index(item.class_name)
            pixels = np.column_stack([2 * columns + 1, 2 * rows + 1])
            part_map[rows, columns] = item.part_at(pixels, len(shown))
    return class_map, part_map
