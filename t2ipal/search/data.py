"""What the trials of a search learn from and are scored on: a run's own features, split once.

All trials are scored on the same images, also those that learn from other sets of images: their
scores can be compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from t2ipal.features.sets import FeatureTable, TrainingFeatures
from t2ipal.search.setting import OF_IMAGES
from t2ipal.search.space import SearchConfig
from t2ipal.training.validation import held_out_captions, images_of, without_captions


@dataclass(frozen=True)
class RunData:
    """Training features by the values of what a space varies of synthesis, and validation images.

    Of features that are not in memory these are the names of files, so it is small to send.
    """

    varied: tuple[str, ...]
    """Options of synthesis that the space varies; mostly none."""
    sets: Mapping[tuple[Any, ...], TrainingFeatures]
    """By their values, in that order."""
    images: FeatureTable
    """That no trial learns from."""

    def training(self, values: Mapping[str, Any]) -> TrainingFeatures:
        """What a trial with these values learns from; the same object for trials that share it."""
        return self.sets[tuple(values[name] for name in self.varied)]

    def validation(self) -> FeatureTable:
        """What every trial is scored on."""
        return self.images


def split_run(
    search: SearchConfig,
    run: TrainingFeatures,
    others: Mapping[tuple[Any, ...], TrainingFeatures] | None = None,
    labelled: FeatureTable | None = None,
) -> RunData:
    """The features of a run, split into what trials learn from and what they are scored on.

    Args:
        search: the share of captions to hold out, and the seed of the choice.
        run: the run's own captions and images.
        others: the same captions with other images, by the values of what varies of synthesis;
            None: nothing of it varies.
        labelled: images to be scored on; None: the run's own ones of held-out captions.

    Raises:
        ValueError: no images to hold out.
    """
    names = {dimension.path for dimension in search.dimensions}
    varied = tuple(name for name in OF_IMAGES if name in names)
    sets = {(): run} if others is None else dict(others)
    if labelled is not None:
        return RunData(varied, sets, labelled)
    held = held_out_captions(run, search.validation_fraction, search.seed)
    return RunData(
        varied,
        {values: without_captions(data, held) for values, data in sets.items()},
        images_of(run, held),
    )
