"""Precision, recall and speed of the noun filter on MS-COCO captions against instance labels.

    python benchmarks/captions.py --coco COCO_DIR

COCO_DIR/annotations must hold pairs captions_NAME.json and instances_NAME.json; speed is measured
over the largest captions file there. Captions leave objects out, so recall is bounded by what
people write; precision is not. Prints tables and, last, one JSON line.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from t2ipal.captions import NounFilter, Vocabulary, load_vocabulary, read_captions
from t2ipal.commands.running import finish, parse, run_job
from t2ipal.places import LocalPath

# The COCO category of each VOC class whose name differs.
COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}


def read_pairs(annotations_dir: Path) -> list[tuple[str, str, set[str]]]:
    """Image, caption, category names in the image; for images with captions and instances."""
    rows = []
    for instances_path in sorted(annotations_dir.glob("instances_*.json")):
        captions_path = annotations_dir / instances_path.name.replace("instances_", "captions_")
        if not captions_path.exists():
            continue
        instances = json.loads(instances_path.read_text())
        names = {category["id"]: category["name"] for category in instances["categories"]}
        present: dict[int, set[str]] = {image["id"]: set() for image in instances["images"]}
        for instance in instances["annotations"]:
            present[instance["image_id"]].add(names[instance["category_id"]])
        for caption in json.loads(captions_path.read_text())["annotations"]:
            if caption["image_id"] in present:
                image = f"{instances_path.stem}/{caption['image_id']}"
                rows.append((image, caption["caption"], present[caption["image_id"]]))
    return rows


def label_matrices(
    rows: list[tuple[str, str, set[str]]], vocabulary: Vocabulary
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Named and present classes by caption, and by image (union of its captions)."""
    noun_filter = NounFilter(vocabulary)
    categories = [COCO_NAMES.get(name, name) for name in vocabulary.class_names]
    named = np.zeros((len(rows), len(categories)), dtype=bool)
    present = np.zeros_like(named)
    images: dict[str, list[int]] = {}
    for at, (image, caption, found) in enumerate(rows):
        named[at, list(noun_filter(caption).labels)] = True
        present[at] = [category in found for category in categories]
        images.setdefault(image, []).append(at)
    union = np.stack([named[members].any(axis=0) for members in images.values()])
    first = np.stack([present[members[0]] for members in images.values()])
    return {"caption": (named, present), "image": (union, first)}


def precision_recall(named: np.ndarray, present: np.ndarray) -> tuple[float, float]:
    """Micro-averaged percentages; NaN where nothing is named or present."""
    both = (named & present).sum()
    with np.errstate(invalid="ignore"):
        return float(100 * both / named.sum()), float(100 * both / present.sum())


def errors(rows: list[tuple[str, str, set[str]]], vocabulary: Vocabulary) -> list[str]:
    """One line per caption that names a class its image is not labelled with."""
    noun_filter = NounFilter(vocabulary)
    lines = []
    for image, caption, found in rows:
        names = [vocabulary.class_names[index] for index in noun_filter(caption).labels]
        wrong = [name for name in names if COCO_NAMES.get(name, name) not in found]
        if wrong:
            lines.append(f"{', '.join(wrong)} not in {image}: {caption.strip()}")
    return lines


def captions_per_second(path: Path, vocabulary: Vocabulary) -> tuple[float, int]:
    """Best of three passes of the filter on one core."""
    texts = [caption.caption for caption in read_captions(path)]
    noun_filter = NounFilter(vocabulary)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        for text in texts:
            noun_filter(text)
        seconds.append(time.perf_counter() - started)
    return len(texts) / min(seconds), len(texts)


@dataclass(frozen=True)
class Options:
    """Measures the noun filter."""

    coco: LocalPath
    """Folder that holds annotations/."""
    errors: bool = False
    """Also list every precision error."""


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures and prints."""
    options = parse(Options, arguments, __doc__)
    annotations_dir = Path(options.coco) / "annotations"
    rows = read_pairs(annotations_dir)
    if not rows:
        raise FileNotFoundError(
            f"No captions_NAME.json with its instances_NAME.json in {annotations_dir}."
        )
    largest = max(annotations_dir.glob("captions_*.json"), key=lambda path: path.stat().st_size)
    summary: dict[str, Any] = {
        "num_captions": len(rows),
        "num_images": len({row[0] for row in rows}),
    }
    for name in ("voc2007", "coco2014"):
        vocabulary = load_vocabulary(name)
        matrices = label_matrices(rows, vocabulary)
        print(f"{name}\n{'':18}{'caption P':>10}{'R':>7}{'image P':>10}{'R':>7}{'images':>8}")
        scores = {level: precision_recall(*pair) for level, pair in matrices.items()}
        for index, class_name in enumerate((*vocabulary.class_names, "micro average")):
            columns = (
                slice(index, index + 1) if index < len(vocabulary.class_names) else slice(None)
            )
            values = [
                precision_recall(named[:, columns], present[:, columns])
                for named, present in (matrices["caption"], matrices["image"])
            ]
            num_present = int(matrices["image"][1][:, columns].any(axis=1).sum())
            if num_present or not np.isnan(values[0][0]):
                cells = "".join(f"{p:10.1f}{r:7.1f}" for p, r in values)
                print(f"{class_name:18}{cells}{num_present:8}")
        speed, num_timed = captions_per_second(largest, vocabulary)
        print(f"{speed:,.0f} captions a second over {num_timed} of {largest.name}\n")
        if options.errors:
            print("\n".join([*errors(rows, vocabulary), ""]))
        summary[name] = {
            "caption": dict(zip(("precision", "recall"), np.round(scores["caption"], 2).tolist())),
            "image": dict(zip(("precision", "recall"), np.round(scores["image"], 2).tolist())),
            "captions_per_second": round(speed),
        }
    return finish(summary)


if __name__ == "__main__":
    run_job(main)
