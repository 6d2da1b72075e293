"""From fits to numbers: what a system reached on a test set, seed by seed, and what claims come to.

Owns mixtures of scores, partial normalization and the tests over seeds; trains nothing.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from t2ipal.evaluation.ensembles import CLIP_SCALE, ensemble, with_class_concepts
from t2ipal.evaluation.evaluate import Summary, summarize
from t2ipal.evaluation.normalization import best_normalization
from t2ipal.evaluation.test_sets import TestFeatures
from t2ipal.experiments.fitting import Fit, Measured, columns_of, measure, read_scores
from t2ipal.experiments.rows import At, Claim, Mean, System
from t2ipal.experiments.sources import Data
from t2ipal.methods.recognizer import FULL, Normalization
from t2ipal.training.recipes import METHODS

EQUAL = 1.0
"""mAP within which two systems are on par."""
PROBABILITIES = ("dualcoop", "dualcoop_original", "positive_coop")
"""Systems whose scores are probabilities where they are mixed, as DualCoOp's are defined."""
LEVEL = 0.05
"""Of every test."""


@dataclass(frozen=True)
class Difference:
    """Of two systems on one test set, seed by seed."""

    test_set: str
    mean: float
    std: float
    seeds: int
    p: float
    """Of a paired t-test against no difference, both sides; nan where there is one seed."""


@dataclass(frozen=True)
class Verdict:
    """What a claim comes to."""

    words: str
    outcome: str
    """confirmed, refuted, undecided, or not measured."""
    differences: tuple[Difference, ...]


