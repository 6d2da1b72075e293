"""A run as a whole: its settings, its manifest, and one look at all that it holds."""

import dataclasses
import json
from collections import Counter

import pytest
from small_shard import PLAN, all_samples, some_images, some_rows, some_settings

from t2ipal.config import to_dict
from t2ipal.store import (
    Caption,
    ManifestShard,
    Part,
    RunTotals,
    Section,
    Store,
    commit_shard,
    json_bytes,
    open_run,
    read_manifest,
    read_manifest_with_images,
    read_run,
    read_run_so_far,
    read_settings,
    write_manifest,
    write_section,
    write_section_captions,
)


def some_totals(num_captions=3):
    settings = some_settings(seed=1, images_per_caption=2)
    return RunTotals(**vars(settings), num_captions=num_captions, captions="0" * 16)


def test_manifest(store):
    with pytest.raises(
        FileNotFoundError, match=r"No manifest in .*\. Run jobs/synthesize.py first"
    ):
        read_manifest(store)
    marker = commit_shard(store, "00000", PLAN, some_rows(), some_images())
    manifest = write_manifest(store, some_totals())
    assert read_manifest(store) == manifest
    assert (manifest.num_images, manifest.num_failed) == (2, 1)
    assert manifest.class_names == ("dog", "cat")
    assert manifest.shards == (ManifestShard("00000", 3, 1, marker.tar, marker.sidecar),)
    assert manifest.settings.images_per_caption == 2


def test_a_manifest_is_stored_as_it_always_was(tmp_path):
    store = Store(tmp_path)
    manifest = write_manifest(store, some_totals())
    part = Part("aa", 7)
    manifest = dataclasses.replace(manifest, shards=(ManifestShard("00000", 3, 1, part, part),))
    values = {
        "class_names": ["dog", "cat"],
        "num_images": 0,
        "num_failed": 0,
        "settings": {
            "synthesis": {"seed": 1, "images_per_caption": 2},
            "vocabulary": "pets",
            "class_names": ["dog", "cat"],
            "prompt_names": ["dog", "cat"],
            "images_per_shard": 8,
            "num_captions": 3,
            "captions": "0000000000000000",
        },
        "shards": [
            {
                "shard": "00000",
                "num_rows": 3,
                "num_failed": 1,
                "tar": {"sha256": "aa", "size_bytes": 7},
                "sidecar": {"sha256": "aa", "size_bytes": 7},
            }
        ],
    }
    assert to_dict(manifest) == values
    later = json.loads(json.dumps(values))
    for place in (later, later["settings"], later["shards"][0], later["shards"][0]["tar"]):
        place["of_later"] = 1
    for written in (values, later):
        store.write("manifest.json", json_bytes(written))
        assert read_manifest(store) == manifest
    for name in values:
        store.write("manifest.json", json_bytes({n: v for n, v in values.items() if n != name}))
        with pytest.raises(ValueError, match=r"manifest.json in .* is damaged"):
            read_manifest(store)


def test_a_manifest_without_an_image_says_what_to_do(tmp_path):
    store = Store(tmp_path)
    commit_shard(store, "00000", PLAN, some_rows(failed=(0, 1, 2)), [None] * 3)
    write_manifest(store, some_totals())
    with pytest.raises(FileNotFoundError, match=r"all 3 samples failed.* add --retry-failed"):
        read_manifest_with_images(store)


def test_a_run_folder_keeps_its_settings(store):
    assert open_run(store, some_settings(seed=1, size=(2, 3)))
    assert not open_run(store, some_settings(seed=1, size=(2, 3)))
    refusal = r"another run. Differences: synthesis.seed: 1 there, 3 here.*or the same settings\."
    begin_anew = " .* nothing is lost by removing config.json and sections/ there to begin anew\\."
    with pytest.raises(ValueError, match=f"{refusal}{begin_anew}$"):
        open_run(store, some_settings(seed=3, size=(2, 3)))  # who wrote them may be at work
    stored = {
        "synthesis": {"seed": 1, "size": [2, 3]},
        "vocabulary": "pets",
        "class_names": ["dog", "cat"],
        "prompt_names": ["dog", "cat"],
        "images_per_shard": 8,
    }
    assert store.read("config.json") == json_bytes(stored)
    assert read_settings(store) == some_settings(seed=1, size=[2, 3])
    store.write("config.json", json_bytes({**stored, "of_later": 1}))
    assert read_settings(store) == some_settings(seed=1, size=[2, 3])
    with pytest.raises(ValueError, match=r"another run. Differences: of_later: 1 there, None here"):
        open_run(store, some_settings(seed=1, size=(2, 3)))
    store.write("config.json", json_bytes(stored))
    commit_shard(store, "00000", PLAN, some_rows(), some_images())
    with pytest.raises(ValueError, match=f"{refusal}$"):
        open_run(store, some_settings(seed=3, size=(2, 3)))
    for damaged in (b"{", b"{}", json_bytes({**stored, "class_names": "dog"})):
        store.write("config.json", damaged)
        with pytest.raises(ValueError, match=r"config.json in .* is damaged"):
            read_settings(store)
    store.write("config.json", b"{")
    with pytest.raises(ValueError, match=r"config.json in .* is damaged"):
        open_run(store, some_settings(seed=1))


