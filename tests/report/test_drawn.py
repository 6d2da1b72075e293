"""Which images a page shows and a judge looks at, and that no others are decoded."""

import numpy as np
import pytest
from small_run import write_random_judge
from small_shard import PLAN, some_settings

from t2ipal.pictovoc.judge import NAMED_THRESHOLD, load_judge
from t2ipal.pictovoc.scenes import CLASS_NAMES
from t2ipal.report import drawn
from t2ipal.report.config import ReportConfig
from t2ipal.report.drawn import drawn_evenly, look_at_images
from t2ipal.store import (
    RunSettings,
    Sample,
    Store,
    commit_shard,
    open_run,
    passing,
    read_run_so_far,
)
from t2ipal.store.images import decode_image, encode_image

SIDE = 224
"""At which a page shows an image, so that none is scaled here."""


def a_sample(shard, number, caption, labels, failed=False):
    return Sample(
        f"{shard}-{number:05d}", caption, caption, labels, 0, 0, number,
        "failed" if failed else "ok", "black image" if failed else "", "abc", SIDE, SIDE,
    )  # fmt: skip


def write_shard(store, shard, captions, failed=(), side=SIDE):
    """Images of the captions, whose first letter says which class they name; as they are stored."""
    rng = np.random.default_rng(int(shard[:5]))
    rows = [
        a_sample(shard, n, text, ("abcde".index(text[0]),), n in failed)
        for n, text in enumerate(captions)
    ]
    pixels = rng.integers(0, 255, (len(rows), side, side, 3), dtype=np.uint8)
    data = [encode_image(image, "jpeg", 90, "4:2:0") for image in pixels]
    stored = [None if row.status == "failed" else d for row, d in zip(rows, data)]
    commit_shard(store, shard, {**PLAN, "shard": shard}, rows, stored)
    return [decode_image(d) for d in stored if d is not None]


def begin(store, class_names=CLASS_NAMES, pipeline="pictovoc"):
    settings = {**vars(some_settings(pipeline=pipeline)), "class_names": class_names}
    open_run(store, RunSettings(**settings))


@pytest.fixture
def judge(tmp_path, monkeypatch):
    """One that was never trained, in place of the shipped one."""
    folder = tmp_path / "weights"
    folder.mkdir()
    write_random_judge(folder)
    monkeypatch.setattr(drawn, "WEIGHTS_DIR", folder)
    return load_judge(folder / "judge")


@pytest.fixture
def decoded(monkeypatch):
    """Counts the images that are decoded."""
    counted = []
    monkeypatch.setattr(
        passing, "decode_image", lambda data: (counted.append(1), decode_image(data))[1]
    )
    return counted


def test_captions_from_all_over_the_run_with_their_images(store, decoded):
    begin(store, ("apple", "bird"), "other")
    first = write_shard(store, "00000", ["a 1", "a 1", "b 2", "b 2"], failed=(1,))
    again = write_shard(store, "00000-retry1", ["a 1"])
    last = write_shard(store, "00001", ["a 3", "b 4", "a 1", "a 5"])
    sheet, judged = look_at_images(read_run_so_far(store), ReportConfig(num_captions=2))
    assert judged is None
    assert [entry.caption for entry in sheet] == ["a 1", "a 3"]  # every second one of five
    assert [entry.labels for entry in sheet] == [["apple"], ["apple"]]
    assert [entry.found for entry in sheet] == [None, None]
    for shown, expected in zip(sheet[0].images, [first[0], again[0], last[2]], strict=True):
        assert np.array_equal(shown, expected)
    assert np.array_equal(sheet[1].images[0], last[0]) and sheet[1].num_images == 1
    assert len(decoded) == 4


def test_a_caption_of_many_images_shows_some(store, decoded):
    begin(store, ("apple",), "other")
    write_shard(store, "00000", ["a"] * 5)
    write_shard(store, "00001", ["a"] * 5)
    (entry,), _ = look_at_images(read_run_so_far(store), ReportConfig(images_per_caption=3))
    assert (len(entry.images), entry.num_images, len(decoded)) == (3, 10, 3)


