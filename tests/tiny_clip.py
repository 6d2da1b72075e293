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


TIMM_VISION = {
    "image_size": 160,
    "timm_model_name": "test_vit3",
    "timm_pool": "map",
    "timm_proj": "none",
}
SIGLIP: dict[str, Any] = {
    "embed_dim": 96,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": TIMM_VISION,
    "text_cfg": {
        **TEXT,
        "context_length": 24,
        "vocab_size": 40,
        "hf_tokenizer_name": "in the folder",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
        "act_kwargs": {"approximate": "tanh"},
    },
}
COCA_TEXT = {**TEXT, "context_length": 76}
COCA: dict[str, Any] = {
    "embed_dim": 12,
    "custom_text": True,
    "vision_cfg": {
        **VIT["vision_cfg"],
        "attentional_pool": True,
        "attn_pooler_heads": 3,
        "output_tokens": True,
    },
    "text_cfg": {**COCA_TEXT, "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": {**COCA_TEXT, "attn_pooler_heads": 2},
}


def write_tiny_clip(
    folder: Path, architecture: dict[str, Any] | None = None, seed: int = 0
) -> Path:
    """Writes the folder: a ResNet for 64 px images, or another architecture without a tokenizer."""
    from t2ipal.torchvision_repair import repair_torchvision

    repair_torchvision()
    import torch
    from open_clip import CLIP, CoCa, CustomTextCLIP
    from safetensors.torch import save_file

    from t2ipal.pretraining.clip import PREPROCESSING

    architecture = architecture or RESNET
    torch.manual_seed(seed)
    of_coca, of_own_text = "multimodal_cfg" in architecture, "custom_text" in architecture
    kind = CoCa if of_coca else CustomTextCLIP if of_own_text else CLIP
    model = kind(**{name: value for name, value in architecture.items() if name != "custom_text"})
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": architecture, "preprocess_cfg": PREPROCESSING}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder
