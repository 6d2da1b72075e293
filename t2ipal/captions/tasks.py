"""What captions are to be written: which classes each must name, in equal shares.

Owns the plan and the contract of writers; knows neither texts nor files.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from t2ipal.config import NonNegativeFloat, NonNegativeInt, PositiveInt, check_fields, require


@dataclass(frozen=True)
class WritingConfig:
    """Which captions are asked for, and which texts are taken."""

    seed: NonNegativeInt = 0
    """Of plan and texts."""
    class_shares: tuple[NonNegativeFloat, ...] = (0.4, 0.35, 0.2, 0.05)
    """Of captions that must name one class, two, three, ...; the default is near MS-COCO's."""
    max_tries: PositiveInt = 8
    """Texts that are asked for at most for one caption."""
    max_extra: NonNegativeFloat = 1.0
    """What else a text names becomes a label of it too: of each class at most so many times the
    captions that must name it. Then texts that name it unasked are refused; with 0 all of them."""

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            sum(self.class_shares) > 0,
            f"class_shares must hold a number above 0, got {self.class_shares}.",
        )


@dataclass(frozen=True)
class Task:
    """One text that a writer is asked for."""

    number: int
    """Of the caption, from 0."""
    attempt: int
    """At this caption, from 0."""
    classes: tuple[int, ...]
    """Indices of the classes that the text must name, in a random order."""
    seed: int
    """Of this text alone."""


class Writer(Protocol):
    """Writes texts; nothing but a task decides its text."""

    def __call__(self, tasks: Sequence[Task]) -> list[str]:
        """A text for each task, in their order."""
        ...


def plan_classes(num_classes: int, count: int, config: WritingConfig) -> list[tuple[int, ...]]:
    """The classes of each caption, all of them equally often; fewer are the first of more.

    Args:
        num_classes: of the vocabulary.
        count: of captions.
        config: how many classes a caption must name, and the seed.
    """
    require(count > 0, f"The number of captions must be > 0, got {count}.")
    rng = Random(f"plan {config.seed}")
    sizes = range(1, len(config.class_shares) + 1)
    deck: list[int] = []  # as of cards: each class once, in a random order, then again
    plan: list[tuple[int, ...]] = []
    for _ in range(count):
        size = min(rng.choices(sizes, config.class_shares)[0], num_classes)
        classes: list[int] = []
        while len(classes) < size:
            at = next((i for i, index in enumerate(deck) if index not in classes), None)
            if at is None:
                deck += rng.sample(range(num_classes), num_classes)
            else:
                classes.append(deck.pop(at))
        plan.append(tuple(classes))
    return plan


def make_task(number: int, attempt: int, classes: tuple[int, ...], seed: int) -> Task:
    """The task of one attempt, with a seed of its own.

    Args:
        number: of the caption.
        attempt: at it.
        classes: that it must name.
        seed: of all captions.
    """
    digest = hashlib.sha256(f"{seed}:{number}:{attempt}".encode()).digest()
    return Task(number, attempt, classes, int.from_bytes(digest[:6], "big"))
