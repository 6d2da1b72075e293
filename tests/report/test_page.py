import base64
import dataclasses
import io
import itertools
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2ipal import report as report_package
from t2ipal.report import (
    Counts,
    Curve,
    HeatmapExample,
    JudgedImages,
    MethodResult,
    Report,
    SheetEntry,
    Trial,
    render_report,
)
from t2ipal.report.charts import axis, tick_text
from t2ipal.report.gathering import write_report
from t2ipal.report.markup import Markup, element
from t2ipal.report.pictures import data_uri, heat_color, overlay
from t2ipal.report.tables import duration, signed

CLASS_NAMES = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
VOID = {"img", "meta", "link", "br"}


def scene(rng: np.random.Generator, height: int = 64, width: int = 64) -> np.ndarray:
    """A smooth random picture."""
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def example_report(make_image=scene, num_entries: int = 4) -> Report:
    """A full page as a run of the whole chain would give it."""
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 9, len(CLASS_NAMES))
    results = []
    for name, description, mean, seeds, published in (
        ("Zero-shot CLIP", "“a photo of a {}.”, nothing trained", 62.4, 0, "76.2 (RN50, VOC2007)"),
        ("TaI-DPT", "prompts learned from captions only", 78.1, 5, "88.3 (RN50, VOC2007)"),
        (
            "T2I-PAL",
            "captions, synthetic images, prototype adapter",
            82.6,
            5,
            "88.8 (RN50, VOC2007)",
        ),
    ):
        per_seed = (mean + rng.normal(0, 0.5, seeds)).tolist()
        mean = float(np.mean(per_seed)) if seeds else mean
        per_class = np.clip(mean + difficulty + rng.normal(0, 3, len(CLASS_NAMES)), 5, 99.5)
        results.append(
            MethodResult(
                name=name,
                description=description,
                mAP_mean=mean,
                mAP_std=float(np.std(per_seed, ddof=1)) if seeds else 0.0,
                seeds=list(range(seeds)),
                per_seed=per_seed,
                per_class=per_class.tolist(),
                published=published,
                modality_gap={"captions": 0.8125, "adapted": 0.9 if name == "T2I-PAL" else None},
            )
        )
    captions = [
        (
            "A man riding a motorcycle down a dirt road next to a dog.",
            ["motorbike", "person", "dog"],
        ),
        ("Two boats on the water under a cloudy sky.", ["boat"]),
        ("A cat sleeping on a couch in front of a television.", ["cat", "sofa", "tvmonitor"]),
        ("Several bottles of wine on a wooden dining table.", ["bottle", "diningtable"]),
        ("A bus and a few cars wait at a red light.", ["bus", "car"]),
        ("Sheep graze in a green field as a train goes by.", ["sheep", "train"]),
    ]
    sheet = [
        SheetEntry(
            caption=caption,
            labels=labels,
            images=[make_image(rng) for _ in range(6)],
            found=[[label for label in labels if rng.random() < 0.55] for _ in range(6)],
        )
        for caption, labels in itertools.islice(itertools.cycle(captions), num_entries)
    ]
    heatmaps = []
    for true_labels in (["dog", "person"], ["boat"], ["cat", "sofa"]):
        centers = rng.random((4, 2)) * 6
        grid = np.stack(np.mgrid[0:7, 0:7], axis=-1)
        maps = [np.exp(-((grid - center) ** 2).sum(-1) / 4) for center in centers]
        names = [*true_labels, "car", "bottle"][:4]
        scores = np.sort(rng.random(4))[::-1]
        classes = [(n, float(s), m) for n, s, m in zip(names, scores, maps, strict=False)]
        heatmaps.append(HeatmapExample(make_image(rng), true_labels, classes))
    epochs = list(range(1, 21))
    curves = [
        Curve(
            "Training loss",
            "epoch",
            "loss",
            [
                (n, epochs, [a * math.exp(-e / 6) + b for e in epochs])
                for n, a, b in (("TaI-DPT", 9.0, 1.4), ("T2I-PAL", 14.0, 2.2))
            ],
        ),
        Curve(
            "Images per caption",
            "images per caption",
            "mAP %",
            [("T2I-PAL", [1, 2, 4, 6], [80.2, 81.3, 82.2, 82.6])],
        ),
    ]
    trials = [
        Trial(
            {
                "residual_ratio": round(ratio, 3),
                "optim.lr": float(f"{10 ** rng.uniform(-5, -2):.2g}"),
                "aggregation": str(rng.choice(["weighted", "mean", "max"])),
            },
            float(82 - 3 * (ratio - 1) ** 2 + rng.normal(0, 0.3)),
        )
        for ratio in rng.uniform(0, 2, 24)
    ]
    return Report(
        title="T2I-PAL on the embedded world",
        subtitle="20 classes, small CLIP ResNet and small Stable Diffusion trained on rendered "
        "scenes; 2 CPU cores.",
        results=results,
        class_names=CLASS_NAMES,
        baseline="Zero-shot CLIP",
        judge=JudgedImages(0.61, dict(zip(CLASS_NAMES, rng.random(20).tolist())), 5996, 5996),
        contact_sheet=sheet,
        heatmaps=heatmaps,
        curves=curves,
        trials=[*trials, Trial({"residual_ratio": 3.0}, math.nan)],
        counts=Counts(
            captions_read=1431,
            captions_kept=1112,
            captions_rejected={"names no class": 211, "class is negated": 58, "duplicate": 50},
            captions_used=1000,
            images=5996,
            images_failed=4,
            test_images=2000,
        ),
        seconds={
            "captions": 0.4,
            "synthesis": 312.0,
            "features": 41.5,
            "training": 96.2,
            "report": 2,
        },
        settings={
            "synthesis": {"pipeline": "pictovoc", "guidance_scale": 2.0, "optim": {"lr": 1e-4}},
            "method": {"residual_ratio": 1.0, "sharpness": 5.5, "image_weight": 0.6},
            "seeds": [0, 1, 2, 3, 4],
        },
        versions={"t2ipal": "0.1.0", "torch": "2.13.0", "ray": "2.60.0"},
        commands=["python jobs/demo.py --output runs/demo --seeds 5"],
        notes=["mAP is non-interpolated average precision, mean over classes; difficult kept."],
    )


