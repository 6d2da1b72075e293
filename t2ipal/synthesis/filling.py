"""A caption file in, a finished run with its card out: what `t2ipal synthesize` asks for.

Owns the joints between filter, request, features and synthesis; decides nothing of theirs.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

from t2ipal.captions import Tell
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.diffusion.pipelines import check_pipeline
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.extraction import extracting, feature_folder, missing_tasks
from t2ipal.store import Store, read_run
from t2ipal.synthesis.card import write_card
from t2ipal.synthesis.making import synthesize
from t2ipal.synthesis.request import (
    CaptionSource,
    ExecutionConfig,
    SynthesisRequest,
    with_class_prompts,
)
from t2ipal.synthesis.worker import Workers, in_process


@dataclass(frozen=True)
class Filling:
    """A checked request, ready for its workers."""

    request: SynthesisRequest
    backbone: BackboneConfig | None
    """Whose features are taken where images are drawn; None: of none."""
    feature_folder: str | None
    """Of those features in the run."""


def prepare_filling(
    source: CaptionSource,
    synthesis: SynthesisConfig,
    images_per_shard: int,
    backbone: BackboneConfig | None,
    endpoint_url: str | None = None,
    tell: Tell = lambda _: None,
) -> Filling:
    """Reads and filters the captions; what no worker could load is refused here.

    Args:
        source: of the captions.
        synthesis: how images are made.
        images_per_shard: of one stored shard.
        backbone: whose features to take too; None: none.
        endpoint_url: server of captions on an S3 that is not on AWS.
        tell: takes what was guessed of the captions, line by line.

    Raises:
        FileNotFoundError: captions, vocabulary, pipeline or backbone are not there.
        ValueError: one of them is damaged, or no caption names a class.
    """
    vocabulary, captions = source.read(endpoint_url, tell)
    folder = None
    if backbone is not None:
        folder = feature_folder(load_backbone(dataclasses.replace(backbone, device="cpu")))
    config = with_class_prompts(synthesis, vocabulary.prompt_names)
    check_pipeline(config)
    request = SynthesisRequest(config, vocabulary, captions, images_per_shard)
    return Filling(request, backbone, folder)


def fill(
    store: Store,
    filling: Filling,
    execution: ExecutionConfig,
    workers: Workers = in_process,
) -> dict[str, Any]:
    """Makes every image and the card; returns the summary."""
    after_commit = None if filling.backbone is None else partial(extracting, filling.backbone)
    summary = synthesize(
        store, filling.request, execution, workers=workers, after_commit=after_commit,
        progress=True,
    )  # fmt: skip
    if summary.num_images:
        write_card(store)
    result = {
        "output": store.uri,
        "num_rejected": len(filling.request.captions.rejected),
        **dataclasses.asdict(summary),
    }
    if filling.feature_folder is not None:
        missing = [
            t for t in missing_tasks(read_run(store), filling.feature_folder) if t.kind == "images"
        ]
        result.update(features=filling.feature_folder, num_shards_without_features=len(missing))
    return result
