"""What the world's models reach: the numbers of their model cards, measured on the test scenes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from t2ipal.captions import Caption, NounFilter, filter_captions, load_vocabulary, read_captions
from t2ipal.devices import bf16_autocast
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.diffusion.synthesizer import Synthesizer
from t2ipal.evaluation.metrics import (
    PointingGame,
    average_precision,
    mean_average_precision,
    pointing_game,
)
from t2ipal.evaluation.test_sets import scene_features
from t2ipal.features.backbone import Backbone, load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.extraction import multi_hot, text_set
from t2ipal.features.sets import FeatureSet
from t2ipal.methods.scoring import local_similarities
from t2ipal.pictovoc.captions import world_captions
from t2ipal.pictovoc.judge import NAMED_THRESHOLD, judged_share, load_judge
from t2ipal.pictovoc.pixels import to_images
from t2ipal.pictovoc.scenes import CLASS_NAMES, TEST_SCENES
from t2ipal.pictovoc.worlds import object_boxes, test_scenes, world_scenes
from t2ipal.pretraining.autoencoder import draw_scenes, known_latents, scene_pixels
from t2ipal.pretraining.decoder import planned
from t2ipal.selection.quality import zero_shot_embeddings
from t2ipal.synthesis.request import with_class_prompts

PLANNED_CELLS = 3
"""Of the latents' 16x16, for a class to count as planned."""
FINER_PX = 192
"""Side at which CLIP looks for heatmaps on 6x6 places, where its own size gives 4x4."""
SHRINKAGE = 4.0
"""Of the covariance for heatmaps: the best of 0.5, 1, 2, 4, 8 on 600 validation scenes."""
PROMPT_NAMES = tuple(
    {"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "tv monitor"}.get(
        n, n
    )
    for n in CLASS_NAMES
)


def class_prompts(backbone: Backbone) -> Float[torch.Tensor, "classes width"]:
    """Zero-shot CLIP's class embeddings: "a photo of a {}."."""
    return zero_shot_embeddings(backbone, PROMPT_NAMES)


def zero_shot_scores(backbone: Backbone, images: FeatureSet) -> Float[np.ndarray, "n classes"]:
    """Cosine of CLIP's own image feature and the class prompts."""
    assert images.pooled_features is not None
    return (images.pooled_features @ class_prompts(backbone).T).numpy()


def discriminants(
    embeddings: Float[torch.Tensor, "classes width"],
    local_features: Float[torch.Tensor, "images locations width"],
    shrinkage: float = SHRINKAGE,
) -> Float[torch.Tensor, "classes width"]:
    """Directions that tell a class from the others, and from what places differ in anyhow.

    What the embeddings share is taken off them: it lights up wherever there is any object. Then
    they are divided by the covariance of places in pictures, as in Fisher's linear discriminant
    (GDA-CLIP, Wang et al., 2024, does so with features of whole images).

    Args:
        embeddings: of the classes.
        local_features: of any pictures; nothing about them is known.
        shrinkage: mean variances added to each direction's own.
    """
    places = torch.cov(local_features.flatten(0, 1).T)
    places += shrinkage * places.diagonal().mean() * torch.eye(len(places))
    return torch.linalg.solve(places, (embeddings - embeddings.mean(dim=0)).T).T


def point(
    backbone: Backbone, local_features: Float[torch.Tensor, "images locations width"]
) -> PointingGame:
    """The pointing game of zero-shot heatmaps on the first test scenes.

    Validation scenes, without their labels, tell what places look like.

    Args:
        backbone: the frozen CLIP, in whichever size it looks at pictures.
        local_features: its own of the test scenes.
    """
    known = backbone.encode_images(torch.from_numpy(world_scenes("pictovoc_validation")[0]))
    directions = discriminants(class_prompts(backbone), known.local_features)
    heatmaps = local_similarities(local_features, directions)
    side = round(heatmaps.shape[2] ** 0.5)
    return pointing_game(heatmaps.numpy(), object_boxes(len(heatmaps)), side)


def check_clip(models_dir: Path, model: str | None = None) -> dict[str, float]:
    """Zero-shot mAP on the test scenes, in either look, and where CLIP sees what it is asked for.

    And the cosines that make the modality gap.
    """
    config = BackboneConfig(model=model or str((models_dir / "clip").resolve()))
    backbone = load_backbone(config)
    finer = load_backbone(replace(config, local_image_size_px=FINER_PX))
    scenes = test_scenes(TEST_SCENES)
    images = scene_features(backbone, scenes)
    scores = zero_shot_scores(backbone, images)
    shifted = scene_features(backbone, world_scenes("pictovoc_shifted"))
    texts = backbone.encode_texts([text for _, text in world_captions("test", len(images))])
    assert images.pooled_features is not None
    pairs = F.cosine_similarity(images.pooled_features, texts.global_features.cpu())
    labels = images.labels.numpy()
    per_class = average_precision(scores, labels, class_names=CLASS_NAMES)
    pointing = point(backbone, images.local_features)
    pointing_finer = point(finer, scene_features(finer, scenes).local_features)
    return {
        "zero_shot_mAP": mean_average_precision(scores, labels),
        "worst_class_AP": float(per_class.min()),
        "cosine_of_pairs": float(pairs.mean()),
        "cosine_of_prompts": float(scores[labels > 0].mean()),
        "zero_shot_mAP_shifted": mean_average_precision(
            zero_shot_scores(backbone, shifted), shifted.labels.numpy()
        ),
        "pointing_game": pointing.accuracy,
        "pointing_game_chance": pointing.chance,
        "pointing_game_ceiling": pointing.ceiling,
        "pointing_game_finer": pointing_finer.accuracy,
        "pointing_game_finer_chance": pointing_finer.chance,
    }


