"""Worlds within the world: which scenes a test set shows, how they look, and what is asked of them.

Owns one table; draws its scenes with `draw_scene`, so the same name is the same pixels everywhere.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count as count_from
from itertools import islice

import numpy as np
from jaxtyping import UInt8

from t2ipal.config import one_of, require
from t2ipal.pictovoc.attributes import ATTRIBUTES
from t2ipal.pictovoc.clutter import CLUTTER_SHAPES
from t2ipal.pictovoc.scenes import CLASS_NAMES, COLORS, SPLITS, TEST_SCENES, Scene, draw_scene

ImagesAndLabels = tuple[UInt8[np.ndarray, "n side side 3"], UInt8[np.ndarray, "n classes"]]
Box = tuple[float, float, float, float]
COUNTS = ("one object", "two objects", "three objects", "four or more objects")
TRAIN_SCENES = 1000
CAPTION_ID = re.compile(rf"({'|'.join(SPLITS)})-(\d+)-\d+")
"""Of `t2ipal.pictovoc.captions`: the scene's split and index, and which of its captions it is."""


def _classes(scene: Scene) -> set[str]:
    return {item.class_name for item in scene.objects}


def _clutter(scene: Scene) -> Collection[str]:
    return scene.clutter


def _colors(scene: Scene) -> Collection[str]:
    return {item.color for item in scene.objects}


def _count(scene: Scene) -> Collection[str]:
    return {COUNTS[min(len(scene.objects), len(COUNTS)) - 1]}


def _attributes(scene: Scene) -> Collection[str]:
    return {name for name, classes in ATTRIBUTES.items() if not _classes(scene).isdisjoint(classes)}


def _any(scene: Scene) -> bool:
    return True


def _has_one_object(scene: Scene) -> bool:
    return len(scene.objects) == 1


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
    belongs: Callable[[Scene], bool] = _any
    """Which scenes it has; others are passed over."""

    def indices(self, count: int) -> Iterator[int]:
        """Of its first scenes."""
        rows = count_from(self.first)
        if self.belongs is not _any:  # what is in a scene is told by a small picture of it
            rows = (row for row in rows if self.belongs(draw_scene(self.split, row, size_px=8)))
        return islice(rows, count)


WORLDS = {
    "pictovoc": World(),
    # Far behind the validation scenes whose captions train.
    "pictovoc_validation": World("validation", first=500_000, count=1000),
    "pictovoc_train": World("train", count=TRAIN_SCENES),
    "pictovoc_shifted": World(domain="shifted"),
    "pictovoc_night": World(domain="night"),
    "pictovoc_novel": World(class_names=tuple(CLUTTER_SHAPES), labeler=_clutter),
    "pictovoc_colors": World(class_names=tuple(COLORS), labeler=_colors),
    "pictovoc_counts": World(class_names=COUNTS, labeler=_count),
    "pictovoc_attributes": World(class_names=tuple(ATTRIBUTES), labeler=_attributes),
    # Behind the scenes of the others.
    "pictovoc_single": World(first=500_000, count=1000, belongs=_has_one_object),
}
"""Name of the data set -> its scenes; `pictovoc` is meant where no other is named. Colors are
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
    return world_scenes("pictovoc_train", count)


def original_scenes(caption_ids: Sequence[str]) -> UInt8[np.ndarray, "n side side 3"]:
    """The very scenes that captions of the world describe, in the order of the captions' ids.

    Raises:
        ValueError: an id is none of the world's captions.
    """
    require(len(caption_ids) > 0, "Original scenes need the id of a caption, got none.")
    images = []
    for caption_id in caption_ids:
        found = CAPTION_ID.fullmatch(caption_id)
        require(
            found is not None,
            "Only captions of the embedded world have an original scene, whose ids read like "
            f"validation-0000123-0; got {caption_id!r}.",
        )
        assert found is not None
        images.append(draw_scene(found[1], int(found[2])).image)
    return np.stack(images)


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
    scenes = [draw_scene(world.split, row, domain=world.domain) for row in world.indices(count)]
    shown = [world.labeler(scene) for scene in scenes]
    labels = [[name in names for name in world.class_names] for names in shown]
    return np.stack([scene.image for scene in scenes]), np.array(labels, dtype=np.uint8)
