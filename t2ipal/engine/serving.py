"""A trained recognizer as a service of Ray Serve: POST a photograph, get its labels as JSON.

    serve run t2ipal.engine.serving:app recognizer=runs/demo/train/t2ipal-seed0
    curl --data-binary @photo.jpg http://127.0.0.1:8000/

It needs `pip install 't2ipal[serving]'`. It asks nobody who he is: who may connect is the network's
matter, as in kuberay/access.yaml.
"""

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

from ray import serve
from ray.serve import Application
from starlette.requests import Request
from starlette.responses import JSONResponse

from t2ipal.config import check_fields, override, require
from t2ipal.places import SharedUri, resolve_places
from t2ipal.recognition.bundle import Whereabouts
from t2ipal.recognition.predict import PredictionWork, Predictor
from t2ipal.store import store_and_key

MAX_BYTES = 64 * 2**20
"""Of a photograph: a request of endless length would fill the memory."""


@dataclass(frozen=True)
class ServiceConfig:
    """What is served."""

    recognizer: SharedUri = ""
    """Folder of a trained recognizer: a local path, or s3://."""
    device: str = "cpu"
    """Any torch device."""

    def __post_init__(self) -> None:
        check_fields(self)


@serve.deployment
class Photographs:
    """Answers each request with labels, scores and size of the photograph in its body."""

    def __init__(self, config: ServiceConfig):
        store, key = store_and_key(config.recognizer)
        where = Whereabouts(config.device)
        self.predictor = Predictor(PredictionWork(store, ((store, key),), where=where))

    async def __call__(self, request: Request) -> JSONResponse:
        """200 and the row of `t2ipal predict`; 422 with a reason where it is no photograph."""
        data = bytearray()
        async for piece in request.stream():
            data += piece
            if len(data) > MAX_BYTES:
                reason = f"A photograph has {MAX_BYTES} bytes at most."
                return JSONResponse({"status": "failed", "reason": reason}, 413)
        row = asdict(await asyncio.to_thread(self.predictor.look, bytes(data)))
        shown = {name: row[name] for name in ("labels", "scores", "width", "height")}
        told = {**shown, "status": row["status"], "reason": row["reason"]}
        return JSONResponse(told, 200 if row["status"] == "ok" else 422)


def app(args: dict[str, Any]) -> Application:
    """The service, as Ray Serve builds it from the `args` of its config file.

    Raises:
        ValueError: an unknown name, or no recognizer.
    """
    config = resolve_places(override(ServiceConfig(), args))
    require(bool(config.recognizer), "recognizer must name a trained recognizer, got none.")
    return Photographs.bind(config)
