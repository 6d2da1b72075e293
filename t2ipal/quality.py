"""What each synthetic image shows of its caption, and which images are worth training on.

Everything is measured on stored features with the frozen CLIP alone: columns for every image, and a
choice that drops nothing by itself. A generator leaves out what a caption names (the paper's
Fig. 10), and such an image teaches the wrong thing.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from t2ipal.config import require
from t2ipal.features import Backbone, FeatureSet, TrainingFeatures
from t2ipal.scoring import local_similarities

BLOCK_ROWS = 1024


@dataclass(frozen=True)
class QualityConfig:
    """What counts as found, and as the same picture again."""

    false_alarms: float = 0.1
    """A named class is found where its heatmap's peak is higher than in all but this share of the
    images whose captions do not name it."""
    twin_cosine: float = 0.98
    """Cosine of two images' CLIP features from which on the later one is a twin of the earlier."""
    twin_bits: int = 4
    """Of the 56 bits of the perceptual hash: twins differ in no more."""

    def __post_init__(self) -> None:
        share, cosine, bits = self.false_alarms, self.twin_cosine, self.twin_bits
        require(0 < share < 1, f"false_alarms must be between 0 and 1, got {share}.")
        require(-1 <= cosine <= 1, f"twin_cosine must be in -1..1, got {cosine}.")
        require(0 <= bits <= 56, f"twin_bits must be in 0..56, got {bits}.")


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


@dataclass(frozen=True)
class ChoiceConfig:
    """Which images to keep."""

    min_found: float = 0.5
    """Least share of its caption's classes that are found in an image, 0 to 1; 0 keeps all. On the
    embedded world half is as good as all, with fewer images (docs/log.md)."""
    min_similarity: float = -1.0
    """Least cosine of image and caption."""
    keep_twins: bool = True
    """Whether to keep images that look like another one that is kept."""
    best: int | None = None
    """Images to keep of each caption at most, those with most classes found and then nearest to
    their caption first; None: all."""

    def __post_init__(self) -> None:
        found, similarity, best = self.min_found, self.min_similarity, self.best
        require(0 <= found <= 1, f"min_found must be in 0..1, got {found}.")
        require(-1 <= similarity <= 1, f"min_similarity must be in -1..1, got {similarity}.")
        require(best is None or best > 0, f"best must be > 0, got {best}.")


def zero_shot_embeddings(
    backbone: Backbone, prompt_names: Sequence[str]
) -> Float[Tensor, "classes width"]:
    """Of "a photo of a {}." for each class, L2-normalised, on the CPU."""
    texts = [f"a photo of a {name}." for name in prompt_names]
    return backbone.encode_texts(texts).global_features.cpu()


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
    assert images is not None and images.pooled_features is not None
    caption = caption_of_image(data)
    named = images.labels > 0
    similarity = (images.pooled_features * data.texts.global_features[caption]).sum(dim=1)
    found = named & find_classes(images, class_embeddings, config.false_alarms)
    return ImageQuality(caption, similarity, named, found, _twins(images, hashes, config))


def caption_of_image(data: TrainingFeatures) -> Int[Tensor, " images"]:
    """Row of each image's caption."""
    rows = data.image_of_caption
    caption = torch.zeros(0 if data.images is None else len(data.images), dtype=torch.long)
    places = rows >= 0
    caption[rows[places]] = torch.arange(len(rows))[:, None].expand_as(rows)[places]
    return caption


def find_classes(
    images: FeatureSet, class_embeddings: Float[Tensor, "classes width"], false_alarms: float
) -> Bool[Tensor, "images classes"]:
    """Which classes' heatmaps peak higher than in most images that are not labelled with them.

    What the embeddings share is taken off them first: it lights up wherever there is anything (CLIP
    Surgery, Li et al., 2023, takes the same part off the features). Each class has its own
    threshold, the quantile 1 - `false_alarms` of its peaks where it is not named.
    """
    directions = class_embeddings - class_embeddings.mean(dim=0)
    peaks = torch.cat(
        [
            local_similarities(part, directions).amax(dim=2)
            for part in images.local_features.split(BLOCK_ROWS)
        ]
    )
    found = torch.ones_like(peaks, dtype=torch.bool)
    for index in range(peaks.shape[1]):
        others = peaks[images.labels[:, index] == 0, index].sort().values
        if len(others):  # where every image is named after the class nothing speaks against it
            threshold = others[min(int((1 - false_alarms) * len(others)), len(others) - 1)]
            found[:, index] = peaks[:, index] > threshold
    return found


