"""Which captions a recipe learns from: a cap for each class, and template captions beside them.

Both are TaI-DPT's. Its 89 templates are in none of our texts: these are CLIP's 80 for ImageNet and
nine of our own.
"""

import dataclasses

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from t2ipal.config import fingerprint
from t2ipal.features.backbone import clip_templates
from t2ipal.features.extraction import text_set
from t2ipal.features.joined import JoinedTables
from t2ipal.features.sets import TrainingFeatures
from t2ipal.methods.contract import FrozenBackbone
from t2ipal.training.recipes import Recipe

OWN_TEMPLATES = (
    "a {}.",
    "there is a {}.",
    "a picture of a {}.",
    "an image of a {}.",
    "a photo showing a {}.",
    "a scene with a {}.",
    "a photo of a {} in the background.",
    "a photo of a {} in the foreground.",
    "a photo of a {} and other things.",
)


def templates() -> tuple[str, ...]:
    """The 89 texts around a class name."""
    return (*clip_templates(), *OWN_TEMPLATES)


def captions_for(
    recipe: Recipe, data: TrainingFeatures, backbone: FrozenBackbone
) -> TrainingFeatures:
    """The captions that a recipe asks for: capped first, with template captions behind them."""
    training, method = recipe.training, recipe.method
    if training.max_per_class is not None:
        data = with_cap(data, training.max_per_class)
    if training.template_captions:
        names = getattr(method, "prompt_names", method.class_names)
        data = with_template_captions(data, backbone, names)
    return data


def captions_key(recipe: Recipe) -> str:
    """Equal for recipes of which `captions_for` makes the same."""
    training, method = recipe.training, recipe.method
    names = getattr(method, "prompt_names", method.class_names)
    return fingerprint([training.max_per_class, training.template_captions, names])


def with_template_captions(
    data: TrainingFeatures, backbone: FrozenBackbone, prompt_names: tuple[str, ...]
) -> TrainingFeatures:
    """The data with a caption of every class in every template behind its captions.

    Each has its one class as label, and no image.

    Args:
        data: captions and images, features of `backbone`.
        backbone: encodes the templates; its visual tower is not needed.
        prompt_names: of the classes, in the order of the labels.
    """
    known = templates()
    captions = [template.format(name) for template in known for name in prompt_names]
    more = text_set(backbone, captions, torch.eye(len(prompt_names)).repeat(len(known), 1))
    rows = data.image_of_caption
    none = rows.new_full((len(more), rows.shape[1]), -1)
    return dataclasses.replace(
        data,
        texts=JoinedTables([data.texts, more]),
        image_of_caption=torch.cat([rows, none]),
        num_templates=len(more),
    )


def with_cap(data: TrainingFeatures, max_per_class: int) -> TrainingFeatures:
    """Only the first captions of each class, each counted for the rarest one that it names."""
    kept = first_of_rarest(data.texts.labels.float(), max_per_class)
    return dataclasses.replace(
        data,
        texts=data.texts.subset(kept),
        image_of_caption=data.image_of_caption[kept],
        max_per_class=max_per_class,
    )


def first_of_rarest(
    labels: Float[Tensor, "captions classes"], max_per_class: int
) -> Int[Tensor, " kept"]:
    """Rows that are among the first so many of their rarest class; the first of equal classes."""
    counts = labels.sum(dim=0).expand_as(labels).masked_fill(labels == 0, float("inf"))
    own = F.one_hot(counts.argmin(dim=1), labels.shape[1])
    rank = (own.cumsum(dim=0) * own).sum(dim=1)
    return (rank <= max_per_class).nonzero().flatten()
