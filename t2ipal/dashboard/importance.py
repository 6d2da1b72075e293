"""When the importance of the dimensions is computed, and of which trials; `forest.py` does it."""

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from t2ipal.search.results import Trial, completed
from t2ipal.search.space import SearchConfig

MAX_TRIALS = 1000
"""Of which a forest is grown: an even sample where there are more."""
MIN_TRIALS = 12
"""Below that it would tell of chance alone."""
GROWTH = 1.1
"""Of the number of trials, after which it is worth while again."""
PAUSE_S = 10.0
"""Between two forests."""
TIMEOUT_S = 120.0


@dataclass
class Importance:
    """The shares as they were last computed."""

    shares: dict[str, float] | None = None
    num_trials: int = 0
    """Of which they were computed."""
    num_finished: int = 0
    """That there were then."""
    note: str = ""
    """Why there are none."""
    _thread: threading.Thread | None = None
    _ended_s: float = field(default=-math.inf)

    def told(self) -> dict[str, Any]:
        """For the page."""
        return {
            "shares": self.shares,
            "num_trials": self.num_trials,
            "num_finished": self.num_finished,
            "note": self.note,
        }

    def update(self, search: SearchConfig, trials: Sequence[Trial], wait: bool = False) -> None:
        """Computes them anew in the background, where enough has come since.

        Args:
            search: whose dimensions and metric.
            trials: all that there are; only those that came to their end count.
            wait: whether to wait for them.
        """
        done = completed(trials, search.metric)
        if len(done) < MIN_TRIALS:
            self.note = f"Shown from {MIN_TRIALS} finished trials on."
            return
        is_busy = self._thread is not None and self._thread.is_alive()
        rested = wait or time.monotonic() - self._ended_s > PAUSE_S
        if not is_busy and rested and len(done) > self.num_finished * GROWTH:
            self._thread = threading.Thread(target=self._compute, args=(search, done), daemon=True)
            self._thread.start()
        if wait and self._thread is not None:
            self._thread.join()

    def _compute(self, search: SearchConfig, done: Sequence[Trial]) -> None:
        kept = done
        if len(done) > MAX_TRIALS:
            chosen = np.random.default_rng(0).choice(len(done), MAX_TRIALS, replace=False)
            kept = [done[index] for index in sorted(chosen)]
        paths = [dimension.path for dimension in search.dimensions]
        rows = [
            ([trial.values.get(path) for path in paths], getattr(trial, search.metric))
            for trial in kept
        ]
        dimensions = [asdict(dimension) for dimension in search.dimensions]
        answer = _grow({"dimensions": dimensions, "rows": rows})
        self.shares = answer.get("shares", self.shares)
        self.note = answer.get("note", "")
        self.num_trials, self.num_finished = len(kept), len(done)
        self._ended_s = time.monotonic()


def _grow(task: dict[str, Any]) -> dict[str, Any]:
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(Path(__file__).with_name("forest.py"))],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env={**os.environ, **single},
            check=True,
        )
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no reason was given"])[-1]
        return {"note": f"It could not be computed: {last}"}
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
        return {"note": f"It could not be computed: {error}"}
