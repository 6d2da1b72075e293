import pytest

from t2ipal.doctor import places
from t2ipal.doctor.places import check_place
from t2ipal.store import Store


def states(store, region=None):
    return {found.check: (found.state, found.text) for found in check_place(store, region)}


def test_a_bucket_that_is_well(s3_server):
    store = Store("s3://runs/doctor", s3_server)
    found = states(store, "us-east-1")
    assert [state for state, _ in found.values()] == ["ok"] * 4
    assert [*found] == ["bucket", "bucket region", "bucket rights", "conditional writes"]
    assert store.list() == [] and store.entries(".probe-") == {}


def test_a_bucket_of_another_region(s3_server):
    found = states(Store("s3://runs/doctor", s3_server), "eu-west-1")
    state, text = found["bucket region"]
    assert state == "wrong"
    assert text.startswith("the bucket is in us-east-1, the machines are in eu-west-1")
    state, text = states(Store("s3://runs/doctor", s3_server))["bucket region"]
    assert (state, text) == (
        "not looked at",
        "it is us-east-1, that of the machines is not known.",
    )


def test_a_bucket_that_is_not_there(s3_server):
    found = states(Store("s3://none-such/doctor", s3_server))
    assert [*found] == ["bucket"]
    assert found["bucket"][1].startswith("No bucket 'none-such'. Create it first")


@pytest.mark.parametrize(
    ("right", "method", "untested"),
    [("s3:PutObject", "write", True), ("s3:GetObject", "read", False),
     ("s3:DeleteObject", "delete", False)],
)  # fmt: skip
def test_rights_that_are_missing_are_named(s3_server, monkeypatch, right, method, untested):
    def refuse(*_):
        raise PermissionError("Access was refused (AccessDenied).")

    store = Store("s3://runs/doctor", s3_server)
    monkeypatch.setattr(store, method, refuse)
    found = states(store, "us-east-1")
    state, text = found["bucket rights"]
    assert state == "wrong" and text.startswith(f"{right}: Access was refused (AccessDenied).")
    assert (found["conditional writes"][0] == "not looked at") == untested


def test_a_server_without_conditional_writes(s3_server, monkeypatch):
    store = Store("s3://runs/doctor", s3_server)
    monkeypatch.setattr(store, "conditional_writes", lambda: False)
    state, text = states(store)["conditional writes"]
    assert state == "wrong" and "start no two drivers" in text


def test_a_server_that_is_not_there(monkeypatch):
    monkeypatch.setattr(places, "CONNECT_S", 0.5)
    with pytest.raises(ConnectionError, match=r"No server answers at http://127.0.0.1:1 \(Conn"):
        [*check_place(Store("s3://runs/doctor", "http://127.0.0.1:1"), None)]


def test_a_folder_is_left_as_it_is(tmp_path):
    state, text = states(Store(tmp_path / "new" / "run"))["folder"]
    assert state == "ok" and text.startswith(f"{tmp_path}/new/run can be written.")
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "file").touch()
    state, text = states(Store(tmp_path / "file" / "run"))["folder"]
    assert (state, text.split(",")[0]) == ("wrong", f"{tmp_path}/file is a file")
