import time

import pytest

from t2ipal.halting import Halted, halt_if_asked
from t2ipal.pipeline.ledger import Ledger, read_spent
from t2ipal.pipeline.meter import Meter
from t2ipal.pipeline.prices import Machine, PriceTable
from t2ipal.store import Store

PRICES = PriceTable({"gpu": Machine(3600.0), "cpu": Machine(0.0)})  # a dollar a second
MACHINES = {"a": "gpu", "b": "gpu", "c": "cpu"}


def work():
    while True:
        time.sleep(0.01)
        halt_if_asked()


def test_halts_where_the_budget_is_used_up(tmp_path):
    store = Store(tmp_path)
    meter = Meter(Ledger(store, PRICES), lambda: MACHINES, 0.2, look_s=0.02)
    started = time.monotonic()
    with pytest.raises(Halted), meter.running():
        work()
    assert meter.reason.startswith("the budget of 0.20 dollars is used up.")
    taken = time.monotonic() - started
    assert 0.2 <= read_spent(store).dollars <= 2 * taken


def test_interrupts_what_does_not_halt(tmp_path):
    meter = Meter(Ledger(Store(tmp_path), PRICES), lambda: MACHINES, 0.1, 0.02, grace_s=0.05)
    with pytest.raises(Halted), meter.running():
        try:
            time.sleep(30)
        except KeyboardInterrupt as error:  # as a library may do
            raise RuntimeError("it failed") from error


def test_counts_machines_that_are_lost(tmp_path):
    looks = [MACHINES, {"b": "gpu"}, OSError("the head is gone")]

    def machines():
        look = looks.pop(0) if len(looks) > 1 else looks[0]
        if isinstance(look, OSError):
            raise look
        return look

    meter = Meter(Ledger(Store(tmp_path), PRICES), machines, look_s=0.05)
    with meter.running():
        time.sleep(0.2)
    hours = meter.ledger.total.machine_hours
    assert hours["gpu"] > hours["cpu"] > 0


def test_a_machine_without_a_price_ends_what_has_a_budget(tmp_path):
    for budget, told in ((None, ""), (5.0, "the price table has no price of odd")):
        meter = Meter(Ledger(Store(tmp_path), PRICES), lambda: {"a": "odd"}, budget, look_s=0.01)
        with meter.running():
            time.sleep(0.05)
        assert meter.reason.startswith(told) and bool(meter.reason) == bool(told)
        assert meter.ledger.total.unpriced == ("odd",)


def test_an_error_stays_what_it_is(tmp_path):
    store = Store(tmp_path)
    meter = Meter(Ledger(store, PRICES), lambda: MACHINES, 100.0, look_s=0.01)
    with pytest.raises(ValueError, match="wrong"), meter.running():
        raise ValueError("wrong")
    assert len(store.list("cost/")) == 1
