"""Captions that nobody wrote by hand, for the classes of a vocabulary.

By a small grammar, without any model:

    python jobs/write_captions.py --vocabulary voc2007 --count 1000 --output captions.jsonl
    python jobs/synthesize.py --captions captions.jsonl --vocabulary voc2007 --output runs/written

By a causal language model of transformers, a name on the hub or a folder, on all GPUs there are:

    python jobs/write_captions.py --vocabulary coco2014 --count 100000 --writer OWNER/MODEL \
        --device cuda --output s3://BUCKET/captions.jsonl

Every class is asked for equally often. The noun filter must find all classes that a caption was
asked for; what else it finds becomes a label too, within limits. Texts that are refused lie with
their reasons in NAME.written/refused.jsonl beside the output. The same command again goes on where
it stopped, and a larger count asks only for what is missing.

The last line of the output is a JSON summary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from t2ipal.captions import load_vocabulary
from t2ipal.captions.language_model import SamplingConfig, check_language_model
from t2ipal.captions.tasks import WritingConfig
from t2ipal.captions.writing import GRAMMAR
from t2ipal.captions.written import WritingWork, write_caption_file
from t2ipal.commands.running import FLAT, finish, parse, remark, session
from t2ipal.config import PositiveInt, check_fields
from t2ipal.engine.config import RayConfig
from t2ipal.engine.workers import writing_workers
from t2ipal.places import NameOrPath, SharedUri
from t2ipal.pools import PoolConfig


@dataclass(frozen=True)
class Options:
    """Writes captions that name given classes."""

    output: SharedUri
    """File of the captions, ending in .jsonl, .csv or .parquet: a local path, or s3://."""
    count: PositiveInt = 1000
    """Captions to write."""
    vocabulary: NameOrPath = "voc2007"
    """Classes: a vocabulary of the package, or a file of your own, as jobs/synthesize.py takes
    it."""
    writer: NameOrPath = GRAMMAR
    """`grammar`, or a causal language model of transformers: a name on the hub, or a folder. Only
    safetensors are read, and no code of a model is run."""
    device: str = "cpu"
    """Any torch device, for a language model."""
    in_process: bool = False
    """Write in this process, without Ray. The grammar always does."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""
    writing: Annotated[WritingConfig, FLAT] = field(default_factory=WritingConfig)
    sampling: Annotated[SamplingConfig, FLAT] = field(default_factory=SamplingConfig)
    pool: Annotated[PoolConfig, FLAT] = field(default_factory=PoolConfig)
    ray: Annotated[RayConfig, FLAT] = field(default_factory=RayConfig)

    def __post_init__(self) -> None:
        check_fields(self)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the job and returns its summary; `arguments` None: those of the process."""
    return run(parse(Options, arguments, __doc__))


def run(options: Options) -> dict[str, Any]:
    """Runs the job with options that are read already."""
    vocabulary = load_vocabulary(options.vocabulary)
    work = WritingWork(
        options.writer, vocabulary, options.writing, options.sampling, options.device
    )
    in_process = options.in_process or options.writer == GRAMMAR
    if options.writer != GRAMMAR:
        check_language_model(options.writer)  # before Ray starts
    with session(in_process, options.ray, options.pool):
        workers = writing_workers(in_process, options.pool)
        summary = write_caption_file(
            options.output, work, options.count, workers, options.endpoint_url, remark,
            progress=True,
        )  # fmt: skip
    return finish(summary)
