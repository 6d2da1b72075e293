"""CLIPs of a few thousand random weights, in open_clip's own folder format."""

import json
from pathlib import Path
from typing import Any

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
RESNET: dict[str, Any] = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": TEXT,
}
VIT: dict[str, Any] = {
    "embed_dim": 12,
    "vision_cfg": {
        "image_size": 32,
        "layers": 2,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
    },
    "text_cfg": TEXT,
}


def write_tiny_clip(
    folder: Path, architecture: dict[str, Any] | None = None, seed: int = 0
) -> Path:
    """Writes the folder: a ResNet for 64 px images, or another architecture."""
    from t2ipal.torchvision_repair import repair_torchvision

    repair_torchvision()
    import torch
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    from t2ipal.pretraining.clip import PREPROCESSING

    architecture = architecture or RESNET
    torch.manual_seed(seed)
    model = CLIP(**architecture)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": architecture, "preprocess_cfg": PREPROCESSING}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder
