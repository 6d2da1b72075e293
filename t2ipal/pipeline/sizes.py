"""What a run will take in its store, from its settings alone; loads no model."""

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from t2ipal.config import parse_json
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.features.config import BackboneConfig
from t2ipal.pictovoc import WEIGHTS_DIR
from t2ipal.store import Caption

BYTES_PER_PIXEL = {"jpeg": 0.47, "png": 2.35, "webp": 0.35}
"""A JPEG of quality 95: 8,192 of 512 px are 1 GB. A PNG takes five times that, a WebP three
quarters of it."""
MEMBERS_BYTES = 3 * 1024
"""Of a sample in a tar beside its pixels: three headers, caption and JSON, each filled up."""
TOKENS = 14
"""Of a caption, on average."""
FOLDERS = {"pictovoc": "clip", "pictovoc_deep": "clip_deep"}


def caption_bytes(captions: Iterable[Caption]) -> int:
    """Of captions and their ids, before parquet packs them."""
    return sum(len(one.caption_id.encode()) + len(one.caption.encode()) for one in captions)


def image_bytes(config: SynthesisConfig, size_px: int) -> tuple[float, str]:
    """Of one image with what lies beside it, and the formula."""
    each = BYTES_PER_PIXEL[config.image_format]
    formula = f"{each:g} x {size_px} x {size_px} + {MEMBERS_BYTES:,} bytes an image"
    return each * size_px**2 + MEMBERS_BYTES, formula


def feature_bytes(config: BackboneConfig) -> tuple[float, float, str] | None:
    """Of an image, of a caption, and the formula; None where the model's shape is not known."""
    shape = _shape(config)
    if shape is None:
        return None
    places, dim = shape
    each = 2 if config.feature_format == "fp16" else 1
    image = 2 * dim + places * dim * each
    caption = 2 * dim + TOKENS * dim * each
    formula = (
        f"({2 * dim} + {places} x {dim} x {each}) bytes an image, "
        f"({2 * dim} + {TOKENS} x {dim} x {each}) a caption"
    )
    return image, caption, formula


def _shape(config: BackboneConfig) -> tuple[int, int] | None:
    """(locations of an image, numbers of each) of a CLIP."""
    path = _config_path(config.model)
    if path is None or not path.is_file():
        return None
    try:
        content = parse_json(path.read_text())
        content = content.get("model_cfg", content)
        vision, dim = content["vision_cfg"], content["embed_dim"]
        is_resnet = isinstance(vision["layers"], list)
        size_px, patch = vision["image_size"], 32 if is_resnet else vision["patch_size"]
    except (AttributeError, KeyError, TypeError, ValueError):  # an architecture of another kind
        return None
    if is_resnet and config.local_image_size_px:
        size_px = config.local_image_size_px
    more = is_resnet and config.dense_features == "regions"
    return (size_px // patch) ** 2 + more, dim


def _config_path(model: str) -> Path | None:
    if model in FOLDERS:
        return WEIGHTS_DIR / FOLDERS[model] / "open_clip_config.json"
    if (folder := Path(model)).is_dir():
        return folder / "open_clip_config.json"
    found = importlib.util.find_spec("open_clip")  # finds the package without loading it
    folders = found.submodule_search_locations if found else None
    return Path(folders[0], "model_configs", f"{model}.json") if folders else None
