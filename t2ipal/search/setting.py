"""What a trial is: a recipe, how its scores are normalized, and how its images were made.

Owns which options make sense as dimensions of a search, and why the others do not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from t2ipal.config import field_paths, from_dict, one_of, require
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.methods.recognizer import Normalization
from t2ipal.methods.stored import MethodConfig
from t2ipal.store import RunTotals
from t2ipal.training.loop import TrainingConfig
from t2ipal.training.recipes import Recipe

OF_IMAGES = ("synthesis.guidance_scale", "synthesis.num_inference_steps")
"""The options of synthesis that a search may vary; each of their values is a set of images."""
NAMES = tuple(path.partition(".")[2] for path in OF_IMAGES)
"""Of the same, as SynthesisConfig has them."""
IMAGES_PER_CAPTION = "training.images_per_caption"

REFUSED = {
    "method.class_names": "the run's captions are labelled with its own classes",
    "method.prompt_names": "the run's classes have their own",
    "method.method": "a search is of one method, the --method of jobs/tune.py",
    "training.precision": "it changes how exactly a trial is computed, not what it learns",
    "synthesis.images_per_caption": f"vary {IMAGES_PER_CAPTION}, which takes the first images",
}
"""Options that cannot be varied, and why or what to do."""

IDLE = {
    "method.context_length": ("method.context_init", lambda value: value != "normal"),
    "method.sharpness": ("method.adapter", lambda value: value == "none"),
    "method.residual": ("method.adapter", lambda value: value == "none"),
    "method.residual_ratio": ("method.adapter", lambda value: value == "none"),
    "training.prototype_lr": ("method.adapter", lambda value: value == "none"),
    "method.text_temperature": ("method.image_weight", lambda value: value == 1),
    IMAGES_PER_CAPTION: ("method.image_weight", lambda value: value == 0),
}
"""Option -> another one, and the values of that one with which it changes nothing."""

OF_THE_LOSS = ("method.image_weight", "method.margin", "method.scale")
"""Options that change what the loss measures, so that losses cannot be compared."""


@dataclass(frozen=True)
class Setting:
    """All that a search may vary, with the values of everything that it does not."""

    method: MethodConfig
    training: TrainingConfig
    normalization: Normalization = Normalization()  # noqa: RUF009
    """Of the scores, at test only: it changes nothing that is learned."""
    synthesis: SynthesisConfig = SynthesisConfig()  # noqa: RUF009
    """The run's own; other values are other sets of images (`t2ipal.search.variants`)."""

    @property
    def recipe(self) -> Recipe:
        """What is trained."""
        return Recipe(self.method, self.training)


def setting_of_run(recipe: Recipe, run: RunTotals) -> Setting:
    """What every trial starts from on a run."""
    synthesis = from_dict(SynthesisConfig, run.synthesis)
    return Setting(recipe.method, recipe.training, synthesis=synthesis)


def values_of_images(start: SynthesisConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a trial's images are made with, by NAMES.

    Args:
        start: what the trial does not vary.
        values: of the trial, by dotted names.
    """
    pairs = zip(OF_IMAGES, NAMES)
    return {name: values.get(path, getattr(start, name)) for path, name in pairs}


def require_searchable(setting: Setting, name: Any) -> None:
    """Raises ValueError unless an option of this name may be varied; says why, and what to do."""
    require(
        isinstance(name, str),
        f"An option's name must be text, got {name!r}. YAML reads on, off, yes and no as truth "
        "values, and bare digits as numbers.",
    )
    names = field_paths(setting)
    group = [path for path in names if path.startswith(f"{name}.")]
    example = next((path for path in group if _may_vary(path)), "training.lr")
    require(not group, f"{name} is a group of options. Write whole names, e.g. {example}.")
    of_images = name in names and name.startswith("synthesis.") and name not in OF_IMAGES
    reason = REFUSED.get(name) if name in names else None
    if of_images and reason is None:
        reason = f"of the images only {' and '.join(OF_IMAGES)} can be"
    require(reason is None, f"{name} cannot be varied: {reason}.")
    one_of("option", name, (path for path in names if _may_vary(path)))


def _may_vary(path: str) -> bool:
    return path not in REFUSED and (not path.startswith("synthesis.") or path in OF_IMAGES)


def require_effect(setting: Setting, names: list[str]) -> None:
    """Raises ValueError where one of the varied options changes nothing."""
    for name in names:
        other, is_idle = IDLE.get(name, ("", None))
        if is_idle is None or other in names:
            continue
        part, _, field = other.partition(".")
        value = getattr(getattr(setting, part), field, None)
        require(
            not is_idle(value),
            f"{name} changes nothing with {other} {value}: leave it out, or vary {other} too.",
        )
