"""What can be seen: captions with their synthetic images, and heatmaps over test images."""

import math

from t2ipal.report import charts
from t2ipal.report.contents import HeatmapExample, JudgedImages, Report, SheetEntry
from t2ipal.report.markup import Markup, element, fragment
from t2ipal.report.pictures import data_uri, overlay

_FOUND_SHARE = 0.5
"""A caption's class counts as found when the judge sees it in at least this share of images."""


def images(report: Report) -> Markup | None:
    """The contact sheet, and how often a judge finds the named classes."""
    if not report.contact_sheet and report.judge is None:
        return None
    parts: list[object] = []
    if report.contact_sheet:
        judged = any(entry.found is not None for entry in report.contact_sheet)
        explained = "Captions and the images synthesized from them. "
        if judged:
            explained += (
                "✓ marks a named class that the judge finds in the image, ✗ one that it does not; "
                "a number beside a class counts the images in which it is found."
            )
        few = max((len(entry.images) for entry in report.contact_sheet), default=0) <= 2
        sheet = [_sheet_entry(entry) for entry in report.contact_sheet]
        parts.append(element("p", explained, class_="lead"))
        parts.append(element("div", sheet, class_="sheet few" if few else "sheet"))
    if report.judge is not None:
        parts.append(_judge(report.judge))
    return fragment(parts)


def _sheet_entry(entry: SheetEntry) -> Markup:
    chips = []
    for label in entry.labels:
        if entry.found is None:
            chips.append(_chip(label))
            continue
        hits = sum(label in found for found in entry.found)
        shown = hits >= _FOUND_SHARE * len(entry.found) and hits > 0
        text = f"{label} {hits}/{len(entry.found)}"
        if len(entry.found) == 1:
            text = f"{'✓' if shown else '✗'} {label}"
        chips.append(_chip(text, "found" if shown else "missed"))
    figures = []
    for index, image in enumerate(entry.images):
        alternative = f"Synthetic image {index + 1} of “{entry.caption}”"
        verdict = None
        # With a single image the chips have said it already.
        if entry.found is not None and len(entry.images) > 1:
            verdict = element(
                "figcaption",
                (
                    element("span", "✓ ", label, class_="yes")
                    if label in entry.found[index]
                    else element("span", "✗ ", label, class_="no")
                    for label in entry.labels
                ),
            )
        figures.append(element("figure", _image(data_uri(image), alternative), verdict))
    return element(
        "article",
        element(
            "div",
            element("p", entry.caption, class_="quote"),
            element("p", chips, class_="chips") if chips else None,
            _rest(entry),
        ),
        element("div", figures, class_="images"),
    )


def _rest(entry: SheetEntry) -> Markup | None:
    """How many images of a caption there are, where not all are shown."""
    if (entry.num_images or 0) <= len(entry.images):
        return None
    text = f"The first {len(entry.images):,} of {entry.num_images:,} images."
    return element("p", text, class_="lead")


def _judge(judge: JudgedImages) -> Markup:
    sentence = (
        "Share of the images naming a class in which the judge finds it; "
        f"{100 * judge.share:.0f}% over all named classes."
    )
    if judge.num_judged < judge.num_images:
        drawn = f"{judge.num_judged:,} of {judge.num_images:,} images"
        sentence += f" The judge looked at {drawn}, drawn evenly from all shards."
    items = [
        element(
            "li",
            element("span", name),
            charts.bar(min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0, kind="good"),
            element(
                "span", f"{100 * share:.0f}%" if math.isfinite(share) else "–", class_="number"
            ),
        )
        for name, share in sorted(judge.by_class.items(), key=lambda pair: -pair[1])
    ]
    return fragment(
        element("h3", "Are the named classes in the images?"),
        element("p", sentence, class_="lead"),
        element("ul", items, class_="bars") if items else None,
    )


def heatmaps(report: Report) -> Markup | None:
    """Test images and where a method looked for some classes."""
    if not report.heatmaps:
        return None
    lead = element(
        "p",
        "Where the local features agree with a class, over the test image in gray. Each heatmap "
        "is scaled from its own lowest to its own highest value. The number is the class score; "
        "✓ marks a class that is in the image by its labels.",
        class_="lead",
    )
    key = element(
        "p", "low ", element("span", class_="ramp", aria_hidden="true"), " high", class_="key"
    )
    rows = element("div", map(_heatmap_example, report.heatmaps), class_="heatmaps")
    return fragment(lead, key, rows)


def _heatmap_example(example: HeatmapExample) -> Markup:
    labels = ", ".join(example.true_labels) or "no class"
    figures = [
        element(
            "figure",
            _image(data_uri(example.image), f"Test image showing {labels}"),
            element("figcaption", element("span", labels, class_="truth")),
        )
    ]
    for name, score, heatmap in example.classes:
        present = name in example.true_labels
        note = ("✓ ", name) if present else (name,)
        figures.append(
            element(
                "figure",
                _image(data_uri(overlay(example.image, heatmap)), f"Heatmap of {name}"),
                element(
                    "figcaption",
                    element("span", note, class_="yes" if present else "no"),
                    element("span", f"{score:.2f}", class_="number"),
                ),
            )
        )
    return element("article", figures, class_="images")


def _image(uri: str, alternative: str) -> Markup:
    return element("img", src=uri, alt=alternative, decoding="async")


def _chip(content: object, kind: str = "") -> Markup:
    return element("span", content, class_=f"chip {kind}".strip())
