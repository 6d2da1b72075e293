"""The stages of a pipeline: which job each is, with the options that its part of the file gives."""

import dataclasses
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from t2ipal.captions import Caption, FilterResult, Tell
from t2ipal.captions.writing import GRAMMAR
from t2ipal.commands import choose, evaluate, report, synthesize, train, write_captions
from t2ipal.commands.running import FLAT, session
from t2ipal.config import from_dict, one_of
from t2ipal.diffusion.config import PRESETS
from t2ipal.engine.config import RayConfig
from t2ipal.engine.workers import extract
from t2ipal.features.config import BackboneConfig
from t2ipal.pipeline.file import PipelineFile
from t2ipal.pipeline.meter import Machines
from t2ipal.pipeline.options import option_names, options_of
from t2ipal.pipeline.plan import Plan, plan_images, plan_of_stored
from t2ipal.pipeline.prices import LOCAL, UNTYPED, PriceTable
from t2ipal.places import SharedUri, runs_as_submitted_job
from t2ipal.pools import PoolConfig
from t2ipal.store import Store, check_choice_name, join_key, store_and_key
from t2ipal.synthesis.request import CaptionSource


@dataclass(frozen=True)
class FeatureOptions:
    """Of the one stage that no job has alone."""

    run: SharedUri
    """Folder of the run."""
    endpoint_url: str | None = None
    """Server of an S3 store that is not on AWS."""
    in_process: bool = False
    """Compute them in this process, without Ray."""
    backbone: Annotated[BackboneConfig, FLAT] = field(default_factory=BackboneConfig)
    pool: Annotated[PoolConfig, FLAT] = field(default_factory=PoolConfig)
    ray: Annotated[RayConfig, FLAT] = field(default_factory=RayConfig)


KINDS: dict[str, Any] = {
    "captions": write_captions.Options,
    "synthesis": synthesize.Options,
    "features": FeatureOptions,
    "choice": choose.Options,
    "training": train.Options,
    "evaluation": evaluate.Options,
    "report": report.Options,
}
"""Stage -> its options; those of `filter` are a part of synthesis'."""
OF_FILTER = option_names(CaptionSource, FLAT)
OF_BACKBONE = option_names(BackboneConfig, FLAT)
SAID_ONCE = {
    "synthesis": ("output", "endpoint_url", "only"),
    "captions": ("output", "endpoint_url"),
}
"""Options that are not of a stage: the file says them at its top, or no pipeline has them."""
WRITTEN = "captions.jsonl"
"""What the captions stage writes into the run."""


