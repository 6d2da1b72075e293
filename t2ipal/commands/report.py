"""One self-contained HTML page about a run: results, contact sheet, heatmaps, settings.

    python jobs/report.py --run runs/demo

Reads what the other jobs left in the run's folder, and changes nothing there but report.html. The
run need not be finished, trained or evaluated: the page says what is not there. Where the run
cannot be written, name a place for the page:

    python jobs/report.py --run /mnt/readonly/demo --output pages/demo.html

The last line of the output is a JSON summary.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from t2ipal.commands.running import FLAT, finish, parse, remark
from t2ipal.features.config import BackboneConfig
from t2ipal.places import SharedUri
from t2ipal.report.config import ReportConfig, ReportSources
from t2ipal.store import Store, read_run_so_far


@dataclass(frozen=True)
class Options:
    """Draws the page of a run."""

    run: SharedUri
    """Folder of the run: a local path, or s3://bucket/prefix."""
    output: SharedUri | None = None
    """Where the page goes: a path or s3:// that ends in .html, or a folder, which gets report.html;
    None: into the run."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""
    sources: Annotated[ReportSources, FLAT] = field(default_factory=ReportSources)
    page: Annotated[ReportConfig, FLAT] = field(default_factory=ReportConfig)
    backbone: Annotated[BackboneConfig, FLAT] = field(default_factory=BackboneConfig)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns its summary; `arguments` None: those of the process."""
    words = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "jobs/report.py", *words])
    return run(parse(Options, arguments, __doc__), command)


def run(options: Options, command: str) -> dict[str, Any]:
    """Runs the job with options that are read already; `command` is shown on the page."""
    import torch

    from t2ipal.report.finding import find_parts
    from t2ipal.report.gathering import gather_report, page_place, write_report

    torch.set_num_threads(max(torch.get_num_threads() // 2, 1))
    store, url = Store(options.run, options.endpoint_url), options.endpoint_url
    run = read_run_so_far(store)
    place, key = page_place(store, options.output, url)
    parts = find_parts(store, options.sources, options.backbone, options.page.num_heatmaps, url)
    report = gather_report(run, parts, options.page, commands=[command])
    for sentence in report.missing:
        remark(sentence)
    return finish(
        {
            "report": write_report(report, place, key),
            "judge_share": report.judge and report.judge.share,
            "num_images": run.manifest.num_images,
        }
    )
