"""Waits for Ray: told, ended, and not mistaken for slow work."""

import threading
import time

import pytest
from fake_synthesis import FakeSynthesizer, a_request, texts

from t2ipal.engine import waiting
from t2ipal.engine.config import RayConfig
from t2ipal.engine.pool import on_ray
from t2ipal.engine.session import connect
from t2ipal.engine.waiting import Watch, give_signs, watch_workers
from t2ipal.store import Store
from t2ipal.synthesis.making import synthesize
from t2ipal.synthesis.request import ExecutionConfig


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    for name, seconds in {"FIRST_NOTICE_S": 0.2, "NOTICE_S": 0.3, "LOOK_S": 0.02}.items():
        monkeypatch.setattr(waiting, name, seconds)
    monkeypatch.setattr(waiting, "SIGN_S", 0.02)


def test_a_wait_is_told_sparingly_and_ended(capsys):
    started = time.monotonic()
    with (
        pytest.raises(RuntimeError) as caught,
        Watch(lambda: "a bus: none comes.", most_s=0.7, advice="Walk.").over(),
    ):
        time.sleep(20)
    assert str(caught.value) == "Gave up after 1 s of waiting for a bus: none comes. Walk."
    assert 0.7 <= time.monotonic() - started < 5
    told = capsys.readouterr().err.splitlines()
    assert 1 <= len(told) <= 2 and told[0] == "Waiting for a bus: none comes. 0 s so far."


def test_signs_of_life_end_a_wait(capsys):
    with Watch(lambda: "nothing", time.monotonic, most_s=0.3).over():
        time.sleep(0.6)
    assert capsys.readouterr().err == ""


def test_what_is_done_between_two_items_is_no_wait(capsys):
    for _ in Watch(lambda: "nothing", most_s=0.3).each(range(3)):
        time.sleep(0.4)
    assert capsys.readouterr().err == ""


def test_each_item_may_be_waited_for_too_long():
    def items():
        yield 1
        time.sleep(20)

    seen = []
    with pytest.raises(RuntimeError, match=r"^Gave up after 0 s of waiting for a bus"):
        seen += [item for item in Watch(lambda: "a bus.", most_s=0.3).each(items())]
    with pytest.raises(KeyboardInterrupt), Watch(lambda: "a bus.").over():
        raise KeyboardInterrupt  # a person's


def test_in_another_thread_a_wait_is_told(capsys):
    def wait():
        with Watch(lambda: "a bus.", most_s=0.3).over():
            time.sleep(0.6)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    assert capsys.readouterr().err.startswith("Waiting for a bus. 0 s so far.")


def test_signs_reach_the_driver(ray_session):
    with connect(RayConfig(max_wait_s=1)):
        watch, key = watch_workers(1, 1, 0)
    ended = give_signs(key)
    with watch.over():
        time.sleep(1.5)
    ended.set()
    message = (
        r"Gave up after 1 s of waiting for a worker with 1 CPU: there are 2 CPUs and 0 GPUs on 1 "
        r"machine, of which 2 CPUs and 0 GPUs are free, and none has started. Ray's logs are in "
        r"/tmp/t2ipal-\w+/session_latest/logs. --max-wait-s waits longer, where machines may still"
    )
    with pytest.raises(RuntimeError, match=message), watch.over():
        time.sleep(20)


@pytest.mark.parametrize(
    ("asked", "described"),
    [
        ((1, 1, 1), "a worker with 1 CPU and 1 GPU: no machine has that, there are 2 CPUs and 0"),
        ((3, 1, 0, True), "3 workers with 1 CPU each: all must start together, and there are 2 C"),
        ((2, 2, 0), "2 workers with 2 CPUs each: there are 2 CPUs and 0 GPUs on 1 machine, of "),
    ],
)
def test_what_is_asked_and_what_is_there(ray_session, asked, described):
    assert watch_workers(*asked)[0].describe().startswith(described)


def test_a_pool_for_which_there_is_no_machine_gives_up(ray_session, tmp_path, capsys):
    request, nobody = a_request(texts(2)), ExecutionConfig(gpus_per_worker=1)
    with (
        connect(RayConfig(max_wait_s=1)),
        pytest.raises(RuntimeError, match=r"waiting for a worker with 1 CPU and 1 GPU: no machine"),
    ):
        synthesize(Store(tmp_path), request, nobody, workers=on_ray, factory=FakeSynthesizer)
    assert "Waiting for a worker with 1 CPU and 1 GPU" in capsys.readouterr().err
    made = synthesize(Store(tmp_path), request, workers=on_ray, factory=FakeSynthesizer)
    assert made.num_failed == 0  # what waited holds nothing back
