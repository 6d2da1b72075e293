"""Features of images and captions from a frozen CLIP; only this file of the core imports open_clip.

Owns loading the backbone and what its global and local features are. Knows nothing of prompts,
prototypes or training.
"""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from safetensors import SafetensorError
from torch import Tensor, nn

from t2ipal.config import added, one_of, require
from t2ipal.pictovoc import WEIGHTS_DIR
from t2ipal.torchvision_repair import repair_torchvision

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
WEIGHTS_FILE = "open_clip_model.safetensors"
UNREADABLE = (EOFError, KeyError, TypeError, UnpicklingError, SafetensorError)
"""What open_clip lets through where a file of weights, or a configuration, is damaged."""


@dataclass(frozen=True)
class BackboneConfig:
    """Which frozen CLIP gives the features."""

    model: str = "pictovoc"
    """`pictovoc` (the embedded small CLIP), open_clip's name of an architecture (`RN101`, the
    paper's; `RN50`, `ViT-B-16`), or a folder with `open_clip_config.json` and
    `open_clip_model.safetensors`."""
    pretrained: str = "openai"
    """open_clip's tag of the weights, or a path to a file of them (then OpenAI's own need a `model`
    such as `RN101-quickgelu`); unused where `model` is a folder."""
    dense_features: str = "last"
    """How a ViT gives local features: `last` layer's tokens, or the `value` path of the last block
    (no query-key attention). A ResNet always uses the value path of its attention pool."""
    local_image_size_px: int | None = added(None)
    """Side in pixels at which a ResNet takes its local features; None: the model's own. A larger
    one gives a finer map, of smaller parts of the image, and costs a second pass."""
    precision: str = "fp32"
    """`fp32` or `bf16` (autocast in the visual encoder)."""
    device: str = "cpu"
    """Any torch device."""

    def __post_init__(self) -> None:
        one_of("precision", self.precision, PRECISIONS)
        one_of("dense_features", self.dense_features, ("last", "value"))
        side = self.local_image_size_px
        require(side is None or side > 0, f"local_image_size_px must be > 0, got {side}.")


@dataclass(frozen=True)
class ImageFeatures:
    """L2-normalised features of a batch of images."""

    global_features: Float[Tensor, "batch width"]
    """Pooled; without positional embedding for a ResNet, as in TaI-DPT."""
    local_features: Float[Tensor, "batch locations width"]
    pooled_features: Float[Tensor, "batch width"]
    """CLIP's own output, for zero-shot CLIP."""


@dataclass(frozen=True)
class TextFeatures:
    """L2-normalised features of a batch of texts."""

    global_features: Float[Tensor, "batch width"]
    local_features: Float[Tensor, "batch positions width"]
    mask: Bool[Tensor, "batch positions"]
    """True at the start token, the words and the end token; False at padding."""


@dataclass(frozen=True)
class FeatureSet:
    """L2-normalised features of many images or captions, with their labels."""

    global_features: Float[Tensor, "rows width"]
    local_features: Float[Tensor, "rows locations width"]
    mask: Bool[Tensor, "rows locations"] | None
    """False where a location is padding; None where every location counts (images)."""
    labels: Float[Tensor, "rows classes"]
    """Multi-hot."""
    pooled_features: Float[Tensor, "rows width"] | None = None
    """Images: CLIP's own output, which zero-shot CLIP uses; captions: None."""

    def __len__(self) -> int:
        return len(self.global_features)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "FeatureSet":
        columns = {name: getattr(self, name) for name in self.__dataclass_fields__}
        changed: dict[str, Any] = {
            name: None if column is None else change(column) for name, column in columns.items()
        }
        return FeatureSet(**changed)

    def rows(self, index: Tensor | slice) -> "FeatureSet":
        """The rows at `index`, in its order."""
        return self._map(lambda column: column[index])

    def to(self, device: torch.device | str) -> "FeatureSet":
        """A copy on `device`."""
        return self._map(lambda column: column.to(device))


@dataclass(frozen=True)
class TrainingFeatures:
    """What training reads: captions, their synthetic images, and which belongs to which."""

    texts: FeatureSet
    images: FeatureSet | None
    image_of_caption: Int[Tensor, "captions images_per_caption"]
    """Row in `images` of each caption's k-th image; -1 where there is none."""


