"""Runs that grow, go on and try again: what was stored before stays as it is."""

import dataclasses
import json
import shutil
import tarfile
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_synthesis import BrokenSynthesizer, FakeConfig, FakeSynthesizer, a_request, texts
from small_shard import all_samples

from benchmarks.chaos.checks import run_contents
from t2ipal.config import to_dict
from t2ipal.store import (
    Sample,
    Store,
    committed_shards,
    read_captions,
    read_images,
    read_manifest,
    run_status,
    shards,
    tables,
)
from t2ipal.store.tables import SIDECAR_SCHEMA
from t2ipal.synthesis.completion import Tally, finish
from t2ipal.synthesis.growth import record_request
from t2ipal.synthesis.making import add_images, synthesize
from t2ipal.synthesis.plans import ShardPlan
from t2ipal.synthesis.remaking import remake
from t2ipal.synthesis.request import ExecutionConfig


class MendedSynthesizer(FakeSynthesizer):
    """Makes what FakeSynthesizer fails at, but for captions with "hopeless"."""

    def __call__(self, batch):
        assert all("fail" in text for text in batch["caption"])
        mended = [t if "hopeless" in t else t.replace("fail", "") for t in batch["caption"]]
        return super().__call__({**batch, "caption": np.array(mended)})


@pytest.mark.parametrize("steps", [[(3, 1), (7, 1)], [(5, 1), (5, 4)], [(3, 1), (6, 2), (6, 5)]])
def test_a_run_grows_without_touching_old_shards(tmp_path, steps):
    store, before = Store(tmp_path / "grown"), {}
    for count, images in steps:
        config = FakeConfig(images_per_caption=images)
        request = a_request(texts(count), config)
        summary = synthesize(store, request, factory=FakeSynthesizer)
        now = run_contents(store)
        kept = {key: now[key] for key in before if key.startswith(("images/", "config"))}
        assert kept == {key: data for key, data in before.items() if key in kept}
        before = now
        assert summary.num_images == count * images
        rows = all_samples(store)
        samples = {(row.caption_id, row.k) for row in rows}
        assert samples == {(f"id {i}", k) for i in range(count) for k in range(images)}
        assert len(rows) == count * images
        assert read_manifest(store).settings.num_captions == count
        assert read_captions(store) == request.captions.kept
    again = synthesize(store, request, factory=BrokenSynthesizer)
    assert again.num_shards_skipped == again.num_shards and run_contents(store) == before


def test_a_run_never_shrinks(tmp_path):
    store = Store(tmp_path)
    synthesize(store, a_request(), factory=FakeSynthesizer)
    before = run_contents(store)
    with pytest.raises(ValueError, match=r"holds 11 captions, and 1 of them .* \(first: id 10\)"):
        synthesize(store, a_request(texts(10)), factory=FakeSynthesizer)
    with pytest.raises(ValueError, match=r"images_per_caption: 2 there, 1 here. A run only grows"):
        synthesize(
            store, a_request(config=FakeConfig(images_per_caption=1)), factory=FakeSynthesizer
        )
    assert run_contents(store) == before


OTHERS = [
    a_request(texts(3)),
    a_request(config=FakeConfig(images_per_caption=1)),
    a_request(config=FakeConfig(guidance_scale=3.0)),
]


@pytest.mark.parametrize("other", OTHERS, ids=["captions", "images", "settings"])
def test_a_run_is_safe_from_other_requests_before_its_first_shard(tmp_path, other):
    """Another driver comes while the first one works on its first shard."""
    store, alone = Store(tmp_path / "both"), Store(tmp_path / "alone")
    refused = []

    class Interrupted(FakeSynthesizer):
        def __init__(self, config):
            super().__init__(config)
            with pytest.raises(ValueError, match=r"unless it is running now, nothing is lost") as e:
                synthesize(store, other, factory=BrokenSynthesizer)
            refused.append(e)

    synthesize(store, a_request(), factory=Interrupted)
    synthesize(alone, a_request(), factory=FakeSynthesizer)
    assert len(refused) == 1 and run_contents(store) == run_contents(alone)


@pytest.mark.parametrize("steps", [[(3, 2), (5, 2)], [(3, 2), (3, 4)], [(3, 1), (5, 2)]])
def test_the_manifest_tells_of_what_another_driver_added(tmp_path, steps):
    """The larger request is carried out while the smaller one is at work."""
    store, alone = Store(tmp_path / "both"), Store(tmp_path / "alone")
    small, large = [a_request(texts(n), FakeConfig(images_per_caption=k)) for n, k in steps]

    class Overtaken(FakeSynthesizer):
        def __init__(self, config):
            super().__init__(config)
            synthesize(store, large, factory=FakeSynthesizer)

    summary = synthesize(store, small, factory=Overtaken)
    assert summary.num_captions == steps[1][0]
    for request in (small, large):
        synthesize(alone, request, factory=FakeSynthesizer)
    assert read_manifest(store) == read_manifest(alone)
    assert run_contents(store) == run_contents(alone)


