"""What a reproduction found, as plain values: what every page of it is made from."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from t2ipal.config import require, to_dict
from t2ipal.evaluation import protocols
from t2ipal.evaluation.evaluate import Summary
from t2ipal.experiments.config import ReproductionConfig
from t2ipal.experiments.drawings import DRAWINGS
from t2ipal.experiments.numbers import EQUAL, LEVEL, Difference, Numbers, Verdict
from t2ipal.experiments.points import Points
from t2ipal.experiments.rows import At, Cell, Item, Panel, Series, Table, Told, systems_of
from t2ipal.experiments.sources import Captions, Data, Labels
from t2ipal.store import read_manifest


@dataclass(frozen=True)
class Contents:
    """What the pages are made from."""

    config: ReproductionConfig
    points: Points
    items: Sequence[Item]
    data: Data
    numbers: Numbers


def found(contents: Contents) -> dict[str, Any]:
    """Everything that the pages show."""
    items = [_item(item, contents) for item in contents.items]
    return {
        "on": contents.config.on,
        "seeds": contents.config.seeds,
        "quick": contents.config.quick,
        "test_sets": list(contents.points.test_sets),
        "settings": to_dict(contents.config),
        "items": items,
        "footers": footers(contents),
        "status": _counts(items),
    }


def _item(item: Item, contents: Contents) -> dict[str, Any]:
    claims = [_verdict(contents.numbers.verdict(claim)) for claim in item.claims]
    shown = {"name": item.name, "title": item.title, "notes": list(item.notes), "claims": claims}
    if isinstance(item, Table):
        rows = [
            {"title": row.title, "cells": [_cell(cell, contents) for cell in row.cells]}
            for row in item.rows
        ]
        return {"kind": "table", **shown, "columns": list(item.columns), "rows": rows}
    if item.pictures:
        return {"kind": "pictures", **shown, "cards": DRAWINGS[item.pictures](item, contents)}
    return {"kind": "chart", **shown, "panels": [_panel(panel, contents) for panel in item.panels]}


def _panel(panel: Panel, contents: Contents) -> dict[str, Any]:
    lines = [_line(series, contents) for series in panel.series]
    return {"title": panel.title, "x_label": panel.x_label, "series": lines}


def _line(series: Series, contents: Contents) -> dict[str, Any]:
    cells = [(x, _cell(at, contents)) for x, at in series.points]
    return {"title": series.title, "points": [{"x": x, **cell} for x, cell in cells]}


def _cell(cell: Cell, contents: Contents) -> dict[str, Any]:
    if cell is None:
        return {"status": "none"}
    if isinstance(cell, Told):
        told = {"mean": cell.value, "backbone": cell.backbone, "source": cell.source}
        return {"status": "published only", **told}
    summary = contents.numbers(cell)
    if summary is None:
        ats = [cell] if isinstance(cell, At) else cell.of
        first = next(at for at in ats if contents.numbers(at) is None)
        reason = contents.numbers.missing(first.system).rstrip(".")
        return {"status": "data missing", "reason": reason}
    return measured_cell(summary)


def measured_cell(summary: Summary) -> dict[str, Any]:
    """A number over seeds."""
    of = {"mean": summary.mean, "std": summary.std, "values": list(summary.mAPs)}
    return {"status": "measured", **of}


def effect(difference: Difference) -> dict[str, Any]:
    """A difference of two systems."""
    p = None if math.isnan(difference.p) else difference.p
    return {**dataclasses.asdict(difference), "p": p}


def _verdict(verdict: Verdict) -> dict[str, Any]:
    differences = [effect(each) for each in verdict.differences]
    return {"claim": verdict.words, "outcome": verdict.outcome, "differences": differences}


def cells_of(item: dict[str, Any]) -> list[dict[str, Any]]:
    """Every cell of a table, or point of a chart."""
    cells = [cell for row in item.get("rows", ()) for cell in row["cells"]]
    lines = [line for panel in item.get("panels", ()) for line in panel["series"]]
    return cells + [point for line in lines for point in line["points"]]


def by_method(table: Table, contents: Contents) -> dict[str, dict[str, dict[str, float]]]:
    """Method -> test set -> mean and standard deviation of a table's measured cells.

    A method is called as `--methods` does, with what is added to it and how it is normalized.
    """
    shown: dict[str, dict[str, dict[str, float]]] = {}
    for cell in (cell for row in table.rows for cell in row.cells):
        summary = contents.numbers(cell) if isinstance(cell, At) else None
        if isinstance(cell, At) and summary is not None:
            of = shown.setdefault(cell.system.name, {})
            require(cell.test_set not in of, f"Two rows are called {cell.system.name}.")
            of[cell.test_set] = {"mean": summary.mean, "std": summary.std}
    return shown


def _counts(items: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many cells there are of each status."""
    counts: dict[str, int] = {}
    for item in items:
        for cell in cells_of(item):
            if cell["status"] != "none":
                counts[cell["status"]] = counts.get(cell["status"], 0) + 1
    return counts