class Backbone:
    """A frozen CLIP, read at the places the method needs (method's table of symbols)."""

    def __init__(self, model: nn.Module, tokenizer: Any, config: BackboneConfig):
        self.config = config
        self.model: Any = model.eval().requires_grad_(False).to(config.device)
        self._tokenizer = tokenizer
        visual = self.model.visual
        size = visual.image_size
        self.image_size_px = int(size[0] if isinstance(size, tuple | list) else size)
        self._mean = torch.tensor(visual.preprocess_cfg["mean"], device=config.device)
        self._std = torch.tensor(visual.preprocess_cfg["std"], device=config.device)
        self.text_width = int(self.model.token_embedding.embedding_dim)
        self.embed_dim = int(self.model.text_projection.shape[1])
        self.context_length = int(self.model.context_length)
        self.logit_scale = float(self.model.logit_scale.exp())
        require(
            config.local_image_size_px is None or hasattr(visual, "attnpool"),
            "local_image_size_px needs a ResNet, for a ViT has learned the positions of one size: "
            f"leave it out with {config.model}.",
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits that differ wherever features would."""
        activation = type(self.model.transformer.resblocks[0].mlp.gelu).__name__
        reading = self.config.dense_features, self.config.precision, self.image_size_px
        facts = (*reading, activation, self._mean.tolist(), self._std.tolist())
        if self.config.local_image_size_px is not None:
            facts = (*facts, self.config.local_image_size_px)
        digest = hashlib.sha256(repr(facts).encode())
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._mean.device

    def tokenize(self, texts: list[str]) -> Int[Tensor, "batch context"]:
        """Token ids, padded with 0 and cut to the context length."""
        return self._tokenizer(texts).to(self.device)

    def preprocess(
        self, images: UInt8[Tensor, "batch height width 3"], side: int | None = None
    ) -> Float[Tensor, "batch 3 size size"]:
        """CLIP's input: shorter side resized (bicubic), center cropped, mean and std removed.

        Args:
            images: of any one size.
            side: in pixels; None: the model's own.
        """
        pixels = images.to(self.device).permute(0, 3, 1, 2).float() / 255
        side = side or self.image_size_px
        size, (top, left) = resize_and_crop(pixels.shape[2], pixels.shape[3], side)
        if size != pixels.shape[2:]:
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        pixels = pixels[:, :, top : top + side, left : left + side]
        return (pixels - self._mean[:, None, None]) / self._std[:, None, None]

    @torch.no_grad()
    def encode_images(self, images: UInt8[Tensor, "batch height width 3"]) -> ImageFeatures:
        """Global and local features of uint8 RGB images of any one size."""
        pixels, larger = self.preprocess(images), self.config.local_image_size_px
        with torch.autocast(
            self.device.type,
            PRECISIONS[self.config.precision],
            enabled=self.config.precision != "fp32",
        ):
            visual = self.model.visual
            if hasattr(visual, "attnpool"):
                features = resnet_features(visual, pixels)
                if larger is not None:
                    locations = resnet_locations(visual, self.preprocess(images, larger))
                    local = local_projection(visual.attnpool, locations)
                    features = features[0], local, features[2]
            else:
                features = _vit_features(visual, pixels, self.config.dense_features)
        return ImageFeatures(*(F.normalize(f.float(), dim=-1) for f in features))

    @torch.no_grad()
    def encode_texts(self, texts: list[str]) -> TextFeatures:
        """Global (end token) and local (every position) features of captions."""
        tokens = self.tokenize(texts)
        end = tokens.argmax(dim=-1)
        length = int(end.max()) + 1
        positions = self._project(
            text_positions(self.model, self.model.token_embedding(tokens[:, :length]))
        )
        mask = torch.arange(length, device=self.device) <= end[:, None]
        rows = torch.arange(len(tokens), device=self.device)
        return TextFeatures(positions[rows, end], positions, mask)

    def embed_tokens(
        self, tokens: Int[Tensor, "batch positions"]
    ) -> Float[Tensor, "batch positions text"]:
        """Token embeddings, without positions."""
        return self.model.token_embedding(tokens)

    def encode_token_embeddings(
        self, embeddings: Float[Tensor, "classes positions text"], end: Int[Tensor, "classes"]
    ) -> Float[Tensor, "classes width"]:
        """Class embeddings of prompts given as token embeddings, read at their end token.

        Differentiable in `embeddings`. Positions after the longest end change nothing (the encoder
        is causal), so callers cut them away.
        """
        positions = text_positions(self.model, embeddings)
        return self._project(positions[torch.arange(len(end), device=end.device), end])

    def _project(self, hidden: Tensor) -> Tensor:
        projection = self.model.text_projection
        projected = projection(hidden) if isinstance(projection, nn.Linear) else hidden @ projection
        return F.normalize(projected.float(), dim=-1)


def resize_and_crop(height: int, width: int, side: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size of an image whose shorter side is `side`, and top and left of its center crop.

    Rounded as torchvision does it for CLIP, so that no crop is off by a pixel.
    """
    shorter = min(height, width)
    size = height * side // shorter, width * side // shorter
    return size, (round((size[0] - side) / 2), round((size[1] - side) / 2))


def text_positions(
    model: Any, embeddings: Float[Tensor, "batch positions text"]
) -> Float[Tensor, "batch positions text"]:
    """The text tower's output at every position, after its last norm; any length up to 77."""
    length = embeddings.shape[1]
    hidden = embeddings + model.positional_embedding[:length]
    hidden = model.transformer(hidden, attn_mask=model.attn_mask[:length, :length])
    return model.ln_final(hidden)


def resnet_features(visual: Any, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Attention pooling without positions, its value path at every location, CLIP's own pooling."""
    locations, pool = resnet_locations(visual, pixels), visual.attnpool
    tokens = torch.cat([locations.mean(dim=1, keepdim=True), locations], dim=1)
    return (
        _attention_pool(pool, tokens),
        local_projection(pool, locations),
        _attention_pool(pool, tokens + pool.positional_embedding),
    )


def resnet_locations(visual: Any, pixels: Tensor) -> Float[Tensor, "batch locations channels"]:
    """The last feature map, location by location."""
    grid = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(pixels)))))
    return grid.flatten(2).transpose(1, 2)


