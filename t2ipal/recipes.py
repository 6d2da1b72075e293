"""Named settings: the method and its limits, and the schedule that fits each data set.

Owns numbers, no code; every number not from the paper or its ancestor says where it comes from.
"""

from dataclasses import dataclass
from typing import Any

from t2ipal.config import one_of, override
from t2ipal.recognizer import MethodConfig
from t2ipal.training import TrainingConfig


@dataclass(frozen=True)
class Recipe:
    """What is computed and how it is trained: all that an experiment or a search may vary."""

    method: MethodConfig
    training: TrainingConfig


ZERO_SHOT: dict[str, Any] = {
    "method.context_init": "a photo of a",
    "method.global_feature": "pooled",
    "method.adapter": "none",
    "method.image_weight": 0.0,
    "training.num_epochs": 0,
}
TEXTS_ONLY: dict[str, Any] = {"method.adapter": "none", "method.image_weight": 0.0}

METHODS: dict[str, dict[str, Any]] = {
    "zsclip": {**ZERO_SHOT, "method.local_scores": False},
    "zsclip_local": ZERO_SHOT,
    "tai": {**TEXTS_ONLY, "method.local_scores": False},
    "tai_dpt": TEXTS_ONLY,
    "tai_dpt_adapter": {"method.image_weight": 0.0},
    "t2ipal": {},
    "t2ipal_no_adapter": {"method.adapter": "none"},
    "t2ipal_images_only": {"method.image_weight": 1.0},
    "t2ipal_one_image": {"training.images_per_caption": 1},
    "t2ipal_global_adapter": {"method.adapter": "global"},
    "t2ipal_mean": {"method.aggregation": "mean"},
    "t2ipal_max": {"method.aggregation": "max"},
    "t2ipal_learnable_sharpness": {"method.aggregation": "learnable"},
    "t2ipal_learnable_residual": {"method.residual": "learnable"},
}
"""What each method changes of `MethodConfig`'s defaults, T2I-PAL."""

DATA_SETS: dict[str, dict[str, Any]] = {
    "voc2007": {},
    "coco2014": {},
    "nuswide": {"training.lr": 1e-3, "method.image_temperature": 0.25},
    # The embedded world has about 1,000 captions (at 512 a batch an epoch would be two steps) and
    # 16 locations. Chosen on 1,000 labelled validation scenes with rendered images; docs/log.md.
    "pictovoc": {
        "training.num_epochs": 30,
        "training.batch_size": 64,
        "training.lr": 1.5e-3,
        "training.prototype_lr": 12.0,
        "method.scale": 20.0,
        "method.image_temperature": 0.1,
    },
}
"""What each data set changes of `TrainingConfig`'s defaults (TaI-DPT's for VOC2007 and MS-COCO)."""


def recipe(
    method: str,
    data_set: str,
    class_names: tuple[str, ...],
    prompt_names: tuple[str, ...],
    seed: int = 0,
) -> Recipe:
    """The settings of `method` for `data_set`, the method's own changes last.

    Raises:
        ValueError: a method or data set that has no recipe; the nearest one is named.
    """
    one_of("method", method, METHODS)
    one_of("data set", data_set, DATA_SETS)
    start = Recipe(MethodConfig(class_names, prompt_names), TrainingConfig(seed=seed))
    return override(start, DATA_SETS[data_set] | METHODS[method])
