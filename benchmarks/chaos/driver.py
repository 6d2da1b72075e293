"""One driver of the chaos run: the work, a generator that costs next to nothing, and a command.

    python benchmarks/chaos/driver.py --output s3://chaos/run --address 127.0.0.1:6379

Prints "connected" when it may be killed to some effect, and a JSON summary last.
"""

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from t2ipal.captions import Caption, FilterResult, Vocabulary
from t2ipal.commands.running import FLAT, parse, run_job
from t2ipal.config import require
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.engine.pool import on_ray
from t2ipal.engine.session import connect
from t2ipal.places import Uri
from t2ipal.store import Store
from t2ipal.synthesis.making import synthesize
from t2ipal.synthesis.request import ExecutionConfig, SynthesisRequest

PETS = Vocabulary("pets", ("dog", "cat"), ("dog", "cat"), (("puppy",), ("kitten",)))
IMAGE_SIZE_PX = 64


@dataclass(frozen=True)
class Work:
    """What is to be made; it decides the bytes."""

    num_captions: int = 1200
    images_per_shard: int = 4
    images_per_caption: int = 1
    """Grows by one from round to round; each round then adds the same number of shards."""
    failing: int = 50
    """Of so many samples one fails at its first attempt, and is made again by a later command."""

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            require(value > 0, f"{name} must be > 0, got {value}.")

    def request(self) -> SynthesisRequest:
        """The same captions for everyone."""
        captions = [
            Caption(f"id {n}", f"a dog and cat number {n}", (0, 1)[: 1 + n % 2])
            for n in range(self.num_captions)
        ]
        return SynthesisRequest(
            SynthesisConfig("stub", images_per_caption=self.images_per_caption, batch_size=3),
            PETS,
            FilterResult(captions, [Caption("house", "a house", reason="no class")]),
            self.images_per_shard,
        )


@dataclass(frozen=True)
class Options:
    """Synthesizes with the stub on a cluster."""

    output: Uri
    """Store of the run."""
    address: str
    """Of the cluster."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""
    num_workers: int = 2
    seconds_per_image: float = 0.0
    """For which the stub sleeps."""
    work: Annotated[Work, FLAT] = field(default_factory=Work)


class StubSynthesizer:
    """Noise from the sample's name and the size of its micro-batch, after a sleep.

    Of `failing` samples one fails at its first attempt; of 0 none does.
    """

    def __init__(self, config: Any, seconds_per_image: float = 0.0, failing: int = 0):
        self.seconds_per_image = seconds_per_image
        self.failing = failing

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Images of one micro-batch."""
        count = len(batch["k"])
        time.sleep(count * self.seconds_per_image)
        columns = batch["caption_id"], batch["k"], batch["attempt"]
        names = [f"{name}/{k}/{attempt}" for name, k, attempt in zip(*columns, strict=True)]
        hashes = [hashlib.sha256(name.encode()).digest() for name in names]
        seeds = [int.from_bytes(each[:8], "little") for each in hashes]
        shape = IMAGE_SIZE_PX, IMAGE_SIZE_PX, 3
        images = [np.random.default_rng(seed).integers(0, 200, shape) + count for seed in seeds]
        failed = np.array([bool(self.failing) and seed % self.failing == 0 for seed in seeds])
        failed &= batch["attempt"] == 0
        return {
            "image": np.stack(images).astype(np.uint8),
            "seed": np.array(seeds, dtype=np.uint64),
            "status": np.where(failed, "failed", "ok"),
            "reason": np.where(failed, "as told", ""),
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Works until every sample of the request was tried, and those again that had failed before."""
    options = parse(Options, arguments, __doc__)
    workers = options.num_workers
    with connect(address=options.address):
        print("connected", flush=True)
        summary = synthesize(
            Store(options.output, options.endpoint_url),
            options.work.request(),
            ExecutionConfig(workers, workers, max_failed_fraction=1.0, retry_failed=True),
            workers=on_ray,
            factory=partial(
                StubSynthesizer,
                seconds_per_image=options.seconds_per_image,
                failing=options.work.failing,
            ),
        )
    print(json.dumps(dataclasses.asdict(summary)))


if __name__ == "__main__":
    run_job(main)
