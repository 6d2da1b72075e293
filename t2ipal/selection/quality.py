"""What each synthetic image shows of its caption, and which images are worth training on.

Everything is measured on stored features with the frozen CLIP alone: columns for every image, and a
choice that drops nothing by itself. A generator leaves out what a caption names (the paper's
Fig. 10), and such an image teaches the wrong thing.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from t2ipal.captions import photo_prompts
from t2ipal.config import require
from t2ipal.features.ahead import ahead
from t2ipal.features.backbone import Backbone
from t2ipal.features.sets import FeatureTable, TrainingFeatures
from t2ipal.methods.scoring import local_similarities
from t2ipal.selection.config import QualityConfig

BLOCK_ROWS = 1024


@dataclass(frozen=True)
class ImageQuality:
    """One row for each image, in the order of the features."""

    caption: Int[Tensor, " images"]
    """Row of its caption."""
    similarity: Float[Tensor, " images"]
    """Cosine of CLIP's features of the image and of its caption."""
    named: Bool[Tensor, "images classes"]
    """Classes that the caption names."""
    found: Bool[Tensor, "images classes"]
    """Those of them that the heatmaps find."""
    twin: Int[Tensor, " images"]
    """Row of the first image of the same classes that looks the same; -1: none before it does."""

    @property
    def found_share(self) -> Float[Tensor, " images"]:
        """Share of the named classes that are found; 1 where none is named."""
        named = self.named.sum(dim=1)
        return torch.where(named > 0, self.found.sum(dim=1) / named.clamp(min=1), 1.0)


def zero_shot_embeddings(
    backbone: Backbone, prompt_names: Sequence[str]
) -> Float[Tensor, "classes width"]:
    """Of the zero-shot prompt of each class, L2-normalised, on the CPU."""
    return backbone.encode_texts(photo_prompts(prompt_names)).global_features.cpu()


def measure_quality(
    data: TrainingFeatures,
    class_embeddings: Float[Tensor, "classes width"],
    hashes: Int[Tensor, " images"],
    config: QualityConfig | None = None,
) -> ImageQuality:
    """The columns of every image of a run.

    Args:
        data: the run's captions and images.
        class_embeddings: of zero-shot prompts, L2-normalised.
        hashes: `perceptual_hash` of each image.
        config: what counts as found and as a twin.

    Raises:
        ValueError: there is no image.
    """
    config, images = config or QualityConfig(), data.images
    require(images is not None, "Quality is measured on images, got none.")
    assert images is not None
    caption = caption_of_image(data)
    named = images.labels > 0
    blocks = torch.arange(len(images)).split(BLOCK_ROWS)
    similarity = torch.cat([_similarity(data, rows, caption[rows]) for rows in blocks])
    found = named & find_classes(images, class_embeddings, config.false_alarms)
    return ImageQuality(caption, similarity, named, found, _twins(images, hashes, config))


def _similarity(
    data: TrainingFeatures, rows: Int[Tensor, " some"], captions: Int[Tensor, " some"]
) -> Float[Tensor, " some"]:
    """Cosines of some images with their captions."""
    assert data.images is not None
    ours = data.images.column("pooled_features", rows)
    return (ours * data.texts.column("global_features", captions)).sum(dim=1)


def caption_of_image(data: TrainingFeatures) -> Int[Tensor, " images"]:
    """Row of each image's caption."""
    rows = data.image_of_caption
    caption = torch.zeros(0 if data.images is None else len(data.images), dtype=torch.long)
    places = rows >= 0
    caption[rows[places]] = torch.arange(len(rows))[:, None].expand_as(rows)[places]
    return caption


def find_classes(
    images: FeatureTable, class_embeddings: Float[Tensor, "classes width"], false_alarms: float
) -> Bool[Tensor, "images classes"]:
    """Which classes' heatmaps peak higher than in most images that are not labelled with them.

    What the embeddings share is taken off them first: it lights up wherever there is anything (CLIP
    Surgery, Li et al., 2023, takes the same part off the features). Each class has its own
    threshold, the quantile 1 - `false_alarms` of its peaks where it is not named.
    """
    directions = class_embeddings - class_embeddings.mean(dim=0)
    blocks = torch.arange(len(images)).split(BLOCK_ROWS)
    # A block's locations are held for its peaks alone.
    seen = ahead(lambda rows: images.rows(rows).local_features, blocks)
    peaks = torch.cat([local_similarities(part, directions).amax(dim=2) for part in seen])
    labels = images.labels
    found = torch.ones_like(peaks, dtype=torch.bool)
    for index in range(peaks.shape[1]):
        others = peaks[labels[:, index] == 0, index].sort().values
        if len(others):  # where every image is named after the class nothing speaks against it
            threshold = others[min(int((1 - false_alarms) * len(others)), len(others) - 1)]
            found[:, index] = peaks[:, index] > threshold
    return found


def _twins(
    images: FeatureTable, hashes: Int[Tensor, " images"], config: QualityConfig
) -> Int[Tensor, " images"]:
    """For each image the first one before it, of the same classes, that looks the same.

    Not among all images: the time goes with the square of how many are compared.
    """
    twin = torch.full((len(images),), -1)
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, labels in enumerate(images.labels.to(torch.uint8).numpy()):
        groups[labels.tobytes()].append(row)
    for members in groups.values():
        rows = torch.tensor(members)
        for block in rows.split(BLOCK_ROWS):
            ours = images.column("pooled_features", block)
            # The earliest last, so that it stays.
            for before in reversed(rows[rows <= block[-1]].split(BLOCK_ROWS)):
                cosine = ours @ images.column("pooled_features", before).T
                near = (cosine >= config.twin_cosine) & (before < block[:, None])
                for our, their in reversed(near.nonzero().tolist()):
                    row, other = int(block[our]), int(before[their])
                    if (int(hashes[row]) ^ int(hashes[other])).bit_count() <= config.twin_bits:
                        twin[row] = other
    return twin
