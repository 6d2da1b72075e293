"""What a bucket's server may refuse, overlook or lose, and how it is told to a user."""

import json

import pytest
from fake_synthesis import FakeSynthesizer, a_request, texts
from small_shard import PLAN, some_images, some_rows, some_settings

from t2ipal.config import to_dict
from t2ipal.store import Store, buckets, commit_shard, end_old_uploads, open_run
from t2ipal.synthesis.making import synthesize


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
    assert open_run(store, some_settings(seed=1))
    assert len(warnings_in(caplog)) == 1
    assert f"{store.uri} has no conditional writes" in warnings_in(caplog)[0]
    marker = commit_shard(store, "00000", PLAN, some_rows(), some_images())
    assert commit_shard(store, "00000", PLAN, some_rows(), some_images()) == marker
    assert not open_run(store, some_settings(seed=1))
    with pytest.raises(
        ValueError, match=r"holds another run. Differences: synthesis.seed: 1 there, 2 here"
    ):
        open_run(store, some_settings(seed=2))
    assert not store.write_if_absent("config.json", b"{}")
    assert json.loads(store.read("config.json")) == to_dict(some_settings(seed=1))


def test_a_store_with_conditional_writes_needs_no_warning(store, caplog):
    assert store.conditional_writes()
    open_run(store, some_settings(seed=1))
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


def begin_upload(s3_server, key):
    import boto3

    client = boto3.client("s3", endpoint_url=s3_server)
    upload = client.create_multipart_upload(Bucket="runs", Key=key)
    client.upload_part(
        Bucket="runs", Key=key, UploadId=upload["UploadId"], PartNumber=1, Body=b"half"
    )


def open_uploads(s3_server):
    import boto3

    reply = boto3.client("s3", endpoint_url=s3_server).list_multipart_uploads(Bucket="runs")
    return sorted(upload["Key"] for upload in reply.get("Uploads", []))


@pytest.fixture
def killed(tmp_path, s3_server):
    """A store with two uploads that were never finished, beside one of another run."""
    name = tmp_path.name
    for key in ("images/00001.tar", "features/a/b.safetensors"):
        begin_upload(s3_server, f"{name}/{key}")
    begin_upload(s3_server, f"{name}-2/images/00001.tar")
    yield Store(f"s3://runs/{name}", s3_server)
    Store(f"s3://runs/{name}", s3_server).abort_uploads(0)
    Store(f"s3://runs/{name}-2", s3_server).abort_uploads(0)
    assert open_uploads(s3_server) == []


def test_a_run_ends_old_uploads_under_its_own_prefix(killed, s3_server, tmp_path, caplog):
    """All uploads of this server began in 2010, it says."""
    others, whole_bucket = [f"{tmp_path.name}-2/images/00001.tar"], Store("s3://runs", s3_server)
    assert len(open_uploads(s3_server)) == 3
    for store in (killed, whole_bucket, Store(tmp_path)):
        end_old_uploads(store, min_age_s=1e9)
    assert whole_bucket.abort_uploads(0) == 0
    assert len(open_uploads(s3_server)) == 3 and not warnings_in(caplog)
    for _ in range(2):
        synthesize(killed, a_request(texts(2)), factory=FakeSynthesizer)
        assert open_uploads(s3_server) == others
    assert warnings_in(caplog) == [
        f"Removed what 2 writes of killed processes left in {killed.uri} more than 24 hours ago."
    ]


@pytest.mark.parametrize("call", ["list_multipart_uploads", "abort_multipart_upload"])
@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (403, "AccessDenied", "Access to {uri} was refused (AccessDenied). Check the credentials "),
        (501, "NotImplemented", "The store did not take the request for {uri} (NotImplemented)."),
    ],
)
def test_a_server_that_ends_no_uploads(
    killed, s3_server, monkeypatch, caplog, call, status, code, message
):
    """It is said once, and the run goes on."""
    client = killed._backend._client

    def refuse(**_):
        reply = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise client.exceptions.ClientError(reply, call)

    monkeypatch.setattr(client, call, refuse)
    summary = synthesize(killed, a_request(texts(2)), factory=FakeSynthesizer)
    assert summary.num_images == 4 and len(open_uploads(s3_server)) == 3
    (line,) = warnings_in(caplog)
    start = f"Uploads that killed processes left in {killed.uri}, if any, stay there: "
    assert line.startswith(start + message.format(uri=f"{killed.uri}/"))
    assert line.endswith("A lifecycle rule of the bucket can end them.") and "\n" not in line


def test_an_upload_that_someone_else_ends_first(killed, monkeypatch):
    client = killed._backend._client
    abort = client.abort_multipart_upload
    monkeypatch.setattr(
        client, "abort_multipart_upload", lambda **upload: (abort(**upload), abort(**upload))
    )
    assert killed.abort_uploads(0) == 0
    monkeypatch.undo()
    assert killed.abort_uploads(0) == 0


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