@pytest.mark.parametrize("step", ["before it lists shards", "after it did", "as it writes"])
def test_a_manifest_that_another_driver_wrote_over_is_written_again(tmp_path, step):
    """The larger request ends while the smaller one is about to write its manifest."""
    small, large = a_request(texts(3)), a_request(texts(5))
    synthesize(Store(tmp_path / "both"), small, factory=FakeSynthesizer)

    class Slow(Store):
        def list(self, prefix=""):
            self.overtaken(prefix == "images/" and step == "before it lists shards")
            keys = super().list(prefix)
            self.overtaken(prefix == "images/" and step == "after it did")
            return keys

        def write(self, key, data):
            self.overtaken(key == "manifest.json" and step == "as it writes")
            super().write(key, data)

        def overtaken(self, now):
            if now:
                synthesize(Store(self.uri), large, factory=FakeSynthesizer)

    store = Slow(tmp_path / "both")
    settings = read_manifest(store).settings
    assert settings.num_captions == 3
    assert finish(store, settings).settings.num_captions == 5
    alone = Store(tmp_path / "alone")
    for request in (small, large):
        synthesize(alone, request, factory=FakeSynthesizer)
    assert read_manifest(store) == read_manifest(alone)


def test_another_command_that_adds_images_first_is_named(tmp_path):
    """And nothing of these is lost without a word."""
    synthesize(Store(tmp_path), a_request(texts(3)), factory=FakeSynthesizer)

    class Overtaken(Store):
        def write_if_absent(self, key, data):
            if key == "sections/00001.json":
                synthesize(Store(self.uri), a_request(texts(5)), factory=FakeSynthesizer)
            return super().write_if_absent(key, data)

    with pytest.raises(RuntimeError, match="Another command has just added images"):
        add_images(Overtaken(tmp_path), {0: 5}, factory=FakeSynthesizer)
    add_images(Store(tmp_path), {0: 5}, factory=FakeSynthesizer)
    assert len(all_samples(Store(tmp_path))) == 5 * 2 + 5


def test_a_run_without_a_shard_can_be_begun_anew(tmp_path):
    """By removing what the refusal of other requests names."""
    store, alone = Store(tmp_path / "anew"), Store(tmp_path / "alone")
    with pytest.raises(FileNotFoundError):
        synthesize(store, a_request(texts(99)), factory=BrokenSynthesizer)
    (tmp_path / "anew/config.json").unlink()
    shutil.rmtree(tmp_path / "anew/sections")
    for each in (store, alone):
        synthesize(each, a_request(texts(3)), factory=FakeSynthesizer)
    assert run_contents(store) == run_contents(alone)


def test_growth_that_was_cut_short_goes_on(tmp_path):
    """Killed between the sections of two growths: the next run finds what is missing."""
    store, whole = Store(tmp_path / "cut"), Store(tmp_path / "whole")
    larger = a_request(texts(6), FakeConfig(images_per_caption=3))
    for each in (store, whole):
        synthesize(each, a_request(texts(4)), factory=FakeSynthesizer)
    record_request(store, larger.captions.kept[:4], [], 3, 8)  # its second section never came
    for each in (store, whole):
        synthesize(each, larger, factory=FakeSynthesizer)
    assert run_contents(store) == run_contents(whole)


def test_failed_samples_are_tried_again_alone(tmp_path):
    store = Store(tmp_path)
    request = a_request(["a dog", "a fail dog", "a cat", "a hopeless fail cat", "a dog"])
    lenient = ExecutionConfig(max_failed_fraction=0.5)
    synthesize(store, request, lenient, factory=FakeSynthesizer)
    first = run_contents(store)
    again = dataclasses.replace(lenient, retry_failed=True)
    for attempt in (1, 2):
        summary = synthesize(store, request, again, factory=MendedSynthesizer)
        assert (summary.num_images, summary.num_failed) == (8, 2)
        assert store.exists(f"images/00000-retry{attempt}.json")
    now = run_contents(store)
    assert all(now[key] == data for key, data in first.items() if key != "manifest.json")
    rows = all_samples(store)
    assert len({(row.caption_id, row.k) for row in rows}) == len(rows) == 10
    assert {row.caption_id for row in rows if row.status == "failed"} == {"id 3"}
    mended = next(row for row in rows if row.caption_id == "id 1" and row.k == 1)
    assert mended.key == "00000-retry1-00001"
    shown = [row.key for row, _ in read_images(store, "00000-retry1")]
    assert shown == ["00000-retry1-00000", "00000-retry1-00001"]
    manifest = read_manifest(store)
    assert (manifest.num_images, manifest.num_failed) == (8, 2)
    # Without the option nothing is tried, and what failed still counts.
    with pytest.raises(RuntimeError, match="2 of 10 samples failed"):
        synthesize(store, request, factory=BrokenSynthesizer)