def footers(contents: Contents) -> list[str]:
    """What a reader must know of every number: what the reviewers of the paper asked for."""
    config, data = contents.config, contents.data
    systems = [system for item in contents.items for system in systems_of(item)]
    sources = [part.source for system in systems for part in system.systems()]
    lines = [
        f"Mean and standard deviation (n - 1) over {config.seeds} seeds. A seed varies the start, "
        "the order of the data, which synthetic images of a caption come first, and which images "
        "few shots are. A system without training has one number.",
        "mAP is the mean over classes of non-interpolated average precision, in percent. Equal "
        "scores keep the order of the images. No epoch is chosen: the last one is measured.",
    ]
    if config.quick:
        lines.append(
            f"A quick run: {config.num_captions} captions of the embedded world, the first "
            f"{data.in_tests} images of each test set, fewer points of each line."
        )
    lines += _of_the_world(contents) if config.on == "pictovoc" else _of_photographs(contents)
    if any(isinstance(source, Labels) for source in sources):
        lines += [
            f"Systems that learn from labelled images see {config.num_views} fixed views of each: "
            "itself and augmented ones. The authors augment anew in each epoch. All see them at "
            "the same size as the other systems; the original DualCoOp takes 448 px.",
        ]
    if any("method.known_labels" in dict(system.changes) for system in systems):
        lines.append(f"Known labels: {protocols.MASKS[data.schedule]}.")
    if any(isinstance(source, Captions) and source.originals != "none" for source in sources):
        lines.append("Original images are labelled by the captions, as synthetic ones are.")
    return [
        *lines,
        "A claim is confirmed, or refuted, where a paired t-test over seeds says so on every test "
        f"set (p < {LEVEL:g}). Two systems are on par where two one-sided tests put their "
        f"difference within {EQUAL:g} mAP. Otherwise, and where test sets disagree, it is "
        "undecided.",
    ]


def _of_the_world(contents: Contents) -> list[str]:
    """Where captions and settings are from, and what was seen before, on the embedded world."""
    return [
        "Captions are the embedded world's, of its validation scenes. Its generator and its CLIP "
        "never saw a test scene. Its CLIP has seen the labelled train scenes, without labels.",
        f"Scenes are 64 px, seen whole by {contents.config.backbone.model}: no crop.",
        "Settings were chosen on other validation scenes (pictovoc_validation), and so was the "
        "part of a normalization and the best point of a line. Guidance 2 had been settled on test "
        "scenes before; validation scenes choose the same.",
    ]


def _of_photographs(contents: Contents) -> list[str]:
    """The same of a real data set."""
    config, data = contents.config, contents.data
    lines = [
        f"Photographs: shorter side resized (bicubic) to the size of {config.backbone.model}, "
        "center cropped. VOC's difficult entries count as negatives.",
        "Settings are those of the paper and its ancestor (docs/method.md). Nothing was chosen on "
        "test images, so the best point of a line is not asked for.",
        "Whether the text-to-image model has seen test photographs cannot be known: LAION holds "
        "photographs of Flickr, from which VOC2007, MS-COCO and NUS-WIDE come.",
    ]
    unread = {name: left for name, _, left in data.described["tests"].values() if left}
    lines += [f"{left} photographs of {name} could not be read." for name, left in unread.items()]
    for name, store in data.sets.items():
        asked = read_manifest(store).settings.test_images
        leak = "nobody looked for captions of test images" if asked is None else asked["mode"]
        lines.append(f"Captions and images {name}: {store.uri} (caption leak: {leak}).")
    return lines
