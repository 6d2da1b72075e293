from collections import Counter
from random import Random

import numpy as np
import pytest

from t2ipal.pictovoc.domains import CLUTTER_COUNTS, DOMAINS, choose_look
from t2ipal.pictovoc.drawing import drawing, oval, paint, rect, ring, stamp
from t2ipal.pictovoc.scenes import (
    CLASS_NAMES,
    LOOK_STREAM,
    draw_classes,
    draw_scene,
    random_of,
)
from t2ipal.pictovoc.shapes import class_drawings

COUNT = 25
KINDS = ("photo", "palette", "lines", "clutter")
"""Of which the small CLIP has seen pictures."""


@pytest.fixture(scope="module")
def photos():
    return [draw_scene("test", index) for index in range(COUNT)]


def draw(domain, **options):
    return [draw_scene("test", index, domain=domain, **options) for index in range(COUNT)]


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_domain_changes_no_contents(photos, domain):
    for photo, other in zip(photos, draw(domain)):
        assert (photo.objects, photo.place) == (other.objects, other.place)
        assert np.array_equal(photo.labels, other.labels)
        assert other.image.shape == photo.image.shape and other.image.dtype == np.uint8
        assert other.class_map is None
        if DOMAINS[domain].keys() <= {"photo", "palette", "lines"}:
            assert photo.clutter == other.clutter


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_domain_is_deterministic(photos, domain):
    once, again = draw(domain), draw(domain)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(once, again))
    same = np.mean([np.array_equal(a.image, b.image) for a, b in zip(once, photos)])
    assert same == 1 if domain == "photo" else same < 0.5


def test_photo_is_the_default(photos):
    for photo, named in zip(photos, draw("photo", grain=True, with_map=True)):
        assert np.array_equal(photo.image, named.image)  # the map does not touch the picture
        assert photo.class_map is None and named.class_map is not None


def test_classes_are_drawn_in_a_domain_too():
    for seed in range(8):
        photo = draw_classes(("dog", "car"), seed)
        lines = draw_classes(("dog", "car"), seed, domain="lines")
        assert photo.objects == lines.objects
        assert not np.array_equal(photo.image, lines.image)
        assert np.array_equal(photo.image, draw_classes(("dog", "car"), seed, domain="photo").image)


@pytest.mark.parametrize("domain", DOMAINS)
def test_looks_are_mixed_by_their_weights(domain):
    kinds = Counter(choose_look(domain, Random(seed)).kind for seed in range(3000))
    total = sum(DOMAINS[domain].values())
    assert set(kinds) == set(DOMAINS[domain]) <= {*KINDS, "night"}
    for kind, weight in DOMAINS[domain].items():
        assert kinds[kind] / 3000 == pytest.approx(weight / total, abs=0.04)


def test_shifted_is_no_photo():
    assert "photo" not in DOMAINS["shifted"] and set(DOMAINS["web"]) == set(KINDS)


def test_a_night_is_dark_and_noisy(photos):
    """Each color is left at its own share; noise comes with the grain."""
    for photo, night, calm in zip(photos, draw("night"), draw("night", grain=False)):
        assert night.image.mean() < 0.75 * photo.image.mean()
        assert photo.clutter == night.clutter
        rough = [np.abs(np.diff(x.image.astype(float), axis=1)).mean() for x in (night, calm)]
        assert rough[0] > rough[1]
    index = 3
    look = choose_look("night", random_of("test", index, stream=LOOK_STREAM))
    plain = draw_scene("test", index, grain=False).image
    expected = (plain * np.array(look.light, np.float32)).astype(np.uint8)
    assert np.array_equal(draw_scene("test", index, domain="night", grain=False).image, expected)
    assert 0 < min(look.light) < max(look.light) < 1


def test_lines_leave_paper_and_ink():
    """Objects are outlines: their inside has the paper's color, so it is far more even."""

    def inside(scene):
        x0, y0, x1, y1 = (round(64 * edge) for edge in scene.objects[0].box)
        return scene.image[max(y0, 0) : y1, max(x0, 0) : x1].reshape(-1, 3).astype(float)

    colorful = {
        domain: np.mean([np.ptp(inside(scene), axis=1).mean() for scene in scenes])
        for domain in ("photo", "lines")
        for scenes in [draw(domain, grain=False)]
    }
    assert colorful["lines"] < 0.7 * colorful["photo"]


def test_clutter_has_more_in_it(photos):
    there = [len(scene.clutter) for scene in draw("clutter")]
    assert max(there) <= max(CLUTTER_COUNTS)
    assert np.mean(there) > 2 + np.mean([len(scene.clutter) for scene in photos])


