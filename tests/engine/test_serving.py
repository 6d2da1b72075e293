"""A recognizer as a service, where Ray Serve is installed: `pip install 't2ipal[serving]'`."""

import asyncio
import json
from pathlib import Path

import pytest
import yaml
from small_recognizer import NAMES, write_photographs, write_recognizers

from t2ipal.store import Store

serving = pytest.importorskip(
    "t2ipal.engine.serving",
    reason="Ray Serve is not installed: pip install 't2ipal[serving]'",
    exc_type=ImportError,
)


class Request:
    """One with a body, in two pieces."""

    def __init__(self, data):
        self.data = data

    async def stream(self):
        yield self.data[:10]
        yield self.data[10:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recognizer")
    write_recognizers(Store(folder), folder / "clip", num_seeds=1)
    write_photographs(Store(folder / "photographs"), 1)
    return folder


@pytest.fixture(scope="module")
def answer(folder):
    config = serving.ServiceConfig(str(folder / "t2ipal-seed0"))
    service = serving.Photographs.func_or_class(config)

    def answer(data):
        response = asyncio.run(service(Request(data)))
        return response.status_code, json.loads(response.body)

    return answer


def test_a_photograph_gets_its_labels(answer, folder):
    status, row = answer((folder / "photographs" / "0.png").read_bytes())
    assert (status, row["status"], row["reason"]) == (200, "ok", "")
    assert len(row["labels"]) == len(row["scores"]) == 3 and {*row["labels"]} <= {*NAMES}
    assert (row["width"], row["height"]) == (33, 50)


def test_what_is_no_photograph_is_refused_with_a_reason(answer, monkeypatch):
    assert answer(b"no picture at all")[0] == 422
    assert answer(b"no picture at all")[1]["reason"] == "not an image"
    monkeypatch.setattr(serving, "MAX_BYTES", 12)
    assert answer(b"no picture at all")[0] == 413


def test_the_arguments_of_the_manifest_are_taken():
    manifest = yaml.safe_load((Path(__file__).parents[2] / "kuberay/rayservice.yaml").read_text())
    (application,) = yaml.safe_load(manifest["spec"]["serveConfigV2"])["applications"]
    module, _, name = application["import_path"].partition(":")
    assert (module, name) == ("t2ipal.engine.serving", "app")
    assert serving.app(application["args"])
    (deployment,) = application["deployments"]
    assert deployment["name"] == serving.Photographs.name
    with pytest.raises(ValueError, match="Did you mean 'recognizer'"):
        serving.app({"recogniser": "x"})
    with pytest.raises(ValueError, match="must name a trained recognizer"):
        serving.app({})
