"""A search against the searches of before, and stacked trials against trials one by one.

    python benchmarks/search.py
    python benchmarks/search.py --run runs/demo --parts stacked growth
    python benchmarks/search.py --device cuda --parts stacked --num-stacked 64 --num-classes 80

On the demo's data, whose images the world draws where no run is given. Contestants take turns:

    tune     today's search in populations; and Ray Tune's trials of a process each, as they were at
             commit 8b9862c (`search_before/` is that code). The same trials, on two cores
    stacked  32 trials in one stack; and `fit`, the same step one by one. 64 steps, one thread
    usual    32 trials in one stack; and a loop that encodes images, captions and whole prompts in
             every step
    growth   a step with 1 to 64 trials in a stack, and the memory of a process of each

Prints medians with their spread. Exits 1 where one of `DEMANDS` does not hold, or where losses of
stacked trials are not those of trials one by one. Scores of the two searches differ: sums are taken
in another order, and what training makes of such a difference grows with every step. So both tables
are printed, with how well their orders agree. 10 minutes on two idle cores. It was never run on a
GPU. The last line is JSON: `over_tune_trials_before`, `stacked_over_one_by_one`, `over_usual_loop`
and more.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from benchmarks.search_world import (
    World,
    all_in_memory,
    batch_of,
    in_memory,
    open_world,
    space,
    stack_of,
    trials,
)
from benchmarks.training import Reading, Runner, class_names, clock, make_batch, step
from t2ipal.commands.running import finish, parse, run_job
from t2ipal.config import PositiveInt, check_fields, override, require
from t2ipal.engine.config import PopulationGroup
from t2ipal.features.backbone import load_backbone, load_text_tower
from t2ipal.features.config import BackboneConfig
from t2ipal.places import SharedUri
from t2ipal.search.results import SearchFolder
from t2ipal.search.running import Monitor
from t2ipal.search.space import draw_settings
from t2ipal.store import Store
from t2ipal.training.loop import fit, make_optimizer

PARTS = ("tune", "stacked", "usual", "growth")
DEMANDS = {"over_tune_trials_before": 3.5, "stacked_over_one_by_one": 1.5, "over_usual_loop": 20.0}
"""What results must reach."""
ON_CUDA = {"stacked_over_one_by_one": 10.0}
"""In place of the same demand."""
TOLERANCE = 1e-5
"""Between losses of stacked trials and of trials one by one, as a share of their values."""
BEST_TOLERANCE = 0.5
"""mAP that the best trial of one search may be behind the best of the other, in the other's table.
The world's seeds differ by as much."""
TURNS = 4
"""Of each contestant, in the parts within one process."""
CHECKED, CHECKED_STEPS = 6, 100
"""Trials whose losses are compared, after so many steps or more."""
GROWTH_CAPTIONS = 256
"""Of an epoch whose steps are timed: four batches."""
Seconds = dict[str, list[float]]


