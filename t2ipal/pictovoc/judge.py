"""The judge: a classifier trained on labeled scenes, used only to ask what an image shows.

It never teaches any other model; the share of named classes it finds says how faithful images are.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from safetensors.torch import load_file
from torch import Tensor, nn

from t2ipal.pictovoc.pixels import to_pixels
from t2ipal.pictovoc.scenes import CLASS_NAMES, IMAGE_SIZE_PX

WIDTHS = (32, 64, 128)
ImagesOfAnySizes = Sequence[UInt8[np.ndarray, "height width 3"]]


class _Block(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.norm1 = (
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.conv2, self.norm2 = (
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(inner)))


class Judge(nn.Module):
    """Class evidence at every place of an 8x8 map, pooled by a soft maximum."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width, blocks in zip(WIDTHS, (1, 2, 2)):
            layers += [
                nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
            ]
            layers += [nn.ReLU(), *(_Block(width) for _ in range(blocks))]
            before = width
        self.body = nn.Sequential(*layers)
        self.context = nn.Conv2d(before, before, 3, padding=2, dilation=2)
        self.head = nn.Conv2d(before, len(CLASS_NAMES), 1)

    def forward(self, pixels: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch classes"]:
        """Logit of each class."""
        features = self.body(pixels)
        evidence = self.head(features + F.relu(self.context(features)))
        return torch.logsumexp(evidence.flatten(2), dim=2)

    @torch.no_grad()
    def probs(
        self, images: ImagesOfAnySizes | UInt8[np.ndarray, "batch height width 3"]
    ) -> Float[np.ndarray, "batch classes"]:
        """Probability of each class in uint8 RGB images."""
        parts = []
        for first in range(0, len(images), 256):
            pixels = torch.cat([_as_drawn(image) for image in images[first : first + 256]])
            parts.append(self(pixels).sigmoid())
        return torch.cat(parts).numpy()


def _as_drawn(image: UInt8[np.ndarray, "height width 3"]) -> Float[Tensor, "1 3 side side"]:
    """The pixels of an image at the size of the scenes that a judge is trained on."""
    pixels = to_pixels(image[None])
    if pixels.shape[2:] == (IMAGE_SIZE_PX, IMAGE_SIZE_PX):
        return pixels
    return F.interpolate(pixels, (IMAGE_SIZE_PX, IMAGE_SIZE_PX), mode="bicubic", antialias=True)


def load_judge(folder: Path) -> Judge:
    """The trained judge, ready to look at images.

    Raises:
        FileNotFoundError: `folder` holds no judge.
    """
    path = folder / "judge.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"No judge in {folder}. Run jobs/pretrain_pictovoc.py --stage judge first."
        )
    model = Judge()
    model.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    )
    return model.eval()


NAMED_THRESHOLD = 0.5
"""The judge finds a class in an image where its probability is above this."""


def judged_share(
    judge_dir: Path,
    images: UInt8[np.ndarray, "n side side 3"],
    labels: Sequence[Sequence[int]],
) -> tuple[float, dict[str, float], Bool[np.ndarray, "n classes"]]:
    """Share of named classes that the judge finds, overall and by class; and all that it finds."""
    found = load_judge(judge_dir).probs(images) > NAMED_THRESHOLD
    return *found_share(found, labels), found


def found_share(
    found: Bool[np.ndarray, "n classes"], labels: Sequence[Sequence[int]]
) -> tuple[float, dict[str, float]]:
    """Share of the classes named by `labels` that are found, overall and by class."""
    named = np.zeros_like(found)
    for row, indices in enumerate(labels):
        named[row, list(indices)] = True
    by_class = {
        name: float(found[named[:, i], i].mean())
        for i, name in enumerate(CLASS_NAMES)
        if named[:, i].any()
    }
    return float(found[named].mean()), by_class
