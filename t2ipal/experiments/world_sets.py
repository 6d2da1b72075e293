"""Sets of captions and images of the embedded world: what a reproduction on it learns from.

Each is a run of its own under `sets/`, made where it is missing.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

from t2ipal.captions import filter_captions
from t2ipal.captions.writing import write_captions
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.engine.workers import synthesis_workers
from t2ipal.experiments.config import ReproductionConfig
from t2ipal.experiments.demo import choose_captions
from t2ipal.experiments.points import FEWER_STEPS, RENDERED, WRITTEN, Points
from t2ipal.experiments.sources import ORIGINAL
from t2ipal.store import Store
from t2ipal.synthesis.making import synthesize
from t2ipal.synthesis.rendering import OriginalSynthesizer, RenderingSynthesizer
from t2ipal.synthesis.request import ExecutionConfig, SynthesisRequest

POOR_STEPS = 5
"""Of the poorer generator."""


def set_requests(
    config: ReproductionConfig, points: Points
) -> dict[str, tuple[SynthesisRequest, Any]]:
    """Name -> request and maker (None: Stable Diffusion) of every set."""
    vocabulary, captions = choose_captions(config.num_captions)
    base = config.synthesis

    def request(changes: dict[str, Any], filtered: Any = captions) -> tuple[SynthesisRequest, None]:
        return SynthesisRequest(dataclasses.replace(base, **changes), vocabulary, filtered), None

    written = write_captions(vocabulary, config.num_captions, seed=0)
    sweep = {"images_per_caption": points.sweep_images}
    sets: dict[str, tuple[SynthesisRequest, Any]] = {
        "synthetic": request({}),
        WRITTEN: request(
            {"images_per_caption": points.main_images}, filter_captions(written, vocabulary)
        ),
        FEWER_STEPS: request({"num_inference_steps": POOR_STEPS, **sweep}),
    }
    for scale in points.guidance_scales:
        sets.setdefault(points.guidance_set(scale), request({"guidance_scale": scale, **sweep}))
    original = SynthesisConfig("original", images_per_caption=1, seed=base.seed)
    sets[ORIGINAL] = SynthesisRequest(original, vocabulary, captions), OriginalSynthesizer
    rendered = SynthesisConfig("rendered", images_per_caption=points.main_images, seed=base.seed)
    sets[RENDERED] = SynthesisRequest(rendered, vocabulary, captions), RenderingSynthesizer
    return sets


def make_sets(
    config: ReproductionConfig,
    points: Points,
    places: Mapping[str, Store],
    wanted: Collection[str],
    tell: Callable[[str], None],
) -> None:
    """Synthesizes what the wanted sets lack.

    Args:
        config: of the reproduction.
        points: what its tables ask for.
        places: home of each set.
        wanted: names of sets.
        tell: gets a line for each.
    """
    workers = synthesis_workers(config.in_process)
    for name, (request, factory) in set_requests(config, points).items():
        if name in wanted:
            tell(f"== images: {name}")
            where = ExecutionConfig(max_workers=config.pool.max_workers)
            synthesize(
                places[name], request, where, workers=workers, factory=factory, progress=True
            )
