"""Lets open_clip and diffusers import where torchvision's compiled library does not fit torch.

A CPU torch next to the registry's (CUDA) torchvision is the usual case. Does nothing where the two
fit.
"""

import ctypes
import importlib.util
from functools import cache
from pathlib import Path

import torch


@cache
def repair_torchvision() -> torch.library.Library | None:
    """Defines the two operator schemas torchvision needs at import, where its library cannot.

    Call it before the first import of torchvision in every process. The returned library must stay
    referenced for the life of the process; the cache does that.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent
    compiled = [path for name in ("_C.so", "_C_stable.so") if (path := folder / name).exists()]
    for path in compiled:
        try:
            ctypes.CDLL(str(path))
        except OSError:
            continue
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