def test_what_the_judge_finds(store, judge):
    begin(store)
    images = write_shard(store, "00000", ["a 1", "b 2", "b 2", "c 3"])
    images += write_shard(store, "00001", ["d 4", "e 5"], side=SIDE // 2)  # not as those before
    found = judge.probs(images) > NAMED_THRESHOLD
    labels = [0, 1, 1, 2, 3, 4]
    sheet, judged = look_at_images(read_run_so_far(store), ReportConfig(num_captions=2))
    assert (judged.num_judged, judged.num_images) == (6, 6)
    assert judged.share == pytest.approx(found[range(6), labels].mean())
    assert judged.by_class == {
        name: pytest.approx(found[np.array(labels) == c, c].mean())
        for c, name in enumerate(CLASS_NAMES[:5])
    }
    seen = [[CLASS_NAMES[c] for c in np.flatnonzero(row)] for row in found]
    assert [entry.caption for entry in sheet] == ["a 1", "c 3"]
    assert [list(entry.found) for entry in sheet] == [[seen[0]], [seen[3]]]


def test_of_many_images_the_judge_sees_some_drawn_evenly(store, judge, decoded):
    begin(store)
    images = [*write_shard(store, "00000", ["a"] * 8), *write_shard(store, "00001", ["b"] * 8)]
    config = ReportConfig(num_captions=1, images_per_caption=2, num_judged=4)
    (entry,), judged = look_at_images(read_run_so_far(store), config)
    rows = drawn_evenly(16, 4)
    assert [row // 4 for row in rows] == [0, 1, 2, 3]  # one of each four
    found = judge.probs([images[row] for row in rows]) > NAMED_THRESHOLD
    assert (judged.num_judged, judged.num_images) == (4, 16)
    assert judged.share == pytest.approx(found[range(4), [0, 0, 1, 1]].mean())
    assert len(entry.found) == 2  # what is shown is judged too
    assert len(decoded) == len({*rows.tolist(), 0, 1})


def test_an_even_draw():
    assert drawn_evenly(3, 3).tolist() == drawn_evenly(3, 9).tolist() == [0, 1, 2]
    rows = drawn_evenly(1000, 10)
    assert [row // 100 for row in rows] == [*range(10)] and len({*(rows % 100)}) > 5
    assert rows.tolist() == drawn_evenly(1000, 10).tolist()
    assert drawn_evenly(5, 0).tolist() == drawn_evenly(0, 5).tolist() == []


@pytest.mark.parametrize(
    ("class_names", "pipeline"),
    [
        (CLASS_NAMES, "runs/other-model"),
        (CLASS_NAMES, "stabilityai/sdxl-turbo"),
        (CLASS_NAMES[::-1], "pictovoc"),
        (("apple", "bird", "cat"), "rendered"),
    ],
)
def test_the_judge_knows_the_embedded_world_alone(tmp_path, judge, class_names, pipeline):
    store = Store(tmp_path / "run")
    begin(store, class_names, pipeline)
    write_shard(store, "00000", ["a 1", "b 2"])
    sheet, judged = look_at_images(read_run_so_far(store), ReportConfig())
    assert judged is None and [entry.found for entry in sheet] == [None, None]


def test_a_run_without_images(tmp_path):
    store = Store(tmp_path)
    begin(store)
    assert look_at_images(read_run_so_far(store), ReportConfig()) == ([], None)
    write_shard(store, "00000", ["a 1"], failed=(0,))
    assert look_at_images(read_run_so_far(store), ReportConfig()) == ([], None)


def test_shards_without_a_chosen_image_are_not_read(tmp_path):
    store = Store(tmp_path)
    begin(store, ("apple", "bird"), "other")
    write_shard(store, "00000", ["a 1"])
    write_shard(store, "00001", ["b 2"])
    store.delete("images/00001.tar")
    sheet, _ = look_at_images(read_run_so_far(store), ReportConfig(num_captions=1))
    assert [entry.caption for entry in sheet] == ["a 1"]
    with pytest.raises(FileNotFoundError, match=r"images/00001.tar in .* is gone"):
        look_at_images(read_run_so_far(store), ReportConfig(num_captions=2))
    store.write("images/00001.parquet", b"torn")
    with pytest.raises(ValueError, match=r"images/00001.parquet in .* is not what its marker"):
        look_at_images(read_run_so_far(store), ReportConfig(num_captions=1))
