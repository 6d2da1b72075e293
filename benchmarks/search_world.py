"""What `benchmarks/search.py` searches: the demo's data, and trials that can be stacked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from benchmarks.training import Batch, encode
from t2ipal.config import override
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.experiments.demo import choose_captions
from t2ipal.features.backbone import Backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.extraction import extract_run
from t2ipal.features.reading import training_features_of
from t2ipal.features.sets import FeatureSet, FeatureTable, TrainingFeatures
from t2ipal.search.data import RunData, split_run
from t2ipal.search.setting import Setting, setting_of_run
from t2ipal.search.space import Dimension, SearchConfig, draw_settings
from t2ipal.store import Run, Store, read_run
from t2ipal.store.shards import read_images
from t2ipal.synthesis.making import synthesize
from t2ipal.synthesis.rendering import RenderingSynthesizer
from t2ipal.synthesis.request import SynthesisRequest
from t2ipal.training.recipes import Recipe, recipe
from t2ipal.training.stacked import Stack

SPACE = (
    Dimension("method.residual_ratio", "uniform", (0.0, 4.0)),
    Dimension("method.sharpness", "uniform", (1.0, 10.0)),
    Dimension("training.images_per_caption", "choice", (1, 2)),
    Dimension("training.lr", "loguniform", (1e-4, 1e-2)),
)


@dataclass(frozen=True)
class World:
    """The demo's run as a search has it."""

    run: Run
    features: str
    setting: Setting

    def data(self, search: SearchConfig) -> RunData:
        """What trials learn from and are scored on."""
        start, features = self.setting.synthesis, self.training()
        own = (start.guidance_scale, start.num_inference_steps)
        return split_run(search, start, features, {own: features})

    def training(self) -> TrainingFeatures:
        """All captions and images."""
        return training_features_of(self.run, self.features)


def open_world(folder: str, num_captions: int) -> World:
    """The run in a folder; where there is none, one of so many captions, its images drawn."""
    store = Store(folder)
    if not store.exists("manifest.json"):
        vocabulary, filtered = choose_captions(num_captions)
        drawn = SynthesisConfig(pipeline="rendered", images_per_caption=2)
        request = SynthesisRequest(drawn, vocabulary, filtered)
        synthesize(store, request, factory=RenderingSynthesizer)
    features = extract_run(store, BackboneConfig())
    run = read_run(store)
    names = run.settings.class_names, run.settings.prompt_names
    setting = setting_of_run(recipe("t2ipal", "pictovoc", *names), run.settings)
    return World(run, features, setting)


def space(num_trials: int) -> SearchConfig:
    """A search of so many trials; a longer one begins with the same."""
    return SearchConfig(SPACE, num_samples=num_trials)


def trials(start: Recipe, number: int, epochs: int) -> list[Recipe]:
    """Recipes of so many trials that can be stacked, the start itself first."""
    start = override(start, {"training.num_epochs": epochs, "training.data_seed": 0})
    settings = [{}, *draw_settings(space(number))][:number]
    return [override(start, values) for values in settings]


def stack_of(recipes: Sequence[Recipe], data: TrainingFeatures, backbone: Backbone) -> Stack:
    """A stack of trials that have learned nothing."""
    methods = [each.method.build(backbone, each.training.seed) for each in recipes]
    return Stack(methods, [each.training for each in recipes], data)


def in_memory(features: FeatureTable | None) -> FeatureSet:
    """All rows as floats, as training once had them."""
    assert features is not None
    rows = features.rows(slice(None))
    return replace(
        rows,
        global_features=rows.global_features.float(),
        local_features=rows.local_features.float(),
        labels=rows.labels.float(),
    )


def all_in_memory(data: TrainingFeatures) -> TrainingFeatures:
    """Captions and images as `in_memory` has them."""
    return TrainingFeatures(in_memory(data.texts), in_memory(data.images), data.image_of_caption)


def batch_of(world: World, backbone: Backbone, size: int) -> Batch:
    """A run's first captions, each with its first image."""
    index, wanted = world.run.image_index, range(size)
    place_of = {str(index.keys[at]): int(index.caption[at]) for at in range(len(index.k))}
    pixels: dict[int, np.ndarray] = {}
    for shard in index.shards:
        for sample, image in read_images(world.run.store, shard):
            if (place := place_of[sample.key]) in wanted:
                pixels.setdefault(place, image)
        if len(pixels) == size:
            break
    rows = sorted(pixels)
    captions = [world.run.captions[row].caption for row in rows]
    labels = torch.from_numpy(world.run.caption_index.labels)[rows].float()
    images = torch.from_numpy(np.stack([pixels[row] for row in rows]))
    texts, seen = encode(backbone, captions, images, labels.to(backbone.device))
    assert texts.mask is not None
    length = int(texts.mask.sum(dim=1).max())
    cut = replace(
        texts, local_features=texts.local_features[:, :length], mask=texts.mask[:, :length]
    )
    return Batch(captions, images, texts, cut, seen)
