"""A run from its first caption to its report, as its store tells it at this moment.

For a page that asks every few seconds: the objects are listed, and only those that are new are
read. Reads no tar whole, no features and no weights. A part that is damaged is named, and the
others are told all the same.
"""

import base64
import io
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from t2ipal.dashboard.trained import TrainedFolders
from t2ipal.evaluation.results import EVALUATION, read_evaluation
from t2ipal.store import (
    Entry,
    RunSettings,
    RunWatch,
    Sample,
    Store,
    count_rejected,
    damaged,
    first_images,
    read_choice_manifest,
    read_settings,
    require_price,
    run_status,
)
from t2ipal.store.images import decode_image
from t2ipal.training.recipes import METHODS

NUM_NEWEST = 12
"""Images that are shown."""
SHOWN_PX = 128
"""The longest side of each."""
MAX_POINTS = 200
"""Of the curve of images over time."""
MAX_REASONS = 12
NOT_CHOSEN = "not chosen"
"""The filter's reason for captions that passed it and were not needed."""
REJECTED, REPORT = "rejected.parquet", "report.html"
ROUNDS_S = 10.0
"""A store whose listing takes a second is looked at every so many seconds, others more often."""


class Overview:
    """What is told of one run; what was read stays read."""

    def __init__(
        self, store: Store, price_per_gpu_hour: float | None = None, gpus_per_worker: float = 1.0
    ):
        """Reads nothing yet.

        Args:
            store: home of the run.
            price_per_gpu_hour: in any currency; None: no cost is told.
            gpus_per_worker: that synthesis had; its store does not tell.

        Raises:
            ValueError: one of these can be none.
        """
        require_price(price_per_gpu_hour, gpus_per_worker)
        self._store, self._watch = store, RunWatch(store)
        self._price, self._gpus = price_per_gpu_hour, gpus_per_worker
        self._trained = TrainedFolders(store)
        self._top: dict[str, Entry] = {}
        """Objects that lie in no folder of the run."""
        self._settings: RunSettings | None = None
        self._kept: dict[str, tuple[Any, Any]] = {}
        self._told: dict[str, Any] = {}
        self._next_s = 0.0

    def told(self) -> dict[str, Any]:
        """Plain values for JSON, as of now.

        Raises:
            FileNotFoundError: there is nothing of a run.
        """
        begun_s = time.monotonic()
        if begun_s >= self._next_s:
            self._told = self._look()
            self._next_s = begun_s + ROUNDS_S * (time.monotonic() - begun_s)
        return self._told

    def _look(self) -> dict[str, Any]:
        problems: list[str] = []
        self._top = self._store.entries("", recursive=False)
        parts: dict[str, Callable[[], Any]] = {
            "synthesis": self._synthesis,
            "captions": self._captions,
            "newest": self._newest,
            "choices": self._choices,
            "training": self._trained.told,  # knows the backbones' names
            "features": self._features,
            "evaluation": self._evaluation,
            "report": self._report,
        }
        told: dict[str, Any] = {}
        for name, part in parts.items():
            try:
                told[name] = part()
            except (ValueError, OSError) as error:
                told[name] = None
                problems.append(" ".join(str(error).split()))
        if not problems and not any(told.values()):
            raise FileNotFoundError(f"No run in {self._store.uri}. Run jobs/synthesize.py first.")
        return {"run": self._store.uri, "looked_s": time.time(), "problems": problems, **told}

    def _once(self, name: str, version: Any, read: Callable[[], Any]) -> Any:
        """What `read` gives, read again when the version changes; None where there is none."""
        kept = self._kept.get(name)
        if kept is None or kept[0] != version:
            kept = self._kept[name] = version, read() if version else None
        return kept[1]

    def _synthesis(self) -> dict[str, Any] | None:
        try:
            status = run_status(self._watch, self._price, self._gpus)
        except FileNotFoundError:
            if self._watch.sections:  # a part of it is gone
                raise
            return None
        self._settings = settings = self._settings or read_settings(self._store)
        return {
            **vars(status),
            "num_missing": status.num_samples - status.num_images - status.num_failed,
            "failed_by_reason": _most(status.failed_by_reason),
            "pipeline": settings.synthesis.get("pipeline"),
            "num_classes": len(settings.class_names),
            "progress": _progress(self._watch),
        }

    def _captions(self) -> dict[str, Any] | None:
        rejected = self._top.get(REJECTED)
        if not self._watch.sections and rejected is None:
            return None
        reasons = self._once("rejected", rejected, lambda: count_rejected(self._store)) or {}
        used = sum(s.num_captions for s in self._watch.sections if s.captions_key)
        kinds: Counter[str] = Counter()
        for reason, count in reasons.items():
            kinds[reason.partition(":")[0]] += count  # "only negated: dog" is one of a kind
        not_chosen = kinds.pop(NOT_CHOSEN, 0)
        read = used + sum(reasons.values())
        return {
            "num_read": read,
            "num_kept": used + not_chosen,
            "num_used": used,
            "rejected": _most(kinds),
        }

    def _newest(self) -> list[dict[str, Any]]:
        """The images of the shard that was finished last."""
        with_images = [m for m in self._watch.markers if m.num_rows > m.num_failed]
        newest = max(with_images, key=lambda m: (self._watch.times[m.shard], m.shard), default=None)

        def read() -> list[dict[str, Any]]:
            assert newest is not None
            names = settings.class_names if (settings := self._settings) else ()
            images = first_images(self._store, newest, NUM_NEWEST)
            return [shown for row, data in images if (shown := _shown(row, data, names))]

        return self._once("newest", newest and newest.tar.sha256, read) or []

    def _choices(self) -> list[dict[str, Any]]:
        def read() -> list[dict[str, Any]]:
            names = [key.removeprefix("manifests/").removesuffix(".json") for key in there]
            found = [(name, read_choice_manifest(self._store, name)) for name in names]
            return [
                {"name": name, "num_images": each.num_images, "num_kept": each.num_kept}
                for name, each in found
            ]

        entries = self._store.entries("manifests/").items()
        there = {key: entry.version for key, entry in entries if key.endswith(".json")}
        return self._once("choices", there, read) or []

    def _features(self) -> list[dict[str, Any]]:
        """Of each backbone, by the names of its objects."""
        folders: dict[str, dict[str, Any]] = {}
        for key, entry in self._store.entries("features/").items():
            folder, _, name = key.rpartition("/")
            kind, _, of = name.removesuffix(".safetensors").partition("-")
            if kind not in ("images", "texts"):
                continue
            told = folders.setdefault(folder, {"shards": 0, "captions": 0, "size_bytes": 0})
            told["size_bytes"] += entry.size_bytes
            if kind == "images":
                told["shards"] += 1
            else:
                first, _, end = of.partition("-")
                told["captions"] += int(end) - int(first)
        return [
            {
                "folder": folder,
                "model": self._trained.models.get(folder),
                "num_shards": len(self._watch.markers),
                "num_captions": sum(s.num_captions for s in self._watch.sections if s.captions_key),
                **told,
            }
            for folder, told in sorted(folders.items())
        ]

    def _evaluation(self) -> dict[str, Any] | None:
        entry = self._top.get(EVALUATION)
        return self._once("evaluation", entry, lambda: _measured(self._store))

    def _report(self) -> dict[str, Any] | None:
        entry = self._top.get(REPORT)
        if entry is None:
            return None
        return {"uri": f"{self._store.uri}/{REPORT}", "written_s": entry.modified_s}


