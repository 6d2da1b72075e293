"""The paper's tables and figures, measured anew, with published numbers beside them.

    python jobs/reproduce.py --items all --on pictovoc --seeds 5 --output runs/reproduction

Some of them, in ten minutes:

    python jobs/reproduce.py --items table1 table7 fig9 --quick --output runs/quick

On a real data set, whose images jobs/synthesize.py has made:

    python jobs/reproduce.py --items table1 --on voc2007 --test-root VOCdevkit \
        --sets synthetic=s3://bucket/voc --model RN101 --other RN50 --output s3://bucket/tables

What is missing is made and trained; what is done is found again, so the same command goes on where
it was left. Writes reproduction.html, .md, .tex and .json and figures/ into the output folder. The
last line of the output is a JSON summary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from t2ipal.commands.running import FLAT, finish, parse, remark, session
from t2ipal.engine.config import RayConfig
from t2ipal.experiments.config import ReproductionConfig
from t2ipal.features.config import BackboneConfig
from t2ipal.places import SharedUri
from t2ipal.pools import PoolConfig
from t2ipal.store import Store


@dataclass(frozen=True)
class Options(ReproductionConfig):
    """Measures the paper's tables and figures."""

    backbone: Annotated[BackboneConfig, FLAT] = field(default_factory=BackboneConfig)
    pool: Annotated[PoolConfig, FLAT] = field(default_factory=PoolConfig)
    ray: Annotated[RayConfig, FLAT] = field(default_factory=RayConfig)
    output: SharedUri = "runs/reproduction"
    """Folder of everything that is made: a local path, or s3://bucket/prefix."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns its summary; `arguments` None: those of the process."""
    options = parse(Options, arguments, __doc__)
    from t2ipal.experiments.reproduction import reproduce

    store = Store(options.output, options.endpoint_url)
    with session(options.in_process, options.ray, options.pool, least_cpus=2):
        return finish(reproduce(options, store, remark))
