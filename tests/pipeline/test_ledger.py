import pytest

from t2ipal.pipeline.ledger import Ledger, describe_spent, read_spent
from t2ipal.pipeline.prices import Machine, PriceTable
from t2ipal.store import Store

PRICES = PriceTable({"gpu": Machine(0.8), "local": Machine(0.0), "unknown": Machine()})


def test_sums_over_sessions_and_machines(store):
    first = Ledger(store, PRICES)
    first.add({"a": "gpu", "b": "gpu"}, 1800)
    first.add({"b": "gpu", "c": "local"}, 3600)
    first.write()
    assert first.total.dollars == pytest.approx(0.8 * 2)
    second = Ledger(store, PRICES)
    second.add({"d": "gpu", "e": "unknown"}, 3600)
    second.write()
    second.write()
    spent = read_spent(store)
    assert spent == second.total
    assert spent.dollars == pytest.approx(0.8 * 3)
    assert spent.machine_hours == {"gpu": 3.0, "local": 1.0, "unknown": 1.0}
    assert spent.unpriced == ("unknown",)
    assert describe_spent(spent) == (
        "spent   2.40 dollars by jobs/pipeline.py, machine hours: 3.00 of gpu, 1.00 of local, "
        "1.00 of unknown; without a price: unknown"
    )


def test_a_damaged_entry_is_named(tmp_path):
    store = Store(tmp_path)
    store.write("cost/1.json", b"[]")
    with pytest.raises(ValueError, match=r"cost/1.json in .* is damaged"):
        read_spent(store)
