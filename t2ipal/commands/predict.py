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

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from t2ipal.commands.running import FLAT, finish, parse, session
from t2ipal.config import require
from t2ipal.engine.workers import prediction_workers
from t2ipal.recognition.config import PredictionOptions
from t2ipal.store import Store, require_reachable, split_uri, table_format, table_writer


@dataclass(frozen=True)
class Options:
    """Looks at photographs and says what is in them."""

    recognizer: tuple[str, ...]
    """Folder of a trained recognizer, such as runs/demo/train/t2ipal-seed0, or of several with the
    same classes and backbone: local paths, or s3://."""
    images: str
    """Folder of photographs, or one of them: a local path, or s3://. Taken is what ends in jpg,
    jpeg, png, webp, bmp, gif, tif or tiff."""
    output: str
    """Table to write: a local path or s3://, ending in .jsonl, .csv or .parquet."""
    recursive: bool = False
    """Also photographs in folders below `images`."""
    in_process: bool = False
    """Look in this process, without Ray."""
    device: str = "cpu"
    """Any torch device."""
    model: str | None = None
    """Folder of the CLIP, where it is no longer where the recognizer was trained."""
    pretrained: str | None = None
    """File of the CLIP's weights, where that has moved."""
    html: str | None = None
    """Also write a contact sheet there, one HTML file: a local path, or s3://."""
    html_images: int = 200
    """Pictures on that sheet at most, the first ones; as many failures are named."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""
    predictions: Annotated[PredictionOptions, FLAT] = field(default_factory=PredictionOptions)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns its summary; `arguments` None: those of the process."""
    options = parse(Options, arguments, __doc__)
    require(options.html_images > 0, f"html_images must be > 0, got {options.html_images}.")
    for name in ("images", "output", "html"):
        require_reachable(getattr(options, name) or "/", name)
    for uri in options.recognizer:
        require_reachable(uri, "recognizer")
    table_format(options.output)
    from t2ipal.recognition.bundle import Whereabouts, check_same
    from t2ipal.recognition.predict import PredictionWork, find_photographs, predict_photographs
    from t2ipal.recognition.rows import columns
    from t2ipal.report.contact_sheet import ContactSheet

    def place(uri: str) -> tuple[Store, str]:
        folder, name = split_uri(uri)
        return Store(folder, options.endpoint_url), name

    recognizers = tuple(map(place, options.recognizer))
    class_names = check_same(recognizers)
    images, keys = find_photographs(options.images, options.recursive, options.endpoint_url)
    where = Whereabouts(options.device, options.model, options.pretrained)
    work = PredictionWork(images, recognizers, options.predictions, where)
    sheet, started = ContactSheet(options.html_images), time.monotonic()
    kinds = columns(class_names, options.predictions.all_scores)
    with (
        session(options.in_process),
        table_writer(options.output, kinds, options.endpoint_url) as write,
    ):
        for rows in predict_photographs(
            work, keys, num_shown=options.html_images if options.html else 0,
            workers=prediction_workers(options.in_process), progress=True,
        ):  # fmt: skip
            write([row.row(class_names) for row in rows])
            sheet.add(rows)
    seconds = time.monotonic() - started
    if sheet.failed:
        first = f"the first is {sheet.failed[0].file} ({sheet.failed[0].reason})"
        print(f"{sheet.num_failed} of {len(keys)} photographs failed, {first}.", file=sys.stderr)
    summary = {
        "output": options.output,
        "num_images": len(keys),
        "num_failed": sheet.num_failed,
        "seconds": round(seconds, 3),
        "images_per_second": round(len(keys) / seconds, 2),
    }
    if options.html:
        store, key = place(options.html)
        store.write(key, sheet.render(images.uri, [name for _, name in recognizers]).encode())
        summary["html"] = options.html
    return finish(summary)
