import socket

import pytest
from metadata_server import metadata_server

from t2ipal.cloud import metadata
from t2ipal.cloud.metadata import Metadata


@pytest.fixture
def server():
    with metadata_server() as started:
        yield started


def test_values_are_read_with_one_token(server):
    server.values["placement/region"] = "eu-west-1"
    reader = Metadata(server.url)
    assert reader.read("placement/region") == "eu-west-1"
    assert reader.read("spot/instance-action") is None
    assert (server.count("PUT"), server.count("GET")) == (1, 2)


def test_a_token_is_renewed_before_it_ends_and_where_it_ended_early(server, monkeypatch):
    server.values["placement/region"] = "eu-west-1"
    now = [100.0]
    monkeypatch.setattr(metadata.time, "monotonic", lambda: now[0])  # the server's clock, too
    reader = Metadata(server.url, ttl_s=100)
    reader.read("placement/region")
    now[0] += 79
    assert reader.read("placement/region") == "eu-west-1"
    assert server.count("PUT") == 1
    now[0] += 2
    assert reader.read("placement/region") == "eu-west-1"
    assert server.count("PUT") == 2
    server.tokens.clear()  # the service began anew
    assert reader.read("placement/region") == "eu-west-1"
    assert [status for *_, status in server.requests if status != 200] == [401]
    server.tokens.clear()
    assert reader.read("spot/instance-action") is None


def test_what_the_service_demands_is_what_ec2_demands(server):
    assert server.get("/latest/meta-data/x", None)[0] == 401
    assert server.get("/latest/meta-data/x", "guess")[0] == 401
    assert [server.put("/latest/api/token", ttl)[0] for ttl in (None, "0", "21601", "x")] == [
        400
    ] * 4


def test_no_service(server, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(OSError, match="refused"):
        Metadata().read("placement/region")
    server.is_broken = True
    with pytest.raises(OSError, match="500"):
        Metadata(server.url).read("placement/region")
    with pytest.raises(ValueError, match=r"must be http://host, got 'file:///etc'"):
        Metadata("file:///etc")


def test_a_proxy_of_the_environment_is_not_asked(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert Metadata(server.url).read("placement/region") is None


def test_a_service_that_breaks_off(monkeypatch):
    monkeypatch.setattr(metadata, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reader = Metadata(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(OSError, match="timed out"):
            reader.read("x")
