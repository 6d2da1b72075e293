"""Worlds within the world: which scenes a test set shows, how they look, and what is asked of them.

Owns one table; draws its scenes with `draw_scene`, so the same name is the same pixels everywhere.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import UInt8

from t2ipal.config import one_of, require
from t2ipal.pictovoc.clutter import CLUTTER_SHAPES
from t2ipal.pictovoc.scenes import CLASS_NAMES, COLORS, TEST_SCENES, Scene, draw_scene

ImagesAndLabels = tuple[UInt8[np.ndarray, "n side side 3"], UInt8[np.ndarray, "n classes"]]
Box = tuple[float, float, float, float]
COUNTS = ("one object", "two objects", "three objects", "four or more objects")


def _classes(scene: Scene) -> Collection[str]:
    return {item.class_name for item in scene.objects}


def _clutter(scene: Scene) -> Collection[str]:
    return scene.clutter


def _colors(scene: Scene) -> Collection[str]:
    return {item.color for item in scene.objects}


def _count(scene: Scene) -> Collection[str]:
    return {COUNTS[min(len(scene.objects), len(COUNTS)) - 1]}


@dataclass(frozen=True)
class World:
    """Some scenes of a split and the classes they are labelled with."""

    split: str = "test"
    first: int = 0
    """Index of the first scene."""
    count: int = TEST_SCENES
    domain: str = "photo"
    """Look of the scenes, one of `DOMAINS`."""
    class_names: tuple[str, ...] = CLASS_NAMES
    labeler: Callable[[Scene], Collection[str]] = _classes
    """Which of the class names a scene shows."""


WORLDS = {
    "pictovoc": World(),
    # Far behind the validation scenes whose captions train.
    "pictovoc_validation": World("validation", first=500_000, count=1000),
    "pictovoc_shifted": World(domain="shifted"),
    "pictovoc_novel": World(class_names=tuple(CLUTTER_SHAPES), labeler=_clutter),
    "pictovoc_colors": World(class_names=tuple(COLORS), labeler=_colors),
    "pictovoc_counts": World(class_names=COUNTS, labeler=_count),
}
"""Name of the test set -> its scenes; `pictovoc` is meant where no other is named. Colors are
those of objects of a VOC class, counts the number of such objects."""


def world_scenes(name: str, count: int | None = None) -> ImagesAndLabels:
    """Images and labels of a world, or of its first `count` scenes."""
    one_of("world", name, WORLDS)
    world = WORLDS[name]
    return _draw(world, world.count if count is None else count)


def test_scenes(count: int) -> ImagesAndLabels:
    """Images and labels of the first scenes of the fixed test split."""
    return world_scenes("pictovoc", count)


def train_scenes(count: int) -> ImagesAndLabels:
    """Images and VOC labels of the first train scenes, for methods that learn from labelled images.

    The embedded CLIP has seen the same scenes, mostly in other looks, and never their labels.
    """
    return _draw(World("train"), count)


def object_boxes(count: int = TEST_SCENES) -> list[dict[int, list[Box]]]:
    """Boxes of the first test scenes' objects by class index; the same in every domain."""
    boxes: list[dict[int, list[Box]]] = []
    for index in range(count):
        boxes.append({})
        for item in draw_scene("test", index, size_px=8).objects:
            boxes[-1].setdefault(CLASS_NAMES.index(item.class_name), []).append(item.box)
    return boxes


@cache
def _draw(world: World, count: int) -> ImagesAndLabels:
    require(count > 0, f"A world needs one scene or more, got {count}.")
    rows = range(world.first, world.first + count)
    scenes = [draw_scene(world.split, index, domain=world.domain) for index in rows]
    shown = [world.labeler(scene) for scene in scenes]
    labels = [[name in names for name in world.class_names] for names in shown]
    return np.stack([scene.image for scene in scenes]), np.array(labels, dtype=np.uint8)