class Page(HTMLParser):
    """Checks nesting and gathers tags, ids and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute twice in {tag}: {names}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def sections(self) -> list[str | None]:
        return [attributes["id"] for tag, attributes in self.tags if tag == "section"]

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def full() -> str:
    return render_report(example_report())


def test_page_is_well_formed_and_has_every_section(full):
    page = Page(full)
    assert page.sections == [
        *("results", "classes", "gap", "images", "heatmaps", "curves", "search", "pipeline"),
        *("notes", "settings"),
    ]
    assert [link["href"] for link in page.all("a")] == [f"#{name}" for name in page.sections]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_page_loads_nothing_from_anywhere(full):
    page = Page(full)
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "embed"}
        for name in ("src", "href", "srcset", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("data:", "#"))
    assert "url(" not in full and "@import" not in full and "http" not in Page(full).text


def test_images_are_decodable_and_described(full):
    report, images = example_report(), Page(full).all("img")
    shown = sum(len(entry.images) for entry in report.contact_sheet)
    assert len(images) == shown + sum(1 + len(example.classes) for example in report.heatmaps)
    for image in images:
        assert image["alt"]
        header, _, body = (image["src"] or "").partition(",")
        assert header == "data:image/jpeg;base64"
        decoded = Image.open(io.BytesIO(base64.b64decode(body, validate=True)))
        decoded.load()
        assert decoded.size == (224, 224) and decoded.mode == "RGB"


def test_numbers_are_printed_with_spread_and_difference(full):
    text = Page(full).text
    zero_shot, _, ours = example_report().results
    assert f"{ours.mAP_mean:.1f} ± {ours.mAP_std:.1f}" in text
    assert f"+{ours.mAP_mean - zero_shot.mAP_mean:.1f} vs Zero-shot CLIP" in text
    assert "62.4 ±" not in text
    assert "88.8 (RN50, VOC2007)" in text
    assert "5,996 synthetic images" in text and "5 min 12 s" in text
    assert re.search(r"\bdog \d/6", text)
    assert "24 trials, and 1 that failed" in text


def test_tables_have_captions_and_headers(full):
    page = Page(full)
    assert len(page.all("caption")) == len(page.all("table")) > 4
    assert all(header["scope"] in ("row", "col") for header in page.all("th"))
    assert all(
        chart.get("aria-label") or chart.get("aria-hidden") == "true" for chart in page.all("svg")
    )


def test_every_text_is_escaped():
    evil = '<script>alert("1")</script>&\'"'
    image = np.zeros((8, 8, 3), np.uint8)
    page = render_report(
        Report(
            title=evil,
            subtitle=evil,
            results=[MethodResult(evil, evil, 50.0, 1.0, [0, 1], [49, 51], [50.0], evil)] * 2,
            class_names=[evil],
            judge=JudgedImages(0.5, {evil: 0.5}, 1, 1),
            contact_sheet=[SheetEntry(evil, [evil], [image], [[evil]])],
            heatmaps=[HeatmapExample(image, [evil], [(evil, 0.5, np.eye(3))])],
            curves=[Curve(evil, evil, evil, [(evil, [0, 1], [0, 1])])],
            trials=[Trial({evil: evil}, 1.0), Trial({evil: 2.0}, 2.0)],
            counts=Counts(captions_read=2, captions_kept=1, captions_rejected={evil: 1}),
            seconds={evil: 1.0},
            settings={evil: {evil: {evil: evil}}},
            versions={evil: evil},
            commands=[evil],
            notes=[evil],
            missing=[evil],
        )
    )
    parsed = Page(page)
    assert not parsed.all("script")
    assert "<script" not in page and 'alert("' not in page
    assert parsed.text.count(evil) > 25


def test_a_report_with_nothing_but_one_result_has_one_section():
    page = Page(render_report(Report("Run", "", [MethodResult("TaI-DPT", "", 70.0, 0.0)])))
    assert page.sections == ["results"]
    assert not page.all("nav") and "vs" not in page.text and "±" not in page.text
    assert not page.all("h3") and not page.all("img")


@pytest.mark.parametrize(
    ("field", "empty", "section"),
    [
        ("results", (), "results"),
        ("heatmaps", (), "heatmaps"),
        ("curves", (), "curves"),
        ("trials", (), "search"),
        ("notes", (), "notes"),
        ("class_names", (), "classes"),
        ("modality_gap", {}, "gap"),
    ],
)
def test_an_empty_input_leaves_its_section_out(field, empty, section):
    report = example_report(num_entries=1)
    changes: dict = {field: empty, "baseline": None}
    if field == "class_names":
        changes["results"] = [dataclasses.replace(r, per_class=()) for r in report.results]
    if field == "modality_gap":
        results = [dataclasses.replace(r, modality_gap=empty) for r in report.results]
        changes = {"results": results}
    page = Page(render_report(dataclasses.replace(report, **changes)))
    assert section not in page.sections
    assert all(f"#{section}" != link["href"] for link in page.all("a"))


def test_the_modality_gap_is_a_row_of_cosines_a_method(full):
    words = " ".join(Page(full).words)
    assert "Mean cosine of each class's embedding" in words
    assert len(re.findall(r">0\.812<", full)) == 3 and len(re.findall(r">0\.900<", full)) == 1


def test_images_stand_without_a_judge():
    report = example_report(num_entries=1)
    entry = dataclasses.replace(report.contact_sheet[0], found=None)
    page = Page(render_report(dataclasses.replace(report, judge=None, contact_sheet=[entry])))
    assert "images" in page.sections
    assert "judge" not in page.text and "✗" not in page.text


def test_how_many_images_the_judge_saw_and_how_many_a_caption_has():
    report = example_report(num_entries=1)
    assert "The judge looked at" not in Page(render_report(report)).text
    entry = dataclasses.replace(report.contact_sheet[0], num_images=1500)
    judge = dataclasses.replace(report.judge, num_judged=1000)
    changed = dataclasses.replace(report, contact_sheet=[entry], judge=judge)
    text = Page(render_report(changed)).text
    assert "The judge looked at 1,000 of 5,996 images, drawn evenly from all shards." in text
    assert "The first 6 of 1,500 images." in text


def test_what_is_missing_is_said_at_the_top():
    page = Page(render_report(Report("Run", "", missing=["No images yet.", "No results yet."])))
    assert page.sections == [] and "No images yet. No results yet." in page.text
    assert 'class="missing"' not in render_report(Report("Run", ""))


def test_one_of_a_thing_is_counted_as_one():
    counts = Counts(captions_kept=1, images=1, test_images=1)
    text = Page(render_report(Report("Run", "", class_names=["a"], counts=counts))).text
    for words in ("1 caption ", "1 synthetic image ", "0 failed", "1 test image ", "1 class"):
        assert words in text + " "
    assert "1 classes" not in text


def test_a_long_list_among_the_settings_is_cut():
    page = render_report(Report("Run", "", settings={"method": {"names": [*range(1000)]}}))
    assert "98, 99, and 900 more" in Page(page).text


def test_a_single_image_is_judged_in_its_chips():
    report = example_report(num_entries=1)
    entry = report.contact_sheet[0]
    single = dataclasses.replace(entry, images=entry.images[:1], found=[["dog"]])
    page = Page(render_report(dataclasses.replace(report, contact_sheet=[single])))
    assert page.text.count("✓ dog") == 2  # in the chip, and over a heatmap
    assert page.text.count("✗ motorbike") == 1 and "1/1" not in page.text


def test_the_filter_sums_rare_reasons_and_ends_at_what_was_kept():
    reasons = {f"reason {n}": 20 - n for n in range(12)}
    counts = Counts(captions_read=1000, captions_kept=826, captions_rejected=reasons)
    page = Page(render_report(Report("t", "", [], counts=counts)))
    assert page.sections == ["pipeline"]
    assert "− reason 9 11 1.1%" in page.text and "reason 10" not in page.text
    assert "− other reasons 19 1.9% kept 826 82.6%" in page.text


def test_values_that_are_undefined_print_as_a_dash():
    report = example_report(num_entries=0)
    broken = [dataclasses.replace(r, per_class=[math.nan] * 20) for r in report.results]
    broken[0] = dataclasses.replace(broken[0], mAP_mean=math.nan)
    page = render_report(dataclasses.replace(report, results=broken))
    assert "–" in Page(page).text
    assert not re.search(r"\bnan\b", page)


def test_output_is_deterministic_and_small(full, store):
    assert render_report(example_report()) == full
    assert write_report(example_report(), store) == f"{store.uri}/report.html"
    assert store.read("report.html").decode("utf-8") == full
    assert len(full) < 700_000


def test_bad_input_names_what_must_hold():
    with pytest.raises(
        ValueError, match=r"per_class of 'A' must have one value per class \(2\), got 1"
    ):
        Report("t", "", [MethodResult("A", "", 1.0, 0.0, per_class=[1.0])], class_names=["a", "b"])
    with pytest.raises(ValueError, match="Did you mean 'TaI'"):
        Report("t", "", [MethodResult("TaI", "", 1.0, 0.0)], baseline="Tai")
    with pytest.raises(ValueError, match="one mAP per seed, got 1 for 2 seeds"):
        MethodResult("A", "", 1.0, 0.0, seeds=[0, 1], per_seed=[1.0])
    with pytest.raises(ValueError, match="one list per image"):
        SheetEntry("a dog", ["dog"], [np.zeros((2, 2, 3), np.uint8)], found=[])
    with pytest.raises(ValueError, match=r"uint8 \[height, width, 3\], got float64 \[4, 4, 3\]"):
        data_uri(np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match="finite numbers"):
        overlay(np.zeros((4, 4, 3), np.uint8), np.full((2, 2), np.nan))


def test_elements_escape_text_and_keep_markup():
    inner = element("b", "a<b", title='"x"', hidden=True, class_=None)
    assert inner == '<b title="&quot;x&quot;" hidden>a&lt;b</b>'
    assert element("p", inner, None, ["1 & ", 2]) == f"<p>{inner}1 &amp; 2</p>"
    assert isinstance(inner, Markup)
    # A piece of markup in an f-string is text again, and text is escaped.
    assert element("p", f"{inner}").startswith("<p>&lt;b")


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([62, 83], (60, 65, 70, 75, 80, 85)),
        ([97.2, 97.9], (97.2, 97.4, 97.6, 97.8, 98)),
        ([100, 100], (50, 60, 70, 80, 90, 100)),
        ([math.nan], (0, 0.25, 0.5, 0.75, 1)),
    ],
)
def test_axis_has_round_ticks_around_the_values(values, ticks):
    scale = axis(values, 10, 110, limits=(0, 100))
    assert scale.ticks == pytest.approx(ticks)
    assert scale(ticks[0]) == 10 and scale(ticks[-1]) == 110
    assert tick_text(-0.25, (-0.25, 0.0)) == "−0.25"


def test_numbers_read_as_a_person_would_write_them():
    assert [signed(n) for n in (1.26, -0.04, -3.0, math.nan)] == ["+1.3", "0.0", "−3.0", "–"]
    spans = {0.42: "0.4 s", 42.4: "42 s", 59.7: "1 min 00 s", 312: "5 min 12 s", 7500: "2 h 05 min"}
    assert {seconds: duration(seconds) for seconds in spans} == spans


def test_heat_is_colored_where_it_is():
    assert np.allclose(heat_color(np.array([0.0, 1.0])), [[0, 0, 4], [252, 253, 191]])
    assert np.allclose(heat_color(np.array(0.0625)), [14, 8, 36])
    heatmap = np.zeros((4, 4))
    heatmap[0, 3] = 0.2
    shown = overlay(np.full((32, 64, 3), 90, np.uint8), heatmap)
    assert shown.shape == (112, 224, 3) and shown.dtype == np.uint8
    brightness = shown.sum(axis=-1)
    row, column = np.unravel_index(brightness.argmax(), brightness.shape)
    assert row < 28 and column >= 168
    flat = overlay(np.full((32, 64, 3), 90, np.uint8), np.full((4, 4), 0.5))
    assert (flat == flat[0, 0]).all()


def test_text_has_contrast_in_light_dark_and_print():
    style = (Path(report_package.__file__).parent / "style.css").read_text(encoding="utf-8")
    schemes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(schemes) == 3
    for scheme in schemes:
        color = dict(re.findall(r"--([\w-]+): (#\w+)", scheme))
        for background in ("page", "surface"):
            for text in ("text", "muted", "good", "accent"):
                assert contrast(color[text], color[background]) >= 4.5, (text, background)
            for series in range(8):
                assert contrast(color[f"series-{series}"], color[background]) >= 3
        assert contrast(color["good"], color["good-soft"]) >= 4.5
        assert contrast(color["muted"], color["chip"]) >= 4.5


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colors by WCAG 2."""
    light = []
    for color in (one, other):
        digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
        channels = np.array([int(digits[n : n + 2], 16) for n in (0, 2, 4)]) / 255
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        light.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(light) + 0.05) / (min(light) + 0.05)