def test_a_model_is_among_the_settings_where_it_is_known(tmp_path):
    store, model = Store(tmp_path), {"pipeline": "commit abc"}
    settings = dataclasses.replace(some_settings(), model=model)
    open_run(store, settings)
    assert json.loads(store.read("config.json"))["model"] == model
    assert read_settings(store) == settings
    with pytest.raises(FileNotFoundError, match=r"No run in .* Run jobs/synthesize.py first"):
        read_settings(Store(tmp_path / "other"))


class Counting(Store):
    """Counts what is read."""

    def __init__(self, uri):
        super().__init__(uri)
        self.reads = Counter()

    def read(self, key):
        self.reads[key] += 1
        return super().read(key)


def write_run(store, number=0):
    """Another section of three captions, and its shard."""
    captions = [Caption(f"{number}/{i}", f"a dog {i}", (0,)) for i in range(3)]
    key = write_section_captions(store, number, captions)
    write_section(store, number, Section(number, 1, 3 * number, 3, 0, 1, key))
    rows = [
        dataclasses.replace(row, key=row.key.replace("00000-", f"{number:05d}-", 1))
        for row in some_rows()
    ]
    commit_shard(store, f"{number:05d}", PLAN, rows, some_images())
    return captions


def test_a_look_at_a_run_reads_everything_once(tmp_path):
    store = Counting(tmp_path)
    captions = write_run(store)
    write_manifest(store, some_totals())
    store.reads.clear()
    run = read_run(store)
    assert store.reads["images/00000.json"] == 1 and "images/00000.parquet" not in store.reads
    for _ in range(3):
        assert run.captions == tuple(captions)
        assert run.images == tuple(row for row in some_rows() if row.is_image)
        assert run.settings == some_totals()
    assert {*store.reads.values()} == {1}
    assert {key for key in store.reads if key.startswith("images/")} == {
        "images/00000.json",
        "images/00000.parquet",
    }
    assert [marker.shard for marker in run.markers] == ["00000"]


def test_a_look_stays_the_same_while_the_run_grows(tmp_path):
    store = Store(tmp_path)
    captions = write_run(store)
    write_manifest(store, some_totals())
    run = read_run(store)
    write_run(store, 1)
    write_manifest(store, some_totals(6))
    assert run.captions == tuple(captions) and len(run.images) == 2
    assert run.settings.num_captions == 3
    later = read_run(store)
    assert len(later.captions) == 6 and len(later.images) == 4
    assert later.images == tuple(row for row in all_samples(store) if row.is_image)


def test_a_run_that_is_not_finished_gives_no_look(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"No manifest in .* Run jobs/synthesize.py first"):
        read_run(store)
    write_run(store)
    with pytest.raises(FileNotFoundError, match=r"No manifest"):
        read_run(store)
    write_manifest(store, some_totals())
    key = write_section_captions(store, 1, [Caption("new", "a cat", (1,))])
    write_section(store, 1, Section(1, 2, 3, 1, 0, 1, key))
    message = r"was asked for more, and 2 shards of it are missing. Run jobs/synthesize.py again"
    with pytest.raises(FileNotFoundError, match=message):
        read_run(store)


def test_a_run_so_far(store):
    with pytest.raises(FileNotFoundError, match=r"No run in .* Run jobs/synthesize.py first"):
        read_run_so_far(store)
    open_run(store, some_settings(seed=1))
    run = read_run_so_far(store)
    assert (run.num_missing, run.manifest.num_images, run.settings.num_captions) == (0, 0, 0)
    key = write_section_captions(store, 0, [Caption(f"{n}", "a dog", (0,)) for n in range(6)])
    write_section(store, 0, Section(0, 2, 0, 6, 0, 1, key))
    write_section(store, 1, Section(2, 1, 0, 6, 1, 2, ""))
    marker = commit_shard(store, "00000", PLAN, some_rows(), some_images())
    run = read_run_so_far(store)
    assert (run.num_missing, run.markers) == (2, (marker,))
    assert (run.manifest.num_images, run.manifest.num_failed) == (2, 1)
    assert (run.settings.num_captions, run.settings.images_per_caption) == (6, 3)
    assert run.manifest.class_names == run.settings.class_names == ("dog", "cat")
    # Once finished, it is what its manifest says, until it is asked for more.
    for shard in ("00001", "00002"):
        commit_shard(store, shard, PLAN, some_rows(), some_images())
    manifest = write_manifest(store, some_totals())
    assert read_run_so_far(store).manifest == manifest
    assert read_run_so_far(store) == read_run(store)
    write_section(store, 2, Section(3, 1, 0, 6, 3, 1, ""))
    run = read_run_so_far(store)
    assert (run.num_missing, run.manifest.num_images) == (1, 6)
