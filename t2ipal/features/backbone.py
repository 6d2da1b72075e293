"""The frozen CLIP: the only file of the core that loads models of open_clip.

Owns loading it and what its global and local features are. Knows nothing of prompts that are
learned, prototypes or training.
"""

import functools
import hashlib
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError
from torch import Tensor, nn

from t2ipal.config import one_of, require
from t2ipal.devices import Halving
from t2ipal.features.config import BackboneConfig, BackboneIdentity
from t2ipal.features.openai_weights import openai_weights
from t2ipal.features.prompt_tower import (
    PromptLayout,
    encode_shared,
    joined,
    lay_out,
)
from t2ipal.features.sets import ImageFeatures, TextFeatures
from t2ipal.features.text_towers import OF_HUGGING_FACE, TextTower, why_unreadable
from t2ipal.features.towers import (
    _vit_features,
    is_pooled_vit,
    is_timm_vit,
    local_projection,
    pooled_vit_features,
    region_projection,
    resize_and_crop,
    resnet_features,
    resnet_locations,
    timm_features,
)
from t2ipal.pictovoc import WEIGHTS_DIR
from t2ipal.torchvision_repair import repair_torchvision

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
WEIGHTS_FILE = "open_clip_model.safetensors"
EMBEDDED = {"pictovoc": "clip", "pictovoc_deep": "clip_deep"}
"""The world's own CLIPs by name, with their folders."""
ENCODERS = ("text_cfg", "vision_cfg")
"""Keys of open_clip's configuration."""
UNREADABLE = (EOFError, KeyError, TypeError, UnpicklingError, SafetensorError)
"""What open_clip lets through where a file of weights, or a configuration, is damaged."""


