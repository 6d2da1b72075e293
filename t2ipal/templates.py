"""Template captions as extra text: every class gets captions of its own, without images.

Owns how such captions join the others; does not know how their features are computed.
"""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from t2ipal.config import require
from t2ipal.features import FeatureSet, TrainingFeatures


def template_captions(
    prompt_names: tuple[str, ...], templates: tuple[str, ...] = ("a photo of a {}.",)
) -> tuple[list[str], Float[Tensor, "captions classes"]]:
    """Extra text for every class, one class each: the filled templates and their one-hot labels."""
    texts = [template.format(name) for template in templates for name in prompt_names]
    return texts, torch.eye(len(prompt_names)).repeat(len(templates), 1)


def with_extra_texts(data: TrainingFeatures, extra: FeatureSet) -> TrainingFeatures:
    """`data` and more captions that have no image, such as those of `template_captions`."""
    length = max(data.texts.local_features.shape[1], extra.local_features.shape[1])
    parts = [_padded(texts, length) for texts in (data.texts, extra)]
    joined = FeatureSet(
        torch.cat([part.global_features for part in parts]),
        torch.cat([part.local_features for part in parts]),
        torch.cat([part.mask for part in parts]),  # type: ignore
        torch.cat([part.labels for part in parts]),
    )
    none = data.image_of_caption.new_full((len(extra), data.image_of_caption.shape[1]), -1)
    return TrainingFeatures(joined, data.images, torch.cat([data.image_of_caption, none]))


def _padded(texts: FeatureSet, length: int) -> FeatureSet:
    require(texts.mask is not None, "Captions need a mask of their tokens, got None.")
    missing = length - texts.local_features.shape[1]
    local = functional.pad(texts.local_features, (0, 0, 0, missing))
    mask = functional.pad(texts.mask, (0, missing), value=False)  # type: ignore
    return dataclasses.replace(texts, local_features=local, mask=mask)
