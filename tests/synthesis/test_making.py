"""A whole run in one process: what it stores, skips and refuses."""

import dataclasses
import io
import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import PIL
import pytest
from fake_synthesis import BrokenSynthesizer, FakeConfig, FakeSynthesizer, a_request, caption, texts
from PIL import Image
from small_shard import all_samples

from benchmarks.chaos.checks import run_contents
from t2ipal.captions import FilterResult
from t2ipal.config import fingerprint, to_dict
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.store import (
    Caption,
    Store,
    read_captions,
    read_encoded_images,
    read_images,
    read_manifest,
    read_rejected,
)
from t2ipal.store.images import ENDINGS, decode_image
from t2ipal.synthesis.making import synthesize
from t2ipal.synthesis.plans import image_settings
from t2ipal.synthesis.remaking import remake
from t2ipal.synthesis.request import ExecutionConfig


@dataclass(frozen=True)
class OldConfig:
    """As it was when every image was a JPEG: what is no field is not stored."""

    pipeline: str = "fake"
    guidance_scale: float = 2.0
    images_per_caption: int = 2
    seed: int = 0
    batch_size: int = 3
    jpeg_quality: int = 90
    image_format: ClassVar[str] = "jpeg"
    jpeg_subsampling: ClassVar[str] = "4:2:0"


class CountingSynthesizer(FakeSynthesizer):
    num_samples = 0

    def __call__(self, batch):
        CountingSynthesizer.num_samples += len(batch["k"])
        return super().__call__(batch)


def test_local_run_stores_rows_images_captions_and_manifest(tmp_path):
    store = Store(tmp_path / "run")
    summary = synthesize(store, a_request(), factory=FakeSynthesizer)
    assert (summary.num_captions, summary.num_images, summary.num_failed) == (11, 22, 0)
    assert (summary.num_shards, summary.num_shards_skipped) == (3, 0)
    assert summary.images_per_second > 0
    rows = all_samples(store)
    assert [(row.caption_id, row.k) for row in rows[:3]] == [
        ("id 0", 0),
        ("id 0", 1),
        ("id 1", 0),
    ]
    assert rows[2].labels == (0, 1)
    assert (rows[0].width, rows[0].height, rows[0].status) == (24, 16, "ok")
    row, image = next(read_images(store, "00000"))
    assert row == rows[0]
    assert image.shape == (16, 24, 3)
    manifest = read_manifest(store)
    assert manifest.class_names == ("dog", "cat")
    assert manifest.num_images == 22
    assert manifest.settings.synthesis["guidance_scale"] == 2.0
    assert read_captions(store) == a_request().captions.kept
    assert read_rejected(store) == [Caption("r", "a house", reason="no class")]


def test_a_bucket_holds_the_same_bytes_as_a_folder(tmp_path, s3_server):
    folder, bucket = Store(tmp_path), Store("s3://runs/bytes", s3_server)
    for store in (folder, bucket):
        synthesize(store, a_request(), factory=FakeSynthesizer)
    assert run_contents(bucket) == run_contents(folder)
    assert synthesize(bucket, a_request(), factory=FakeSynthesizer).num_shards_skipped == 3


def test_rerun_skips_finished_shards_and_remakes_missing_ones(tmp_path):
    store = Store(tmp_path)
    synthesize(store, a_request(), factory=FakeSynthesizer)
    before = run_contents(store)
    (tmp_path / "images/00001.json").unlink()  # as if killed before the marker
    (tmp_path / "images/00001.tar").write_bytes(b"half a tar")
    (tmp_path / "manifest.json").unlink()
    CountingSynthesizer.num_samples = 0
    summary = synthesize(store, a_request(), factory=CountingSynthesizer)
    assert (summary.num_shards_skipped, CountingSynthesizer.num_samples) == (2, 8)
    assert run_contents(store) == before
    summary = synthesize(store, a_request(), factory=BrokenSynthesizer)
    assert summary.num_shards_skipped == 3  # nothing is loaded where nothing is left to do


def test_failed_samples_are_rows_without_images(tmp_path):
    store = Store(tmp_path)
    texts = ["a dog", "a fail dog", "a cat", "a raise cat", "a dog"]
    config = FakeConfig(images_per_caption=1)
    run = ExecutionConfig(max_failed_fraction=0.4)
    summary = synthesize(store, a_request(texts, config), run, factory=FakeSynthesizer)
    assert (summary.num_images, summary.num_failed) == (3, 2)
    rows = all_samples(store)
    assert [row.status for row in rows] == ["ok", "failed", "ok", "failed", "ok"]
    assert [row.reason for row in rows if row.reason] == [
        "black image",
        "RuntimeError: out of paint",
    ]
    assert rows[3].seed is None
    stored = [row.caption_id for row, _ in read_images(store, "00000")]
    assert stored == ["id 0", "id 2", "id 4"]


def test_too_many_failures_stop_the_run_and_name_the_reason(tmp_path):
    texts = ["a fail dog", "a dog", "a dog"]
    message = r"2 of 6 samples failed, .* add --retry-failed .*2 times\): black image$"
    with pytest.raises(RuntimeError, match=message):
        synthesize(Store(tmp_path), a_request(texts), factory=FakeSynthesizer)
    assert not Store(tmp_path).exists("manifest.json")


