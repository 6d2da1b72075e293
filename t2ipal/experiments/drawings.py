"""The figures that show pictures or texts: cards with a picture, a heading and some lines."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from t2ipal.evaluation.evaluate import summarize
from t2ipal.evaluation.modality_gap import modality_gap
from t2ipal.evaluation.reading import read_photograph
from t2ipal.evaluation.test_sets import load_test_set
from t2ipal.experiments.rows import Figure
from t2ipal.experiments.shown import images_shown
from t2ipal.experiments.sources import ORIGINAL, Captions, Data
from t2ipal.methods.stored import load_recognizer
from t2ipal.pictovoc import WEIGHTS_DIR
from t2ipal.pictovoc.judge import NAMED_THRESHOLD, load_judge
from t2ipal.report.pictures import data_uri
from t2ipal.store import Sample, read_captions, read_images, read_manifest

NUM_CARDS = 8
Card = dict[str, Any]
"""`title`, `lines` and, where there is one, `image` as a data URI."""


def modality_gap_of(item: Figure, contents: Any) -> list[Card]:
    """Mean cosines of class embeddings with what shows or names a class, over seeds."""
    data: Data = contents.data
    cards = []
    titles = ("TaI-DPT", "T2I-PAL")
    for title, system in zip(titles, item.systems):
        found = []
        for fit in system.fits(contents.numbers.seeds):
            if fit not in contents.numbers.done:
                return []
            recognizer = load_recognizer(data.store, f"kept/{fit.key(data)}")
            features = data.training(Captions(), 0, system.backbone)
            test = contents.numbers.test(system, contents.points.test_sets[0])
            assert features.images is not None
            found.append(
                modality_gap(recognizer.scorer, test.features, features.texts, features.images)  # type: ignore
            )
        lines = []
        for name in ("test_images", "captions", "synthetic_images", "adapted_synthetic_images"):
            values = [getattr(each, name) for each in found]
            if values[0] is not None:
                cosine = summarize(values, range(len(values)))
                words = name.replace("_", " ")
                lines.append(f"{words}: {cosine.mean:.3f} ± {cosine.std:.3f}")
        cards.append({"title": f"{title}: mean cosine with class embeddings", "lines": lines})
    lines = [
        "synthetic images after the adapter: 0.6110 (MS-COCO)",
        "the paper's other numbers are lost",
    ]
    return [*cards, {"title": "Paper", "lines": lines}]


def written_captions(item: Figure, contents: Any) -> list[Card]:
    """The first captions that people and the writer gave for each of some classes."""
    cards = []
    for name in ("synthetic", "written"):
        if name in contents.data.sets and name in contents.data.described["sets"]:
            rows = read_captions(contents.data.sets[name])[:NUM_CARDS]
            title = "captions of the world" if name == "synthetic" else "written captions"
            cards.append({"title": title, "lines": [row.caption for row in rows]})
    return cards


def complementary(item: Figure, contents: Any) -> list[Card]:
    """Test images on which captions and images alone err in different classes, both mended."""
    name, numbers = contents.points.test_sets[0], contents.numbers
    scores = [numbers.scores(system, name) for system in item.systems]
    if any(each is None for each in scores):
        return []
    test = load_test_set(name, contents.data.test_root, (), contents.data.endpoint_url)
    labels = numbers.test(item.systems[0], name).features.labels.cpu().numpy() > 0
    texts, images, both = (_said(each[0], labels) for each in scores if each is not None)
    errs = [(said != labels) for said in (texts, images, both)]
    mended = errs[0].any(1) & errs[1].any(1) & ~(errs[0] & errs[1]).any(1) & ~errs[2].any(1)
    cards = []
    for row in np.flatnonzero(mended)[:NUM_CARDS]:
        lines = [
            f"{who}: {_differences(test.class_names, said[row], labels[row])}"
            for who, said in (("TaI-DPT", texts), ("images alone", images), ("T2I-PAL", both))
        ]
        cards.append(_card(test.images, int(row), _names(test.class_names, labels[row]), lines))
    return cards


def _said(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """As many classes of each image as it shows, those of the highest scores."""
    ranks = (-scores).argsort(axis=1).argsort(axis=1)
    return ranks < labels.sum(axis=1, keepdims=True)


def _differences(names: Sequence[str], said: np.ndarray, labels: np.ndarray) -> str:
    wrong = [f"no {name}" for name, s, there in zip(names, said, labels) if there and not s]
    wrong += [f"{name}?" for name, s, there in zip(names, said, labels) if s and not there]
    return ", ".join(wrong) or "right"


def _names(names: Sequence[str], shown: np.ndarray) -> str:
    return ", ".join(name for name, there in zip(names, shown) if there)


def _card(images: Any, row: int, title: str, lines: list[str]) -> Card:
    if isinstance(images, np.ndarray):
        return {"title": title, "lines": lines, "image": data_uri(images[row])}
    pixels = read_photograph(images.store, images.keys[row], 224)
    image = {} if isinstance(pixels, Exception) else {"image": data_uri(pixels)}
    return {"title": title, "lines": lines, **image}


def _first_images(data: Data, name: str, count: int) -> list[tuple[Sample, np.ndarray]]:
    """Images of the first shard."""
    shards = read_manifest(data.sets[name]).shards
    pairs = []
    for pair in read_images(data.sets[name], shards[0].shard):
        pairs.append(pair)
        if len(pairs) == count:
            break
    return pairs


def pairs(item: Figure, contents: Any) -> list[Card]:
    """Synthetic images below the ones that their captions were written about."""
    data: Data = contents.data
    if ORIGINAL not in data.described["sets"] or "synthetic" not in data.described["sets"]:
        return []
    captions = {row.caption_id: row.caption for row in read_captions(data.sets["synthetic"])}
    originals = {s.caption_id: image for s, image in _first_images(data, ORIGINAL, 400)}
    cards: list[Card] = []
    seen: set[str] = set()
    for sample, image in _first_images(data, "synthetic", 400):
        if sample.caption_id in originals and sample.caption_id not in seen:
            seen.add(sample.caption_id)
            original = originals[sample.caption_id]
            both = np.concatenate([original, _like(image, original)], axis=1)
            title = captions[sample.caption_id]
            cards.append({"title": title, "lines": ["left: original"], "image": data_uri(both)})
        if len(cards) == NUM_CARDS:
            break
    return cards


def _like(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    size = other.shape[1], other.shape[0]
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def failures(item: Figure, contents: Any) -> list[Card]:
    """Synthetic images in which the judge does not find what their caption names."""
    data: Data = contents.data
    if contents.config.on != "pictovoc" or "synthetic" not in data.described["sets"]:
        return []
    rows = _first_images(data, "synthetic", 400)
    probs = load_judge(WEIGHTS_DIR / "judge").probs(np.stack([image for _, image in rows]))
    names = data.vocabulary(Captions())[0]
    captions = {row.caption_id: row.caption for row in read_captions(data.sets["synthetic"])}
    cards: list[Card] = []
    for (sample, image), seen in zip(rows, probs):
        lacks = [names[label] for label in sample.labels if seen[label] <= NAMED_THRESHOLD]
        if lacks and len(cards) < NUM_CARDS:
            line = f"the judge does not find: {', '.join(lacks)}"
            cards.append(
                {"title": captions[sample.caption_id], "lines": [line], "image": data_uri(image)}
            )
    return cards


DRAWINGS: dict[str, Callable[[Figure, Any], list[Card]]] = {
    "modality_gap": modality_gap_of,
    "written_captions": written_captions,
    "complementary": complementary,
    "pairs": pairs,
    "failures": failures,
    "images_shown": images_shown,
}
"""By the name that a figure gives; no card where what it needs is not there."""
