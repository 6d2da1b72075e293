"""One driver of the chaos run of training: features and recognizers of a run, as jobs/train.py.

    python benchmarks/chaos/training_driver.py --output s3://chaos/run --address 127.0.0.1:6379

Unusual: it computes in float64. The number of workers changes the order of sums, and training
enlarges the rounding of float32, from 1e-7 to 1e-2 within a hundred epochs: that would hide faults.
Prints "connected" when it may be killed to some effect.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch.nn.functional as F
from torch import Tensor, nn

from t2ipal.commands.running import FLAT, parse, run_job
from t2ipal.engine.config import TrainingGroup
from t2ipal.engine.session import connect
from t2ipal.engine.workers import extract, training_workers
from t2ipal.features.backbone import Backbone, load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.prompt_tower import PromptLayout
from t2ipal.features.reading import read_training_features
from t2ipal.features.sets import TrainingFeatures
from t2ipal.methods.t2ipal import T2IPAL, T2IPALConfig
from t2ipal.places import Uri
from t2ipal.store import Store, read_manifest
from t2ipal.training.plans import TrainingRun
from t2ipal.training.recipes import Recipe, recipe
from t2ipal.training.runs import Workers, in_process, train_runs

METHODS = "t2ipal", "tai_dpt"


@dataclass(frozen=True)
class Work:
    """What is trained; it decides the numbers."""

    num_epochs: int = 60
    """Of each recognizer."""
    batch_size: int = 16
    num_seeds: int = 1
    """Of each method; grows by one from round to round."""
    seconds_per_step: float = 0.05
    """For which the encoder of prompts sleeps."""
    checkpoint_pause_s: float = 1.0
    """Between two checkpoints; a job takes 10."""


@dataclass(frozen=True)
class Options:
    """Trains on a cluster."""

    output: Uri
    """Store of the run."""
    address: str
    """Of the cluster."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""
    num_workers: str = "1:3"
    """As jobs/train.py takes it."""
    max_failures: int = 3
    """As jobs/train.py takes it."""
    work: Annotated[Work, FLAT] = field(default_factory=Work)


class PreciseBackbone(Backbone):
    """A CLIP whose text tower computes in float64, and sleeps now and then."""

    seconds_per_step = 0.0

    def encode_token_embeddings(
        self,
        embeddings: Tensor,
        end: Tensor,
        shared: Tensor | None = None,
        layout: PromptLayout | None = None,
    ) -> Tensor:
        """As the backbone's."""
        time.sleep(self.seconds_per_step)
        return super().encode_token_embeddings(embeddings, end, shared, layout)

    def _project(self, hidden: Tensor) -> Tensor:
        projection = self.model.text_projection
        projected = projection(hidden) if isinstance(projection, nn.Linear) else hidden @ projection
        return F.normalize(projected, dim=-1)


class PreciseConfig(T2IPALConfig):
    """Gives a method in float64."""

    def build(self, backbone: Any, seed: int = 0) -> T2IPAL:
        """As the config's."""
        return super().build(backbone, seed).double()


def load_inputs(
    store: Store, folder: str, seconds_per_step: float
) -> tuple[PreciseBackbone, TrainingFeatures]:
    """What a worker reads."""
    clip = load_backbone(BackboneConfig())
    backbone = PreciseBackbone(clip.model.double(), clip._text.tokenizer, clip.config)
    backbone.seconds_per_step = seconds_per_step
    return backbone, read_training_features(store, folder)


def train(store: Store, folder: str, work: Work, workers: Workers = in_process) -> None:
    """Trains what is not trained yet on the features in a folder, into `train` of the store."""
    names = read_manifest(store).settings
    runs = []
    for seed in range(work.num_seeds):
        for name in METHODS:
            start = recipe(name, "pictovoc", names.class_names, names.prompt_names)
            training = dataclasses.replace(
                start.training, num_epochs=work.num_epochs, batch_size=work.batch_size, seed=seed
            )
            method = PreciseConfig(**vars(start.method))
            runs.append(TrainingRun(f"{name}-seed{seed}", Recipe(method, training)))
    train_runs(
        runs,
        partial(load_inputs, store, folder, work.seconds_per_step),
        store,
        inputs={"features": folder},
        workers=workers,
        checkpoint_pause_s=work.checkpoint_pause_s,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains until all is done."""
    options = parse(Options, arguments, __doc__)
    store = Store(options.output, options.endpoint_url)
    group = TrainingGroup(options.num_workers, max_failures=options.max_failures)
    with connect(address=options.address):
        print("connected", flush=True)
        folder = extract(store, BackboneConfig(), in_process=False)
        train(store, folder, options.work, training_workers(group))


if __name__ == "__main__":
    run_job(main)
