import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest

from t2ipal.pictovoc.clutter import CLUTTER_SHAPES, clutter_drawing
from t2ipal.pictovoc.drawing import drawing, oval, paint, poly, rect, ring, stroke
from t2ipal.pictovoc.places import PLACES
from t2ipal.pictovoc.scenes import (
    CLASS_NAMES,
    COLORS,
    MAX_COVERED,
    MAX_OBJECTS,
    SIZES,
    _overlap,
    _tones,
    draw_classes,
    draw_scene,
    random_of,
)
from t2ipal.pictovoc.shapes import CLASS_SHAPES, class_drawings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene("validation", index, size_px=8) for index in range(600)]


def painted(parts, side=100, matrix=None, color=(255.0, 255.0, 255.0)):
    """Where white parts land on black, as shares of a pixel; the unit box fills the canvas."""
    canvas = np.zeros((side, side, 3), dtype=np.uint8)
    matrix = np.eye(2) * side / 2 if matrix is None else matrix
    paint(canvas, drawing(*parts), matrix, (side / 2, side / 2), {"a": color, "b": (0.0,) * 3})
    return canvas[:, :, 0] / 255


@pytest.mark.parametrize(
    ("parts", "area"),
    [
        ([rect("a", -0.5, -0.4, 0.7, 0.8)], 1.2 * 1.2),
        ([rect("a", -0.5, -0.5, 0.5, 0.5, 0.2)], 1 - (4 - np.pi) * 0.2**2),
        ([poly("a", -0.8, 0.6, 0.8, 0.6, 0.0, -0.6)], 0.5 * 1.6 * 1.2),
        ([oval("a", 0.1, 0.0, 0.8, 0.5)], np.pi * 0.8 * 0.5),
        ([oval("a", 0.0, 0.0, 0.8, 0.5, 30.0)], np.pi * 0.8 * 0.5),
        ([ring("a", 0.0, 0.0, 0.8, 0.2)], np.pi * (0.8**2 - 0.6**2)),
        (stroke("a", 0.2, -0.5, 0.0, 0.5, 0.0), 0.2 * (1 + 2 * 0.06)),
    ],
    ids=["rect", "round rect", "triangle", "oval", "turned oval", "ring", "stroke"],
)
def test_drawn_areas(parts, area):
    share = painted(parts, side=1000).mean() * 4  # the unit box has area 4
    assert share == pytest.approx(area, rel=0.025)  # of which OpenCV's outline is one pixel


def test_where_things_are_drawn():
    corner = painted([rect("a", 0.0, 0.0, 1.0, 1.0)])
    assert corner[75, 75] == 1 and corner[25, 75] == corner[75, 25] == 0  # y points down
    hole = painted([ring("a", 0.0, 0.0, 0.8, 0.3)])
    assert hole[50, 50] == 0 and hole[50, 85] == 1
    half = painted([oval("a", 0.0, 0.0, 0.8, 0.8, 0.0, (180, 360))])
    assert half[30, 50] == 1 and half[70, 50] == 0
    upright = painted([oval("a", 0.0, 0.0, 0.8, 0.2, 90.0)])
    assert upright[20, 50] == 1 and upright[50, 20] == 0
    covered = painted([rect("a", -1.0, -1.0, 1.0, 1.0), rect("b", -0.5, -0.5, 0.5, 0.5)])
    assert covered[50, 50] == 0 and covered[5, 5] == 1  # back to front
    quarter_turn = np.array([[0.0, -1.0], [1.0, 0.0]]) * 50
    turned = painted([rect("a", 0.5, -0.1, 1.0, 0.1)], matrix=quarter_turn)
    assert turned[90, 50] == 1 and turned[50, 90] == 0


def test_edges_are_antialiased():
    columns = painted([rect("a", -1.0, -1.0, 0.01, 1.0)])[50]
    assert columns[45] == 1 and columns[55] == 0
    assert ((columns > 0) & (columns < 1)).any()


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_class_drawings(name):
    pictures = class_drawings(name)
    assert len(pictures) == len(CLASS_SHAPES[name]) >= 2
    roles = _tones(Random(0), "red", "blue").keys()
    for picture in pictures:
        assert np.abs(picture.points).max() <= 1.1
        assert {role for role, _ in picture.parts} <= set(roles)
        extent = picture.points.max(axis=0) - picture.points.min(axis=0)
        assert extent.min() > 0.3 and extent.max() > 1.2  # it fills its box
    images = {painted_in_tones(picture).tobytes() for picture in pictures}
    assert len(images) == len(pictures)


def painted_in_tones(picture):
    canvas = np.zeros((64, 64, 3), dtype=np.uint8)
    paint(canvas, picture, np.eye(2) * 32, (32.0, 32.0), _tones(Random(0), "red", "blue"))
    return canvas


def test_tables_fit_together():
    assert len(CLASS_NAMES) == 20 and set(SIZES) == set(CLASS_NAMES)
    assert all(set(palette) <= set(COLORS) for _, palette, _ in SIZES.values())
    homes = {name for place in PLACES.values() for name in place.weights}
    assert homes == set(CLASS_NAMES)
    assert all(
        place.phrases and 0 < place.horizon[0] < place.horizon[1] <= 1 for place in PLACES.values()
    )


@pytest.mark.parametrize("name", CLUTTER_SHAPES)
def test_clutter_is_no_class(name):
    assert name not in CLASS_NAMES
    assert CLUTTER_SHAPES[name][2] in ("any", "indoor", "outdoor")
    assert np.abs(clutter_drawing(name).points).max() <= 1.1
    assert painted_in_tones(clutter_drawing(name)).any()


