"""The recognizers of a run for its page: how far each is trained, and its losses so far."""

import io
import math
import time
from collections.abc import Mapping
from pickle import UnpicklingError
from typing import Any

import torch

from t2ipal.evaluation.runs import NAME, TRAINED
from t2ipal.methods.recognizer import SETTINGS
from t2ipal.store import Entry, Store, damaged, join_key, read_json
from t2ipal.training.recipes import METHODS
from t2ipal.training.runs import CHECKPOINT, CHECKPOINT_PAUSE_S, FINISHED, load_history

QUIET_S = 6 * CHECKPOINT_PAUSE_S
"""Without a new checkpoint, after which nobody seems to be at work."""
MAX_CHECKPOINT_BYTES = 32 * 2**20
"""Of larger ones only the time is looked at."""

UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, UnpicklingError)


class TrainedFolders:
    """The folders of a run's recognizers; each is read again only where it has changed."""

    def __init__(self, store: Store):
        self._store = store
        self._known: dict[str, tuple[Any, dict[str, Any]]] = {}
        self.models: dict[str, str] = {}
        """Names of backbones, by the folder of their features."""

    def told(self) -> list[dict[str, Any]]:
        """What a page shows of each, those of one method together.

        Raises:
            ValueError: what is kept of one is damaged.
        """
        folders: dict[str, dict[str, Entry]] = {}
        for key, entry in self._store.entries(f"{TRAINED}/").items():
            folder, _, name = key.rpartition("/")
            if NAME.fullmatch(folder.rpartition("/")[2]) and folder.count("/") == 1:
                folders.setdefault(folder, {})[name] = entry
        found = [self._folder(folder, entries) for folder, entries in folders.items()]
        return sorted(found, key=lambda each: (each["method"], each["seed"]))

    def _folder(self, folder: str, entries: Mapping[str, Entry]) -> dict[str, Any]:
        version = {name: entry.version for name, entry in entries.items()}
        if folder not in self._known or self._known[folder][0] != version:
            self._known[folder] = version, self._read(folder, entries)
        told = self._known[folder][1]
        if told["status"] == "done":
            return told
        quiet = time.time() - max(entry.modified_s for entry in entries.values()) > QUIET_S
        return {**told, "status": "interrupted" if quiet else "running"}

    def _read(self, folder: str, entries: Mapping[str, Entry]) -> dict[str, Any]:
        name = NAME.fullmatch(folder.rpartition("/")[2])
        assert name is not None
        method, seed = name.groups()
        told: dict[str, Any] = {
            "method": method,
            "seed": int(seed),
            "title": METHODS[method].title if method in METHODS else method,
            "num_epochs": None,
            "losses": [],
            "seconds": None,
            "status": "done" if FINISHED in entries else "running",
        }
        if SETTINGS in entries:
            told["num_epochs"] = self._epochs(folder)
        if FINISHED in entries:
            history, told["seconds"] = load_history(self._store, folder)
            told["losses"] = [_number(record.loss) for record in history]
            told["num_epochs"] = len(history)
        elif CHECKPOINT in entries and entries[CHECKPOINT].size_bytes <= MAX_CHECKPOINT_BYTES:
            told["losses"] = self._so_far(join_key(folder, CHECKPOINT))
        return told

    def _epochs(self, folder: str) -> int | None:
        """That it is to be trained for; notes which backbone its features are of."""
        key = join_key(folder, SETTINGS)
        settings = read_json(self._store, key, "train")
        try:
            inputs = settings["inputs"]
            if "features" in inputs:
                self.models[inputs["features"]] = inputs["backbone"]["model"]
            return settings["recipe"]["training"]["num_epochs"]
        except (KeyError, TypeError) as error:
            raise ValueError(damaged(self._store, key, "train")) from error

    def _so_far(self, key: str) -> list[float | None]:
        """Losses of the epochs that a checkpoint tells of; none where it cannot be read."""
        try:
            data = io.BytesIO(self._store.read(key))
            stored = torch.load(data, map_location="cpu", weights_only=True)
            return [_number(float(record["loss"])) for record in stored["history"]]
        except UNREADABLE:  # it is being replaced, or of another version: training itself says so
            return []


def _number(loss: float) -> float | None:
    """To five digits, which is more than a chart shows; None where it ran away."""
    return float(f"{loss:.5g}") if math.isfinite(loss) else None
