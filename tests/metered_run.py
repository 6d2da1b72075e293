"""A synthesis of some seconds on the cluster at RAY_ADDRESS, with a failure, for its metrics."""

import sys
import time

from fake_synthesis import FakeSynthesizer, a_request

from t2ipal.engine.pool import on_ray
from t2ipal.engine.session import connect
from t2ipal.store import Store
from t2ipal.synthesis.making import synthesize
from t2ipal.synthesis.request import ExecutionConfig


class SlowSynthesizer(FakeSynthesizer):
    def __call__(self, batch):
        time.sleep(0.3)
        return super().__call__(batch)


def after_commit(store, device):
    return lambda shard, images: None


if __name__ == "__main__":
    captions = [f"a dog number {i}" for i in range(16)]
    captions[4] = "a raise dog"
    run = ExecutionConfig(min_workers=1, gpus_per_worker=0, max_failed_fraction=0.2)
    with connect():
        synthesize(
            Store(sys.argv[1]), a_request(captions, images_per_shard=2), run, workers=on_ray,
            factory=SlowSynthesizer, after_commit=after_commit,
        )  # fmt: skip
