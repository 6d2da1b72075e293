"""Predictions of photographs as a table and a contact sheet, written while they come."""

import time
from collections.abc import Sequence
from typing import Any

from t2ipal.recognition.predict import PredictionWork, Workers, predict_photographs
from t2ipal.recognition.rows import columns
from t2ipal.report.config import PredictionOutput
from t2ipal.report.contact_sheet import ContactSheet
from t2ipal.store import store_and_key, table_writer


def write_predictions(
    work: PredictionWork,
    keys: Sequence[str],
    class_names: Sequence[str],
    to: PredictionOutput,
    workers: Workers,
    endpoint_url: str | None = None,
) -> tuple[dict[str, Any], str]:
    """Looks at every photograph and writes its row; the summary, and what to say of failures.

    Args:
        work: who looks, and where the photographs are.
        keys: of the photographs.
        class_names: of the recognizers, as `t2ipal.recognition.bundle.check_same` gives them.
        to: table and sheet.
        workers: who does the work.
        endpoint_url: server of an S3 store that is not on AWS.

    Raises:
        ValueError: the recognizers do not belong together.
        RuntimeError: a worker could not load them, or the store failed it.
    """
    sheet, started = ContactSheet(to.html_images), time.monotonic()
    kinds = columns(class_names, work.options.all_scores)
    with table_writer(to.output, kinds, endpoint_url) as write:
        for rows in predict_photographs(
            work, keys, num_shown=to.html_images if to.html else 0, workers=workers, progress=True
        ):
            write([row.row(class_names) for row in rows])
            sheet.add(rows)
    seconds = time.monotonic() - started
    summary = {
        "output": to.output,
        "num_images": len(keys),
        "num_failed": sheet.num_failed,
        "seconds": round(seconds, 3),
        "images_per_second": round(len(keys) / seconds, 2),
    }
    if to.html:
        store, key = store_and_key(to.html, endpoint_url)
        page = sheet.render(work.images.uri, [name for _, name in work.recognizers])
        store.write(key, page.encode())
        summary["html"] = to.html
    if not sheet.failed:
        return summary, ""
    first = f"the first is {sheet.failed[0].file} ({sheet.failed[0].reason})"
    return summary, f"{sheet.num_failed} of {len(keys)} photographs failed, {first}."
