"""A model on NVIDIA Triton Inference Server, by gRPC: many boxes share one server's GPU.

The bundle stays on the box: it says how frames are prepared and scored, and what the server has to have.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.schema import Manifest
from kanoclip.runtime.bundle.manifest.signature import BATCH, ROWS, TensorSpec
from kanoclip.runtime.engines.base import FetchingBackend
from kanoclip.runtime.engines.inputs import Floats, Inputs
from kanoclip.runtime.engines.triton.address import TritonAddress
from kanoclip.runtime.errors import BackendError, StoppedWaitingError, one_line
from kanoclip.runtime.system.backoff import Backoff

GRAPH_PARAMETER = "kanoclip_graph"
"""`kanoclip-export --triton` writes the graph's digest under this name into the model's configuration."""
_TYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}
_AWAY = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED")
"""Of a server that is away, starting, loading the model, or has a full queue; it may come back."""
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.05, 1.0

T = TypeVar("T")

log = logging.getLogger(__name__)


class TritonBackend(FetchingBackend):
    """One model of one server. While that is away every call waits, for up to `wait_s`."""

    def __init__(self, bundle: Bundle, address: TritonAddress, workers: int = 1) -> None:
        """Connects, and checks that the server has this bundle's model.

        Args:
            bundle: What is to be run.
            address: Where.
            workers: How many threads may send requests at a time.

        Raises:
            BackendError: tritonclient is not installed, nobody answers within `wait_s`, or the model is another.
        """
        self._grpc = _import_client()
        self._hurried = threading.Event()
        self._bundle, self._address = bundle, address
        self.name, self.workers = str(address), workers
        # gRPC's own pauses between attempts to connect grow to two minutes.
        pauses = [(f"grpc.{which}_reconnect_backoff_ms", ms) for which, ms in (("initial", 100), ("min", 1000))]
        self._client: Any = self._grpc.InferenceServerClient(
            address.target,
            ssl=address.tls,
            channel_args=[
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_reconnect_backoff_ms", 1000),
                *pauses,
            ],
        )
        try:
            self._version = self._patiently(self._check)
        except BackendError:
            self.close()
            raise

    def _fetch(self, names: Sequence[str], inputs: Inputs) -> list[Floats]:
        """The outputs of these names for one batch; no others are sent over the network."""
        if self._client is None:
            raise BackendError(f"{self.name} is closed: load the bundle again")
        values = inputs.arrays()
        result = self._patiently(lambda: self._infer(values, names))
        if self._answered_by(result) != self._version:
            # The server took up another version of the model: is it still this bundle's?
            self._version = self._patiently(self._check)
            result = self._patiently(lambda: self._infer(values, names))
        outputs = []
        for spec in (spec for name in names for spec in self._bundle.manifest.outputs if spec.name == name):
            value = result.as_numpy(spec.name)
            shape = (len(inputs.frames), *map(int, spec.shape[1:]))
            if value is None or value.dtype != spec.dtype or value.size != math.prod(shape):
                raise BackendError(f"{self.name} gave no {spec.name} of {shape}: serve the bundle's own model")
            outputs.append(value.reshape(shape))
        return outputs

    def stop_waiting(self) -> None:
        """See `Backend.stop_waiting`."""
        self._hurried.set()

    def close(self) -> None:
        """Closes the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _infer(self, values: dict[str, Any], names: Sequence[str]) -> Any:
        inputs = []
        for spec in self._bundle.manifest.inputs:
            value = values[spec.name]
            # A value a frame has an axis of its own on the server: see `kanoclip.export.triton`.
            shape = (
                [len(value), 1] if batches_by_itself(self._bundle.manifest) and value.ndim == 1 else list(value.shape)
            )
            tensor = self._grpc.InferInput(spec.name, shape, _TYPES[spec.dtype])
            tensor.set_data_from_numpy(value.reshape(shape))
            inputs.append(tensor)
        return self._client.infer(
            self._address.model,
            inputs,
            model_version=self._address.version,
            outputs=[self._grpc.InferRequestedOutput(name) for name in names],
            client_timeout=self._address.timeout_s,
        )

    def _answered_by(self, result: Any) -> str:
        return str(result.get_response().model_version)

    def _check(self) -> str:
        """Compares what the server says of its model with the manifest; returns the version that answers."""
        where, manifest, timeout_s = self._address, self._bundle.manifest, self._address.timeout_s
        reported = self._client.get_model_metadata(where.model, where.version, client_timeout=timeout_s)
        config = self._client.get_model_config(where.model, where.version, client_timeout=timeout_s).config
        for kind, wanted, found in (
            ("inputs", manifest.inputs, reported.inputs),
            ("outputs", manifest.outputs, reported.outputs),
        ):
            expected = {spec.name: (_TYPES[spec.dtype], self._shape(spec)) for spec in wanted}
            served = {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in found}
            if served != expected:
                raise BackendError(
                    f"{self.name} has the {kind} {_words(served)}, and the bundle {_words(expected)}: serve this "
                    "bundle's model, as kanoclip-export --triton writes it"
                )
        if batches_by_itself(manifest) and config.max_batch_size < manifest.max_batch:
            raise BackendError(
                f"{self.name} takes batches of up to {config.max_batch_size}, the bundle gives up to "
                f"{manifest.max_batch}: serve it as kanoclip-export --triton writes it"
            )
        digest = config.parameters[GRAPH_PARAMETER].string_value if GRAPH_PARAMETER in config.parameters else None
        if digest is None:
            log.warning(
                "%s does not say which bundle its model is of (no parameter %s): that it is this one's is only assumed",
                self.name,
                GRAPH_PARAMETER,
            )
        elif digest != self._bundle.graph_digest():
            raise BackendError(
                f"{self.name} serves another bundle's model (graph {digest[:12]}, and not "
                f"{self._bundle.graph_digest()[:12]}): give the server and this box the same bundle"
            )
        return where.version or max(reported.versions, key=_number, default="")

    def _shape(self, spec: TensorSpec) -> list[int]:
        """A tensor's shape as Triton tells it: a value a frame has an axis of its own where Triton makes batches."""
        shape = [-1 if axis in (BATCH, ROWS) else int(axis) for axis in spec.shape]
        return [*shape, 1] if shape == [-1] and batches_by_itself(self._bundle.manifest) else shape

    def _patiently(self, request: Callable[[], T]) -> T:
        """Asks again while the server is away; a server that is back is checked before it is asked anything else.

        Raises:
            StoppedWaitingError: `stop_waiting` was called.
            BackendError: It stays away for longer than `wait_s`, refuses, or came back with another model.
        """
        from tritonclient.utils import InferenceServerException

        since: float | None = None
        pauses = Backoff(_FIRST_PAUSE_S, _LAST_PAUSE_S, scatter=0.0).waits()
        while True:
            try:
                if since is not None and request != self._check:
                    self._version = self._check()
                answer = request()
            except InferenceServerException as error:
                now = time.monotonic()
                reason = one_line(f"{error.message()} ({str(error.status()).removeprefix('StatusCode.')})")
                if error.status() not in _AWAY:
                    raise BackendError(f"{self.name} refuses: {reason}") from error
                if since is None:
                    since = now
                    log.warning(
                        "%s does not answer: %s; asking again for %g s", self.name, reason, self._address.wait_s
                    )
                if now - since >= self._address.wait_s:
                    raise BackendError(
                        f"{self.name} has not answered for {now - since:.0f} s: {reason}; is the server up, and its "
                        "model loaded?"
                    ) from error
                if self._hurried.wait(next(pauses)):
                    raise StoppedWaitingError(f"{self.name} was away when the run ended: {reason}") from error
            except (ValueError, RuntimeError) as error:  # a closed channel, from another thread
                raise BackendError(f"{self.name} failed: {one_line(error)}") from error
            else:
                if since is not None:
                    log.warning("%s answers again after %.1f s", self.name, time.monotonic() - since)
                return answer


def batches_by_itself(manifest: Manifest) -> bool:
    """Whether Triton's scheduler may put several boxes' frames into one batch.

    It cannot where the graph takes a reference memory: that has no batch axis, and each box has its own.
    """
    return manifest.dynamic_batch and manifest.memory is None


def _number(version: str) -> int:
    return int(version) if version.isdecimal() else 0


def _words(tensors: dict[str, tuple[str, list[int]]]) -> str:
    """Tensors in a message."""
    return ", ".join(f"{name} {kind} {shape}" for name, (kind, shape) in sorted(tensors.items())) or "none"


def _import_client() -> Any:
    try:
        import tritonclient.grpc
    except ImportError as error:
        raise BackendError("--backend triton:// needs tritonclient: pip install 'kanoclip-edge[triton]'") from error
    return tritonclient.grpc
