"""OpenAI's files of CLIP weights, recognized by what is in them.

They want QuickGELU, and open_clip builds the exact GELU under the plain names of architectures. A
file does not say its activation, so what is OpenAI's must be found out, or refused.
"""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t2ipal.config import require

MARKS = ("input_resolution", "context_length", "vocab_size")
"""Numbers that only OpenAI's files hold among the weights."""
HALVED = ("text_projection", "transformer.resblocks.0.mlp.c_fc.weight")
"""Matrices that OpenAI's files hold as halves."""


def openai_weights(path: Path, model: str, address: str) -> dict[str, Tensor] | None:
    """The weights of a file in OpenAI's layout, its marks removed; None: it is another's.

    Args:
        path: of a file of weights.
        model: open_clip's name of the architecture, for the choice and the message.
        address: of OpenAI's own file, which holds its digest; "" where there is none.

    Raises:
        ValueError: it is a TorchScript archive, which is a program, and not OpenAI's; or the
            weights are halves as OpenAI's but without its marks, and the model's name does not say
            which activation they are of.
    """
    archived = _archived(path, model, address)
    state = _state(path) if archived is None else archived
    if state is None:
        return None
    if archived is not None or all(mark in state for mark in MARKS):
        return {name: value for name, value in state.items() if name not in MARKS}
    require(
        model.endswith("-quickgelu") or not _are_halves(state),
        f"{path} holds halves, as OpenAI's weights do, but not {', '.join(MARKS)}, which tell them "
        f"from others: whether they are of QuickGELU or of the exact GELU cannot be told. Name the "
        f"model {model}-quickgelu if they are OpenAI's, or give a folder whose "
        "open_clip_config.json says it.",
    )
    return None


def _archived(path: Path, model: str, address: str) -> dict[str, Tensor] | None:
    """The weights of a TorchScript archive, which OpenAI publishes; None: it is none."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if not any(name.endswith("/constants.pkl") for name in archive.namelist()):
            return None
    require(
        _digest(path) in address.split("/"),
        f"{path} is a TorchScript archive, whose code runs when it is read, and not the one that "
        f"OpenAI has published as {model}. Convert it to safetensors where you trust it.",
    )
    try:
        return torch.jit.load(str(path), map_location="cpu").state_dict()
    except RuntimeError:
        return None  # open_clip says what is wrong with it


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(path: Path) -> dict[str, Any] | None:
    """The weights of a file that torch has saved, by name; None: it is no such file."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        read: Any = load_file
    else:
        read = _load
    try:
        content = read(path)
    except Exception:  # open_clip says what is wrong with it
        return None
    content = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(content, dict):
        return None
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _are_halves(state: dict[str, Any]) -> bool:
    """Whether matrices hold nothing that a half could not, whatever type they are stored in."""
    found = [state[name] for name in HALVED if isinstance(state.get(name), Tensor)]
    return bool(found) and all(torch.equal(each.float(), each.half().float()) for each in found)
