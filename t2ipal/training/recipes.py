"""Named settings: each method by its name in the paper, and the schedule that fits a data set.

Owns numbers and words, no code; every number not from the paper or its ancestor says where it comes
from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from t2ipal.captions import PHOTO_PROMPT
from t2ipal.config import one_of, override, require
from t2ipal.methods.class_concept import ClassConceptConfig
from t2ipal.methods.coop import CoOpConfig
from t2ipal.methods.dualcoop import DualCoOpConfig
from t2ipal.methods.positive_coop import PositiveCoOpConfig
from t2ipal.methods.pvp import PVPConfig
from t2ipal.methods.stored import MethodConfig
from t2ipal.methods.t2ipal import T2IPALConfig
from t2ipal.methods.t2ipal_plus import T2IPALPlusConfig
from t2ipal.methods.tip_adapter import TipAdapterConfig
from t2ipal.training.loop import TrainingConfig


@dataclass(frozen=True)
class Recipe:
    """What is computed and how it is trained: all that an experiment or a search may vary."""

    method: MethodConfig
    training: TrainingConfig


@dataclass(frozen=True)
class NamedMethod:
    """A method as tables name it."""

    title: str
    """As the paper writes it."""
    description: str
    """What is learned, and from what, in a few words."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Of the recipe's defaults, by dotted names."""
    config: type = T2IPALConfig
    """The method's config."""
    fixed: tuple[str, ...] = ()
    """Options that make the method what it is, and so cannot be changed."""
    learns_from: Literal["captions", "labelled images", "nothing"] = "captions"
    """What it cannot do without; captions are offered to what needs nothing too."""
    starts: Mapping[str, Any] = field(default_factory=dict)
    """As `changes`, but what a data set changes comes after it."""


ZERO_SHOT: dict[str, Any] = {
    "method.context_init": PHOTO_PROMPT.partition(" {}")[0],
    "method.global_feature": "pooled",
    "method.adapter": "none",
    "method.image_weight": 0.0,
    "training.num_epochs": 0,
}
# CLIP's logit scale is 100, on every data set.
LOCAL_TOO = {"method.image_temperature": 0.01}
IMAGENET_TEMPLATES = {"method.templates": "imagenet"}
TEXTS_ONLY: dict[str, Any] = {"method.adapter": "none", "method.image_weight": 0.0}
# Of the original: local features are dense_features "regions", at 448 px.
DUALCOOP: dict[str, Any] = {
    "method.scale": 100.0,
    "method.learned_scales": False,
    "training.batch_size": 32,
}
# Tip-Adapter-F's; AdamW's usual weight decay.
TIP_ADAPTER_F: dict[str, Any] = {
    "method.learned_keys": True,
    "training.optimizer": "adamw",
    "training.lr": 1e-3,
    "training.weight_decay": 0.01,
    "training.num_epochs": 20,
    "training.warmup_epochs": 0,
    "training.batch_size": 256,
}
# The ancestor's scale at test is 40 on VOC and COCO, and 50 for its captions.
ANCESTOR_TEST: dict[str, Any] = {"method.image_temperature": 0.025}
GLOBAL_ONLY = {"method.local_scores": False}
NOT_TRAINED = ("training.num_epochs",)

METHODS: dict[str, NamedMethod] = {
    "zsclip": NamedMethod(
        "ZSCLIP",
        f'zero-shot CLIP, "{PHOTO_PROMPT}"',
        ZERO_SHOT | GLOBAL_ONLY,
        fixed=NOT_TRAINED,
        learns_from="nothing",
    ),
    "zsclip_local": NamedMethod(
        "ZSCLIP + local",
        "zero-shot CLIP with local scores",
        ZERO_SHOT | LOCAL_TOO,
        fixed=NOT_TRAINED,
        learns_from="nothing",
    ),
    "zsclip_80": NamedMethod(
        "ZSCLIP, 80 templates",
        "zero-shot CLIP, averaged over its 80 templates",
        ZERO_SHOT | GLOBAL_ONLY | IMAGENET_TEMPLATES,
        fixed=NOT_TRAINED,
        learns_from="nothing",
    ),
    "zsclip_80_local": NamedMethod(
        "ZSCLIP + local, 80 templates",
        "zero-shot CLIP with local scores, averaged over its 80 templates",
        ZERO_SHOT | LOCAL_TOO | IMAGENET_TEMPLATES,
        fixed=NOT_TRAINED,
        learns_from="nothing",
    ),
    "class_concept": NamedMethod(
        "Class concept",
        "mean text features of the captions that name a class; nothing is trained",
        config=ClassConceptConfig,
        fixed=NOT_TRAINED,
    ),
    "tai": NamedMethod("TaI", "global prompts learned from captions", TEXTS_ONLY | GLOBAL_ONLY),
    "tai_dpt": NamedMethod(
        "TaI-DPT",
        "global and local prompts learned from captions",
        TEXTS_ONLY,
        starts=ANCESTOR_TEST,
    ),
    "tai_dpt_ancestor": NamedMethod(
        "TaI-DPT, ancestor",
        "TaI-DPT with template captions, and without the last part of a batch",
        {**TEXTS_ONLY, "training.template_captions": True, "training.drop_last": True},
        starts=ANCESTOR_TEST,
    ),
    "tai_dpt_adapter": NamedMethod(
        "TaI-DPT + adapter",
        "TaI-DPT with the adapter, captions only",
        {"method.image_weight": 0.0},
        starts=ANCESTOR_TEST,
    ),
    "pvp": NamedMethod(
        "PVP, stage 1",
        "an image of every class, in pixels, learned from captions",
        config=PVPConfig,
        starts={"training.num_epochs": 100},
    ),
    "pvp_text": NamedMethod(
        "PVP",
        "an image of every class, then prompts and adapters beside it; from captions",
        {"method.text_share": 1 / 6},
        PVPConfig,
        starts={"training.num_epochs": 120},
    ),
    "t2ipal": NamedMethod(
        "T2I-PAL", "prompts and adapter learned from captions and synthetic images"
    ),
    "t2ipal_no_adapter": NamedMethod(
        "T2I-PAL, no adapter", "T2I-PAL without the adapter", {"method.adapter": "none"}
    ),
    "t2ipal_images_only": NamedMethod(
        "T2I-PAL, images only", "T2I-PAL from synthetic images alone", {"method.image_weight": 1.0}
    ),
    "t2ipal_one_image": NamedMethod(
        "T2I-PAL, one image",
        "T2I-PAL with one image per caption",
        {"training.images_per_caption": 1},
    ),
    "t2ipal_global_adapter": NamedMethod(
        "T2I-PAL, global adapter", "the adapter on the global score", {"method.adapter": "global"}
    ),
    "t2ipal_mean": NamedMethod(
        "T2I-PAL, mean", "local scores averaged over locations", {"method.aggregation": "mean"}
    ),
    "t2ipal_max": NamedMethod(
        "T2I-PAL, max", "the best location's score", {"method.aggregation": "max"}
    ),
    "t2ipal_learnable_sharpness": NamedMethod(
        "T2I-PAL, eq. 8",
        "learnable sharpness of the softmax over locations",
        {"method.aggregation": "learnable"},
    ),
    "t2ipal_learnable_residual": NamedMethod(
        "T2I-PAL, eq. 9", "learnable residual ratio", {"method.residual": "learnable"}
    ),
    "t2ipal_plus": NamedMethod(
        "T2I-PAL+",
        "T2I-PAL, and discriminants learned from synthetic images; this project's own",
        config=T2IPALPlusConfig,
    ),
    "coop": NamedMethod(
        "CoOp",
        "a prompt learned from labelled images",
        config=CoOpConfig,
        learns_from="labelled images",
    ),
    "dualcoop": NamedMethod(
        "DualCoOp",
        "positive and negative prompts learned from labelled images, as in the ancestor's rerun",
        config=DualCoOpConfig,
        learns_from="labelled images",
    ),
    "dualcoop_original": NamedMethod(
        "DualCoOp, original",
        "positive and negative prompts learned from labelled images, scales fixed",
        DUALCOOP,
        config=DualCoOpConfig,
        learns_from="labelled images",
    ),
    "positive_coop": NamedMethod(
        "Positive CoOp",
        "a prompt and free vectors learned from labelled images",
        config=PositiveCoOpConfig,
        learns_from="labelled images",
    ),
    "tip_adapter": NamedMethod(
        "Tip-Adapter",
        "zero-shot CLIP and a cache of labelled images; nothing is trained",
        config=TipAdapterConfig,
        fixed=(*NOT_TRAINED, "method.learned_keys"),
        learns_from="labelled images",
    ),
    "tip_adapter_f": NamedMethod(
        "Tip-Adapter-F",
        "Tip-Adapter with keys learned from labelled images",
        TIP_ADAPTER_F,
        config=TipAdapterConfig,
        fixed=("method.learned_keys",),
        learns_from="labelled images",
    ),
}
"""Every method that can be trained or evaluated, by the name that options take."""