@pytest.mark.parametrize("name", PLACES)
def test_a_place_covers_its_canvas(name):
    place = PLACES[name]
    for seed in range(12):
        for horizon in place.horizon:
            canvases = [np.full((32, 32, 3), value, dtype=np.uint8) for value in (0, 255)]
            for canvas in canvases:
                place.paint(canvas, Random(seed), horizon)
            np.testing.assert_array_equal(*canvases)


def digest(split, count):
    found = hashlib.sha256()
    for index in range(count):
        scene = draw_scene(split, index)
        found.update(scene.image.tobytes() + repr((scene.objects, scene.clutter)).encode())
    return found.hexdigest()


def test_a_scene_is_the_same_in_every_process():
    code = "from tests.pictovoc.test_scenes import digest; print(digest('test', 10))"
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONHASHSEED": "7"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=paths, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == digest("test", 10) == digest("test", 10)
    assert digest("train", 10) != digest("test", 10)


def test_a_scene_does_not_depend_on_its_size():
    for index in range(20):
        small, large = draw_scene("train", index, size_px=8), draw_scene("train", index)
        assert small.image.shape == (8, 8, 3) and large.image.shape == (64, 64, 3)
        assert (small.objects, small.clutter, small.place) == (
            large.objects,
            large.clutter,
            large.place,
        )


def test_random_sources_differ():
    draws = [
        random_of(split, index, stream).random()
        for split in ("train", "validation", "test")
        for index in (0, 1, 2)
        for stream in (0, 1)
    ]
    assert len(set(draws)) == len(draws)
    with pytest.raises(ValueError, match=r"Unknown split 'trian'\. Did you mean 'train'"):
        draw_scene("trian", 0)


def test_labels_are_the_drawn_objects(scenes):
    for scene in scenes:
        named = {CLASS_NAMES[index] for index in np.flatnonzero(scene.labels)}
        assert named == {item.class_name for item in scene.objects}
        assert scene.labels.dtype == np.uint8 and set(scene.labels) <= {0, 1}
        assert 1 <= len(scene.objects) <= MAX_OBJECTS
        assert all(name in CLUTTER_SHAPES for name in scene.clutter)
        assert all(item.color in COLORS for item in scene.objects)


def test_classes_are_drawn_together_where_they_live(scenes):
    counts = sum(scene.labels.astype(int) for scene in scenes)
    assert counts.min() > 20  # every class comes up, the rarest in more than 3 of 100
    assert counts.argmax() == CLASS_NAMES.index("person")
    numbers = Counter(int(scene.labels.sum()) for scene in scenes)
    assert set(numbers) == {1, 2, 3, 4, 5}
    assert 0.2 < numbers[1] / len(scenes) < 0.45
    strays = [
        item.class_name not in PLACES[scene.place].weights
        for scene in scenes
        for item in scene.objects
    ]
    assert 0 < np.mean(strays) < 0.06
    together = sum(np.outer(scene.labels, scene.labels).astype(int) for scene in scenes)
    index = CLASS_NAMES.index
    assert together[index("diningtable"), index("chair")] > 5
    assert together[index("diningtable"), index("chair")] > together[index("boat"), index("chair")]


def test_boxes_are_in_the_image_and_leave_each_other_visible(scenes):
    boxes = np.array([item.box for scene in scenes for item in scene.objects])
    assert boxes.min() > -0.041 and boxes.max() < 1.041  # 4 % may be cut off at the sides
    assert (boxes[:, 2:] - boxes[:, :2]).min() > 0.05
    for scene in scenes:
        for place, item in enumerate(scene.objects):
            for other in scene.objects[:place]:
                moved = "bottle" in (item.class_name, other.class_name)  # onto a table
                assert moved or _overlap(item.box, other.box) <= MAX_COVERED


def test_overlap():
    assert _overlap((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(0.25)
    assert _overlap((0, 0, 4, 4), (1, 1, 2, 2)) == 1.0
    assert _overlap((0, 0, 1, 1), (1, 0, 2, 1)) == _overlap((0, 0, 1, 1), (2, 2, 3, 3)) == 0.0


def test_draw_classes():
    complete = []
    for seed in range(150):
        names = Random(seed).sample(CLASS_NAMES, 1 + seed % 3)
        scene = draw_classes(names, seed, size_px=8)
        drawn = {item.class_name for item in scene.objects}
        assert drawn <= set(names)
        assert names[0] in PLACES[scene.place].weights
        complete.append(drawn == set(names))
    assert np.mean(complete) > 0.9  # there is not always room for the last
    one, same = draw_classes(("dog", "cat"), 3), draw_classes(("dog", "cat"), 3)
    assert np.array_equal(one.image, same.image) and one.objects == same.objects
    assert not np.array_equal(one.image, draw_classes(("dog", "cat"), 4).image)


def test_draw_classes_of_nothing_known():
    with pytest.raises(ValueError, match="at least one class, got none"):
        draw_classes((), 0)
    with pytest.raises(ValueError, match=r"Unknown class 'hrse'\. Did you mean 'horse'"):
        draw_classes(("dog", "hrse"), 0)


def test_images_use_their_range(scenes):
    images = np.stack([draw_scene("test", index).image for index in range(20)]).astype(float)
    assert images.dtype == float and images.min() >= 0 and images.max() <= 255
    assert images.std(axis=(1, 2, 3)).min() > 10  # no scene is one color
    assert 60 < images.mean() < 200