@dataclass(frozen=True)
class Stages:
    """Checked options of the stages that are to run, in their order."""

    run: str
    names: tuple[str, ...]
    options: Mapping[str, Any]
    """By stage; none of filter."""
    backbone: BackboneConfig

    def read_captions(self, tell: Tell = lambda _: None) -> FilterResult:
        """The captions that are drawn, and those that are not."""
        of = self.options["synthesis"]
        return of.source.read(of.endpoint_url, tell)[1]

    def _captions_to_come(self, tell: Tell) -> FilterResult:
        """As `read_captions`, with blank ones in place of those that are not written yet."""
        of = self.options.get("captions")
        if of is None:
            return self.read_captions(tell)
        place, key = store_and_key(of.output, of.endpoint_url)
        there = self.read_captions(tell) if place.exists(key) else FilterResult([], [])
        num_missing = of.count - len(there.kept) - len(there.rejected)
        if num_missing > 0:
            tell(f"{num_missing:,} captions are not written yet: the plan supposes 60 bytes each.")
        blank = [Caption(f"new-{at:08d}", " " * 48) for at in range(num_missing)]
        return FilterResult([*there.kept, *blank], there.rejected)

    def plan(self, store: Store, prices: PriceTable, tell: Tell) -> Plan:
        """What there is to do."""
        training = self.options.get("training")
        if "choice" in self.names and training is not None and training.images is None:
            name = self.options["choice"].name
            tell(f"Training takes all images, not the choice: `images: {name}` in it takes these.")
        stored = any(n in self.names for n in ("features", "choice", "training"))
        of = self.options.get("synthesis")
        backbone = self.backbone if stored or (of is not None and of.features) else None
        if of is None:
            return plan_of_stored(store, backbone, prices)
        captions, size = self._captions_to_come(tell), of.images_per_shard
        return plan_images(store, captions, of.synthesis, size, backbone, prices)

    def describe_done(self, store: Store) -> str:
        """For each stage, what of it lies in the store."""
        there = {
            "captions": lambda: _there(store.exists(WRITTEN)),
            "filter": lambda: "begins anew: seconds",
            "synthesis": lambda: "shard by shard, see above",
            "features": lambda: f"{_count(store, 'features/', '.safetensors')} shards there",
            "choice": lambda: _there(store.exists(f"manifests/{self.options['choice'].name}.json")),
            "training": lambda: f"{_count(store, 'train/', '/history.json')} recognizers there",
            "evaluation": lambda: _there(store.exists("evaluation.json")) + ", begins anew",
            "report": lambda: _there(store.exists("report.html")) + ", begins anew",
        }
        return "\n".join(f"  {name:<11} {there[name]()}" for name in self.names)

    def check(self) -> None:
        """Refuses before hours of drawing what a later stage would refuse; loads torch."""
        from t2ipal.features.backbone import load_backbone

        if {"features", "choice", "training"} & {*self.names}:
            load_backbone(dataclasses.replace(self.backbone, device="cpu"))
        of, asked = self.options.get("training"), self.options.get("synthesis")
        if of is None or asked is None or of.from_search is not None:
            return
        from t2ipal.captions import load_vocabulary
        from t2ipal.config import parse_changes
        from t2ipal.evaluation.test_sets import schedule_of
        from t2ipal.training.plans import plan_runs

        classes = load_vocabulary(asked.source.vocabulary)
        plan_runs(
            train.DEFAULT_METHODS if of.methods is None else of.methods, of.seeds,
            schedule_of(of.data_set or "pictovoc"), classes.class_names, classes.prompt_names,
            parse_changes(of.set),
        )  # fmt: skip

    @property
    def in_process(self) -> bool:
        """Whether no stage needs Ray."""
        of = self.options.get("captions")
        writes_here = of is None or of.in_process or of.writer == GRAMMAR
        trains_here = "training" not in self.names or self.options["training"].group.sizes[1] == 0
        others = ("synthesis", "features", "choice", "evaluation")
        return writes_here and trains_here and all(
            self.options[name].in_process for name in others if name in self.names
        )  # fmt: skip

    def session(self) -> AbstractContextManager[Any]:
        """The one session of all stages, with what the largest of them needs at once."""
        cpus, gpus, waits = 1, 0.0, [RayConfig().max_wait_s]
        for name, of in self.options.items():
            pool = of.execution if name == "synthesis" else getattr(of, "pool", PoolConfig())
            cpus, gpus = max(cpus, pool.least_cpus), max(gpus, pool.least_gpus)
            if hasattr(of, "ray"):
                waits.append(of.ray.max_wait_s)
            if name == "training":
                least = of.group.sizes[0]
                cpus = max(cpus, least * pool.cpus_per_worker)
                gpus = max(gpus, least * of.group.use_gpu)
        return session(self.in_process, RayConfig(max(waits)), PoolConfig(), cpus, gpus)

    def machines(self) -> Machines:
        """Gives the machines that are there."""
        if self.in_process:
            return lambda: {"this": LOCAL}
        from t2ipal.engine.machines import alive_machines

        return partial(alive_machines, UNTYPED if is_on_cluster() else LOCAL)

    def work(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Each stage and what does it; gives its summary."""
        jobs: dict[str, Callable[[], Any]] = {
            "captions": lambda: write_captions.run(self.options["captions"]),
            "filter": lambda: _counted(self.read_captions()),
            "synthesis": lambda: synthesize.run(self.options["synthesis"]),
            "features": lambda: _features(self.options["features"]),
            "choice": lambda: choose.run(self.options["choice"]),
            "training": lambda: train.run(self.options["training"]),
            "evaluation": lambda: _evaluation(self.options["evaluation"]),
            "report": lambda: _report(self.options["report"]),
        }
        for name in self.names:
            yield name, jobs[name]


def is_on_cluster() -> bool:
    """Whether Ray is one that others started."""
    return runs_as_submitted_job() or os.environ.get("RAY_ADDRESS", "local") != "local"


def check_stages(asked: PipelineFile, path: Path) -> Stages:
    """The stages of a file, with every option checked.

    Raises:
        ValueError: an option that a stage's job does not take; stage and file are named.
    """
    stage = "backbone"
    try:
        backbone = from_dict(BackboneConfig, asked.backbone)
        options = {}
        for stage in asked.stages:
            if stage != "filter":
                options[stage] = options_of(KINDS[stage], _values(asked, stage), FLAT)
        if "choice" in options:
            stage = "choice"
            check_choice_name(options["choice"].name)
    except ValueError as error:
        raise ValueError(f"{path}: {stage}: {error}") from error
    return Stages(asked.run, tuple(asked.stages), options, backbone)


def _values(asked: PipelineFile, stage: str) -> dict[str, Any]:
    """A stage's options by their names: its own, and what the file says once for all."""
    own = dict(asked.stages[stage])
    for name in SAID_ONCE.get(stage, ("run", "endpoint_url")):
        if name in own:
            raise ValueError(f"{name} is no option of a stage: run and endpoint_url stand at the "
                             "top of the file.")  # fmt: skip
    names = option_names(KINDS[stage], FLAT)
    shared = {name: value for name, value in asked.backbone.items() if name in names}
    values = {**shared, **own, "endpoint_url": asked.endpoint_url}
    written = join_key(asked.run.rstrip("/"), WRITTEN)
    if stage == "captions":
        return {**values, "output": written}
    if stage != "synthesis":
        return {**values, "run": asked.run}
    for name in own:
        if name in OF_FILTER:
            raise ValueError(f"{name} is an option of filter: write it there.")
    source = dict(asked.stages["filter"])
    for name in source:
        one_of("option of filter", name, OF_FILTER)
    if "captions" in asked.stages:
        if "captions" in source:
            raise ValueError(
                "captions of filter are what the captions stage writes: leave out one."
            )
        source["captions"] = [written]
    if not source.get("captions"):
        raise ValueError("filter must name captions: a file, a folder or a pattern; or add a "
                         "captions stage, which writes some.")  # fmt: skip
    if own.get("features") and "backbone" not in own:
        values["backbone"] = dict(asked.backbone)
    preset = own.get("preset")
    if preset is not None:
        one_of("preset", preset, PRESETS)
        values = {**PRESETS[preset], **values}
    return {**values, **source, "output": asked.run}


def _there(holds: bool) -> str:
    return "there" if holds else "not there"


def _count(store: Store, folder: str, ending: str) -> int:
    return sum(key.endswith(ending) for key in store.list(folder))


def _counted(captions: FilterResult) -> dict[str, Any]:
    kept, rejected = len(captions.kept), len(captions.rejected)
    return {"num_captions": kept, "num_rejected": rejected, "reasons": captions.reasons()}


def _features(options: FeatureOptions) -> dict[str, Any]:
    store = Store(options.run, options.endpoint_url)
    return {"features": extract(store, options.backbone, options.in_process, options.pool)}


def _evaluation(options: evaluate.Options) -> Any:
    from t2ipal.evaluation.results import summarize_evaluation

    return summarize_evaluation(evaluate.run(options))


def _report(options: report.Options) -> dict[str, Any]:
    command = shlex.join(["python", "jobs/report.py", "--run", options.run])
    return report.run(options, command)
