"""Labels and scores of your own photographs, by a recognizer that jobs/train.py made.

    python jobs/predict.py --recognizer runs/demo/train/t2ipal-seed0 --images photos/ \
        --output predictions.jsonl --html contact.html

One row a photograph, in the order of their names: file, labels and scores (a list each, in a CSV
between `;`), width, height, status (ok or failed) and reason. Several recognizers, as of several
seeds, give the mean of their scores:

    python jobs/predict.py --recognizer runs/demo/train/t2ipal-seed{0,1,2} \
        --images s3://BUCKET/photos --recursive --output s3://BUCKET/predictions.parquet

Scores are no probabilities. The last line of the output is a JSON summary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from t2ipal.commands.running import FLAT, finish, parse, remark, session
from t2ipal.engine.config import RayConfig
from t2ipal.engine.workers import prediction_workers
from t2ipal.places import NameOrPath, SharedUri
from t2ipal.pools import PoolConfig
from t2ipal.recognition.config import PredictionOptions
from t2ipal.report.config import PredictionOutput
from t2ipal.store import store_and_key, table_format


@dataclass(frozen=True)
class Options:
    """Looks at photographs and says what is in them."""

    recognizer: tuple[SharedUri, ...]
    """Folder of a trained recognizer, such as runs/demo/train/t2ipal-seed0, or of several with the
    same classes and backbone: local paths, or s3://."""
    images: SharedUri
    """Folder of photographs, or one of them: a local path, or s3://. Taken is what ends in jpg,
    jpeg, jpe, jfif, png, webp, bmp, gif, avif, jp2, tif or tiff. What ends in heic, heif, jxl or
    svg is not read, and becomes a row that says so."""
    to: Annotated[PredictionOutput, FLAT]
    recursive: bool = False
    """Also photographs in folders below `images`."""
    in_process: bool = False
    """Look in this process, without Ray."""
    device: str = "cpu"
    """Any torch device."""
    model: NameOrPath | None = None
    """Folder of the CLIP, where it is no longer where the recognizer was trained."""
    pretrained: NameOrPath | None = None
    """File of the CLIP's weights, where that has moved."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""
    predictions: Annotated[PredictionOptions, FLAT] = field(default_factory=PredictionOptions)
    pool: Annotated[PoolConfig, FLAT] = field(default_factory=PoolConfig)
    ray: Annotated[RayConfig, FLAT] = field(default_factory=RayConfig)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns its summary; `arguments` None: those of the process."""
    options = parse(Options, arguments, __doc__)
    table_format(options.to.output)
    from t2ipal.recognition.bundle import Whereabouts, check_same
    from t2ipal.recognition.predict import PredictionWork, find_photographs
    from t2ipal.report.predictions import write_predictions

    url = options.endpoint_url
    recognizers = tuple(store_and_key(uri, url) for uri in options.recognizer)
    # What would be refused later is refused before Ray starts.
    class_names = check_same(recognizers)
    images, keys = find_photographs(options.images, options.recursive, url)
    for uri in filter(None, (options.to.output, options.to.html)):
        store, key = store_and_key(uri, url)
        store.require_writable(key)
    where = Whereabouts(options.device, options.model, options.pretrained)
    work = PredictionWork(images, recognizers, options.predictions, where)
    pool, in_process = options.pool, options.in_process
    with session(in_process, options.ray, pool):
        workers = prediction_workers(in_process, pool)
        summary, failures = write_predictions(work, keys, class_names, options.to, workers, url)
    if failures:
        remark(failures)
    return finish(summary)