@dataclass(frozen=True)
class Options:
    """What is compared, and how often."""

    run: SharedUri | None = None
    """Folder that jobs/demo.py filled; None: 1,000 captions and drawn images, in a moment's
    folder."""
    parts: tuple[Literal["tune", "stacked", "usual", "growth"], ...] = PARTS
    """Which to measure."""
    num_trials: PositiveInt = 24
    """Of each search."""
    rounds: PositiveInt = 2
    """Searches of each, in turns."""
    epochs: PositiveInt | None = None
    """Of each trial of a search; None: the demo's 30."""
    num_stacked: PositiveInt = 32
    """Trials of the stack that is compared."""
    stacked_epochs: PositiveInt = 4
    """Of the part `stacked`, 16 steps each: a multiple of 4."""
    growth: tuple[PositiveInt, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Trials in a stack, one after the other."""
    num_classes: Literal[20, 80] = 20
    """Of the part `stacked`; 80: MS-COCO's, with features of noise."""
    device: str = "cpu"
    """Any torch device; the part `tune` is of CPUs."""
    num_threads: PositiveInt = 1
    """Threads of torch on a CPU."""
    quick: bool = False
    """As little as shows that it works; then no demand is made of speed."""
    only: PositiveInt | None = None
    """So many trials in a stack alone: prints the time of a step and the peak memory."""

    def __post_init__(self) -> None:
        check_fields(self)
        epochs = self.stacked_epochs
        require(epochs % TURNS == 0, f"stacked_epochs must be a multiple of {TURNS}, got {epochs}.")


QUICK: dict[str, Any] = {
    "num_trials": 4, "rounds": 1, "epochs": 2, "num_stacked": 4,
    "growth": (2,),
}  # fmt: skip


def compare_searches(world: World, options: Options) -> dict[str, Any]:
    """The part `tune`: trials per hour of both searches, and the scores of their trials."""
    from benchmarks.search_before.trials import run_search
    from t2ipal.engine.search import on_ray
    from t2ipal.engine.session import connect

    search = space(options.num_trials)
    epochs = options.epochs or world.setting.training.num_epochs
    start = override(world.setting, {"training.num_epochs": epochs})
    data, settings = world.data(search), draw_settings(search)
    held, images = all_in_memory(data.training({})), in_memory(data.validation())
    per_hour: dict[str, list[float]] = {"before": [], "now": []}
    scores: dict[str, list[float]] = {}

    def before(folder: str) -> list[float]:
        load = partial(load_backbone, BackboneConfig())
        rows = run_search(settings, start.recipe, held, images, load, folder)
        return [row["validation_mAP"] for row in rows]

    def now(folder: str) -> list[float]:
        kept = SearchFolder(Store(folder), "search")
        load = partial(load_text_tower, BackboneConfig())
        with Monitor(search, kept, quiet=True) as monitor:
            on_ray(search, start, data, load, kept, group=PopulationGroup())
        found = sorted(monitor.trials, key=lambda trial: trial.number)
        failed = [trial.reason for trial in found if trial.status != "ok"]
        if failed:
            raise RuntimeError(f"{len(failed)} trials of the search failed: {failed[0]}")
        return [cast(float, trial.validation_mAP) for trial in found]

    contestants: dict[str, Callable[[str], list[float]]]
    contestants = {"before": before, "now": now}
    with connect(least_cpus=2):
        for turn in range(options.rounds):
            for name in contestants if turn % 2 == 0 else [*contestants][::-1]:
                with tempfile.TemporaryDirectory(prefix="t2ipal-search-") as folder:
                    started = time.perf_counter()
                    scores[name] = contestants[name](folder)
                    per_hour[name].append(3600 * len(settings) / (time.perf_counter() - started))
    report("trials per hour of a search, on two cores", per_hour, digits=0)
    rows = [*zip(settings, scores["before"], scores["now"])]
    print("\nscores of the same trials, mAP\n  before     now   settings")
    for values, old, new in rows:
        print(f"  {old:6.2f}  {new:6.2f}   {', '.join(map(_short, values.items()))}")
    found = compare_scores(scores["before"], scores["now"])
    print("; ".join(f"{name} {value}" for name, value in found.items()))
    return {
        "over_tune_trials_before": ratio(per_hour["now"], per_hour["before"]),
        "trials_per_hour_before": round(statistics.median(per_hour["before"])),
        "trials_per_hour": round(statistics.median(per_hour["now"])),
        **found,
    }


def compare_scores(before: Sequence[float], now: Sequence[float]) -> dict[str, Any]:
    """How far two searches say the same of the same trials."""
    old, new = np.array(before), np.array(now)
    winners = int(old.argmax()), int(new.argmax())
    behind = max(old.max() - old[winners[1]], new.max() - new[winners[0]])
    ranks = np.array([np.argsort(np.argsort(scores)) for scores in (old, new)])
    alike = float(np.corrcoef(ranks).min())
    return {
        "same_best": winners[0] == winners[1],
        "best_behind_mAP": round(float(behind), 3),
        "largest_difference_mAP": round(float(np.abs(old - new).max()), 3),
        "rank_correlation": round(alike, 3),
    }


def compare_steps(world: World, options: Options) -> dict[str, Any]:
    """The part `stacked`: `fit` for some of the trials, then some epochs of the stack, in turns."""
    backbone = load_backbone(BackboneConfig(device=options.device))
    start, data = world.setting.recipe, world.training()
    if options.num_classes == 80:
        names = class_names(80)
        start = override(start, {"method.class_names": names, "method.prompt_names": names})
        data = make_batch(backbone, names, 64, 0, repeated=13).data()
    recipes = trials(start, options.num_stacked, options.stacked_epochs)
    stack, losses = stack_of(recipes, data, backbone), []
    steps = -(-len(data.texts) // start.training.batch_size)
    alone: dict[int, list[float]] = {}
    seconds: Seconds = {"one by one": [], "stacked": []}
    for turn in range(TURNS):
        for at, each in [*enumerate(recipes)][turn::TURNS]:
            method = each.method.build(backbone, each.training.seed)
            started = clock(backbone.device)
            history = fit(method, data, each.training).history
            spent = clock(backbone.device) - started
            alone[at] = [record.loss for record in history]
            seconds["one by one"].append(1e3 * spent / (steps * options.stacked_epochs))
        for _ in range(options.stacked_epochs // TURNS):
            started = clock(backbone.device)
            losses.append(stack.train_epoch())
            spent = clock(backbone.device) - started
            seconds["stacked"].append(1e3 * spent / (steps * len(recipes)))
    report(f"ms of a step of a trial, {len(recipes)} trials", seconds)
    stacked = torch.stack(losses, dim=1).tolist()
    apart = [largest_difference([stacked[at]], [curve]) for at, curve in alone.items()]
    return {
        "stacked_over_one_by_one": ratio(seconds["one by one"], seconds["stacked"]),
        "ms_one_by_one": round(statistics.median(seconds["one by one"]), 2),
        "ms_stacked": round(statistics.median(seconds["stacked"]), 2),
        "loss_difference": compare_losses(world, options),
        "loss_difference_float32": statistics.median(apart),
    }


def compare_losses(world: World, options: Options) -> float:
    """The largest difference, relative, of losses of some trials stacked and one by one.

    In doubles: in floats a difference in the last digit grows a thousandfold at the demo's
    learning rates, and would hide one that is none of rounding.
    """
    backbone = load_text_tower(BackboneConfig(device=options.device))
    backbone.model.double()
    with in_doubles():
        data = all_in_memory(world.training())
        steps = -(-len(data.texts) // world.setting.training.batch_size)
        epochs = 2 if options.quick else -(-CHECKED_STEPS // steps)
        recipes = trials(world.setting.recipe, min(CHECKED, options.num_stacked), epochs)
        stack = stack_of(recipes, data, backbone)
        stacked = torch.stack([stack.train_epoch() for _ in range(epochs)], dim=1)
        alone = []
        for each in recipes:
            method = each.method.build(backbone, each.training.seed)
            alone.append([record.loss for record in fit(method, data, each.training).history])
        difference = largest_difference(stacked.tolist(), alone)
    print(f"\nlosses of {len(recipes)} trials differ by {difference:.1e} in {steps * epochs} steps")
    return difference


@contextmanager
def in_doubles() -> Iterator[None]:
    """Computes in doubles what asks for floats."""
    torch.set_default_dtype(torch.float64)
    try:
        with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def compare_usual(world: World, options: Options) -> dict[str, Any]:
    """The part `usual`: one batch of the run's own captions and images, step by step in turns."""
    backbone = load_backbone(BackboneConfig(device=options.device))
    start = world.setting.recipe
    batch = batch_of(world, backbone, start.training.batch_size)
    recipes = trials(start, options.num_stacked, TURNS)
    stack = stack_of(recipes, batch.data(), backbone)
    method: Any = start.method.build(cast(Any, Reading(backbone, "usual")), start.training.seed)
    method.prepare(batch.data())
    optimizer = make_optimizer(method.parameter_groups(start.training), start.training)
    runner = Runner("usual", method, optimizer)
    seconds: Seconds = {"usual": [], "stacked": []}
    first = 0.0
    for turn in range(TURNS):
        step(runner, backbone, batch)
        started = clock(backbone.device)
        losses = stack.train_epoch()  # one batch, one step
        seconds["stacked"].append(1e3 * (clock(backbone.device) - started) / len(recipes))
        first = first if turn else float(losses[0])
    seconds["usual"] = [1e3 * spent for spent in runner.seconds]
    report(f"ms of a step of a trial, {len(recipes)} trials stacked", seconds)
    return {
        "over_usual_loop": ratio(seconds["usual"], seconds["stacked"]),
        "ms_usual": round(statistics.median(seconds["usual"]), 1),
        "usual_loss_difference": largest_difference([[first]], [runner.losses[:1]]),
    }


def measure_growth(folder: str, options: Options) -> dict[str, Any]:
    """The part `growth`: a fresh process for each number of trials."""
    times, peaks = {}, {}
    print("\na stack in a process of its own")
    for number in options.growth:
        words = ["--only", str(number), "--run", folder, "--device", options.device]
        words += ["--num-threads", str(options.num_threads)]
        done = subprocess.run(
            [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True
        )
        found = json.loads(done.stdout.splitlines()[-1])
        times[str(number)], peaks[str(number)] = found["ms"], found["peak_mib"]
        print(f"  {number:3} trials: {found['ms']:6.2f} ms a trial, {found['peak_mib']} MiB")
    return {"ms_of_trials": times, "peak_mib": peaks}


def measure_one(world: World, options: Options, number: int) -> dict[str, Any]:
    """Steps and scores of a stack of so many trials; on a GPU its memory, else the process's."""
    backbone = load_text_tower(BackboneConfig(device=options.device))
    data = world.data(space(number))
    whole = data.training({})
    captions = torch.arange(min(GROWTH_CAPTIONS, len(whole.texts)))
    part = replace(
        whole,
        texts=whole.texts.subset(captions),
        image_of_caption=whole.image_of_caption[captions],
    )
    stack = stack_of(trials(world.setting.recipe, number, TURNS), part, backbone)
    steps, times = -(-len(captions) // stack.trainings[0].batch_size), []
    for _ in range(TURNS):
        started = clock(backbone.device)
        stack.train_epoch()
        times.append(1e3 * (clock(backbone.device) - started) / (steps * number))
    assert len([*stack.scores(data.validation())]) == number
    ms = round(statistics.median(times), 2)
    if backbone.device.type == "cuda":
        return {"ms": ms, "peak_mib": torch.cuda.max_memory_allocated() // 2**20}
    status = Path("/proc/self/status").read_text()
    return {"ms": ms, "peak_mib": int(status.partition("VmHWM:")[2].split()[0]) // 1024}


def report(title: str, values: Mapping[str, Sequence[float]], digits: int = 2) -> None:
    """Prints the median of each contestant, with the least and most."""
    print(f"\n{title}: median (spread)")
    for name, found in values.items():
        middle, least, most = (
            f"{value:.{digits}f}" for value in (statistics.median(found), min(found), max(found))
        )
        print(f"  {name:<10} {middle:>8} ({least} to {most})")


def ratio(larger: Sequence[float], smaller: Sequence[float]) -> float:
    """Of the medians."""
    return round(statistics.median(larger) / statistics.median(smaller), 2)


def largest_difference(
    curves: Sequence[Sequence[float]], known: Sequence[Sequence[float]]
) -> float:
    """Of any loss from its known one, relative; nan where one is."""
    expected = np.array(known)
    return float(np.max(np.abs(np.array(curves) - expected) / np.abs(expected)))


def shortfalls(result: Mapping[str, Any], options: Options) -> list[str]:
    """What does not hold of what was measured, in words."""
    found = []
    demands = {} if options.quick else {**DEMANDS, **(ON_CUDA if options.device != "cpu" else {})}
    for name, least in demands.items():
        if name in result and result[name] < least:
            found.append(f"{name} must be {least:g} or more, got {result[name]}.")
    difference = result.get("loss_difference", 0.0)
    if not difference <= TOLERANCE:  # not a number does not hold either
        found.append(
            f"Losses of stacked trials must be those of trials one by one to {TOLERANCE}, they "
            f"differ by {difference:.1e}."
        )
    if not options.quick and (behind := result.get("best_behind_mAP", 0.0)) > BEST_TOLERANCE:
        found.append(
            f"Both searches must find an equally good trial, to {BEST_TOLERANCE} mAP; they differ "
            f"by {behind}."
        )
    return found


def _short(item: tuple[str, Any]) -> str:
    name, value = item
    return f"{name.rpartition('.')[2]} {value:.4g}"


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures and prints."""
    options = parse(Options, arguments, __doc__)
    if options.quick:
        options = replace(options, **QUICK)
    torch.set_num_threads(options.num_threads)
    with tempfile.TemporaryDirectory(prefix="t2ipal-run-") as temporary:
        folder = options.run or temporary
        world = open_world(folder, 100 if options.quick else 1000)
        if options.only is not None:
            return finish(measure_one(world, options, options.only))
        result: dict[str, Any] = {"num_stacked": options.num_stacked}
        measures = {
            "stacked": compare_steps,
            "usual": compare_usual,
            "growth": lambda world, options: measure_growth(folder, options),
            "tune": compare_searches,
        }
        for part, measure in measures.items():
            if part in options.parts:
                result.update(measure(world, options))
    finish(result)
    if found := shortfalls(result, options):
        raise SystemExit(f"error: {' '.join(found)}")
    return result


if __name__ == "__main__":
    run_job(main)