def _most(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The most frequent ones, and the others as one."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    others = sum(count for _, count in ordered[MAX_REASONS:])
    return [*ordered[:MAX_REASONS], *([("others", others)] if others else [])]


def _progress(watch: RunWatch) -> list[tuple[float, int]]:
    """(seconds since 1970, images) as shards were finished; a part of the points where many."""
    done, points = 0, []
    for marker in sorted(watch.markers, key=lambda marker: watch.times[marker.shard]):
        done += marker.num_rows - marker.num_failed
        points.append((round(watch.times[marker.shard], 1), done))
    step = max(len(points) / MAX_POINTS, 1)
    chosen = [points[int(n * step)] for n in range(int(len(points) / step))]
    return chosen if not points or chosen[-1] == points[-1] else [*chosen, points[-1]]


def _shown(row: Sample, data: bytes, class_names: Sequence[str]) -> dict[str, Any] | None:
    """An image as a page shows it; None where it cannot be read."""
    buffer = io.BytesIO()
    try:
        image = Image.fromarray(decode_image(data))
        image.thumbnail((SHOWN_PX, SHOWN_PX))
        image.save(buffer, "JPEG", quality=75)
    except (OSError, ValueError, SyntaxError):
        return None
    labels = [class_names[label] for label in row.labels if label < len(class_names)]
    address = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"key": row.key, "caption": row.caption, "labels": labels, "image": address}


def _measured(store: Store) -> dict[str, Any]:
    content = read_evaluation(store)
    try:
        methods = [
            {
                "name": name,
                "title": METHODS[name].title if name in METHODS else name,
                **{key: numbers[key] for key in ("mean", "std", "seeds", "mAPs", "per_class")},
            }
            for name, numbers in content["methods"].items()
        ]
        methods.sort(key=lambda method: method["mean"] or 0.0)
        about = ("test_set", "num_images", "definition", "class_names")
        told = {key: content[key] for key in about}
        return {**told, "measure": content.get("measure", "mAP"), "methods": methods}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(damaged(store, EVALUATION, "evaluate")) from error
