"""A tiny deterministic CLIP text tower and features to go with it, for tests of the method."""

import re
import zlib

import torch
from torch.nn import functional

from t2ipal.features.config import BackboneConfig, BackboneIdentity
from t2ipal.features.prompt_tower import joined
from t2ipal.features.sets import FeatureSet, ImageFeatures, TextFeatures, TrainingFeatures
from t2ipal.methods.t2ipal import T2IPALConfig

NAMES = ("bird", "boat", "pottedplant", "tvmonitor", "dog")
PROMPT_NAMES = ("bird", "boat", "potted plant", "tv monitor", "dog")
WIDTH, TEXT_WIDTH = 24, 12
START, END = 1000, 1001


def config(**changes) -> T2IPALConfig:
    return T2IPALConfig(**{"class_names": NAMES, "prompt_names": PROMPT_NAMES, **changes})


class FakeClip:
    """Causal like CLIP's: a position sees itself and what comes before it."""

    context_length = 30
    logit_scale = 100.0
    image_size_px = 8
    device = torch.device("cpu")
    identity = BackboneIdentity(BackboneConfig(model="fake"), "0123456789abcdef", 8, (0.5,), (0.5,))

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(7)
        self.embedding = torch.randn(END + 1, TEXT_WIDTH, generator=generator, dtype=dtype) * 0.1
        self.positions = torch.randn(30, TEXT_WIDTH, generator=generator, dtype=dtype) * 0.05
        self.mixing = torch.randn(TEXT_WIDTH, TEXT_WIDTH, generator=generator, dtype=dtype)
        self.projection = torch.randn(TEXT_WIDTH, WIDTH, generator=generator, dtype=dtype)

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        tokens = torch.zeros(len(texts), self.context_length, dtype=torch.int64)
        for row, text in zip(tokens, texts):
            words = [zlib.crc32(word.encode()) % 1000 for word in re.findall(r"\w+|[^\w\s]", text)]
            ids = [START, *words[: self.context_length - 2], END]
            row[: len(ids)] = torch.tensor(ids)
        return tokens

    def embed_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.embedding[tokens]

    def prompt_layout(self, end: torch.Tensor, num_shared: int) -> None:
        return None

    def encode_token_embeddings(
        self,
        embeddings: torch.Tensor,
        end: torch.Tensor,
        shared: torch.Tensor | None = None,
        layout: None = None,
    ) -> torch.Tensor:
        if shared is not None:
            embeddings = joined(shared, embeddings)
        length = embeddings.shape[-2]
        count = torch.arange(1, length + 1, dtype=embeddings.dtype).unsqueeze(1)
        hidden = embeddings + self.positions[:length]
        hidden = hidden + (torch.tanh(hidden @ self.mixing).cumsum(dim=-2) / count)
        hidden = hidden + (torch.tanh(hidden @ self.mixing).cumsum(dim=-2) / count)
        output = hidden[..., torch.arange(len(end)), end, :] @ self.projection
        return functional.normalize(output, dim=-1)

    def encode_texts(self, texts: list[str]) -> TextFeatures:
        """Every token has the feature of the end token; enough for rows to be there."""
        tokens = self.tokenize(texts)
        end = tokens.argmax(dim=-1)
        whole = self.encode_text(texts)
        length = int(end.max()) + 1
        mask = torch.arange(length) <= end[:, None]
        return TextFeatures(whole, whole[:, None].expand(-1, length, -1).clone(), mask)

    def encode_pixels(self, pixels: torch.Tensor) -> ImageFeatures:
        """A linear look at 4 x 4 locations; the whole is their mean."""
        parts = pixels.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).flatten(3)
        generator = torch.Generator().manual_seed(8)
        mixing = torch.randn(parts.shape[-1], WIDTH, generator=generator)
        local = ((parts - 0.5) @ mixing).flatten(1, 2)
        whole = functional.normalize(local.mean(dim=1), dim=-1)
        return ImageFeatures(whole, functional.normalize(local, dim=-1), whole)

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        tokens = self.tokenize(texts)
        return self.encode_token_embeddings(self.embed_tokens(tokens), tokens.argmax(dim=-1))


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator, dtype=dtype), dim=-1)


def images(num: int = 40, seed: int = 0, locations: int = 9, noise: float = 0.5) -> FeatureSet:
    """Each class is at one location, as a direction half its name's and half its own."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(num, len(NAMES), generator=generator) < 0.3).float()
    empty = labels.sum(dim=1) == 0
    labels[empty, torch.randint(len(NAMES), (int(empty.sum()),), generator=generator)] = 1
    names = FakeClip().encode_text([f"a photo of a {name}." for name in PROMPT_NAMES])
    names = functional.normalize(names - names.mean(dim=0), dim=-1)
    directions = functional.normalize(names + unit(len(NAMES), WIDTH, seed=99), dim=-1)
    local = unit(num, locations, WIDTH, seed=seed + 1) * noise
    for row in range(num):
        for index in labels[row].nonzero().flatten().tolist():
            local[row, (row + 2 * index) % locations] += directions[index]
    pooled = functional.normalize(local.mean(dim=1), dim=-1)
    return FeatureSet(pooled, functional.normalize(local, dim=-1), None, labels, pooled.flip(0))


def texts(num: int = 40, seed: int = 0, locations: int = 7) -> FeatureSet:
    features = images(num, seed, locations)
    mask = torch.arange(locations) < 3 + torch.arange(num).unsqueeze(1) % (locations - 2)
    return FeatureSet(features.global_features, features.local_features, mask, features.labels)


def training_features(num: int = 40, k: int = 2, seed: int = 0) -> TrainingFeatures:
    """Captions 0, 10, 20, ... have no image; of the others some have one, most have `k`."""
    captions = texts(num, seed)
    parts = [images(num, seed) for _ in range(k)]
    rows = torch.arange(num * k).reshape(k, num).T.clone()
    rows[::10] = -1
    rows[1::7, 0] = -1
    local = torch.cat([part.local_features for part in parts])
    local = functional.normalize(local + 0.3 * unit(*local.shape, seed=seed + 5), dim=-1)
    pooled = functional.normalize(local.mean(dim=1), dim=-1)
    labels = torch.cat([part.labels for part in parts])
    return TrainingFeatures(captions, FeatureSet(pooled, local, None, labels, pooled), rows)
