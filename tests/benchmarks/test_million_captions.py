import json
import os
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from benchmarks import million_captions
from benchmarks.million_captions import (
    Watch,
    markdown,
    rows_at,
    slope,
    take_sample,
    verdict,
    write_captions,
)
from t2ipal.captions import NounFilter, load_vocabulary


def test_a_small_run(tmp_path, ray_session, capsys):
    flags = {
        "output": tmp_path / "out", "num-captions": 1200, "images-per-shard": 100,
        "num-workers": 1, "sample-seconds": 0.05,
    }  # fmt: skip
    result = million_captions.main([w for k, v in flags.items() for w in (f"--{k}", str(v))])
    assert (result["num_images"], result["num_shards"]) == (1200, 12)
    # Three of each shard; config, manifest, rejected captions, a section and its captions.
    assert result["num_objects"] == 3 * 12 + 5
    assert result["images_per_object"] == pytest.approx(1200 / 41, abs=0.1)
    assert result["images_per_second"] > 0 and result["worker_cpu_us_an_image"] > 0
    driver = result["driver_mib"]
    assert 0 < driver["with Ray and no captions"] <= driver["at its peak"]
    samples = result["samples"]
    assert len(samples["images"]) == len(samples["driver"]) == len(samples["worker 1"]) > 0
    assert samples["images"] == sorted(samples["images"])
    assert min(samples["worker 1"]) > 10  # a Python process that has loaded numpy
    printed = capsys.readouterr().out.splitlines()
    last = json.loads(printed[-1])
    assert last == {name: value for name, value in result.items() if name != "samples"}
    assert json.loads((tmp_path / "out" / "million.json").read_text()) == result
    assert Image.open(tmp_path / "out" / "memory.png").size == (520, 400)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"million.json", "memory.png"}


def test_captions_differ_and_name_their_classes():
    vocabulary = load_vocabulary("voc2007")
    captions = write_captions(500, vocabulary)
    assert max(Counter(caption.caption for caption in captions).values()) == 1
    assert len({caption.caption_id for caption in captions}) == 500
    noun_filter = NounFilter(vocabulary)
    for caption in captions[::7]:
        assert {*caption.labels} <= {*noun_filter(caption.caption).labels}


def test_images_between_markers_are_in_proportion_to_time():
    markers = {20.0: 100, 12.0: 50}
    assert rows_at([9.0, 10.0, 11.0, 12.0, 16.0, 30.0], markers, 10.0).tolist() == [
        0, 0, 25, 50, 100, 150,
    ]  # fmt: skip


def test_growth_is_that_of_the_second_half():
    rows = np.arange(0, 1_000_001, 1000)
    shards = 90 * (rows % 10_000) / 10_000  # fills and is stored, which is no growth
    mib = 300 + shards + 3 * rows / 100_000
    mib[:500] = 10_000  # the first half does not count, nor what comes after the last image
    mib[-1] = 10_000
    assert slope(rows, mib, 1_000_000) == pytest.approx(3.0, abs=0.01)
    assert slope(rows, np.where(rows % 3000, mib, np.nan), 1_000_000) == pytest.approx(3, abs=0.5)
    assert slope(rows[:600], mib[:600], 1_000_000) is None
    assert verdict({"driver": 3.0, "worker 1": -1.0}, flat_mib=2) is False
    assert verdict({"driver": 1.9, "worker 1": -1.0}, flat_mib=2) is True
    assert verdict({"driver": 3.0, "worker 1": None}, flat_mib=2) is None


def test_table_says_whether_memory_is_flat():
    result = {
        "num_images": 1_000_000, "images_per_second": 2000.0, "worker_cpu_us_an_image": 400,
        "seconds": {"all": 600.0}, "num_objects": 374, "images_per_object": 2673.8,
        "driver_mib": {"at its peak": 1200},
    }  # fmt: skip

    def table(growth, flat):
        return markdown({**result, "growth_mib_per_100k_images": growth, "flat": flat})

    assert "| memory is flat | **no** |" in table({"driver": 9.0, "worker 1": 0.0}, False)
    shown = table({"driver": None, "worker 1": -0.5}, None)
    assert "| growth of driver | cannot be told: too few samples in the second half |" in shown
    assert "| growth of worker 1 | -0.50 MiB for each 100,000 images |" in shown
    assert "| objects | 374: 2,673.8 images each |" in shown


def test_watch_sees_this_process(tmp_path):
    (tmp_path / str(os.getpid())).touch()
    (tmp_path / "999999999").touch()  # a worker that is gone
    sample = take_sample(tmp_path)
    assert sample.workers_mib == pytest.approx({str(os.getpid()): sample.driver_mib}, rel=0.2)
    watch = Watch(tmp_path, 0.01)
    with watch.watching():
        while len(watch.samples) < 2:
            pass
    assert watch.samples[0].at < watch.samples[1].at


@pytest.mark.parametrize("name", ["num-captions", "images-per-shard", "sample-seconds"])
def test_bad_input_is_named(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name.replace('-', '_')} must be > 0, got 0"):
        million_captions.main(["--output", str(tmp_path / "out"), f"--{name}", "0"])
    assert not (tmp_path / "out").exists()