DEFAULTS: dict[type, Mapping[str, Any]] = {
    ClassConceptConfig: {"training.num_epochs": 0},
    # Shots say how long CoOp is trained: coop_epochs.
    CoOpConfig: {"training.lr": 2e-3, "training.batch_size": 32, "training.num_epochs": 50},
    DualCoOpConfig: {"training.lr": 2e-3, "training.batch_size": 64, "training.num_epochs": 50},
    PositiveCoOpConfig: {"training.lr": 2e-3, "training.batch_size": 32, "training.num_epochs": 50},
    TipAdapterConfig: {"training.num_epochs": 0},
    PVPConfig: {"training.lr": 0.1},
}
"""How the methods of a config are trained, in place of TaI-DPT's way, whatever the data set."""

Schedule = Mapping[type, Mapping[str, Any]]
"""What a data set changes, by the method's config."""

NUSWIDE_T2IPAL = {"training.lr": 1e-3, "method.image_temperature": 0.25}
# The embedded world has about 1,000 captions (at 512 a batch an epoch would be two steps) and
# 16 locations. Chosen on 1,000 labelled validation scenes with rendered images; docs/log.md.
PICTOVOC_T2IPAL = {
    "training.num_epochs": 30,
    "training.batch_size": 64,
    "training.lr": 1.5e-3,
    "training.prototype_lr": 12.0,
    "method.scale": 20.0,
    "method.image_temperature": 0.1,
}

SCHEDULES: dict[str, Schedule] = {
    "voc2007": {
        DualCoOpConfig: {"training.lr": 1e-3},
        PositiveCoOpConfig: {"training.lr": 1e-3},
    },
    "coco2014": {
        ClassConceptConfig: {"method.global_sharpness": 80.0, "method.local_sharpness": 40.0}
    },
    "nuswide": {
        T2IPALConfig: NUSWIDE_T2IPAL,
        T2IPALPlusConfig: NUSWIDE_T2IPAL,
        ClassConceptConfig: {"method.global_sharpness": 40.0, "method.local_sharpness": 20.0},
        PVPConfig: {"method.image_temperature": 0.25},
    },
    "pictovoc": {
        T2IPALConfig: PICTOVOC_T2IPAL,
        T2IPALPlusConfig: PICTOVOC_T2IPAL,
        # Chosen on the same scenes, with 1,000 labelled train scenes, CoOp with 16 shots.
        CoOpConfig: {
            "training.lr": 5.0,
            "method.scale": 20.0,
            "method.image_temperature": 0.1,
        },
        DualCoOpConfig: {
            "training.num_epochs": 30,
            "training.lr": 0.02,
            "method.region_sharpness": 10.0,
        },
        PositiveCoOpConfig: {
            "training.num_epochs": 30,
            "training.batch_size": 64,
            "training.lr": 0.5,
            "method.scale": 10.0,
            "method.region_sharpness": 10.0,
        },
        # A step goes through the visual tower: few, and fast ones.
        PVPConfig: {
            "training.num_epochs": 14,
            "training.batch_size": 128,
            "training.lr": 5.0,
            "method.stage2_lr": 3e-4,
        },
    },
}
"""Whose settings to take, by the name that `--data-set` takes."""


def require_learns_from_captions(method: str) -> None:
    """Raises ValueError where a method of this name needs labelled images, which no run has."""
    one_of("method", method, METHODS)
    learns_from = METHODS[method].learns_from
    require(
        learns_from != "labelled images",
        f"{method} learns from {learns_from}, and a run has captions and synthetic images. Train "
        "it with jobs/reproduce.py, which reads labelled images.",
    )


def recipe(
    method: str,
    schedule: str,
    class_names: tuple[str, ...],
    prompt_names: tuple[str, ...],
    seed: int = 0,
) -> Recipe:
    """The settings of `method` for a data set, the method's own changes last.

    Raises:
        ValueError: a method or schedule that there is not; the nearest one is named.
    """
    one_of("method", method, METHODS)
    one_of("data set", schedule, SCHEDULES)
    named, fitting = METHODS[method], SCHEDULES[schedule]
    names = {"class_names": class_names, "prompt_names": prompt_names}
    known = {field.name for field in fields(named.config)}
    config = named.config(**{name: value for name, value in names.items() if name in known})
    general, of_set = DEFAULTS.get(named.config, {}), fitting.get(named.config, {})
    changes = {**general, **named.starts, **of_set, **named.changes}
    return override(Recipe(config, TrainingConfig(seed=seed)), changes)
