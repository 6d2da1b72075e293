"""A synthesizer of noise, some whose models or devices fail, and requests for captions to draw."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from t2ipal.captions import Caption, FilterResult, Vocabulary
from t2ipal.config import added
from t2ipal.synthesis.request import SynthesisRequest


@dataclass(frozen=True)
class FakeConfig:
    pipeline: str = "fake"
    guidance_scale: float = 2.0
    images_per_caption: int = 2
    seed: int = 0
    batch_size: int = 3
    jpeg_quality: int = 90
    image_format: str = added("jpeg")
    jpeg_subsampling: str = added("4:2:0")


class FakeSynthesizer:
    """Noise from the sample's seed, tinted by the batch size; some captions fail or raise."""

    def __init__(self, config):
        self.config = config

    def __call__(self, batch):
        images, seeds, status, reasons = [], [], [], []
        if any("raise" in text for text in batch["caption"]):
            raise RuntimeError("out of paint")
        attempts = batch.get("attempt", [0] * len(batch["k"]))
        samples = zip(batch["caption_id"], batch["caption"], batch["k"], attempts)
        for caption_id, text, k, attempt in samples:
            name = f"{self.config.seed}/{caption_id}/{k}" + (f"/{attempt}" if attempt else "")
            seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
            image = np.random.default_rng(seed).integers(0, 200, (16, 24, 3))
            images.append((image + len(batch["k"])).astype(np.uint8))
            seeds.append(seed)
            status.append("failed" if "fail" in text else "ok")
            reasons.append("black image" if "fail" in text else "")
        return {
            **batch,
            "image": np.stack(images),
            "seed": np.array(seeds, dtype=np.uint64),
            "status": np.array(status),
            "reason": np.array(reasons),
        }


class BrokenSynthesizer:
    def __init__(self, config):
        raise FileNotFoundError(f"No weights at {config.pipeline}.")


class FailingDevice(FakeSynthesizer):
    """Its device fails at a caption with "fault", in the first process only where it says "once".

    `config.pipeline` is a folder in which each process that it failed in leaves a file.
    """

    def __call__(self, batch):
        folder = Path(self.config.pipeline)
        for text in batch["caption"]:
            if "fault" in text and ("once" not in text or not any(folder.iterdir())):
                (folder / str(os.getpid())).touch()
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().__call__(batch)


PETS = Vocabulary("pets", ("dog", "cat"), ("dog", "cat"), (("puppy",), ("kitten",)))


def caption(caption_id, text, labels=(0,)):
    return Caption(caption_id, text, labels)


def texts(count):
    return [f"a dog and cat number {i}" for i in range(count)]


def a_request(texts=None, config=None, **changes):
    texts = texts or [f"a dog and cat number {i}" for i in range(11)]
    return SynthesisRequest(
        config=config or FakeConfig(),
        vocabulary=PETS,
        captions=FilterResult(
            [caption(f"id {i}", text, (0, 1)[: 1 + i % 2]) for i, text in enumerate(texts)],
            [Caption("r", "a house", reason="no class")],
        ),
        **{"images_per_shard": 8, **changes},
    )
