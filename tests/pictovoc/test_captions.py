from itertools import pairwise
from random import Random

import numpy as np
import pytest

from t2ipal.captions import NounFilter, load_vocabulary
from t2ipal.pictovoc.captions import NEVER_DRAWN, WORDS, caption_scene, world_captions
from t2ipal.pictovoc.clutter import CLUTTER_SHAPES
from t2ipal.pictovoc.scenes import CLASS_NAMES, draw_classes, draw_scene

NUM_SCENES = 500


@pytest.fixture(scope="module")
def rows():
    return world_captions("validation", NUM_SCENES)


@pytest.fixture(scope="module")
def verdict():
    return NounFilter(load_vocabulary("voc2007"))


@pytest.fixture(scope="module")
def present():
    scenes = (draw_scene("validation", index, size_px=8) for index in range(NUM_SCENES))
    return [set(np.flatnonzero(scene.labels).tolist()) for scene in scenes]


def test_ids(rows):
    assert [caption_id for caption_id, _ in rows[:2]] == [
        "validation-0000000-0",
        "validation-0000001-0",
    ]
    several = world_captions("test", 2, captions_per_scene=3)
    assert [caption_id[-9:] for caption_id, _ in several] == [
        f"000000{scene}-{number}" for scene in (0, 1) for number in (0, 1, 2)
    ]
    assert len({text for _, text in several}) > 2


def test_a_caption_depends_on_its_number_alone(rows):
    assert world_captions("validation", 20) == rows[:20]
    several = dict(world_captions("validation", 20, captions_per_scene=2))
    assert [several[caption_id] for caption_id, _ in rows[:20]] == [text for _, text in rows[:20]]
    assert [text for _, text in world_captions("train", 20)] != [text for _, text in rows[:20]]


def test_captions_read_as_sentences(rows):
    for _, text in rows:
        assert text[0].isupper() and "  " not in text and not text.endswith(" ")
        words = text.lower().rstrip(".").split()
        for article, noun in pairwise(words):
            if article in ("a", "an"):
                assert (article == "an") == (noun[0] in "aeiou"), text
    assert 0.5 < np.mean([text.endswith(".") for _, text in rows]) < 0.9
    assert 6 < np.mean([len(text.split()) for _, text in rows]) < 16


def test_what_a_caption_names_is_in_its_scene(rows, verdict, present):
    named = [set(verdict(text).labels) for _, text in rows]
    hits = [index in there for labels, there in zip(named, present) for index in labels]
    assert np.mean(hits) > 0.99  # 1.0 as measured
    assert np.mean([bool(labels) for labels in named]) > 0.97


def test_captions_leave_things_out(rows, verdict, present):
    named = [set(verdict(text).labels) for _, text in rows]
    found = [index in labels for labels, there in zip(named, present) for index in there]
    assert 0.75 < np.mean(found) < 0.95  # people do not name everything: 0.84 as measured


def test_every_class_is_named_in_several_words(rows):
    texts = " ".join(text.lower() for _, text in rows)
    for name in CLASS_NAMES:
        said = [words for words in WORDS[name] if words[0] in texts or words[1] in texts]
        assert len(said) >= 2 or len(WORDS[name]) < 2, name
    for word in ("two", "several", "couple of", "men", "people", "sheep", "motorcycle", "couch"):
        assert word in texts, word
    assert any(word in texts for word in CLUTTER_SHAPES)
    assert any(word in texts for word in NEVER_DRAWN)


def test_number_of_objects_is_said(verdict):
    scene = draw_classes(("dog",), 3, size_px=8)
    count = len(scene.objects)
    texts = [caption_scene(scene, Random(seed)).lower() for seed in range(60)]
    if count == 1:
        assert not any("dogs" in text or "puppies" in text for text in texts)
    assert all(verdict(text).labels == (CLASS_NAMES.index("dog"),) for text in texts)
    many = next(
        scene
        for scene in (draw_classes(("dog",), seed, size_px=8) for seed in range(99))
        if len(scene.objects) == 3
    )
    texts = [caption_scene(many, Random(seed)).lower() for seed in range(60)]
    assert all("dogs" in text or "puppies" in text for text in texts)
    assert any("three" in text for text in texts) and not any("two" in text for text in texts)


def test_clutter_and_colors_are_sometimes_said(present):
    scenes = [draw_scene("validation", index, size_px=8) for index in range(200)]
    with_clutter = [scene for scene in scenes if scene.clutter]
    said = [
        any(name in caption_scene(scene, Random(1)) for name in scene.clutter)
        for scene in with_clutter
    ]
    assert 0.25 < np.mean(said) < 0.65
    colors = [
        any(item.color in caption_scene(scene, Random(2)) for item in scene.objects)
        for scene in scenes
    ]
    assert 0.2 < np.mean(colors) < 0.7
