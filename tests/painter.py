"""A synthesizer that paints, and runs of it: what is there before a mistake, and after."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t2ipal.commands import synthesize
from t2ipal.diffusion.synthesizer import sample_seed

GIVEN = "--captions captions.txt --in-process --images-per-shard 2 --output"
"""Arguments of jobs/synthesize.py; the place of the run follows them."""


class Painter:
    """Each image in one color, that of its seed."""

    def __init__(self, config):
        self.config = config

    def __call__(self, batch):
        names = zip(batch["caption_id"], batch["k"], batch["attempt"])
        seeds = [sample_seed(self.config.seed, str(name), int(k), int(a)) for name, k, a in names]
        images = [np.full((8, 8, 3), 20 + seed % 200, np.uint8) for seed in seeds]
        return {
            **batch,
            "image": np.stack(images),
            "seed": np.array(seeds, np.uint64),
            "status": np.array(["ok"] * len(seeds)),
            "reason": np.array([""] * len(seeds)),
        }


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def painted_run(folder: Path) -> Path:
    """Writes captions and a finished run of two shards into a folder; returns the folder."""
    (folder / "captions.txt").write_text("a dog on a boat\ntwo cats\na red house\na bus\na horse\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("t2ipal.diffusion.synthesizer.Synthesizer", Painter)
        synthesize.main(f"{GIVEN} run".split())
    return folder


def refusal(main: Callable[[list[str]], Any], *words: str) -> str:
    """The message with which a job refuses these arguments."""
    with pytest.raises((ValueError, OSError)) as caught:
        main(" ".join(words).split())
    assert not isinstance(caught.value, UnicodeError)
    return " ".join(str(caught.value).split())
