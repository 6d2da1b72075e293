import threading

from t2ipal.doctor.findings import Finding, look, not_looked_at, ok, wrong


def test_a_finding_is_one_line():
    assert str(wrong("token", "refused:\n  take\tanother")) == (
        "wrong          token: refused: take another"
    )
    assert str(not_looked_at("quotas", "no key.")) == "not looked at  quotas: no key."


def test_what_a_check_gives_is_found():
    assert look("disk", lambda: ok("disk", "free.")) == [Finding("disk", "ok", "free.")]
    assert look("bucket", lambda: iter([ok("a", "1"), wrong("b", "2")]))[1].state == "wrong"


def test_an_error_of_a_check_is_a_finding():
    def broken(error):
        raise error

    assert look("a", lambda: broken(PermissionError("refused"))) == [wrong("a", "refused")]
    assert look("a", lambda: broken(TimeoutError("late"))) == [wrong("a", "late")]
    assert look("a", lambda: broken(KeyError("x"))) == [wrong("a", "KeyError: 'x'")]


def test_no_check_takes_for_ever():
    ended = threading.Event()
    (finding,) = look("a", lambda: [ended.wait()], 0.05)  # type: ignore
    ended.set()
    assert finding == wrong("a", "no answer within 0.05 s. Check address and network.")