def _twins(
    images: FeatureSet, hashes: Int[Tensor, " images"], config: QualityConfig
) -> Int[Tensor, " images"]:
    """For each image the first one before it, of the same classes, that looks the same.

    Not among all images: the time goes with the square of how many are compared.
    """
    assert images.pooled_features is not None
    twin = torch.full((len(images),), -1)
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, labels in enumerate(images.labels.to(torch.uint8).numpy()):
        groups[labels.tobytes()].append(row)
    for members in groups.values():
        rows = torch.tensor(members)
        for block in rows.split(BLOCK_ROWS):
            before = rows[rows <= block[-1]]
            cosine = images.pooled_features[block] @ images.pooled_features[before].T
            near = (cosine >= config.twin_cosine) & (before < block[:, None])
            # The earliest last, so that it stays.
            for ours, theirs in reversed(near.nonzero().tolist()):
                row, other = int(block[ours]), int(before[theirs])
                if (int(hashes[row]) ^ int(hashes[other])).bit_count() <= config.twin_bits:
                    twin[row] = other
    return twin


def perceptual_hash(images: UInt8[Tensor, "batch height width 3"]) -> Int[Tensor, " batch"]:
    """56 bits that survive scaling and JPEG: is each of 8 x 8 places darker than the next one?

    Known as dHash; as numbers below 2^56.
    """
    gray = images.float().mean(dim=3).unsqueeze(1)
    small = functional.adaptive_avg_pool2d(gray, (8, 8))[:, 0]
    bits = (small[:, :, 1:] > small[:, :, :-1]).flatten(1).long()
    return (bits << torch.arange(bits.shape[1])).sum(dim=1)


def kept_images(quality: ImageQuality, config: ChoiceConfig) -> Bool[Tensor, " images"]:
    """Which images to keep."""
    good = quality.found_share >= config.min_found
    good &= quality.similarity >= config.min_similarity
    order = good.nonzero().flatten()
    if config.best is not None:
        for column in (quality.similarity, quality.found_share):  # the last one comes first
            order = order[column[order].argsort(descending=True, stable=True)]
    keep, taken, seen = torch.zeros_like(good), defaultdict[int, int](int), set[int]()
    captions, twins = quality.caption.tolist(), quality.twin.tolist()
    for row in order.tolist():
        if config.best is not None and taken[captions[row]] >= config.best:
            continue
        # Twins of one image look alike, whether or not that one is kept.
        looks = {row, twins[row]} - {-1}
        if config.keep_twins or not looks & seen:
            keep[row] = True
            taken[captions[row]] += 1
            seen |= looks
    return keep


def lacking_images(
    quality: ImageQuality,
    num_captions: int,
    wanted: int,
    min_found: float,
    budget: int | None = None,
) -> dict[int, int]:
    """How many good images captions lack, by the row of the caption; none for those with enough.

    Args:
        quality: of all images that there are.
        num_captions: of the run, with those that have no image.
        wanted: good images of each caption.
        min_found: share of the named classes that a good image shows, 0 to 1.
        budget: images at most over all captions, those with the fewest good ones first; None: all.

    Raises:
        ValueError: a number out of its range.
    """
    require(0 <= min_found <= 1, f"min_found must be in 0..1, got {min_found}.")
    require(budget is None or budget >= 0, f"budget must be >= 0, got {budget}.")
    good = torch.zeros(num_captions, dtype=torch.long)
    good.index_add_(0, quality.caption, (quality.found_share >= min_found).long())
    left, lacking = budget, {}
    for caption in good.argsort(stable=True).tolist():
        count = wanted - int(good[caption])
        if left is not None:
            count = min(count, left)
            left -= max(count, 0)
        if count > 0:
            lacking[caption] = count
    return lacking


def only_images(data: TrainingFeatures, keep: Bool[Tensor, " images"]) -> TrainingFeatures:
    """The same captions with the chosen images alone."""
    rows = data.image_of_caption
    chosen = (rows >= 0) & keep[rows.clamp(min=0)]
    return TrainingFeatures(data.texts, data.images, torch.where(chosen, rows, -1))