class Backbone:
    """A frozen CLIP, read at the places the method needs (method's table of symbols)."""

    def __init__(self, model: nn.Module, tokenizer: Any, config: BackboneConfig):
        self.config = config
        self.model: Any = model.eval().requires_grad_(False).to(config.device)
        self._text = TextTower(self.model, tokenizer)
        self._images_at_once, self._texts_at_once = Halving(), Halving()
        visual = self.model.visual
        size = visual.image_size
        self.image_size_px = int(size[0] if isinstance(size, tuple | list) else size)
        self._mean = torch.tensor(visual.preprocess_cfg["mean"], device=config.device)
        self._std = torch.tensor(visual.preprocess_cfg["std"], device=config.device)
        self.text_width = int(self._text.module.token_embedding.embedding_dim)
        projection = self._text.module.text_projection  # a layer where it has a bias
        is_layer = isinstance(projection, nn.Linear)
        self.embed_dim = int(projection.out_features if is_layer else projection.shape[1])
        self.context_length = self._text.context_length
        self.logit_scale = float(self.model.logit_scale.exp())
        require(
            config.local_image_size_px is None or hasattr(visual, "attnpool"),
            "local_image_size_px needs a ResNet, for a ViT has learned the positions of one size: "
            f"leave it out with {config.model}.",
        )
        require(
            config.dense_features != "regions" or hasattr(visual, "attnpool"),
            'dense_features "regions" needs a ResNet, whose attention pool gives them; take "last" '
            f'or "value" with {config.model}.',
        )
        require(
            config.dense_features != "value" or not (is_timm_vit(visual) or is_pooled_vit(visual)),
            'dense_features "value" needs a ResNet or a plain ViT: take "last" with '
            f"{config.model}.",
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits that differ wherever features would."""
        activation = type(self._text.module.transformer.resblocks[0].mlp.gelu).__name__
        reading = self.config.dense_features, self.config.precision, self.image_size_px
        facts = (*reading, activation, self._mean.tolist(), self._std.tolist())
        if self.config.local_image_size_px is not None:
            facts = (*facts, self.config.local_image_size_px)
        facts = (*facts, *self._text.unlike_clip)
        digest = hashlib.sha256(repr(facts).encode())
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    @property
    def identity(self) -> BackboneIdentity:
        """What a recognizer keeps of the backbone that it belongs to."""
        size, mean, std = self.image_size_px, self._mean.tolist(), self._std.tolist()
        return BackboneIdentity(self.config, self.fingerprint, size, tuple(mean), tuple(std))

    @property
    def photograph_size_px(self) -> int:
        """Side of the square that a photograph is cut to: what the largest look at it needs."""
        return max(self.image_size_px, self.config.local_image_size_px or 0)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._mean.device

    def tokenize(self, texts: list[str]) -> Int[Tensor, "batch context"]:
        """Token ids, padded and cut to the context length; the end token has the highest number."""
        return self._text.tokenize(texts).to(self.device)

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
        """Global and local features of uint8 RGB images of any one size.

        In halves where the device's memory is short.
        """
        parts = self._images_at_once(
            lambda rows: self._encode_images(images[rows]), len(images), "images"
        )
        return ImageFeatures(*(torch.cat(columns) for columns in zip(*parts)))

    def _encode_images(self, images: UInt8[Tensor, "batch height width 3"]) -> list[Tensor]:
        pixels, larger = self.preprocess(images), self.config.local_image_size_px
        features = self._visual_features(pixels)
        if larger is not None:
            visual = self.model.visual
            with self._autocast():
                locations = resnet_locations(visual, self.preprocess(images, larger))
                features[1] = self._local_path(visual.attnpool, locations)
        return [F.normalize(feature.float(), dim=-1) for feature in features]

    def _visual_features(self, pixels: Float[Tensor, "batch 3 size size"]) -> list[Tensor]:
        visual = self.model.visual
        with self._autocast():
            if hasattr(visual, "attnpool"):
                return [*resnet_features(visual, pixels, self._local_path)]
            if is_timm_vit(visual):
                return [*timm_features(visual, pixels)]
            if is_pooled_vit(visual):
                return [*pooled_vit_features(visual, pixels)]
            return [*_vit_features(visual, pixels, self.config.dense_features)]

    @property
    def _local_path(self) -> Any:
        """From a ResNet's last map to its local features."""
        return region_projection if self.config.dense_features == "regions" else local_projection

    def _autocast(self) -> torch.autocast:
        dtype, enabled = PRECISIONS[self.config.precision], self.config.precision != "fp32"
        return torch.autocast(self.device.type, dtype, enabled=enabled)

    def encode_pixels(self, pixels: Float[Tensor, "batch 3 size size"]) -> ImageFeatures:
        """Features of images whose colors are in 0 to 1, at the model's own size; differentiable.

        Raises:
            RuntimeError: only the text tower was loaded.
        """
        if self.model.visual is None:
            raise RuntimeError(
                "encode_pixels needs the visual tower: load the backbone with load_backbone, not "
                "with load_text_tower."
            )
        pixels = (pixels - self._mean[:, None, None]) / self._std[:, None, None]
        features = self._visual_features(pixels)
        return ImageFeatures(*(F.normalize(feature.float(), dim=-1) for feature in features))

    @torch.no_grad()
    def encode_texts(self, texts: list[str]) -> TextFeatures:
        """Global (where the tower is read) and local (every position) features of captions.

        In halves where the device's memory is short.
        """
        tokens = self.tokenize(texts)
        end = tokens.argmax(dim=-1)
        tokens = tokens[:, : int(end.max()) + 1]
        parts = self._texts_at_once(
            lambda rows: self._project(self._text.positions(tokens[rows])), len(texts), "captions"
        )
        positions, own_end = torch.cat(parts), self._text.own_end(end)
        rows = torch.arange(len(tokens), device=self.device)
        local = positions[:, : int(own_end.max()) + 1]
        mask = torch.arange(local.shape[1], device=self.device) <= own_end[:, None]
        return TextFeatures(positions[rows, self._text.read_at(end)], local, mask)

    def embed_tokens(
        self, tokens: Int[Tensor, "batch positions"]
    ) -> Float[Tensor, "batch positions text"]:
        """Token embeddings, without positions."""
        return self._text.embed(tokens)

    def prompt_layout(self, end: Int[Tensor, "classes"], num_shared: int) -> PromptLayout | None:
        """For `encode_token_embeddings`; None where the tower encodes whole prompts only.

        Args:
            end: position of each class's end token.
            num_shared: first positions that are the same for all classes.
        """
        return lay_out(end, num_shared) if self._text.shares_prefixes else None

    def encode_token_embeddings(
        self,
        embeddings: Float[Tensor, "*sets classes positions text"],
        end: Int[Tensor, "classes"],
        shared: Float[Tensor, "several shared text"] | None = None,
        layout: PromptLayout | None = None,
    ) -> Float[Tensor, "*prompts width"]:
        """Class embeddings of prompts given as token embeddings, read where the tower is read.

        Differentiable. Positions after the longest end change nothing, or are padding that the
        tower adds itself, so callers cut them away.

        Args:
            embeddings: one set of prompts, or several; or what comes behind `shared`, where one set
                may stand for all.
            end: position of each class's end token, the same in all sets.
            shared: what all prompts of a set begin with; None: nothing.
            layout: of the prompts behind `shared`; None: everything is encoded as it is.
        """
        if shared is not None and layout is not None:
            module = self._text.module
            return self._project(encode_shared(module, shared, embeddings, layout))
        whole = embeddings if shared is None else joined(shared, embeddings)
        return self._project(self._text.encode(whole, end))

    def _project(self, hidden: Tensor) -> Tensor:
        projection = self._text.module.text_projection
        with torch.autocast(self.device.type, enabled=False):  # embeddings stay in float32
            linear = isinstance(projection, nn.Linear)
            projected = projection(hidden) if linear else hidden @ projection
        return F.normalize(projected.float(), dim=-1)


def clip_templates() -> tuple[str, ...]:
    """CLIP's 80 texts around the names of ImageNet's classes, "a photo of a {}." among them."""
    repair_torchvision()
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def load_text_tower(config: BackboneConfig) -> Backbone:
    """The backbone for who has features of the images: the memory of its visual tower is free."""
    backbone = load_backbone(config)
    assert backbone.fingerprint  # of all weights, as long as they are there
    backbone.model.visual = None
    return backbone


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

    embedded = EMBEDDED.get(config.model)
    folder = WEIGHTS_DIR / embedded if embedded else Path(config.model)
    quick_gelu, weights = False, None
    if folder.is_dir() or embedded or "/" in config.model:
        for name in ("open_clip_config.json", WEIGHTS_FILE):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"A backbone folder must hold {name}; {folder} does not. "
                    "Give a folder written by open_clip, or an open_clip model name such as RN101."
                )
        name, pretrained = f"local-dir:{folder.resolve()}", None
        text = _own_text(config.model, name)
    else:
        one_of("backbone", config.model, (*EMBEDDED, *open_clip.list_models()))
        name, pretrained = config.model, config.pretrained
        text = _own_text(config.model, name)
        if not Path(pretrained).is_file():
            tags = open_clip.list_pretrained_tags_by_model(name)
            one_of("pretrained tag", pretrained, tags)
            # OpenAI's weights want QuickGELU; under these names open_clip builds the exact GELU.
            quick_gelu = open_clip.get_pretrained_cfg(name, pretrained).get("quick_gelu", False)
        else:
            plain = name.removesuffix("-quickgelu")
            address = open_clip.get_pretrained_cfg(plain, "openai").get("url", "")
            weights = openai_weights(Path(pretrained), name, address)
            quick_gelu = weights is not None
    try:
        if weights is None:
            model = open_clip.create_model(name, pretrained, force_quick_gelu=quick_gelu)
        else:
            model = _openai_clip(name, weights)
    except Exception as error:  # whatever a damaged configuration leads to
        known = isinstance(error, UNREADABLE) or "loading state_dict" in str(error)
        if pretrained is not None and not known:
            raise  # no network, for one
        raise ValueError(
            f"The weights of backbone {config.model} must be whole and fit its configuration, "
            f"got {type(error).__name__}: {error}"
        ) from error
    _require_readable(config.model, why_unreadable(model) or _why_unseen(model.visual))
    try:
        # A folder's configuration may ask for the code beside it to be run, and is not heeded.
        loaded_by: Any = {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}
        return Backbone(model, open_clip.get_tokenizer(name, **loaded_by), config)
    except (TypeError, RuntimeError, AttributeError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise ValueError(
                f"The tokenizer of {config.model} is code that comes with it, and no such code is "
                "run. Take a backbone with a tokenizer of transformers."
            ) from error
        if pretrained is not None or isinstance(error, ValueError):
            raise
        raise ValueError(
            f"{config.model}/open_clip_config.json must tell the mean and standard deviation of "
            f"images, got {type(error).__name__}: {error}"
        ) from error


def _own_text(shown: str, name: str) -> dict[str, Any]:
    """open_clip's configuration of a text encoder; nothing where it is damaged.

    Raises:
        ValueError: the encoders are those of another model, which would be fetched.
    """
    from open_clip import get_model_config

    config: Any = None
    with suppress(ValueError):  # loading it says what is wrong
        config = get_model_config(name)
    parts = [config.get(key) if isinstance(config, dict) else None for key in ENCODERS]
    text, visual = (part if isinstance(part, dict) else {} for part in parts)
    _require_readable(shown, OF_HUGGING_FACE if text.get("hf_model_name") else "")
    elsewhere = ":" in str(visual.get("timm_model_name"))
    _require_readable(shown, "a visual encoder that lies elsewhere" if elsewhere else "")
    return text


def _openai_clip(name: str, weights: dict[str, Tensor]) -> Any:
    """The architecture with QuickGELU and these weights; open_clip reads no such layout."""
    from open_clip import get_model_config
    from open_clip.model import CLIP, set_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg

    model: Any = CLIP(**{**get_model_config(name), "quick_gelu": True})  # type: ignore
    model.load_state_dict(weights)
    set_model_preprocess_cfg(model, vars(PreprocessCfg(size=model.visual.image_size)))
    return model


def _require_readable(name: str, reason: str) -> None:
    require(
        not reason,
        "A backbone must be a CLIP whose text encoder takes token embeddings and whose images have "
        f"local features, got {name}: it has {reason}. Take RN50, RN101, ViT-B-16 or "
        "ViT-B-16-SigLIP, for example.",
    )


def _why_unseen(visual: Any) -> str:
    """Why the images' features cannot be read off a visual tower; empty where they can."""
    is_plain_vit = getattr(visual, "pool_type", "") == "tok" and visual.attn_pool is None
    known = is_plain_vit or is_pooled_vit(visual) or is_timm_vit(visual)
    if known or hasattr(visual, "attnpool"):
        return ""
    return "a visual encoder that is neither a ResNet nor a ViT with a class token or a query"
