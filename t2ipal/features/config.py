"""Which frozen CLIP gives the features; loads nothing, so that a command line can be parsed."""

from dataclasses import dataclass
from typing import Literal

from t2ipal.config import PositiveInt, added, check_fields, differences, require, to_dict
from t2ipal.places import NameOrPath


@dataclass(frozen=True)
class BackboneConfig:
    """Which frozen CLIP gives the features."""

    model: NameOrPath = "pictovoc"
    """`pictovoc` (the embedded small CLIP), open_clip's name of an architecture (`RN101`, the
    paper's; `RN50`, `ViT-B-16`), or a folder with `open_clip_config.json` and
    `open_clip_model.safetensors`."""
    pretrained: NameOrPath = "openai"
    """open_clip's tag of the weights, or a path to a file of them (then OpenAI's own need a `model`
    such as `RN101-quickgelu`); unused where `model` is a folder."""
    dense_features: Literal["last", "value"] = "last"
    """How a ViT gives local features: `last` layer's tokens, or the `value` path of the last block
    (no query-key attention). A ResNet always uses the value path of its attention pool."""
    local_image_size_px: PositiveInt | None = added(None)  # noqa: RUF009
    """Side in pixels at which a ResNet takes its local features; None: the model's own. A larger
    one gives a finer map, of smaller parts of the image, and costs a second pass."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`fp32` or `bf16` (autocast in the visual encoder)."""
    device: str = "cpu"
    """Any torch device."""

    def __post_init__(self) -> None:
        check_fields(self)


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
        changed = [line for line in changed if not line.startswith("device:")]
        require(
            self.fingerprint == other.fingerprint,
            f"{what} was trained on features of another backbone "
            f"({'; '.join(changed) or 'same name, other weights'}; fingerprint "
            f"{self.fingerprint} there, {other.fingerprint} here). Give the one it was trained on: "
            "--model, --pretrained, --dense-features, --local-image-size-px, --precision.",
        )
