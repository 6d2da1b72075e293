import dataclasses
import json

import fake_clip
import numpy as np
import pytest
import torch
from small_run import FEW_SCENES, write_random_judge, write_small_run
from tiny_clip import write_tiny_clip

from benchmarks import claims as claims_benchmark
from benchmarks import world_pictures as pictures_benchmark
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.experiments import claims, world_pictures
from t2ipal.experiments.claims_table import (
    TAI_DPT,
    ZERO_SHOT,
    Setting,
    by_seed,
    markdown,
    measure,
    paired,
    plan_claims,
    plan_rows,
)
from t2ipal.experiments.demo import choose_captions
from t2ipal.experiments.fits import read_fits
from t2ipal.pictovoc.judge import NAMED_THRESHOLD, load_judge
from t2ipal.pictovoc.worlds import WORLDS, World
from t2ipal.store import Store, read_images, read_manifest
from t2ipal.synthesis.rendering import RenderingSynthesizer
from t2ipal.synthesis.request import SynthesisRequest

SMALL = {
    "num-captions": [20], "seeds": [0, 1], "main-images": [2], "image-counts": [1, 2],
    "guidance-scales": [3], "sweep-images": [1], "images-per-caption": [2], "num-labeled": [30],
    "caption-counts": [10],
    "test-sets": ["pictovoc"], "num-workers": [0], "set": ["training.num_epochs=1"],
}  # fmt: skip
FLAGS = [word for name, values in SMALL.items() for word in (f"--{name}", *map(str, values))]
ROWS = plan_rows(6, (1, 6), (1.0, 4.0), 4.0, 2, 100, (50,))


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A CLIP and a judge that were never trained, few scenes, and a rendering Stable Diffusion."""
    write_random_judge(tmp_path)
    monkeypatch.setattr(claims, "WEIGHTS_DIR", tmp_path)
    monkeypatch.setitem(WORLDS, "pictovoc", World(count=FEW_SCENES))
    real = claims.synthesize

    def render(*arguments, factory, **options):
        return real(*arguments, factory=RenderingSynthesizer, **options)

    monkeypatch.setattr(claims, "synthesize", render)
    return ["--backbone.model", str(write_tiny_clip(tmp_path / "clip"))]


def test_all_claims_and_again(world, tmp_path, capsys):
    output = tmp_path / "claims"
    arguments = ["--output", str(output), *FLAGS, *world]
    measured = claims_benchmark.main(arguments)
    printed = capsys.readouterr().out
    assert (output / "claims.md").read_text() in printed
    differences = json.loads(printed.splitlines()[-1])["claims"]
    assert differences["TaI-DPT over zero-shot CLIP"].keys() == {"pictovoc"}
    written = json.loads((output / "claims.json").read_text())
    assert written == json.loads(json.dumps(measured))

    rows = {(row["question"], row["title"]): row for row in written["rows"]}
    assert {row["images"] for row in rows.values()} == {
        "synthetic", "rendered", "guidance-3", "labeled-30",
    }  # fmt: skip
    assert written["variance_within"].keys() == {"synthetic", "rendered"}
    assert "features within captions: " in printed
    zero_shot, tai_dpt = rows["captions", "zero-shot CLIP"], rows["captions", "TaI-DPT"]
    assert zero_shot["mAP"]["pictovoc"]["seeds"] == [0] and zero_shot["judge_share"] is None
    assert tai_dpt["mAP"]["pictovoc"]["seeds"] == [0, 1] and tai_dpt["judge_share"] is None
    ours = rows["rendered images", "T2I-PAL"]
    assert 0 <= ours["judge_share"] <= 1
    few = rows["10 captions", "2 of each, rendered"]
    assert few["num_captions"] == 10 and few["judge_share"] is None
    assert few["mAP"] != ours["mAP"] == rows["all captions", "2 of each, rendered"]["mAP"]
    over = ours["mAP"]["pictovoc"]["over"]["TaI-DPT"]["mAPs"]
    pairs = zip(ours["mAP"]["pictovoc"]["mAPs"], tai_dpt["mAP"]["pictovoc"]["mAPs"])
    assert over == [a - b for a, b in pairs]

    flags = ["--output", str(tmp_path / "charts"), "--claims", str(output / "claims.json")]
    charts = pictures_benchmark.main([*flags, "--only", *world_pictures.CHARTS])
    assert {*charts["bytes"]} == {*world_pictures.CHARTS}

    # The last fit's line is cut off, as by a crash: only that fit is repeated.
    path = output / "fits.jsonl"
    whole = path.read_text()
    path.write_text(whole[:-20])
    made = [p for p in output.rglob("*") if p.suffix in (".tar", ".safetensors")]
    times = [p.stat().st_mtime_ns for p in (*made, *output.rglob("judge-*.json"))]
    again = claims_benchmark.main(arguments)
    assert again["rows"] == measured["rows"]
    assert path.read_text().splitlines()[:-1] == whole.splitlines()[:-1]
    assert (
        json.loads(path.read_text().splitlines()[-1])["mAP"]
        == (json.loads(whole.splitlines()[-1])["mAP"])
    )
    assert [p.stat().st_mtime_ns for p in (*made, *output.rglob("judge-*.json"))] == times

    # Another recipe is another fit, on the same images.
    at = arguments.index("training.num_epochs=1")
    claims_benchmark.main([*arguments[:at], "method.sharpness=2", *arguments[at:]])
    num_fits = len(whole.splitlines())
    assert len(path.read_text().splitlines()) == 2 * num_fits


def test_variance_within_captions():
    """Captions at x = -1 and 1, their two images at y = -0.5 and 0.5; a third lacks one image."""
    data = fake_clip.training_features(3, k=2)
    assert data.images is not None
    places = torch.tensor([[-1, -0.5], [-1, 0.5], [1, -0.5], [1, 0.5], [9, 9]])
    images = dataclasses.replace(data.images, global_features=places)
    rows = torch.tensor([[0, 1], [2, 3], [4, -1]])
    data = dataclasses.replace(data, images=images, image_of_caption=rows)
    within, whole = 2 * 0.25 / (2 - 1), 4 * 1.25 / (4 - 1)
    assert claims.variance_within(data, 2) == pytest.approx(within / whole)


def test_rows_hold_every_setting_that_claims_and_differences_need():
    settings = {setting for _, _, setting in ROWS}
    claimed = plan_claims(6, 1)
    assert {s for _, better, worse in claimed for s in (better, worse)} <= settings
    assert {TAI_DPT, ZERO_SHOT} <= settings
    assert len({words for words, _, _ in claimed}) == len(claimed)
    assert len({row[:2] for row in ROWS}) == len(ROWS)
    guidance = [(title, s.images) for question, title, s in ROWS if question.startswith("guidance")]
    assert guidance == [
        ("1", "guidance-1"), ("1, images only", "guidance-1"),
        ("4", "synthetic"), ("4, images only", "synthetic"),
    ]  # fmt: skip


def test_few_captions_take_as_many_steps():
    vocabulary, captions = choose_captions(40)
    request = SynthesisRequest(SynthesisConfig(), vocabulary, captions)
    few, all_of_them = (Setting("rendered", "t2ipal", 2, num_captions=n) for n in (10, None))
    options = claims.ClaimsConfig(num_captions=40, seeds=(0,), caption_counts=(10,))
    plans = claims.plan_fits([few, all_of_them], options, request)
    base, longer = (plans[setting, 0].training for setting in (all_of_them, few))
    assert (longer.num_epochs, longer.warmup_epochs) == (120, 4)
    assert (base.num_epochs, base.warmup_epochs) == (30, 1)
    assert longer.images_per_caption == base.images_per_caption == 2


def test_image_sets():
    synthesis = SynthesisConfig(images_per_caption=10, guidance_scale=4.0, seed=3)
    sets = claims.image_sets(claims.ClaimsConfig(guidance_scales=(1, 4, 8), synthesis=synthesis))
    assert list(sets) == ["synthetic", "rendered", "guidance-1", "guidance-8"]
    assert [config.images_per_caption for config, _ in sets.values()] == [10, 6, 2, 2]
    assert [config.guidance_scale for config, _ in sets.values()][2:] == [1, 8]
    assert {config.seed for config, _ in sets.values()} == {3}
    assert [factory for _, factory in sets.values()] == [None, RenderingSynthesizer, None, None]


def test_differences_are_per_seed():
    ours = {0: {"a": 80.0}, 1: {"a": 84.0}, 2: {"a": 82.0}}
    theirs = {0: {"a": 79.0}, 1: {"a": 81.0}, 2: {"a": 80.0}}
    difference = paired(ours, theirs, "a")
    assert (difference.mean, difference.std) == (2.0, 1.0)
    assert difference.mAPs == (1.0, 3.0, 2.0)
    # One result without training stands beside every seed, on either side.
    assert paired(ours, {0: {"a": 50.0}}, "a").mAPs == (30.0, 34.0, 32.0)
    assert paired({0: {"a": 50.0}}, ours, "a").mAPs == (-30.0, -34.0, -32.0)
    assert (by_seed(ours, "a").mean, by_seed(ours, "a").std) == (82.0, 2.0)


def test_table():
    ours = Setting("rendered", "t2ipal", 6)
    rows = [("captions", "zero-shot CLIP", ZERO_SHOT), ("captions", "TaI-DPT", TAI_DPT)]
    rows.append(("rendered images", "T2I-PAL", ours))
    results = {
        ZERO_SHOT: {0: {"a": 50.0}},
        TAI_DPT: {0: {"a": 80.0}, 1: {"a": 82.0}},
        ours: {0: {"a": 83.0}, 1: {"a": 81.0}},
    }
    shares = {ours: 0.876}
    claimed = [("T2I-PAL over TaI-DPT", ours, TAI_DPT)]
    measured = measure(rows, claimed, results, shares.get, ["a"])
    assert markdown(measured).splitlines() == [
        "|  |  | judge finds | a | over TaI-DPT | over zero-shot |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        "| captions | zero-shot CLIP |  | 50.0 | -31.0 ± 1.4 |  |",
        "|  | TaI-DPT |  | 81.0 ± 1.4 |  | +31.0 ± 1.4 |",
        "| rendered images | T2I-PAL | 88% | 82.0 ± 1.4 | +1.0 ± 2.8 | +32.0 ± 1.4 |",
        "",
        "- T2I-PAL over TaI-DPT: a +1.0 ± 2.8 (1 of 2 seeds)",
    ]


def test_what_the_charts_read(tmp_path):
    rows = [("guidance, 2 images", "7.5, images only", Setting("synthetic", "t2ipal", 2))]
    result = {0: {"a": 80.0}, 1: {"a": 82.0}}
    results = {rows[0][2]: result, TAI_DPT: result, ZERO_SHOT: {0: {"a": 50.0}}}
    rows.append(("captions", "TaI-DPT", TAI_DPT))
    table = measure(rows, [], results, lambda setting: 0.5, ["a"])
    assert world_pictures.spread(table["rows"][0], "a") == (81.0, 2**0.5)
    assert world_pictures.baseline(table, "tai_dpt", "a") == 81.0
    with pytest.raises(ValueError, match=r"The charts need --claims, a claims\.json\."):
        pictures_benchmark.main(["--output", str(tmp_path), "--only", "guidance.png"])
    with pytest.raises(ValueError, match=r"Unknown picture 'guidence\.png'\. Did you mean"):
        pictures_benchmark.main(["--output", str(tmp_path), "--only", "guidence.png"])


def test_judged_counts(tmp_path, monkeypatch):
    write_random_judge(tmp_path)
    monkeypatch.setattr(claims, "WEIGHTS_DIR", tmp_path)
    write_small_run(tmp_path / "run", images_per_caption=2)
    store = Store(tmp_path / "run")
    few = claims.judged_counts(store)
    write_small_run(tmp_path / "run", images_per_caption=3)  # the run grows
    counts = claims.judged_counts(store)
    expected = np.zeros((3, 2), int)
    judge = load_judge(tmp_path / "judge")
    for marker in read_manifest(store).shards:
        for row, image in read_images(store, marker.shard):
            probs = judge.probs(image[None])[0]
            for label in row.labels:
                expected[row.k] += int(probs[label] > NAMED_THRESHOLD), 1
    assert counts == expected.tolist() and few == counts[:2]
    monkeypatch.setattr(claims, "load_judge", None)  # nobody looks twice
    assert claims.judged_counts(store) == counts


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    path = tmp_path / "fits.jsonl"
    assert read_fits(path) == {}
    path.write_text('{"key": "a", "mAP": 1}\n{"key": "b", "m')
    assert read_fits(path) == {"a": {"key": "a", "mAP": 1}}
    assert path.read_text() == '{"key": "a", "mAP": 1}\n'


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-captions", "0"], r"num_captions must be > 0, got 0\."),
        (["--seeds"], r"seeds must name at least one, got none\."),
        (["--num-workers", "-1"], r"num_workers must be >= 0, got -1\."),
        (["--image-counts", "1", "12"], r"must be at least the 12 images .* got 10\."),
        (["--caption-counts", "1000"], r"caption_counts must be in 1\.\.999, got 1000\."),
        (["--test-sets", "pictovoc_novel"], r"Unknown test set 'pictovoc_novel'\."),
        (["--set", "method.sharpnes=2"], r"Did you mean 'method.sharpness'\?"),
    ],
)
def test_bad_input_is_named_before_anything_is_made(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        claims_benchmark.main(["--output", "claims", *flags])
    assert not list(tmp_path.iterdir())