def test_another_runs_folder_is_refused_and_left_alone(tmp_path):
    store = Store(tmp_path)
    synthesize(store, a_request(), factory=FakeSynthesizer)
    before = run_contents(store)
    other = a_request(config=FakeConfig(guidance_scale=3.0))
    message = r"holds another run.*synthesis.guidance_scale: 2.0 there, 3.0 here"
    with pytest.raises(ValueError, match=message):
        synthesize(store, other, factory=FakeSynthesizer)
    assert run_contents(store) == before


@pytest.mark.parametrize("image_format", ENDINGS)
def test_images_in_each_format(tmp_path, image_format):
    """A run in one of them stores the same bytes twice, grows, and makes one image again."""
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    config = FakeConfig(image_format=image_format)
    for store in (one, two):
        synthesize(store, a_request(texts(4), config), factory=FakeSynthesizer)
    assert run_contents(one) == run_contents(two)
    synthesize(one, a_request(texts(6), config), factory=FakeSynthesizer)
    keys = []
    for shard in ("00000", "00001"):
        for row, data in read_encoded_images(one, shard):
            assert Image.open(io.BytesIO(data)).format == image_format.upper()
            keys.append(row.key)
    assert keys == [row.key for row in all_samples(one)] and len(keys) == 12
    remade = remake(one, keys[9], FakeSynthesizer)
    assert (remade.sample.key, remade.same, remade.differing) == (keys[9], True, ())
    pixels = FakeSynthesizer(config)({"caption_id": ["id 4"], "caption": ["a"], "k": [1]})["image"][
        0
    ]
    error = np.abs(decode_image(remade.image).astype(int) - pixels).mean()
    assert error == 2 if image_format == "png" else 0 < error < 60  # its batch's tint is 2 more


class OtherDevice(FakeSynthesizer):
    """Its images are of other bits."""

    def __init__(self, config):
        super().__init__(config)
        self.versions = {"torch": "2", "device": config.pipeline}

    def __call__(self, batch):
        output = super().__call__(batch)
        return {**output, "image": output["image"] + (self.config.pipeline == "slow")}


def test_an_image_that_comes_out_otherwise_says_what_differs(tmp_path):
    store, request = Store(tmp_path), a_request(texts(1), FakeConfig("fast"))
    synthesize(store, request, factory=OtherDevice)
    marker = store.read("images/00000.json")
    versions = {"pillow": PIL.__version__, "torch": "2", "device": "fast"}
    assert json.loads(marker)["versions"] == versions

    def other(config):
        return OtherDevice(FakeConfig("slow"))

    remade = remake(store, "00000-00000", other)
    assert (remade.same, remade.differing) == (False, ["device: 'fast' there, 'slow' here"])
    store.write("images/00000.json", marker.replace(b'"device"', b'"of_old"'))
    remade = remake(store, "00000-00000", other)
    assert remade.differing == ["of_old: 'fast' there, None here"]


def test_a_run_of_another_format_is_refused(tmp_path):
    store = Store(tmp_path)
    synthesize(store, a_request(), factory=FakeSynthesizer)
    for changes, line in (
        ({"image_format": "png"}, "synthesis.image_format: 'jpeg' there, 'png' here"),
        ({"jpeg_subsampling": "4:4:4"}, "synthesis.jpeg_subsampling: '4:2:0' there, '4:4:4' here"),
    ):
        with pytest.raises(ValueError, match=f"holds another run. Differences: {line}"):
            request = a_request(config=FakeConfig(**changes))
            synthesize(store, request, factory=FakeSynthesizer)


def test_a_run_from_before_there_were_formats_goes_on(tmp_path):
    old = a_request(texts(4), OldConfig())
    assert "image_format" in {field.name for field in dataclasses.fields(FakeConfig)}
    assert old.settings() == a_request(texts(4)).settings()
    store, whole = Store(tmp_path / "old"), Store(tmp_path / "whole")
    synthesize(store, old, factory=FakeSynthesizer)
    grown = synthesize(store, a_request(texts(6)), factory=FakeSynthesizer)
    assert (grown.num_shards, grown.num_shards_skipped) == (2, 1)
    for count in (4, 6):
        synthesize(whole, a_request(texts(count)), factory=FakeSynthesizer)
    assert run_contents(store) == run_contents(whole)
    # What was stored under a version's default settings is stored under them ever after.
    assert fingerprint(image_settings(to_dict(SynthesisConfig()))) == "0d376492a7e85f5a"


def test_a_shard_of_another_plan_is_refused(tmp_path):
    store = Store(tmp_path)
    synthesize(store, a_request(), factory=FakeSynthesizer)
    path = tmp_path / "images/00001.json"
    marker = json.loads(path.read_text())
    marker["plan"]["num_samples"], marker["plan_hash"] = 9, "0" * 16
    path.write_text(json.dumps(marker))
    for act in (
        lambda: synthesize(store, a_request(), factory=FakeSynthesizer),
        lambda: remake(store, "00001-00000", BrokenSynthesizer),
    ):
        with pytest.raises(ValueError, match=r"Shard 00001 .*num_samples: 9 there, 8 here"):
            act()


def test_request_checks():
    with pytest.raises(ValueError, match=r"nothing to draw"):
        dataclasses.replace(a_request(), captions=FilterResult([], []))
    with pytest.raises(ValueError, match=r"must be unique, got \['a'\]"):
        twice = FilterResult([caption("a", "x"), caption("a", "y")], [])
        dataclasses.replace(a_request(), captions=twice)
    with pytest.raises(ValueError, match=r"images_per_shard must be > 0, got 0"):
        a_request(images_per_shard=0)