class Numbers:
    """Reads what fits reached; mixtures are made as they are asked for.

    Args:
        data: where everything lies.
        seeds: of the reproduction.
        done: the fits that are there.
        failed: why others could not be trained.
    """

    def __init__(
        self,
        data: Data,
        seeds: Sequence[int],
        done: Mapping[Fit, Measured],
        failed: Mapping[Fit, str],
    ) -> None:
        self.data, self.seeds, self.done = data, seeds, done
        self._failed = failed
        self._scores = lru_cache(64)(lambda fit: read_scores(fit, data))
        self._chosen = cache(self._choose)
        self._values = cache(self._measure)

    def __call__(self, cell: At | Mean) -> Summary | None:
        """Percent over seeds; None where a fit is missing."""
        if isinstance(cell, Mean):
            columns = [self._values(at) for at in cell.of]
            whole = [column for column in columns if column is not None]
            if len(whole) < len(columns):
                return None
            values = tuple(statistics.fmean(row) for row in zip(*whole, strict=True))
        else:
            values = self._values(cell)
        return None if values is None else summarize(values, range(len(values)))

    def missing(self, system: System) -> str:
        """Why a system has no number."""
        parts = [*system.systems()]
        reasons = [part.missing(self.data) for part in parts]
        if any(part.normalization == "partial" for part in parts) and not self.data.validation:
            reasons.append("labelled validation images, on which a part could be chosen")
        fits = [fit for part in parts for fit in part.fits(self.seeds)]
        reasons += [self._failed[fit] for fit in fits if fit in self._failed]
        return next((reason for reason in reasons if reason), "a fit that is not done")

    def scores(self, system: System, test_set: str) -> list[NDArray[Any]] | None:
        """Of each seed, over the classes of the test set, before any normalization of a mixture."""
        fits = system.fits(self.seeds)
        if any(each not in self.done for each in fits):
            return None
        test = self.test(system, test_set)
        names = self.data.vocabulary(system.source)[0]
        if any(test_set not in self.done[each].values for each in fits):
            return None
        mine = [columns_of(test, names, self._scores(each)[test_set]) for each in fits]
        if system.partner is None:
            return mine
        theirs = self.scores(system.partner, test_set)
        if theirs is None:
            return None
        pairs = zip(*_as_many(mine, theirs))
        if system.ratio is None:
            logits = METHODS[system.method].learns_from == "labelled images"
            scale = 1.0 if logits else CLIP_SCALE
            return [with_class_concepts(other, one, scale) for one, other in pairs]
        if system.partner.method in PROBABILITIES:
            pairs = ((one, 1 / (1 + np.exp(-other.astype(np.float64)))) for one, other in pairs)
        return [ensemble(one, other, system.ratio) for one, other in pairs]

    def test(self, system: System, test_set: str) -> TestFeatures:
        """The test set as the system's backbone sees it; its labels are what is looked at."""
        tests = self.data.tests(system.source, system.backbone)
        return next(test for test in tests if test.name == test_set)

    def _measure(self, at: At) -> tuple[float, ...] | None:
        system, name = at.system, at.test_set
        if system.partner is None and system.normalization != "partial":
            found = [self.done.get(each) for each in system.fits(self.seeds)]
            if any(each is None for each in found):
                return None
            kind = "normalized" if system.normalization == "full" else "values"
            values = [getattr(each, kind).get(name) for each in found]
            return None if None in values else tuple(values)
        if system.normalization == "partial" and not self.data.validation:
            return None
        scores = self.scores(system, name)
        if scores is None:
            return None
        test, kind = self.test(system, name), self.data.measure(name)
        if system.normalization != "none":
            change = FULL if system.normalization == "full" else self._chosen(system)
            scores = [change(torch.from_numpy(each)).numpy() for each in scores]
        return tuple(measure(test, each, kind)[0] for each in scores)

    def _choose(self, system: System) -> Normalization:
        """The best part of a normalization on validation images, mean over seeds."""
        plain = replace(system, normalization="none")
        scores = self.scores(plain, self.data.validation)
        assert scores is not None
        labels = self.test(plain, self.data.validation).features.labels.cpu().numpy()
        return best_normalization(scores, labels)

    def verdict(self, claim: Claim) -> Verdict:
        """What a claim comes to, on all its test sets together."""
        judge = {"higher": self._higher, "equal": self._equal, "interior": self._interior}
        found = [judge[claim.kind](claim.systems, name) for name in claim.test_sets]
        if any(outcome is None for outcome, _ in found):
            return Verdict(claim.words, "not measured", ())
        outcomes = {outcome for outcome, _ in found}
        outcome = outcomes.pop() if len(outcomes) == 1 else "undecided"
        return Verdict(claim.words, str(outcome), tuple(each for _, more in found for each in more))

    def difference(self, better: System, worse: System, name: str) -> Difference | None:
        """Seed by seed; a system without training has one result for all seeds."""
        ours, theirs = self._values(At(better, name)), self._values(At(worse, name))
        if ours is None or theirs is None:
            return None
        values = [one - other for one, other in zip(*_as_many([*ours], [*theirs]))]
        gain = summarize(values, range(len(values)))
        return Difference(name, gain.mean, gain.std, len(values), _p(values))

    def _higher(self, systems: Sequence[System], name: str) -> tuple[str | None, list[Difference]]:
        found = self.difference(systems[0], systems[1], name)
        if found is None:
            return None, []
        sure = found.p < LEVEL
        outcome = ("confirmed" if found.mean > 0 else "refuted") if sure else "undecided"
        return outcome, [found]

    def _equal(self, systems: Sequence[System], name: str) -> tuple[str | None, list[Difference]]:
        """Confirmed where both one-sided tests put the difference within `EQUAL`; refuted where one
        puts it outside."""
        found = self.difference(systems[0], systems[1], name)
        if found is None:
            return None, []
        if found.seeds < 2:
            return "undecided", [found]
        half = _half_width(found)
        if abs(found.mean) + half < EQUAL:
            return "confirmed", [found]
        return ("refuted" if abs(found.mean) - half > EQUAL else "undecided"), [found]

    def _interior(
        self, systems: Sequence[System], name: str
    ) -> tuple[str | None, list[Difference]]:
        """The best of the inner ones, as validation images say, against both ends."""
        validation = self.data.validation
        if not validation:  # nothing is chosen on test images
            return None, []
        inner = [(self._values(At(system, validation)), system) for system in systems[1:-1]]
        if not inner or any(values is None for values, _ in inner):
            return None, []
        best = max(inner, key=lambda pair: statistics.fmean(pair[0] or ()))[1]
        ends = [self.difference(best, end, name) for end in (systems[0], systems[-1])]
        differences = [end for end in ends if end is not None]
        if len(differences) < 2:
            return None, []
        if all(each.mean > 0 and each.p < LEVEL for each in differences):
            return "confirmed", differences
        beaten = any(each.mean < 0 and each.p < LEVEL for each in differences)
        return ("refuted" if beaten else "undecided"), differences


def _p(values: Sequence[float]) -> float:
    """Of a two-sided t-test; 0 where all seeds differ by the same, nan where there is one."""
    if len(values) < 2:
        return math.nan
    if len({*values}) == 1:
        return 0.0 if values[0] else 1.0
    error = statistics.stdev(values) / math.sqrt(len(values))
    return float(2 * stats.t.sf(abs(statistics.fmean(values)) / error, len(values) - 1))


def _half_width(found: Difference) -> float:
    """Of the interval that two one-sided tests at `LEVEL` look at."""
    t = float(stats.t.ppf(1 - LEVEL, found.seeds - 1))
    return t * found.std / math.sqrt(found.seeds)


def _as_many(ours: list, theirs: list) -> tuple[list, list]:
    """Both as long as the longer one: what has one result has it for every seed."""
    most = max(len(ours), len(theirs))
    return ours * (most if len(ours) == 1 else 1), theirs * (most if len(theirs) == 1 else 1)
