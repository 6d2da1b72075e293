"""Trials trained side by side: stacked where they can be, epoch by epoch in step with each other.

Owns how a trial is scored, when it ends and what is told of it meanwhile. The objective is mAP on
images that no trial learns from, synthetic ones of held-out captions or labelled ones of the user;
no test image has a way in. Knows neither Ray nor where trials are kept.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor

from t2ipal.config import override
from t2ipal.devices import is_out_of_memory
from t2ipal.evaluation.metrics import average_precision
from t2ipal.features.sets import FeatureTable, TrainingFeatures
from t2ipal.methods.contract import FrozenBackbone
from t2ipal.search.halving import scored_epochs
from t2ipal.search.results import Trial, mean_and_spread
from t2ipal.search.setting import Setting
from t2ipal.search.space import SearchConfig
from t2ipal.training.captions import captions_for, captions_key
from t2ipal.training.loop import usable_images
from t2ipal.training.recipes import Recipe
from t2ipal.training.stacked import Stack, stack_key


class SearchData(Protocol):
    """What trials learn from and are scored on; `t2ipal.search.data` has it of a run."""

    def training(self, values: Mapping[str, Any]) -> TrainingFeatures:
        """Of a trial with these values; the same object for trials that share it."""
        ...

    def validation(self) -> FeatureTable:
        """Of all trials."""
        ...


Judge = Callable[[int, Mapping[int, float]], Mapping[int, str]]
"""Gets the epochs done and the metric of each trial then; says which are stopped, and why."""
Report = Callable[[Sequence[Trial]], None]
"""Gets all trials of a population whenever there is news of one."""


@dataclass(frozen=True)
class Member:
    """A trial with one of its seeds."""

    number: int
    recipe: Recipe
    normalization: Any


def train_population(
    settings: Mapping[int, Mapping[str, Any]],
    start: Setting,
    search: SearchConfig,
    data: SearchData,
    backbone: FrozenBackbone,
    judge: Judge = lambda epochs, metrics: {},
    report: Report = lambda trials: None,
    deadline_s: float = math.inf,
) -> list[Trial]:
    """Trains the trials of some settings, and gives them as they ended.

    A trial that cannot be built, or whose loss is no longer finite, is a row with its reason; the
    others go on without it. An error of the device is raised: whoever started this process starts
    another one.

    Args:
        settings: the values of each trial by its number.
        start: everything that the space does not vary.
        search: the checked space.
        data: what is learned from, and what is scored on.
        backbone: the frozen CLIP.
        judge: asked after each score; all of a population are judged together.
        report: told after each epoch.
        deadline_s: since 1970; who runs then is left unfinished.
    """
    population = _Population(settings, start, search, data, backbone)
    report(population.trials)
    while population.stacks:
        if time.time() > deadline_s:
            population.leave()
        elif scored := population.train_epoch():
            population.stop(judge(population.epoch, scored))
        report(population.trials)
    report(population.trials)
    return population.trials


class _Population:
    """The stacks of the trials that have not ended, and how far each trial is."""

    def __init__(
        self,
        settings: Mapping[int, Mapping[str, Any]],
        start: Setting,
        search: SearchConfig,
        data: SearchData,
        backbone: FrozenBackbone,
    ) -> None:
        self.search, self.data, self.backbone = search, data, backbone
        self.epoch, now = 0, time.time()
        self.rows = {
            number: Trial(number, dict(values), "running", seconds=0.0, started_s=now)
            for number, values in settings.items()
        }
        self.validation = data.validation()
        self.shown = self.validation.labels.bool().any(dim=0)
        self.stacks: list[tuple[Stack, list[Member]]] = []
        self._captions: dict[Any, TrainingFeatures] = {}
        groups: dict[Any, list[Member]] = {}
        for number, values in settings.items():
            try:
                for key, member in self._members(number, values, start):
                    groups.setdefault(key, []).append(member)
            except ValueError as error:
                self._fail(number, error)
        for members in groups.values():
            self._stack(members)

    @property
    def trials(self) -> list[Trial]:
        """As they are now."""
        return [*self.rows.values()]

    def train_epoch(self) -> dict[int, float]:
        """One more epoch of every trial; the metrics of those that were scored after it."""
        self.epoch += 1
        losses: dict[int, list[float]] = {}
        scores: dict[int, list[float]] = {}
        for stack, members in self.stacks:
            started = time.monotonic()
            try:
                for member, loss in zip(members, stack.train_epoch().tolist()):
                    losses.setdefault(member.number, []).append(loss)
                if stack.epoch in scored_epochs(self.search, stack.num_epochs):
                    for member, raw in zip(members, stack.scores(self.validation)):
                        score = self._score(member.normalization(raw))
                        scores.setdefault(member.number, []).append(score)
            except (ValueError, RuntimeError) as error:
                for member in members:
                    self._fail(member.number, error)
            share = (time.monotonic() - started) / len(members)
            for member in members:
                row = self.rows[member.number]
                self.rows[member.number] = replace(row, seconds=(row.seconds or 0) + share)
        for number, found in losses.items():
            self._learned(number, found, scores.get(number, []))
        metrics = {n: getattr(self.rows[n], self.search.metric) for n in self._running(scores)}
        ended = {m.number for stack, members in self.stacks for m in members if _is_over(stack)}
        for number in self._running(ended):
            self.rows[number] = replace(self.rows[number], status="ok", ended_s=time.time())
        self._leave()
        return metrics

    def stop(self, verdicts: Mapping[int, str]) -> None:
        """Ends trials early, each for a reason; one that has ended stays as it is."""
        for number in self._running(verdicts):
            self._end(number, "stopped", verdicts[number])
        self._leave()

    def leave(self) -> None:
        """Leaves all that run unfinished."""
        for number in self._running(self.rows):
            self._end(number, "unfinished", f"the time was up after epoch {self.epoch}")
        self._leave()

    def _members(
        self, number: int, values: Mapping[str, Any], start: Setting
    ) -> list[tuple[Any, Member]]:
        """A trial's seeds, each with what those that it can be stacked with have in common."""
        setting = override(start, values)
        data = self._training(values, setting.recipe)
        found = []
        for nth in range(self.search.num_seeds):
            seed = setting.training.seed + nth
            recipe = override(setting.recipe, {"training.seed": seed})
            key = id(data), *stack_key(recipe)
            found.append((key, Member(number, recipe, setting.normalization)))
        images = int((usable_images(data, setting.training) >= 0).sum())
        self.rows[number] = replace(self.rows[number], images=images)
        return found

    def _training(self, values: Mapping[str, Any], recipe: Recipe) -> TrainingFeatures:
        """What a trial learns from; the same object for trials that share it."""
        data = self.data.training(values)
        key = id(data), captions_key(recipe)
        if key not in self._captions:
            self._captions[key] = captions_for(recipe, data, self.backbone)
        return self._captions[key]

    def _stack(self, members: list[Member]) -> None:
        """Builds what is trained; who cannot be built fails, and the others are stacked again."""
        trainings = [member.recipe.training for member in members]
        try:
            methods = [
                m.recipe.method.build(self.backbone, m.recipe.training.seed) for m in members
            ]
            first = members[0]
            data = self._training(self.rows[first.number].values, first.recipe)
            self.stacks.append((Stack(methods, trainings, data), members))
        except (ValueError, RuntimeError) as error:
            if len(members) == 1:
                return self._fail(members[0].number, error)
            before = len(self.stacks)
            for member in members:
                self._stack([member])
            whole = [member for _, alone in self.stacks[before:] for member in alone]
            if 1 < len(whole) < len(members):
                del self.stacks[before:]
                self._stack(whole)

    def _learned(self, number: int, losses: list[float], scores: list[float]) -> None:
        """Writes down an epoch's losses and scores, one for each seed."""
        row = self.rows[number]
        if row.status != "running":
            return
        loss = statistics.fmean(losses)
        if not all(map(math.isfinite, (loss, *scores))):
            reason = f"its loss was {loss:.4g} after epoch {self.epoch}: it diverged"
            if math.isfinite(loss):
                reason = f"its scores were no numbers after epoch {self.epoch}: it diverged"
            return self._end(number, "failed", reason)
        row = replace(row, loss=loss, losses=(*row.losses, loss))
        if scores:
            score, spread = mean_and_spread(scores)
            curve = (*row.scores, (self.epoch, score))
            row = replace(row, validation_mAP=score, spread=spread, scores=curve)
        self.rows[number] = row

    def _score(self, scores: Tensor) -> float:
        """mAP over classes that a validation image shows: a rare one may have one caption alone."""
        if not scores.isfinite().all():
            return math.nan
        labels = self.validation.labels[:, self.shown].numpy()
        return float(average_precision(scores[:, self.shown].numpy(), labels).mean())

    def _fail(self, number: int, error: Exception) -> None:
        """Ends a trial for an error of its own; where it had no room, it may have elsewhere.

        Raises:
            RuntimeError: it is one of the device.
        """
        no_room = is_out_of_memory(error)
        if isinstance(error, RuntimeError) and not no_room:
            raise error
        lines = str(error).strip().splitlines()
        status = "unfinished" if no_room else "failed"
        self._end(number, status, lines[-1] if lines else type(error).__name__)

    def _end(self, number: int, status: str, reason: str) -> None:
        row = self.rows[number]
        self.rows[number] = replace(row, status=status, reason=reason, ended_s=time.time())

    def _running(self, numbers: Iterable[int]) -> list[int]:
        return [number for number in numbers if self.rows[number].status == "running"]

    def _leave(self) -> None:
        """Takes the trials that have ended out of the stacks."""
        left = []
        for stack, members in self.stacks:
            numbers = {*self._running({member.number for member in members})}
            stay = [at for at, member in enumerate(members) if member.number in numbers]
            if stay:
                if len(stay) < len(members):
                    stack.keep(stay)
                left.append((stack, [members[at] for at in stay]))
        self.stacks = left


def _is_over(stack: Stack) -> bool:
    return stack.epoch == stack.num_epochs