class Missing(FakeSynthesizer):
    """Fails at everything, until the cause is gone."""

    def __call__(self, batch):
        count = len(batch["k"])
        return {
            **super().__call__(batch), "status": ["failed"] * count, "reason": ["gone"] * count
        }  # fmt: skip


def test_a_run_that_stopped_for_its_failures_goes_on_by_one_command(tmp_path):
    """That of the message, with the share that may fail as it is by default."""
    store, request = Store(tmp_path), a_request(texts(80))
    with pytest.raises(RuntimeError, match=r"16 of 160 samples .* add --retry-failed .* gone"):
        synthesize(store, request, factory=Missing)
    made = []

    class Mended(FakeSynthesizer):
        def __call__(self, batch):
            made.extend(zip(batch["caption_id"], batch["k"], batch["attempt"]))
            return super().__call__(batch)

    summary = synthesize(store, request, ExecutionConfig(retry_failed=True), factory=Mended)
    assert (summary.num_images, summary.num_failed, len(made)) == (160, 0, 160)
    assert [attempt for *_, attempt in made] == [1] * 16 + [0] * 144


def test_retries_that_fail_again_stop_the_run(tmp_path):
    store, request, retry = (
        Store(tmp_path),
        a_request(texts(80)),
        ExecutionConfig(retry_failed=True),
    )
    for number, run in enumerate((ExecutionConfig(), retry, retry)):
        with pytest.raises(RuntimeError, match="16 of 160 samples failed"):
            synthesize(store, request, run, factory=Missing)
        assert len(store.list("images/00000")) == len(store.list("images/00001")) == 3 + 3 * number
    assert run_status(store).num_shards_done == 2


def test_failures_that_another_driver_makes_again(tmp_path):
    """Between the count of what failed and the search for its reasons."""
    store, request = Store(tmp_path), a_request(texts(4))
    synthesize(store, request, ExecutionConfig(max_failed_fraction=1), factory=Missing)
    tally = Tally(store, num_samples=8, num_waiting=0, max_failed_fraction=0.5)
    tally.add(committed_shards(store))
    synthesize(store, request, ExecutionConfig(retry_failed=True), factory=FakeSynthesizer)
    with pytest.raises(RuntimeError, match=r"8 of 8 samples failed.*made again meanwhile"):
        tally.check()


class UnluckySynthesizer(FakeSynthesizer):
    """Fails for half of all seeds, whatever the caption says."""

    def __call__(self, batch):
        output = super().__call__(batch)
        unlucky = output["seed"] % 2 == 1
        return {
            **output,
            "status": np.where(unlucky, "failed", "ok"),
            "reason": np.where(unlucky, "black", ""),
        }


def try_again(store, count):
    request = a_request(texts(6))
    run = ExecutionConfig(max_failed_fraction=1, retry_failed=count > 0)
    for _ in range(max(count, 1)):
        summary = synthesize(store, request, run, factory=UnluckySynthesizer)
    return summary


def test_each_attempt_has_other_seeds_and_comes_out_again(tmp_path):
    store, twin = Store(tmp_path / "run"), Store(tmp_path / "twin")
    for each in (store, twin):
        try_again(each, 0)
    first = all_samples(store)
    assert {row.attempt for row in first} == {0}
    seeds = {(row.caption_id, row.k): row.seed for row in first}
    for each in (store, twin):
        assert try_again(each, 9).num_failed == 0
    assert run_contents(store) == run_contents(twin)
    rows = all_samples(store)
    assert {0, 1} < {row.attempt for row in rows}
    for row in rows:
        shard = row.key.rpartition("-")[0]
        assert row.attempt == int(shard.partition("-retry")[2] or 0)
        assert (row.seed == seeds[row.caption_id, row.k]) == (row.attempt == 0)
        remade = remake(store, row.key, UnluckySynthesizer)
        assert remade.same is True and remade.sample == row
        assert row in [told for told, _ in read_images(store, shard)]


