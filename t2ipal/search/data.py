"""What the trials of a search learn from and are scored on: a run's own features, split once.

All trials are scored on the same images, also those that learn from other sets of images: their
scores can be compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.features.sets import FeatureTable, TrainingFeatures
from t2ipal.search.setting import values_of_images
from t2ipal.search.space import SearchConfig
from t2ipal.training.validation import held_out_captions, images_of, without_captions

Images = tuple[Any, ...]
"""The values of `t2ipal.search.setting.values_of_images`, in their order."""


@dataclass(frozen=True)
class RunData:
    """Training features by the values that their images were made with, and validation images.

    Of features that are not in memory these are the names of files, so it is small to send.
    """

    start: SynthesisConfig
    """What a trial does not vary."""
    sets: Mapping[Images, TrainingFeatures]
    images: FeatureTable
    """That no trial learns from."""

    def training(self, values: Mapping[str, Any]) -> TrainingFeatures:
        """What a trial with these values learns from; the same object for trials that share it."""
        return self.sets[tuple(values_of_images(self.start, values).values())]

    def validation(self) -> FeatureTable:
        """What every trial is scored on."""
        return self.images


def split_run(
    search: SearchConfig,
    start: SynthesisConfig,
    run: TrainingFeatures,
    sets: Mapping[Images, TrainingFeatures],
    labelled: FeatureTable | None = None,
) -> RunData:
    """The features of a run, split into what trials learn from and what they are scored on.

    Args:
        search: the share of captions to hold out, and the seed of the choice.
        start: how images are made where a trial says nothing else.
        run: the run's own captions and images.
        sets: the same captions with the images that trials learn from.
        labelled: images to be scored on; None: the run's own ones of held-out captions.

    Raises:
        ValueError: no images to hold out.
    """
    if labelled is not None:
        return RunData(start, sets, labelled)
    held = held_out_captions(run, search.validation_fraction, search.seed)
    rest = {values: without_captions(data, held) for values, data in sets.items()}
    return RunData(start, rest, images_of(run, held))