def test_grain_off_is_the_same_picture_but_smooth(photos):
    def roughness(scenes):
        return np.array(
            [np.abs(np.diff(scene.image.astype(float), axis=1)).mean() for scene in scenes]
        )

    smooth = draw("photo", grain=False)
    assert (roughness(smooth) < roughness(photos)).all()
    for photo, other in zip(photos, smooth):
        difference = np.abs(photo.image.astype(float) - other.image).mean()
        assert 0.5 < difference < 10
        assert photo.objects == other.objects and photo.clutter == other.clutter
    again = draw("photo", grain=False)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(smooth, again))


@pytest.mark.parametrize(
    "parts",
    [
        [rect("a", -0.5, -0.4, 0.7, 0.8)],
        [oval("a", 0.1, 0.0, 0.8, 0.5, 30.0)],
        [ring("a", 0.0, 0.0, 0.8, 0.3), rect("a", 0.3, 0.3, 0.9, 0.9)],
    ],
    ids=["rect", "oval", "ring and rect"],
)
def test_a_stamp_covers_what_is_painted(parts):
    picture, matrix, center = drawing(*parts), np.eye(2) * 50, (50.0, 50.0)
    painted, stamped = np.zeros((100, 100, 3), np.uint8), np.zeros((100, 100), np.uint8)
    paint(painted, picture, matrix, center, {"a": (255.0, 255.0, 255.0)})
    stamp(stamped, picture, matrix, center, 7)
    assert set(np.unique(stamped)) == {0, 7}
    share = painted[:, :, 0] / 255
    assert (stamped[share == 1] == 7).all()
    assert (stamped[share == 0] == 0).mean() > 0.99  # but for pixels that the outline touches


@pytest.mark.parametrize("domain", KINDS)
def test_the_map_marks_what_is_seen(domain):
    pixels = (np.arange(64) + 0.5) / 64
    covered, drawn = 0, 0
    for scene in draw(domain, with_map=True):
        seen = scene.class_map
        assert seen is not None and seen.shape == (64, 64) and seen.dtype == np.uint8
        present = {item.class_name for item in scene.objects}
        found = {CLASS_NAMES[value - 1] for value in np.unique(seen) if value}
        assert found <= present
        covered, drawn = covered + len(found), drawn + len(present)
        for name in found:
            inside = np.zeros((64, 64), bool)
            for item in scene.objects:
                if item.class_name == name:
                    x0, y0, x1, y1 = item.box
                    columns = (x0 - 0.02 <= pixels) & (pixels <= x1 + 0.02)
                    rows = (y0 - 0.02 <= pixels) & (pixels <= y1 + 0.02)
                    inside |= rows[:, None] & columns
            assert inside[seen == 1 + CLASS_NAMES.index(name)].all()
    assert covered / drawn > 0.98  # next to nothing is hidden altogether


def test_an_object_alone_is_marked_in_whole():
    shares = []
    for index in range(60):
        scene = draw_scene("test", index, with_map=True)
        if len(scene.objects) == 1 and not scene.clutter:
            x0, y0, x1, y1 = scene.objects[0].box
            assert scene.class_map is not None
            marked = scene.class_map == 1 + CLASS_NAMES.index(scene.objects[0].class_name)
            shares.append(marked.mean() / ((x1 - x0) * (y1 - y0)))
    assert len(shares) > 3 and all(0.2 < share <= 1 for share in shares)


def test_the_part_map_leads_back_into_the_drawing():
    """Where a pixel says that it is in the drawing, there the drawing has something."""
    hits, drawings = [], {}
    for index in range(30):
        scene = draw_scene("train", index, with_map=True)
        assert scene.class_map is not None and scene.part_map is not None
        inside = scene.class_map > 0
        assert (scene.part_map[~inside] == 0).all()
        for kind, (number, x, y) in zip(scene.class_map[inside], scene.part_map[inside]):
            key = (CLASS_NAMES[kind - 1], int(number))
            if key not in drawings:
                drawings[key] = np.zeros((200, 200), np.uint8)
                picture = class_drawings(key[0])[key[1]]
                stamp(drawings[key], picture, 98.0 * np.eye(2), (100.0, 100.0), 1)
            row, column = round(100 + 98 * y), round(100 + 98 * x)
            hits.append((drawings[key][row, column], drawings[key][row, 200 - column]))
    there, mirrored = np.mean(hits, axis=0)
    # But for the pixels that the outline touches.
    assert len(drawings) > 20 and len(hits) > 5000 and there > 0.92 > 0.85 > mirrored


def test_the_map_does_not_depend_on_the_look():
    for index in range(10):
        maps = [
            draw_scene("test", index, domain=domain, with_map=True).class_map
            for domain in ("photo", "palette", "lines")
        ]
        assert all(np.array_equal(maps[0], other) for other in maps[1:])


def test_unknown_domain():
    with pytest.raises(ValueError, match=r"Unknown domain 'palete'\. Did you mean 'palette'"):
        draw_scene("test", 0, domain="palete")
    with pytest.raises(ValueError, match=r"Unknown domain 'cartoon'\. .*Known: clutter, lines"):
        draw_classes(("dog",), 0, domain="cartoon")