def test_a_run_from_before_attempts_had_seeds_goes_on(tmp_path, monkeypatch):
    """Its sidecars and retries say nothing of attempts, and were drawn with the first's seeds."""
    store, plan_again = Store(tmp_path), ShardPlan.again
    with monkeypatch.context() as patch:
        patch.setattr(tables, "SIDECAR_SCHEMA", OLD_SCHEMA)
        patch.setattr(shards, "to_dict", without_attempt)
        patch.setattr(ShardPlan, "again", lambda *words: plan_again(*words[:3], attempt=0))
        try_again(store, 0)
        try_again(store, 1)
    assert "attempt" not in pq.read_schema(tmp_path / "images/00000-retry1.parquet").names
    with tarfile.open(tmp_path / "images/00000.tar") as tar:
        told = [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]
    assert told and all("attempt" not in row for row in told)
    before = run_contents(store)
    old = all_samples(store)
    assert {row.attempt for row in old} == {0}
    retried = [row for row in old if "-retry1-" in row.key]
    assert retried and {row.status for row in retried} == {"failed"}  # for ever, as it was
    assert next(read_images(store, "00000"))[0] in old
    for row in retried:
        with pytest.raises(RuntimeError, match=r"failed again: black"):
            remake(store, row.key, UnluckySynthesizer)
    ok = next(row for row in old if row.is_image)
    remade = remake(store, ok.key, UnluckySynthesizer)
    assert (remade.sample, remade.same) == (ok, True)

    assert try_again(store, 9).num_failed == 0
    now = run_contents(store)
    old_keys = [key for key in before if key.startswith("images/")]
    assert {key: now[key] for key in old_keys} == {key: before[key] for key in old_keys}
    later = [row for row in all_samples(store) if "-retry" in row.key]
    assert min(row.attempt for row in later) == 2
    assert all(remake(store, row.key, UnluckySynthesizer).same for row in later)


OLD_SCHEMA = pa.schema([field for field in SIDECAR_SCHEMA if field.name != "attempt"])


def without_attempt(record):
    values = to_dict(record)
    if isinstance(record, Sample):
        del values["attempt"]
    return values


def test_some_captions_get_more_images(tmp_path):
    """With numbers of their own, in new shards; again without anything new, it does nothing."""
    store = Store(tmp_path)
    synthesize(store, a_request(texts(5)), factory=FakeSynthesizer)
    before = run_contents(store)
    extras = {4: 1, 1: 3, 0: 2}
    summary = add_images(store, extras, factory=FakeSynthesizer)
    assert (summary.num_images, summary.num_captions) == (16, 5)
    now = run_contents(store)
    old = [key for key in before if key.startswith(("images/", "sections/", "config"))]
    assert {key: now[key] for key in old} == {key: before[key] for key in old}
    counts = Counter((row.caption_id, row.k) for row in all_samples(store))
    more = {(f"id {at}", 2 + k) for at, count in extras.items() for k in range(count)}
    assert {*counts} == {(f"id {i}", k) for i in range(5) for k in range(2)} | more
    assert max(counts.values()) == 1
    status = run_status(store)
    assert status.num_samples == status.num_images == 16
    assert status.num_shards == status.num_shards_done == summary.num_shards

    again = add_images(store, {}, factory=BrokenSynthesizer)
    assert again.num_shards_skipped == summary.num_shards and run_contents(store) == now
    add_images(store, {1: 1}, factory=FakeSynthesizer)
    last = all_samples(store)[-1]
    assert (last.caption_id, last.k) == ("id 1", 5)
    assert remake(store, last.key, FakeSynthesizer).same is True

    # More captions are welcome, more images of every caption are not.
    grown = synthesize(store, a_request(texts(6)), factory=FakeSynthesizer)
    assert grown.num_images == 19
    with pytest.raises(ValueError, match="was repaired: it cannot get more images of every"):
        synthesize(
            store, a_request(texts(6), FakeConfig(images_per_caption=3)), factory=FakeSynthesizer
        )


def test_extra_images_that_failed_are_tried_again(tmp_path):
    store = Store(tmp_path)
    run = ExecutionConfig(max_failed_fraction=1)
    words = ["a dog", "a fail dog"]
    synthesize(store, a_request(words), run, factory=FakeSynthesizer)
    add_images(store, {0: 1, 1: 2}, run, factory=FakeSynthesizer)
    retry = ExecutionConfig(max_failed_fraction=1, retry_failed=True)
    done = add_images(store, {}, retry, factory=MendedSynthesizer)
    assert (done.num_images, done.num_failed) == (7, 0)
    ok = {(row.caption_id, row.k) for row in all_samples(store) if row.is_image}
    assert ok == {("id 0", 0), ("id 0", 1), ("id 0", 2), *(("id 1", k) for k in range(4))}
