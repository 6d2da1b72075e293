"""A synthesizer that draws what a caption names: the perfect image, and so the upper bound."""

import numpy as np

from t2ipal.captions import NounFilter, load_vocabulary
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.diffusion.synthesizer import sample_seed
from t2ipal.pictovoc.scenes import CLASS_NAMES, draw_classes
from t2ipal.pictovoc.worlds import original_scenes


class RenderingSynthesizer:
    """Stands in for `Synthesizer`: same batches in and out, rendered scenes in place of samples."""

    def __init__(self, config: SynthesisConfig):
        self.config = config
        self.verdict = NounFilter(load_vocabulary("voc2007"))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Adds `image`, `seed`, `status` and `reason`; a caption that names no class fails."""
        images, seeds, reasons = [], [], []
        attempts = batch.get("attempt", [0] * len(batch["k"]))
        samples = zip(batch["caption_id"], batch["caption"], batch["k"], attempts)
        for caption_id, caption, k, attempt in samples:
            labels = self.verdict(str(caption)).labels
            seeds.append(sample_seed(self.config.seed, str(caption_id), int(k), int(attempt)))
            reasons.append("" if labels else "names no class of the world")
            named = [CLASS_NAMES[index] for index in labels]
            rotated = named[int(k) % len(named) :] + named[: int(k) % len(named)] if named else []
            scene = draw_classes(rotated, seeds[-1]) if named else None
            images.append(np.zeros((64, 64, 3), np.uint8) if scene is None else scene.image)
        return {
            **batch,
            "image": np.stack(images),
            "seed": np.array(seeds, dtype=np.uint64),
            "status": np.array(["failed" if reason else "ok" for reason in reasons]),
            "reason": np.array(reasons),
        }


class OriginalSynthesizer:
    """Stands in for `Synthesizer` too: the scene that each of the world's captions is about."""

    def __init__(self, config: SynthesisConfig):
        self.config = config

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Adds `image`, `seed`, `status` and `reason`."""
        images = original_scenes([str(caption_id) for caption_id in batch["caption_id"]])
        return {
            **batch,
            "image": images,
            "seed": np.zeros(len(images), dtype=np.uint64),
            "status": np.array(["ok"] * len(images)),
            "reason": np.array([""] * len(images)),
        }
