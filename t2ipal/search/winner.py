"""The best trial of a search, as training takes it: on all captions, and on the trial's images."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from t2ipal.config import from_dict, override, require
from t2ipal.features.config import BackboneConfig
from t2ipal.methods.recognizer import Normalization
from t2ipal.search.results import SearchFolder, Trial, best
from t2ipal.search.running import describe
from t2ipal.search.setting import Setting
from t2ipal.search.space import SearchConfig
from t2ipal.search.variants import plan_variants
from t2ipal.store import Store

APART = ("normalization.", "synthesis.", "training.seed", "training.data_seed")
"""Values of a trial that are no settings of what is trained; seeds are training's own."""


@dataclass(frozen=True)
class Winner:
    """A trial and all that it was made of."""

    method: str
    """Name of the recipe."""
    schedule: str
    """Of `t2ipal.training.recipes.SCHEDULES`."""
    changes: dict[str, Any]
    """Of the recipe, by dotted names: the search's own, and the trial's."""
    normalization: Normalization | None
    """Of its scores; None: where the search did not vary it."""
    backbone: BackboneConfig
    """On whose features it was trained."""
    trial: Trial
    search: SearchConfig
    setting: Setting
    """That its search started from."""

    def describe(self) -> str:
        """In a line."""
        return describe(self.search, self.trial)

    def clip(self, given: BackboneConfig) -> BackboneConfig:
        """The search's own, on the device that is given.

        Raises:
            ValueError: another one is given.
        """
        known = dataclasses.replace(self.backbone, device=given.device)
        require(
            given in (known, BackboneConfig(device=given.device)),
            f"from_search trains on the search's own CLIP ({known.model}, {known.pretrained}): "
            "leave out options of another one.",
        )
        return known

    def images(self, run: Store) -> Store:
        """The run that it learned from: `run`, or one of its other sets of images.

        Raises:
            ValueError: they are not all there.
        """
        variants = plan_variants(run, self.setting, self.search)
        require(
            variants.num_missing == 0,
            f"The images of the best trial are not all in {run.uri}. Run jobs/tune.py again.",
        )
        return variants.of(self.trial.values)


def read_winner(store: Store) -> Winner:
    """The best trial of a search, which need not be at its end.

    Args:
        store: of the search's own folder.

    Raises:
        FileNotFoundError: no search there.
        ValueError: it is of another version, or no trial has come to its end.
    """
    folder = SearchFolder(store, "")
    settings = folder.settings()
    if settings is None:
        raise FileNotFoundError(f"No search in {folder.place}. Run jobs/tune.py first.")
    require(
        "method" in settings,
        f"{folder.place} holds a search of a version before, which does not say what was searched. "
        "Give its best values to --set.",
    )
    search = from_dict(SearchConfig, settings["search"])
    setting = from_dict(Setting, settings["recipe"])
    trial = best(search, folder.trials())
    if trial is None:
        raise ValueError(
            f"No trial of {folder.place} has come to its end. Run jobs/tune.py until one has."
        )
    given = {**settings["changes"], **trial.values}
    varied = any(name.startswith(APART[0]) for name in given)
    return Winner(
        settings["method"],
        settings["schedule"],
        {name: value for name, value in given.items() if not name.startswith(APART)},
        override(setting, trial.values).normalization if varied else None,
        from_dict(BackboneConfig, settings["backbone"]),
        trial,
        search,
        setting,
    )
