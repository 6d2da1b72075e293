"""How far class embeddings are from images, captions and synthetic images: the paper's Table VI.

Owns what is compared and averaged; the mathematics of the features is in `t2ipal.methods.scoring`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from t2ipal.config import require
from t2ipal.features.sets import FeatureTable
from t2ipal.methods import scoring
from t2ipal.methods.t2ipal import T2IPALScorer, image_globals

BATCH_SIZE = 512


@dataclass(frozen=True)
class ModalityGap:
    """Mean cosines of class embeddings with what shows or names the class; higher is closer."""

    test_images: float
    captions: float
    synthetic_images: float
    adapted_synthetic_images: float | None
    """After the shared adapter; None for a method without one."""


def modality_gap(
    scorer: T2IPALScorer,
    test_images: FeatureTable,
    captions: FeatureTable,
    synthetic_images: FeatureTable,
) -> ModalityGap:
    """Each number is the mean of `present_cosines` over all pairs of its feature set.

    A row with three present classes counts three times, a frequent class more than a rare one.

    Raises:
        ValueError: a feature set in which no class is present.
    """
    adapted = None
    if scorer.prototypes is not None:
        adapted = float(present_cosines(scorer, synthetic_images, adapted=True).mean())
    return ModalityGap(
        test_images=float(present_cosines(scorer, test_images).mean()),
        captions=float(present_cosines(scorer, captions).mean()),
        synthetic_images=float(present_cosines(scorer, synthetic_images).mean()),
        adapted_synthetic_images=adapted,
    )


@torch.no_grad()
def present_cosines(
    scorer: T2IPALScorer, features: FeatureTable, *, adapted: bool = False
) -> Float[Tensor, " pairs"]:
    """Cosine of feature and class embedding for every (row, class with label 1), on the CPU.

    For a method with local scores the feature is zhat_i, attended by the class's own heatmap at
    the temperature of its kind (eq. 4), and the embedding L_i; so without an adapter
    |zhat_i| times the cosine is p'_i. Else, and where the adapter is global, it is the whole
    image's or caption's feature, and G_i.

    Args:
        scorer: its constants.
        features: images or, where they have a mask, captions.
        adapted: take z + alpha phi_i(z) E_i instead ((1 - alpha) z + alpha phi_i(z) E_i for "mix"),
            E_i the embedding: the feature whose product with E_i is the adapter's score (eq. 6).
            It is drawn towards E_i by construction, the more the nearer z is to the prototype; so
            it shows how much the adapter answers, not that the encoders agree.
    """
    config, prototypes = scorer.config, scorer.prototypes
    local = config.local_scores and config.adapter != "global"
    embeddings = scorer.local_embeddings if local else scorer.global_embeddings
    found = []
    for start in range(0, len(features), BATCH_SIZE):
        part = features.rows(slice(start, start + BATCH_SIZE), embeddings.device)
        of_images = part.mask is None
        temperature = config.image_temperature if of_images else config.text_temperature
        if local:
            locations = part.local_features.to(embeddings.dtype)
            heatmap = scoring.class_wise_heatmap(
                scoring.local_similarities(locations, embeddings),
                part.mask,
                temperature * scorer.temperature_factor,
                config.aggregation,
            )
            seen = scoring.attend(heatmap, locations)
        else:
            whole = image_globals(part, config) if of_images else part.global_features
            seen = whole.to(embeddings.dtype).unsqueeze(1).expand(-1, len(embeddings), -1)
        if adapted:
            require(prototypes is not None, "This method has no adapter; take adapted=False.")
            assert prototypes is not None
            answers = scoring.affinity(seen, prototypes, config.sharpness).unsqueeze(-1)
            ratio = scorer.residual_ratio
            kept = 1 - ratio if config.residual == "mix" else 1
            seen = kept * seen + ratio * answers * embeddings
        cosines = functional.cosine_similarity(seen, embeddings, dim=-1)
        found.append(cosines[part.labels > 0].cpu())
    pairs = torch.cat(found) if found else torch.zeros(0)
    require(len(pairs) > 0, "Cosines of present classes need a row with a label, got none.")
    return pairs
