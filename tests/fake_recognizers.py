"""Recognizers of the fake CLIP, untrained, as jobs/train.py leaves them in a run."""

from fake_clip import NAMES, FakeClip, config, training_features

from t2ipal.methods.class_concept import ClassConceptConfig
from t2ipal.methods.recognizer import Recognizer
from t2ipal.methods.t2ipal import T2IPAL
from t2ipal.store import Store


def t2ipal(seed: int, **changes) -> Recognizer:
    return T2IPAL(config(**changes), FakeClip(), seed=seed).export()


def write_fake_recognizers(store: Store) -> Store:
    """Two methods with two seeds, and one with a single one; returns the store."""
    for seed in (0, 1):
        t2ipal(seed).save(store, f"train/t2ipal-seed{seed}")
        t2ipal(seed, adapter="none", image_weight=0.0).save(store, f"train/tai_dpt-seed{seed}")
    method = ClassConceptConfig(NAMES).build(FakeClip())
    method.prepare(training_features())
    method.export().save(store, "train/class_concept-seed0")
    return store
