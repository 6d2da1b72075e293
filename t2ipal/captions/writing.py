"""Captions that nobody wrote: a writer's texts, checked and balanced, and asked for again.

Owns which texts are taken. `tasks.py` plans what is asked for, `grammar.py` and
`language_model.py` write, `written.py` keeps it all in a store.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from t2ipal.captions.english import tokenize
from t2ipal.captions.grammar import GrammarWriter
from t2ipal.captions.nouns import NounFilter
from t2ipal.captions.tasks import Task, Writer, WritingConfig, make_task, plan_classes
from t2ipal.captions.vocabulary import Vocabulary
from t2ipal.captions.vocabulary_files import load_vocabulary
from t2ipal.captions.words import CLOSED
from t2ipal.store import Caption

GRAMMAR = "grammar"
"""Name of the writer that needs no model."""
LONG = 7
"""Words that say something, from which on two texts that differ in one of them are too alike."""
Ask = Callable[[Sequence[Task]], Iterator[list[str]]]
"""Gives texts for each task, in their order: of its attempt, and of those behind it."""


@dataclass(frozen=True)
class WrittenText:
    """A text that came, and what became of it."""

    task: Task
    text: str
    labels: tuple[int, ...]
    """Classes that it names, sorted; none where it is refused."""
    reason: str
    """Why it is refused, e.g. "not named: dog"; "" where it is taken."""


@dataclass(frozen=True)
class Written:
    """What came of a plan."""

    plan: list[tuple[int, ...]]
    """Classes that each caption must name."""
    taken: list[WrittenText]
    """At most one for each caption, in their order."""
    refused: list[WrittenText]
    """In the order they came."""

    @property
    def num_missing(self) -> int:
        """Captions for which no text was good enough."""
        return len(self.plan) - len(self.taken)

    def reasons(self) -> dict[str, int]:
        """Number of refused texts by reason without its details, most frequent first."""
        return dict(Counter(each.reason.partition(":")[0] for each in self.refused).most_common())

    def remark(self, vocabulary: Vocabulary) -> str:
        """What a person should know of captions that are missing; "" where none is."""
        if not self.num_missing:
            return ""
        there = {each.task.number for each in self.taken}
        lacking = Counter(
            index for at, classes in enumerate(self.plan) if at not in there for index in classes
        )
        names = ", ".join(f"{vocabulary.class_names[i]} {n:,}" for i, n in lacking.most_common(5))
        whys = "; ".join(f"{n:,} x {why}" for why, n in [*self.reasons().items()][:4])
        return (
            f"{self.num_missing:,} of {len(self.plan):,} captions are missing, most of them of "
            f"{names}: no text was good enough ({whys}). Allow more tries, or take another writer."
        )


def write_captions(
    vocabulary: Vocabulary | str,
    count: int,
    seed: int = 0,
    writer: str | Writer = GRAMMAR,
    config: WritingConfig | None = None,
) -> list[Caption]:
    """Captions for a vocabulary, each with the classes that the noun filter finds in it.

    Args:
        vocabulary: the classes, or the name of a known one.
        count: of captions.
        seed: of plan and texts; replaces the config's.
        writer: "grammar", or what writes.
        config: which captions are asked for, and which texts are taken.

    Raises:
        ValueError: the writer is unknown, or does not write that many.
    """
    if isinstance(vocabulary, str):
        vocabulary = load_vocabulary(vocabulary)
    if isinstance(writer, str):
        if writer != GRAMMAR:
            raise ValueError(
                f"writer must be {GRAMMAR!r} or a function that writes, got {writer!r}."
            )
        name, writer = writer, GrammarWriter(vocabulary)
    else:
        name = "writer"
    config = replace(config or WritingConfig(), seed=seed)
    tries = Tries(writer, vocabulary, config)
    written = collect(vocabulary, count, config, lambda tasks: iter(tries(tasks)))
    if written.num_missing:
        raise ValueError(written.remark(vocabulary))
    return [
        Caption(caption_id(vocabulary, name, seed, each.task), each.text, each.labels)
        for each in written.taken
    ]


def caption_id(vocabulary: Vocabulary, writer: str, seed: int, task: Task) -> str:
    """Of a written caption: unique among those of other writers, vocabularies and seeds too."""
    return f"{vocabulary.name}-{writer}-{seed}-{task.number:07d}"


def collect(
    vocabulary: Vocabulary,
    count: int,
    config: WritingConfig,
    ask: Ask,
    seen: Callable[[WrittenText], None] = lambda text: None,
) -> Written:
    """Asks for texts until each caption has one that is good, or had its tries.

    Texts are judged in the order of tasks, so that only they and the config decide.

    Args:
        vocabulary: the classes.
        count: of captions.
        config: which captions are asked for, and which texts are taken.
        ask: gives a text for each task.
        seen: takes each text once it is judged.
    """
    plan = plan_classes(len(vocabulary.class_names), count, config)
    judge = _Judge(vocabulary, plan, config.max_extra)
    taken: dict[int, WrittenText] = {}
    refused: list[WrittenText] = []
    tried = [0] * count
    while lacking := [n for n in range(count) if n not in taken and tried[n] < config.max_tries]:
        tasks = [make_task(number, tried[number], plan[number], config.seed) for number in lacking]
        for task, texts in zip(tasks, ask(tasks), strict=True):
            for text in texts[: config.max_tries - task.attempt]:
                number, attempt = task.number, tried[task.number]
                judged = judge(make_task(number, attempt, plan[number], config.seed), text)
                tried[number] += 1
                if judged.reason:
                    refused.append(judged)
                else:
                    taken[number] = judged
                seen(judged)
                if not judged.reason:
                    break
    return Written(plan, [taken[number] for number in sorted(taken)], refused)


class Tries:
    """Asks a writer again, at once, where a text does not name what it must."""

    def __init__(self, writer: Writer, vocabulary: Vocabulary, config: WritingConfig):
        self._write, self._config, self._filter = writer, config, NounFilter(vocabulary)

    def __call__(self, tasks: Sequence[Task]) -> list[list[str]]:
        """The texts of each task: the last one names its classes, or is the last try."""
        texts: list[list[str]] = [[] for _ in tasks]
        waiting = [*range(len(tasks))]
        while waiting:
            again = [self._next(tasks[at], len(texts[at])) for at in waiting]
            for at, text in zip(waiting, self._write(again), strict=True):
                texts[at].append(text)
            waiting = [
                at
                for at in waiting
                if tasks[at].attempt + len(texts[at]) < self._config.max_tries
                and not set(tasks[at].classes) <= set(self._filter(texts[at][-1]).labels)
            ]
        return texts

    def _next(self, task: Task, num_tries: int) -> Task:
        attempt = task.attempt + num_tries
        return make_task(task.number, attempt, task.classes, self._config.seed)


class _Judge:
    """Decides which texts are taken, one after the other."""

    def __init__(self, vocabulary: Vocabulary, plan: Sequence[tuple[int, ...]], max_extra: float):
        self._names, self._filter = vocabulary.class_names, NounFilter(vocabulary)
        asked = Counter(index for classes in plan for index in classes)
        self._room = {index: math.floor(max_extra * n) for index, n in asked.items()}
        self._seen: dict[tuple[object, ...], int] = {}

    def __call__(self, task: Task, text: str) -> WrittenText:
        """The verdict on a text, which becomes one line."""
        text = " ".join(text.split())
        verdict = self._filter(text)
        reason = verdict.reason or self._misfit(task, text, verdict.labels)
        return WrittenText(task, text, () if reason else verdict.labels, reason)

    def _misfit(self, task: Task, text: str, labels: tuple[int, ...]) -> str:
        """Why a text that names classes cannot be taken; counts it where it can."""
        missing = [index for index in task.classes if index not in labels]
        if missing:
            return f"not named: {self._listed(missing)}"
        wanted = {each for index in task.classes for each in self._filter.classes_of(index)}
        extra = [index for index in labels if index not in wanted]
        full = [index for index in extra if self._room.get(index, 0) < 1]
        if full:
            return f"named unasked: {self._listed(full)}"
        signs = _signs(text, labels)
        twin = next((self._seen[sign] for sign in signs if sign in self._seen), None)
        if twin is not None:
            return f"near duplicate: caption {twin}"
        self._seen |= dict.fromkeys(signs, task.number)
        for index in extra:
            self._room[index] -= 1
        return ""

    def _listed(self, classes: Sequence[int]) -> str:
        return ", ".join(self._names[index] for index in classes)


def _signs(text: str, labels: tuple[int, ...]) -> list[tuple[object, ...]]:
    """What two texts that are too alike have in common one of.

    Of short texts: labels and all words that say something, in any order. Of long ones: all of
    them but one.
    """
    telling = sorted({token for token in tokenize(text) if token not in CLOSED})
    whole = (labels, *telling)
    if len(telling) < LONG:
        return [whole]
    return [whole, *((labels, *telling[:at], *telling[at + 1 :]) for at in range(len(telling)))]
