"""The whole chain on the embedded world, from captions to the report, stage after stage."""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from t2ipal.captions import Caption, FilterResult, Vocabulary, filter_captions, load_vocabulary
from t2ipal.config import parse_changes, to_dict
from t2ipal.engine.config import TrainingGroup
from t2ipal.engine.session import connect
from t2ipal.engine.workers import extract, synthesis_workers, training_workers
from t2ipal.evaluation.config import EvaluationOptions
from t2ipal.evaluation.results import evaluate_run, summarize_evaluation
from t2ipal.evaluation.runs import find_recognizers, load_same_backbone
from t2ipal.evaluation.test_sets import test_set_features
from t2ipal.experiments.config import DemoConfig
from t2ipal.features.backbone import load_backbone
from t2ipal.pictovoc.captions import world_captions
from t2ipal.recognition.making import TrainingRequest, train_recognizers
from t2ipal.report.config import ReportConfig
from t2ipal.report.finding import Parts, Trained
from t2ipal.report.gathering import gather_report, write_report
from t2ipal.report.measured import read_measured
from t2ipal.selection.choosing import describe_choice, measure_run, save_choice
from t2ipal.selection.config import QualityConfig
from t2ipal.store import Store, json_bytes, read_run
from t2ipal.synthesis.making import synthesize
from t2ipal.synthesis.rendering import RenderingSynthesizer
from t2ipal.synthesis.request import SynthesisRequest, with_class_prompts
from t2ipal.training.plans import plan_runs

CHOSEN = "chosen"
"""Name of the choice among the synthetic images."""
SUMMARY = "summary.json"
logger = logging.getLogger(__name__)


def choose_captions(num_captions: int) -> tuple[Vocabulary, FilterResult]:
    """The first captions of the world's validation scenes that name a class of its vocabulary."""
    vocabulary = load_vocabulary("voc2007")
    # About 1.2 for each one wanted, since some name no class.
    rows = world_captions("validation", num_captions + num_captions // 5 + 20)
    return vocabulary, filter_captions([Caption(*row) for row in rows], vocabulary, num_captions)


def run_demo(
    config: DemoConfig,
    store: Store,
    commands: Sequence[str] = (),
    tell: Callable[[str], None] = logger.info,
) -> dict[str, Any]:
    """Runs every stage; writes summary.json and report.html, and returns the summary.

    Args:
        config: what the chain is asked for.
        store: home of the run.
        commands: to show on the page.
        tell: gets what a person may want to read meanwhile.
    """
    seconds: dict[str, float] = {}
    timed = partial(_timed, seconds, tell)
    with timed("captions"):
        vocabulary, filtered = choose_captions(config.num_captions)
    synthesis = with_class_prompts(config.synthesis, vocabulary.prompt_names)
    factory = None
    if config.images == "rendered":
        synthesis = dataclasses.replace(synthesis, pipeline="rendered")
        factory = RenderingSynthesizer
    request = SynthesisRequest(synthesis, vocabulary, filtered)
    training = TrainingRequest(
        config.methods, config.seeds, "pictovoc",
        CHOSEN if config.images == "synthetic" else None,
        parse_changes(config.set), backbone=config.backbone,
    )  # fmt: skip
    # What later stages would refuse is refused before minutes of synthesis.
    runs, remarks = plan_runs(
        config.methods, config.seeds, "pictovoc", vocabulary.class_names, vocabulary.prompt_names,
        training.changes,
    )  # fmt: skip
    for remark in remarks:
        tell(remark)
    load_backbone(config.backbone)
    with connect(config.ray, least_cpus=2):
        workers = synthesis_workers(in_process=False)
        with timed("synthesis"):
            made = synthesize(store, request, workers=workers, factory=factory, progress=True)
        if config.images == "synthetic":
            with timed("features_and_choice"):
                folder = extract(store, config.backbone, in_process=False)
                measured = measure_run(store, folder, config.backbone, QualityConfig())
                facts = {"features": folder, "quality": to_dict(QualityConfig())}
                kept, _ = save_choice(measured, CHOSEN, config.choice, facts)
                tell(describe_choice(measured, kept))
        with timed("features_and_training"):
            folder = extract(store, config.backbone, in_process=False)
            workers = training_workers(TrainingGroup(str(config.num_workers)))
            train_recognizers(store, training, runs, folder, workers, store)
    with timed("evaluation"):
        backbone, recognizers = load_same_backbone(store, find_recognizers(store), config.backbone)
        test = test_set_features("pictovoc", None, backbone)
        evaluated = evaluate_run(store, recognizers, test, EvaluationOptions())
    with timed("report"):
        measured = read_measured(store, model=config.backbone.model)
        parts = Parts(Trained(recognizers, backbone, store), measured, test)
        report = gather_report(
            read_run(store), parts, ReportConfig(), seconds=seconds, commands=commands
        )
        page = write_report(report, store)
    summary = {
        "mAP": summarize_evaluation(evaluated),
        "num_captions": made.num_captions,
        "num_images": made.num_images,
        "num_failed": made.num_failed,
        "seconds": seconds,
    }
    store.write(SUMMARY, json_bytes(summary))
    return {**summary, "judge_share": report.judge and report.judge.share, "report": page}


@contextmanager
def _timed(seconds: dict[str, float], tell: Callable[[str], None], stage: str) -> Iterator[None]:
    tell(f"== {stage}")
    started = time.monotonic()
    yield
    seconds[stage] = round(time.monotonic() - started, 1)
