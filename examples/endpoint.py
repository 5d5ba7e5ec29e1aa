"""An HTTP endpoint: `python examples/endpoint.py 8000`, then `curl --data-binary @part.jpg localhost:8000/score`.

It needs starlette and uvicorn. FastAPI is built on Starlette: `FastAPI(routes=routes)` serves the same route.
"""

import sys
import threading
from dataclasses import asdict

import cv2
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from kanoclip.runtime import Detection, Detector

detector = Detector.load()
one_at_a_time = threading.Lock()  # no more threads may use a detector than it has workers


def infer(body: bytes) -> Detection | None:
    """Scores an encoded image; None where it is none."""
    image = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR) if body else None
    if image is None:
        return None
    with one_at_a_time:
        return detector(image)


async def score(request: Request) -> JSONResponse:
    """POST /score with an image as the body."""
    found = await run_in_threadpool(infer, await request.body())
    if found is None:
        return JSONResponse({"error": "the body is no image"}, 400)
    regions = [asdict(region) for region in found.regions]
    return JSONResponse({"score": found.score, "is_anomalous": found.is_anomalous, "regions": regions})


routes = [Route("/score", score, methods=["POST"])]
if __name__ == "__main__":
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
