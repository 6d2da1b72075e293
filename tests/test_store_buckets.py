"""What a bucket's server may refuse, overlook or lose, and how it is told to a user."""

import json

import pytest
from small_shard import PLAN, some_images, some_rows

from t2ipal.store import Store, buckets, commit_shard, open_run


def without_conditions(monkeypatch, store, status=None, code=""):
    """Lets a bucket's server overlook the condition of a PUT, or refuse it."""
    client = store._backend._client
    put = client.put_object

    def put_object(IfNoneMatch=None, **request):
        if IfNoneMatch and status:
            reply = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
            raise client.exceptions.ClientError(reply, "PutObject")
        return put(**request)

    monkeypatch.setattr(client, "put_object", put_object)


def warnings_in(caplog):
    return [record.message for record in caplog.records if record.name.startswith("t2ipal")]


@pytest.mark.parametrize(
    ("status", "code"),
    [(None, ""), (501, "NotImplemented"), (400, "InvalidArgument"), (400, "InvalidRequest")],
)
def test_a_server_without_conditional_writes(
    tmp_path, monkeypatch, s3_server, caplog, status, code
):
    store = Store(f"s3://runs/{tmp_path.name}", s3_server)
    without_conditions(monkeypatch, store, status, code)
    assert not store.conditional_writes()
    assert store.list() == []
    assert open_run(store, {"seed": 1})
    assert len(warnings_in(caplog)) == 1
    assert f"{store.uri} has no conditional writes" in warnings_in(caplog)[0]
    marker = commit_shard(store, "00000", PLAN, some_rows(), some_images())
    assert commit_shard(store, "00000", PLAN, some_rows(), some_images()) == marker
    assert not open_run(store, {"seed": 1})
    with pytest.raises(ValueError, match=r"holds another run. Differences: seed: 1 there, 2 here"):
        open_run(store, {"seed": 2})
    assert not store.write_if_absent("config.json", b"{}")
    assert json.loads(store.read("config.json")) == {"seed": 1}


def test_a_store_with_conditional_writes_needs_no_warning(store, caplog):
    assert store.conditional_writes()
    open_run(store, {"seed": 1})
    assert not warnings_in(caplog)
    assert store.list() == ["config.json"]


def test_a_worker_learns_from_the_first_refusal(tmp_path, monkeypatch, s3_server):
    store = Store(f"s3://runs/{tmp_path.name}", s3_server)
    without_conditions(monkeypatch, store, 501, "NotImplemented")
    assert store.write_if_absent("marker", b"first")
    assert not store.write_if_absent("marker", b"second")
    assert store.read("marker") == b"first"
    assert not store.conditional_writes()


def test_a_put_that_fails_for_another_reason_is_no_refusal(tmp_path, monkeypatch, s3_server):
    store = Store(f"s3://runs/{tmp_path.name}", s3_server)
    without_conditions(monkeypatch, store, 400, "IncompleteBody")
    for attempt in (store.conditional_writes, lambda: store.write_if_absent("a", b"")):
        with pytest.raises(OSError, match=r"did not take the request .* \(IncompleteBody\)"):
            attempt()


@pytest.mark.parametrize(("num_conflicts", "created"), [(2, True), (99, False)])
def test_a_conflict_with_another_writer_is_tried_again(
    tmp_path, monkeypatch, s3_server, num_conflicts, created
):
    """As long as the object is not there: the other writer may fail."""
    store = Store(f"s3://runs/{tmp_path.name}", s3_server)
    client, left = store._backend._client, [num_conflicts]
    put = client.put_object

    def put_object(**request):
        left[0] -= 1
        if left[0] >= 0:
            reply = {"ResponseMetadata": {"HTTPStatusCode": 409}, "Error": {"Code": "Conflict"}}
            raise client.exceptions.ClientError(reply, "PutObject")
        return put(**request)

    monkeypatch.setattr(buckets, "_pause", lambda attempt: None)
    monkeypatch.setattr(client, "put_object", put_object)
    if not created:
        with pytest.raises(OSError, match=r"did not take the request .* \(Conflict\)"):
            store.write_if_absent("marker", b"mine")
        return
    assert store.write_if_absent("marker", b"mine")
    left[0] = 1
    assert not store.write_if_absent("marker", b"other")
    assert store.read("marker") == b"mine"


def test_the_probe_may_lack_the_right_to_delete(tmp_path, monkeypatch, s3_server):
    store = Store(f"s3://runs/{tmp_path.name}", s3_server)
    client = store._backend._client

    def refuse(**_):
        reply = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        raise client.exceptions.ClientError(reply, "DeleteObject")

    monkeypatch.setattr(client, "delete_object", refuse)
    assert store.conditional_writes()
    assert store.list() == []  # what it left is no object of the run


@pytest.mark.parametrize("was_completed", [True, False])
def test_a_completed_upload_is_told_from_one_that_is_gone(
    tmp_path, monkeypatch, s3_server, was_completed
):
    store = Store(f"s3://runs/{tmp_path.name}", s3_server)
    store.write("large", b"old")
    monkeypatch.setattr(buckets, "MULTIPART_BYTES", 1)
    client = store._backend._client
    complete = client.complete_multipart_upload

    def complete_multipart_upload(**request):
        if was_completed:
            complete(**request)  # its reply is lost, and the server says this to the next request:
        reply = {"Error": {"Code": "NoSuchUpload"}, "ResponseMetadata": {"HTTPStatusCode": 404}}
        raise client.exceptions.ClientError(reply, "CompleteMultipartUpload")

    monkeypatch.setattr(client, "complete_multipart_upload", complete_multipart_upload)
    if was_completed:
        store.write("large", b"new")
    else:
        with pytest.raises(OSError, match=r"did not take the request .*large \(NoSuchUpload\)"):
            store.write("large", b"new")
    assert store.read("large") == (b"new" if was_completed else b"old")
    assert "Uploads" not in client.list_multipart_uploads(Bucket="runs")


def test_an_unreachable_server_is_an_error_without_secrets(s3_server, monkeypatch):
    store = Store("s3://runs/x", "http://127.0.0.1:9")
    # Ten retries take minutes; one shows the message.
    import boto3

    make = boto3.client

    def impatient(name, config, **options):
        from botocore.config import Config

        return make(name, config=config.merge(Config(retries={"max_attempts": 0})), **options)

    monkeypatch.setattr(boto3, "client", impatient)
    with pytest.raises(OSError, match=r"Cannot reach s3://runs/x/a") as raised:
        store.read("a")
    assert "very-secret" not in str(raised.value)


def test_no_credentials_is_a_clear_error(s3_server, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    import boto3

    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with pytest.raises(PermissionError, match=r"No credentials for s3://runs/x/a"):
        Store("s3://runs/x", s3_server).read("a")
