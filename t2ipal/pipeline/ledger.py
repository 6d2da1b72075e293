"""What a run has cost so far, kept in its store: it sums over lost machines and restarts."""

import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from t2ipal.config import check_fields, from_dict, parse_json, to_dict
from t2ipal.pipeline.prices import PriceTable
from t2ipal.store import Store, json_bytes

FOLDER = "cost/"


@dataclass(frozen=True)
class Spent:
    """What one session, from a start of the pipeline to its end, has cost; or several together."""

    dollars: float = 0.0
    machine_hours: Mapping[str, float] = field(default_factory=dict)
    """Node type -> hours that machines of it were there, all of them together."""
    unpriced: tuple[str, ...] = ()
    """Node types among them without a price: the dollars leave them out."""

    def __post_init__(self) -> None:
        check_fields(self)


class Ledger:
    """Adds up one session, and writes it where those before it lie."""

    def __init__(self, store: Store, prices: PriceTable):
        self.store, self.prices = store, prices
        self.before = read_spent(store)
        self.session = Spent()
        self.key = f"{FOLDER}{uuid.uuid4().hex}.json"

    @property
    def total(self) -> Spent:
        """Of this session and all before it."""
        return _sum([self.before, self.session])

    def add(self, machines: Mapping[str, str], seconds: float) -> None:
        """Counts machines (id -> node type) that were there for so long."""
        hours = Counter(machines.values())
        more = Spent(
            sum((self.prices.price(kind) or 0.0) * n for kind, n in hours.items()) * seconds / 3600,
            {kind: n * seconds / 3600 for kind, n in hours.items()},
            tuple(sorted(kind for kind in hours if self.prices.price(kind) is None)),
        )
        self.session = _sum([self.session, more])

    def write(self) -> None:
        """Keeps what this session has cost so far."""
        self.store.write(self.key, json_bytes(to_dict(self.session)))


def read_spent(store: Store) -> Spent:
    """What all sessions of a run have cost.

    Raises:
        ValueError: an entry is damaged.
    """
    spent = []
    for key in store.list(FOLDER):
        try:
            spent.append(from_dict(Spent, parse_json(store.read(key))))
        except (TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{key} in {store.uri} is damaged ({error}). Without it the cost of the run is not "
                "known: restore it, or remove it to go on."
            ) from error
    return _sum(spent)


def describe_spent(spent: Spent) -> str:
    """What was spent, in a line to read."""
    hours = ", ".join(f"{n:,.2f} of {kind}" for kind, n in sorted(spent.machine_hours.items()))
    line = f"spent   {spent.dollars:,.2f} dollars by jobs/pipeline.py, machine hours: {hours}"
    left_out = ", ".join(spent.unpriced)
    return line + (f"; without a price: {left_out}" if left_out else "")


def _sum(spent: list[Spent]) -> Spent:
    hours: dict[str, float] = {}
    for one in spent:
        for kind, more in one.machine_hours.items():
            hours[kind] = hours.get(kind, 0.0) + more
    unpriced = {kind for one in spent for kind in one.unpriced}
    return Spent(sum(one.dollars for one in spent), hours, tuple(sorted(unpriced)))
