"""CLIPs of true size with random weights, as folders that the jobs load: as slow as real ones."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from t2ipal.features.backbone import WEIGHTS_FILE
from t2ipal.torchvision_repair import repair_torchvision

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of OpenAI's CLIP."""


def write_random_clip(folder: Path, name: str, seed: int = 0) -> Path:
    """Writes open_clip's architecture `name` with weights that were never trained; gives `folder`.

    The same seed gives the same weights.
    """
    repair_torchvision()
    import open_clip  # noqa: TID251

    torch.manual_seed(seed)
    model = open_clip.create_model(name)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / WEIGHTS_FILE)
    preprocessing = {"mean": MEAN, "std": STD}
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder
