"""All stages from captions to the report, as one job from one YAML file.

    python jobs/pipeline.py --pipeline pipeline.yaml --dry-run
    python jobs/pipeline.py --pipeline pipeline.yaml

The file says where the run lies, and for each stage the options that its own job takes. With
--dry-run nothing starts: captions are filtered, and shards, images, hours, dollars and bytes told.

On a cluster, where every path must be one that all machines reach:

    ray job submit --address http://127.0.0.1:8265 --working-dir . -- \
        python jobs/pipeline.py --pipeline pipeline.yaml --run s3://BUCKET/runs/coco \
        --budget-dollars 20

A stage that fails ends the job with its error. The same command goes on there: what is done is
found again. Once all machines together have cost the budget, the job stops with exit code 3, and
the same command with a larger budget goes on. The last line of the output is a JSON summary.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from t2ipal.commands.running import finish, parse, remark
from t2ipal.commands.stages import Stages, check_stages, is_on_cluster
from t2ipal.config import PositiveFloat, PositiveInt, check_fields, require
from t2ipal.halting import Halted
from t2ipal.pipeline.file import read_pipeline
from t2ipal.pipeline.ledger import Ledger
from t2ipal.pipeline.meter import Meter
from t2ipal.pipeline.plan import describe_plan
from t2ipal.pipeline.prices import SHIPPED, read_prices
from t2ipal.places import LocalPath, SharedUri
from t2ipal.store import Store

BUDGET_USED_UP = 3
"""Exit code."""


@dataclass(frozen=True)
class Options:
    """Runs the stages of a pipeline."""

    pipeline: LocalPath
    """YAML file of the run and its stages; pipeline.yaml shows all keys."""
    run: SharedUri | None = None
    """Folder of the run, in place of the file's: a local path, or s3://bucket/prefix."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS, in place of the file's."""
    dry_run: bool = False
    """Tell the plan, and start nothing."""
    gpus: tuple[PositiveInt, ...] = (1, 4, 8)
    """Numbers of GPUs, or of machines without one, to tell the wall time of."""
    prices: LocalPath | None = None
    """YAML table of prices and rates, in place of the file's; None: the package's, which says where
    its numbers come from."""
    budget_dollars: PositiveFloat | None = None
    """What the run may cost in all, those before this one included, in place of the file's."""
    budget_anyway: bool = False
    """Start although the plan costs more than the budget: as much is made as it pays for."""

    def __post_init__(self) -> None:
        check_fields(self)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns its summary; `arguments` None: those of the process."""
    options = parse(Options, arguments, __doc__)
    names = ("run", "endpoint_url", "prices", "budget_dollars")
    changes = {n: getattr(options, n) for n in names if getattr(options, n) is not None}
    asked = read_pipeline(Path(options.pipeline), changes)
    stages = check_stages(asked, Path(options.pipeline))
    prices = read_prices(Path(asked.prices) if asked.prices else SHIPPED)
    store = Store(stages.run, asked.endpoint_url)
    ledger = Ledger(store, prices)
    plan = stages.plan(store, prices, remark)
    print(describe_plan(plan, options.gpus))
    print(stages.describe_done(store))
    least = plan.least_dollars(is_on_cluster())
    _print_cost(least, ledger, asked.budget_dollars)
    summary = {"run": store.uri, "plan": asdict(plan), "spent": asdict(ledger.total)}
    if options.dry_run:
        return finish({**summary, "status": "planned"})
    if asked.budget_dollars is not None and not options.budget_anyway:
        _check_budget(least, ledger, asked.budget_dollars)
    stages.check()
    summary = {"run": store.uri, **_run(stages, ledger, asked.budget_dollars)}
    finish(summary)
    if summary["status"] != "done":
        sys.exit(BUDGET_USED_UP)
    return summary


def _print_cost(least: float | None, ledger: Ledger, budget: float | None) -> None:
    told = "not known" if least is None else f"{least:,.2f} at least"
    limit = "no budget" if budget is None else f"budget {budget:,.2f}"
    spent = ledger.total.dollars
    print(f"dollars   {spent:,.2f} so far, {told} for images that are left; {limit}", flush=True)


def _check_budget(least: float | None, ledger: Ledger, budget: float) -> None:
    """Refuses to start what the budget cannot pay.

    Args:
        least: dollars of the images that are left; None: not known.
        ledger: of the run.
        budget: in dollars, of the whole run.
    """
    spent = ledger.total.dollars
    require(
        spent < budget,
        f"The budget of {budget:,.2f} dollars is used up: the run has cost {spent:,.2f}. Give a "
        "larger --budget-dollars.",
    )
    if least is None:
        remark("What the images cost is not known beforehand. The budget is kept all the same.")
        return
    require(
        spent + least <= budget,
        f"The budget of {budget:,.2f} dollars does not suffice: {spent:,.2f} are spent, and the "
        f"images that are left cost {least:,.2f} on the cheapest machines. Give a larger "
        "--budget-dollars, or --budget-anyway to make what it pays for.",
    )


def _run(stages: Stages, ledger: Ledger, budget: float | None) -> dict[str, Any]:
    """Every stage in one session of Ray; the summary."""
    done: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    status = "done"
    with stages.session():
        meter = Meter(ledger, stages.machines(), budget)
        try:
            with meter.running():
                for name, work in stages.work():
                    meter.check()
                    if meter.reason:
                        raise Halted
                    remark(f"== {name}")
                    started = time.monotonic()
                    done[name] = work()
                    seconds[name] = round(time.monotonic() - started, 1)
                    remark(
                        f"== {name}: {seconds[name]:,.1f} s, {ledger.total.dollars:,.2f} dollars"
                    )
        except Halted:
            if not meter.reason:
                raise
            status = "budget"
            left = [name for name in stages.names if name not in done]
            remark(
                f"Stopped: {meter.reason}. The run has cost {ledger.total.dollars:,.2f} dollars. "
                f"Left: {', '.join(left)}."
            )
    return {
        "status": status, "stages": done, "seconds": seconds, "spent": asdict(ledger.total),
        "left": [name for name in stages.names if name not in done],
    }  # fmt: skip