def caption_mAP(
    backbone: Backbone, captions: Sequence[str], labels: Sequence[Sequence[int]]
) -> float:
    """mAP of captions ranked by the cosine of their text feature with each class prompt.

    Args:
        backbone: the frozen CLIP.
        captions: sentences about anything.
        labels: for each the indices of the classes that it names; every class must be named.
    """
    texts = text_set(backbone, captions, multi_hot(labels, len(CLASS_NAMES)))
    scores = (texts.global_features @ class_prompts(backbone).T).numpy()
    return mean_average_precision(scores, texts.labels.numpy(), class_names=CLASS_NAMES)


def check_real_captions(
    models_dir: Path, captions_path: Path | str, count: int = 2000, model: str | None = None
) -> dict[str, float]:
    """`caption_mAP` on sentences of people, such as MS-COCO's, beside that on the world's own.

    Labels are what the noun filter finds of the VOC classes; which `count` of the file's captions
    are taken depends on their ids alone. Chance is what captions in random order would have.
    """
    backbone = load_backbone(BackboneConfig(model=model or str((models_dir / "clip").resolve())))
    own = (Caption(*row) for row in world_captions("test", count))
    result: dict[str, float] = {}
    for prefix, captions in (("", read_captions(captions_path)), ("world_", own)):
        kept = filter_captions(captions, load_vocabulary("voc2007"), count).kept
        labels = [caption.labels for caption in kept]
        result[f"{prefix}caption_mAP"] = caption_mAP(backbone, [c.caption for c in kept], labels)
        named = multi_hot(labels, len(CLASS_NAMES))
        result[f"{prefix}caption_chance"] = 100 * float(named.mean())
        result[f"{prefix}num_captions"] = len(kept)
    return result


def check_judge(models_dir: Path) -> dict[str, float]:
    """mAP on the test scenes and how often a present, or an absent, class is called present."""
    images, labels = test_scenes(TEST_SCENES)
    probs = load_judge(models_dir / "judge").probs(images)
    found = probs > NAMED_THRESHOLD
    return {
        "mAP": mean_average_precision(probs, labels),
        "found_when_present": float(found[labels > 0].mean()),
        "found_when_absent": float(found[labels == 0].mean()),
    }


def check_autoencoder(models_dir: Path, count: int = 500) -> dict[str, float]:
    """Mean absolute error in gray levels, and what the judge still finds after a round trip."""
    from t2ipal.torchvision_repair import repair_torchvision

    repair_torchvision()
    from diffusers import AutoencoderTiny

    vae = AutoencoderTiny.from_pretrained(
        models_dir / "stable-diffusion" / "vae", dtype=torch.float32
    )
    scenes = draw_scenes("test", 0, count)
    pixels, latents = scene_pixels(scenes), known_latents(vae, scenes)
    with torch.no_grad(), bf16_autocast("cpu"):
        parts = [vae.decode(part).sample for part in latents.split(50)]  # type: ignore
    output = torch.cat(parts)
    result = {"absolute_error": float((output.float() - pixels).abs().mean()) * 127.5}
    if (models_dir / "judge").is_dir():
        labels = test_scenes(count)[1]
        probs = load_judge(models_dir / "judge").probs(to_images(output))
        result["judge_mAP_of_reconstructions"] = mean_average_precision(probs, labels)
        result["found_when_present"] = float((probs > NAMED_THRESHOLD)[labels > 0].mean())
    return result


def check_diffusion(
    models_dir: Path, config: SynthesisConfig | None = None, count: int = 256
) -> dict[str, float]:
    """Of the classes that captions of test scenes name, the shares that their images show.

    `planned`: the latents have at least `PLANNED_CELLS` cells of the class. `named_found`: the
    judge finds it in the picture, `named_found_single` where it is the only one; `chance`: in the
    picture of another caption.
    """
    config = config or SynthesisConfig(pipeline=str(models_dir / "stable-diffusion"), batch_size=32)
    config = with_class_prompts(config, PROMPT_NAMES)
    verdicts = NounFilter(load_vocabulary("voc2007"))
    rows = [(i, text, verdicts(text).labels) for i, text in world_captions("test", 2 * count)]
    rows = [row for row in rows if row[2]][:count]
    synthesizer = Synthesizer(config)
    images, plans, decoded = [], [], list[Tensor]()
    synthesizer.pipeline.vae.decoder.register_forward_pre_hook(
        lambda _, inputs: decoded.append(inputs[0].float())
    )
    for start in range(0, len(rows), config.batch_size):
        part = rows[start : start + config.batch_size]
        batch = {
            "caption_id": np.array([r[0] for r in part]),
            "caption": np.array([r[1] for r in part]),
            "labels": [r[2] for r in part],
        }
        images.append(synthesizer({**batch, "k": np.zeros(len(part), dtype=np.int64)})["image"])
        plans.append(planned(torch.cat(decoded))[: len(part), 1:].sum(dim=(2, 3)))
        decoded.clear()
    in_plan = torch.cat(plans) >= PLANNED_CELLS
    stacked = np.concatenate(images)
    labels = [row[2] for row in rows]
    share, _, found = judged_share(models_dir / "judge", stacked, labels)
    shuffled = labels[1:] + labels[:1]
    chance = np.mean([found[row, list(named)].mean() for row, named in enumerate(shuffled)])
    single = [found[row, list(named)].mean() for row, named in enumerate(labels) if len(named) == 1]
    return {
        "planned": float(in_plan[multi_hot(labels, len(CLASS_NAMES)) > 0].float().mean()),
        "named_found": share,
        "named_found_single": float(np.mean(single)),
        "chance": float(chance),
    }
