"""open_clip's text encoders behind the contract of CLIP's own.

That is: tokens are `start, words, end` and padding, the end token has the highest number, and
nothing behind the end needs to be given. Some encoders differ: they are not causal, so padding
counts; they are read at their last position, or at a class token behind it; their tokenizer has no
start token, or an end token with a low number. A `TextTower` makes up for that. Towers of Hugging
Face are none of these.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from t2ipal.config import require
from t2ipal.features.prompt_tower import can_share_prefix, encode_plain
from t2ipal.features.towers import text_positions

OF_HUGGING_FACE = "a text encoder of Hugging Face, whose token embeddings cannot be given"


class TextTower:
    """A frozen text encoder; takes and gives token embeddings without positions.

    Args:
        model: open_clip's, whose text encoder is a `text` of its own, or is the model itself.
        tokenizer: of the model.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.module = text_module(model)
        self.tokenizer = tokenizer
        self._class_token: Tensor | None = getattr(self.module, "cls_emb", None)
        self._reads_last = self._class_token is not None or _pooling(self.module) == "last"
        self._sees_padding = self._reads_last or self.module.attn_mask is None
        self._own_end: int | None = None
        """Of a tokenizer whose end token is not the highest number."""
        self._pad = 0
        self._num_added = 0
        """Start tokens, one or none, that the contract has and the encoder has not."""
        if hasattr(tokenizer, "tokenizer"):
            self._own_end = self._end_of(tokenizer.tokenizer)
            self._pad = int(tokenizer.tokenizer.pad_token_id or 0)
            self._num_added = int(tokenizer([""])[0, 0] == self._own_end)
        self.context_length = int(self.module.context_length) + self._num_added

    def _end_of(self, tokenizer: Any) -> int:
        found: Any = tokenizer.eos_token_id
        if _pooling(self.module) == "eos":
            found = getattr(self.module, "text_eos_id", getattr(self.module, "eos_id", None))
        require(found is not None, "The tokenizer of a backbone must have an end token, got none.")
        return int(found)

    @property
    def unlike_clip(self) -> tuple[Any, ...]:
        """What differs from CLIP's own encoder beside weights; empty where nothing does."""
        activation = getattr(self.module.transformer.resblocks[0].mlp.gelu, "approximate", "none")
        reading = _pooling(self.module), self.module.attn_mask is None
        facts = (*reading, self._own_end, self._pad, self._num_added, activation)
        return () if facts == ("argmax", False, None, 0, 0, "none") else facts

    @property
    def shares_prefixes(self) -> bool:
        """Whether `t2ipal.features.prompt_tower.encode_shared` knows it."""
        return not self._sees_padding and not self._num_added and can_share_prefix(self.module)

    def tokenize(self, texts: list[str]) -> Int[Tensor, "batch context"]:
        """Token ids, cut to the context length; the end token has the highest number."""
        tokens = self.tokenizer(texts)
        if self._own_end is None:
            return tokens
        end = (tokens == self._own_end).int().argmax(dim=1)
        tokens[torch.arange(len(tokens)), end] = self.module.token_embedding.num_embeddings
        start = tokens.new_full((len(tokens), self._num_added), self._pad)
        return torch.cat([start, tokens], dim=1)

    def embed(
        self, tokens: Int[Tensor, "batch positions"]
    ) -> Float[Tensor, "batch positions text"]:
        """Token embeddings of what `tokenize` gives."""
        if self._own_end is not None:
            is_end = tokens == self.module.token_embedding.num_embeddings
            tokens = tokens.masked_fill(is_end, self._own_end)
        return self.module.token_embedding(tokens)

    def encode(
        self,
        embeddings: Float[Tensor, "*sets classes positions text"],
        end: Int[Tensor, " classes"],
    ) -> Float[Tensor, "*sets classes text"]:
        """The output where the encoder is read, after its last norm."""
        masks = None
        if self._class_token is not None:
            positions = torch.arange(self.module.context_length, device=end.device)
            masks = self._masks(positions <= end[:, None])
        whole = self._whole(embeddings)
        return encode_plain(self.module, whole, self.read_at(end), masks=masks)

    def positions(
        self, tokens: Int[Tensor, "batch positions"]
    ) -> Float[Tensor, "batch own_positions text"]:
        """The output at each of its own positions, after its last norm."""
        masks = None
        if self._class_token is not None:
            shown = tokens != self._pad
            masks = self._masks(F.pad(shown, (0, self.module.context_length - shown.shape[1])))
        return text_positions(self.module, self._whole(self.embed(tokens)), masks)

    def own_end(self, end: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """The position of the end token as the encoder counts."""
        return end - self._num_added

    def read_at(self, end: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """The position where it is read."""
        last = len(self.module.positional_embedding) - 1
        return torch.full_like(end, last) if self._reads_last else self.own_end(end)

    def _whole(self, embeddings: Tensor) -> Tensor:
        """As the encoder takes it: its own tokens alone, and padding where that counts."""
        own = embeddings[..., self._num_added :, :]
        lacking = self.module.context_length - own.shape[-2]
        if not self._sees_padding:
            return own
        padding = self.module.token_embedding.weight[self._pad].to(own.dtype)
        parts = [own, padding.expand(*own.shape[:-2], lacking, -1)]
        if self._class_token is not None:
            parts.append(self._class_token.expand(*own.shape[:-2], 1, -1))
        return torch.cat(parts, dim=-2)

    def _masks(
        self, shown: Bool[Tensor, "batch context"]
    ) -> Float[Tensor, "batch positions positions"]:
        """Causal, and of what is no padding; off by one, as CoCa was trained and open_clip has it.

        A position is seen where the token *before* it is no padding, the class token included.
        """
        seen = F.pad(shown, (1, 0), value=True)
        return self.module.attn_mask + torch.zeros_like(seen, dtype=torch.float32).masked_fill(
            ~seen, float("-inf")
        ).unsqueeze(1)


def text_module(model: Any) -> Any:
    """What holds the text encoder's parts."""
    return getattr(model, "text", model)


def _pooling(module: Any) -> str:
    """Where open_clip reads the encoder: argmax, eos or last."""
    return getattr(module, "text_pool_type", getattr(module, "pool_type", ""))


def why_unreadable(model: Any) -> str:
    """Why a model's text encoder has no `TextTower`; empty where it has."""
    module = text_module(model)
    if not hasattr(module, "token_embedding"):
        return OF_HUGGING_FACE
    if _pooling(module) not in ("argmax", "eos", "last"):
        return f"a text encoder that is read by {_pooling(module)!r}"
    return ""
