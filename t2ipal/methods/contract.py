"""What every method offers: `fit` and the search know this and nothing else of any method.

A method's file owns a frozen config with only its own fields, whose `build(backbone, seed)` gives
the method. Trials of one method are stacked into one module (`t2ipal.training.stacked`) where its
config has `numbers()`, a named tuple of the fields in which they may differ: then `loss` and
`scorer` take such a tuple of tensors in their place, and are pure functions of it, of the module's
parameters and of the batch.

A training-free method is fitted by the same door: `prepare` reads the features, there is nothing to
step, and `export` gives the recognizer.
"""

from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from t2ipal.features.config import BackboneIdentity
from t2ipal.features.sets import FeatureSet, ImageFeatures, TextFeatures, TrainingFeatures
from t2ipal.methods.prompts import PromptEncoder
from t2ipal.methods.recognizer import Recognizer


class Losses(NamedTuple):
    """The total and its two terms before weighting."""

    total: Float[Tensor, ""]
    image: Float[Tensor, ""]
    text: Float[Tensor, ""]


class FrozenBackbone(PromptEncoder, Protocol):
    """What a method needs of a frozen CLIP; `t2ipal.features.backbone.Backbone` is one."""

    image_size_px: int
    """Side at which it sees images."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        ...

    @property
    def identity(self) -> BackboneIdentity:
        """What a recognizer keeps of the backbone that it belongs to."""
        ...

    def encode_texts(self, texts: list[str]) -> TextFeatures:
        """Features of captions, without gradient."""
        ...

    def encode_pixels(self, pixels: Float[Tensor, "batch 3 size size"]) -> ImageFeatures:
        """Features of images whose colors are in 0 to 1; differentiable.

        Raises:
            RuntimeError: the visual tower was not loaded; a config of a method that calls this
                has `needs_visual_tower = True`.
        """
        ...


class Method(Protocol):
    """An `nn.Module` of what is learned; the backbone is no part of it."""

    config: Any
    """Frozen dataclass of plain values with `class_names`; a field `method` tells which it is."""
    uses_images: bool
    """Whether the loss looks at images; where not, none are gathered."""
    uses_texts: bool

    def prepare(self, data: TrainingFeatures) -> None:
        """Looks at all data once, before the first step.

        Raises:
            ValueError: the method cannot learn from it.
        """
        ...

    # A method whose `prepare` takes constants from the images has `config.reads_images` True, and
    # `prepare_like(other)`: trials of a stack then have the same images, and look at them once.

    # A method whose loss depends on the epoch, or draws random numbers, has
    # `start_epoch(epoch: int)` too: it is called before the epoch's first step.

    def loss(
        self,
        images: FeatureSet | None,
        texts: FeatureSet | None,
        *,
        num_images: Any = None,
        num_texts: int | None = None,
        image_weights: Float[Tensor, " images"] | None = None,
        stacked: Any = None,
    ) -> Losses:
        """The loss of a batch, computed under autocast where the user asks for bfloat16.

        Args:
            images: of the batch with their labels; None where the method uses none.
            texts: captions of the batch with their labels; None where it uses none.
            num_images: divisor of the images' mean where this is one part of a larger batch.
            num_texts: the same for captions.
            image_weights: one for each image, where trials of a stack are given others; None: 1.
            stacked: `config.numbers()` of one trial of a stack as tensors; None: the config's.
        """
        ...

    def parameter_groups(self, training: Any) -> list[dict[str, Any]]:
        """Groups of `params` with the learning rate at their peak, `peak_lr`; none: not trained.

        A group may have `stages` in its place: (epochs, peak_lr) one after the other, each with a
        warm-up and a cosine of its own.
        """
        ...

    def export(self) -> Recognizer:
        """The recognizer as constants, independent of any later step."""
        ...

    def scorer(self, stacked: Any = None) -> Any:
        """What `export` makes constants of, with its graph; see `loss` for `stacked`."""
        ...

    def parameters(self) -> Any:
        """As `nn.Module`'s; and so on."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """As `nn.Module`'s."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """As `nn.Module`'s."""
        ...
