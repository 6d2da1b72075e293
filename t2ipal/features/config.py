"""Which frozen CLIP gives the features, and how they are read; loads no model."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from t2ipal.config import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    added,
    check_fields,
    differences,
    require,
    to_dict,
)
from t2ipal.places import LocalPath, NameOrPath
from t2ipal.store import LocalCopies


@dataclass(frozen=True)
class BackboneConfig:
    """Which frozen CLIP gives the features."""

    model: NameOrPath = "pictovoc"
    """`pictovoc` and `pictovoc_deep` (the embedded CLIPs), open_clip's name of an architecture
    (`RN101`, the paper's; `RN50`, `ViT-B-16`), or a folder with `open_clip_config.json` and
    `open_clip_model.safetensors`."""
    pretrained: NameOrPath = "openai"
    """open_clip's tag of the weights, or a path to a file of them; unused where `model` is a
    folder. OpenAI's own files are recognized; others are of the activation that the model's name
    says: QuickGELU for `RN101-quickgelu`, exact GELU for `RN101`."""
    dense_features: Literal["last", "value", "regions"] = "last"
    """How a ViT gives local features: `last` layer's tokens, or the `value` path of the last block
    (no query-key attention). A ResNet always uses the value path of its attention pool; `regions`
    adds its positions first, and the mean location as one more in front (DualCoOp)."""
    local_image_size_px: PositiveInt | None = added(None)  # noqa: RUF009
    """Side in pixels at which a ResNet takes its local features; None: the model's own. A larger
    one gives a finer map, of smaller parts of the image, and costs a second pass."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`fp32` or `bf16` (autocast in the visual encoder)."""
    feature_format: Literal["fp16", "int8"] = added("fp16")
    """How features are stored: as halves, or local ones in 8 bits with a scale for each location,
    which take half the disk."""
    device: str = "cpu"
    """Any torch device."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class FeatureAccess:
    """How stored features are read; changes no result."""

    feature_memory_gb: NonNegativeFloat = 2.0
    """Features up to this size are held in the memory of each process that trains or measures.
    Larger ones are read batch by batch from the files they lie in."""
    feature_cache: LocalPath | None = None
    """Folder of each machine for copies of features that lie in a bucket; None: t2ipal/features
    in $XDG_CACHE_HOME, which is ~/.cache where it is not set."""
    feature_cache_gb: PositiveFloat = 200.0
    """Size of that folder. Copies used longest ago give way; where it is smaller than the
    features, each epoch fetches some of them again."""

    def __post_init__(self) -> None:
        check_fields(self)

    def copies(self) -> LocalCopies:
        """The copies of this machine."""
        if self.feature_cache is None:
            home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
            folder = Path(home) / "t2ipal" / "features"
        else:
            folder = Path(self.feature_cache)
        return LocalCopies(folder, int(self.feature_cache_gb * 1e9))


@dataclass(frozen=True)
class BackboneIdentity:
    """Which frozen CLIP features are of, in words and by a digest of its weights and reading."""

    config: BackboneConfig
    """Its names and how it is read; the device it was on does not count."""
    fingerprint: str
    """16 hex digits that differ wherever features would."""
    image_size_px: int
    """Side at which it sees images."""
    mean: tuple[float, ...]
    """Taken off each color channel, of values in 0 to 1."""
    std: tuple[float, ...]
    """Divides each color channel."""

    def require(self, other: "BackboneIdentity", what: str) -> None:
        """Refuses another backbone: features of another CLIP mean nothing to a recognizer.

        Args:
            other: that is at hand.
            what: belongs to this one, for the message.

        Raises:
            ValueError: its features would differ; the differences are named.
        """
        changed = differences(to_dict(other.config), to_dict(self.config))
        told_apart = ("device:", "feature_format:")  # neither is in the fingerprint
        changed = [line for line in changed if not line.startswith(told_apart)]
        require(
            self.fingerprint == other.fingerprint,
            f"{what} was trained on features of another backbone "
            f"({'; '.join(changed) or 'same name, other weights'}; fingerprint "
            f"{self.fingerprint} there, {other.fingerprint} here). Give the one it was trained on: "
            "--model, --pretrained, --dense-features, --local-image-size-px, --precision.",
        )
