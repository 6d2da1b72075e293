"""What must hold of a training that was disturbed, beside one that was not.

Each check gives its problems as lines; none where all is well.
"""

import dataclasses
from collections.abc import Sequence

import torch

from t2ipal.store import Store
from t2ipal.training.loop import FitResult
from t2ipal.training.runs import load_run

MOST = 1e-6
"""Relative difference of a loss, and of a number of the recognizer to the largest one."""


def training_problems(
    store: Store, reference: Store, names: Sequence[str], num_epochs: int
) -> tuple[list[str], float]:
    """The problems of finished runs, and the largest relative difference of a loss.

    Args:
        store: disturbed.
        reference: not disturbed.
        names: of the recognizers.
        num_epochs: of each.
    """
    problems, largest = object_problems(store, reference), 0.0
    for name in names:
        try:
            found, expected = (load_run(each, f"train/{name}") for each in (store, reference))
        except (ValueError, OSError) as error:
            problems.append(f"{name}: {type(error).__name__}: {error}")
            continue
        lines, difference = curve_problems(found, expected, num_epochs)
        problems += [f"{name}: {line}" for line in lines + tensor_problems(found, expected)]
        largest = max(largest, difference)
    return problems, largest


def object_problems(store: Store, reference: Store) -> list[str]:
    """Objects that are missing or left over, as a checkpoint, and features of other bytes."""
    found, expected = {*store.list()}, {*reference.list()}
    features = [key for key in found & expected if key.startswith("features/")]
    return [
        *(f"missing: {key}" for key in sorted(expected - found)),
        *(f"left over: {key}" for key in sorted(found - expected)),
        *(f"other bytes: {key}" for key in features if store.read(key) != reference.read(key)),
    ]


def curve_problems(
    found: FitResult, expected: FitResult, num_epochs: int
) -> tuple[list[str], float]:
    """Epochs that are not there once, in their order, and losses that differ; and by how much."""
    epochs = [record.epoch for record in found.history]
    if epochs != list(range(num_epochs)):
        return [f"epochs are {epochs}, expected {num_epochs}, each once"], 0.0
    ours, theirs = (
        torch.tensor([dataclasses.astuple(record) for record in each.history], dtype=torch.double)
        for each in (found, expected)
    )
    differences = ((ours - theirs).abs() / theirs.abs().clamp(min=MOST)).amax(dim=1)
    worst = int(differences.argmax())
    largest = float(differences[worst])
    line = f"losses of epoch {worst} differ by {largest:.1e} of them"
    return ([line] if not largest <= MOST else []), largest


def tensor_problems(found: FitResult, expected: FitResult) -> list[str]:
    """Parts of the recognizer that are not close to those of the other."""
    ours, theirs = vars(found.recognizer.scorer), vars(expected.recognizer.scorer)
    return [
        f"{name} of the recognizer differs"
        for name, tensor in theirs.items()
        if isinstance(tensor, torch.Tensor)
        and not torch.allclose(ours[name], tensor, rtol=0, atol=MOST * float(tensor.abs().max()))
    ]