def local_projection(
    pool: Any, locations: Float[Tensor, "batch locations channels"]
) -> Float[Tensor, "batch locations width"]:
    """The attention pool's value path, without attention and without positions."""
    return pool.c_proj(pool.v_proj(locations))


def _attention_pool(pool: Any, tokens: Float[Tensor, "batch tokens channels"]) -> Tensor:
    """CLIP's attention pool for its first query alone, the only one that is read."""
    batch, length, channels = tokens.shape
    shape = (batch, length, pool.num_heads, channels // pool.num_heads)
    query = pool.q_proj(tokens[:, :1]).view(batch, 1, *shape[2:]).transpose(1, 2)
    key = pool.k_proj(tokens).view(shape).transpose(1, 2)
    value = pool.v_proj(tokens).view(shape).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(query, key, value)
    return pool.c_proj(mixed.transpose(1, 2).reshape(batch, channels))


def _vit_features(
    visual: Any, pixels: Tensor, dense_features: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Class and patch tokens through ln_post and proj; optionally the last block's value path."""
    hidden = visual._embeds(pixels)
    blocks = visual.transformer.resblocks
    for block in blocks[:-1]:
        hidden = block(hidden)
    last = blocks[-1]
    output = last(hidden)
    dense = output
    if dense_features == "value":
        normed = last.ln_1(hidden)
        weight, bias = last.attn.in_proj_weight, last.attn.in_proj_bias
        width = normed.shape[-1]
        value = F.linear(normed, weight[2 * width :], bias[2 * width :])
        dense = hidden + last.ls_1(last.attn.out_proj(value))
        dense = dense + last.ls_2(last.mlp(last.ln_2(dense)))
    pooled = visual.ln_post(output[:, 0]) @ visual.proj
    return pooled, visual.ln_post(dense[:, 1:]) @ visual.proj, pooled


def load_backbone(config: BackboneConfig) -> Backbone:
    """Loads the CLIP that `config` names, from a folder or by open_clip's name and tag.

    Raises:
        FileNotFoundError: a folder without its weights or configuration.
        ValueError: an unknown architecture or tag, one that is no plain CLIP, or weights that are
            damaged or of another shape.
        RuntimeError: the weights could not be downloaded.
    """
    repair_torchvision()
    import open_clip

    folder = WEIGHTS_DIR / "clip" if config.model == "pictovoc" else Path(config.model)
    quick_gelu = False
    if folder.is_dir() or config.model == "pictovoc" or "/" in config.model:
        for name in ("open_clip_config.json", WEIGHTS_FILE):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"A backbone folder must hold {name}; {folder} does not. "
                    "Give a folder written by open_clip, or an open_clip model name such as RN101."
                )
        name, pretrained = f"local-dir:{folder.resolve()}", None
    else:
        one_of("backbone", config.model, open_clip.list_models())
        if not Path(config.pretrained).is_file():
            one_of(
                "pretrained tag",
                config.pretrained,
                open_clip.list_pretrained_tags_by_model(config.model),
            )
        name, pretrained = config.model, config.pretrained
        # OpenAI's weights want QuickGELU; under these names open_clip builds the exact GELU.
        quick_gelu = open_clip.get_pretrained_cfg(name, pretrained).get("quick_gelu", False)
    try:
        model = open_clip.create_model(name, pretrained, force_quick_gelu=quick_gelu)
    except (RuntimeError, *UNREADABLE) as error:
        if isinstance(error, RuntimeError) and "loading state_dict" not in str(error):
            raise  # no network, for one
        raise ValueError(
            f"The weights of backbone {config.model} must be whole and fit its configuration, "
            f"got {type(error).__name__}: {error}"
        ) from error
    require(
        _is_plain_clip(model),
        "A backbone must be a CLIP with a causal text encoder and a ResNet, or a ViT with a class "
        f"token, got {config.model}. Take RN50, RN101, ViT-B-32 or ViT-B-16, for example.",
    )
    return Backbone(model, open_clip.get_tokenizer(name), config)


def _is_plain_clip(model: Any) -> bool:
    """Whether the model has its towers' parts where `Backbone` reads them."""
    visual = model.visual
    plain_vit = getattr(visual, "pool_type", "") == "tok" and visual.attn_pool is None
    text = getattr(model, "text_pool_type", ""), getattr(model, "attn_mask", None)
    return (
        (hasattr(visual, "attnpool") or plain_vit) and text[0] == "argmax" and text[1] is not None
    )
