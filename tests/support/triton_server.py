"""A server that speaks Triton's gRPC protocol and runs a repository's model in ONNX Runtime.

    python triton_server.py REPOSITORY PORT [KEY CERTIFICATE]

It reads config.pbtxt as Triton does: the batch axis is its own where max_batch_size is set, and a tensor with a reshape
has an axis on the wire that the graph does not have. Prints `ready`. No Triton: it knows one version and no scheduler.
"""

import sys
import time
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

NUMPY = {"TYPE_UINT8": np.uint8, "TYPE_INT64": np.int64, "TYPE_FP32": np.float32}


class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Knobs: `delay_s` before each answer, `version` and `forget` (outputs left out) of what is told."""

    def __init__(self, repository):
        self.repository = Path(repository)
        self.delay_s, self.version, self.forget, self.asked = 0.0, "1", (), []
        self.fetched = []
        """Names of the outputs that each request wants."""
        self._sessions = {}

    def _config(self, request, context):
        name = getattr(request, "model_name", "") or request.name
        folder = self.repository / name
        if not (folder / "config.pbtxt").is_file():
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found")
        text = (folder / "config.pbtxt").read_text()
        return folder, text_format.Parse(text, model_config_pb2.ModelConfig())

    def ModelMetadata(self, request, context):
        _, config = self._config(request, context)

        def told(tensors):
            for tensor in tensors:
                shape = ([-1] if config.max_batch_size else []) + list(tensor.dims)
                name = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
                yield service_pb2.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=name, shape=shape)

        return service_pb2.ModelMetadataResponse(
            name=config.name,
            versions=[self.version],
            platform="onnxruntime_onnx",
            inputs=told(config.input),
            outputs=told(config.output),
        )

    def ModelConfig(self, request, context):
        return service_pb2.ModelConfigResponse(config=self._config(request, context)[1])

    def ModelInfer(self, request, context):
        folder, config = self._config(request, context)
        time.sleep(self.delay_s)
        if request.model_version not in ("", self.version):
            context.abort(grpc.StatusCode.NOT_FOUND, f"version {request.model_version} is not available")
        inputs = {}
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            listed = next(one for one in config.input if one.name == tensor.name)
            shape = list(tensor.shape)
            own = shape[1 if config.max_batch_size else 0 :]
            fits = [axis in (-1, side) for axis, side in zip(listed.dims, own, strict=False)]
            if len(own) != len(listed.dims) or not all(fits) or 0 < config.max_batch_size < shape[0]:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"unexpected shape {shape} for input '{tensor.name}'")
            values = np.frombuffer(raw, NUMPY[model_config_pb2.DataType.Name(listed.data_type)])
            inner = list(listed.reshape.shape) if listed.HasField("reshape") else own
            inputs[tensor.name] = values.reshape(([shape[0]] if config.max_batch_size else []) + inner)
        self.asked.append(len(inputs["frame"]))
        path = folder / "1" / "model.onnx"
        key = path, path.stat().st_mtime_ns
        if key not in self._sessions:
            self._sessions[key] = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.fetched.append([one.name for one in request.outputs])
        names = [one.name for one in request.outputs if one.name not in self.forget]
        answer = service_pb2.ModelInferResponse(model_name=config.name, model_version=self.version)
        found = self._sessions[key].run(names, inputs) if names else []  # none named would be all
        for name, value in zip(names, found, strict=True):
            listed = next(one for one in config.output if one.name == name)
            shape = [len(value), *listed.dims] if config.max_batch_size else list(value.shape)
            kind = model_config_pb2.DataType.Name(listed.data_type).removeprefix("TYPE_")
            answer.outputs.add(name=name, datatype=kind, shape=shape)
            answer.raw_output_contents.append(np.ascontiguousarray(value).tobytes())
        return answer


def serve(repository, port=0, credentials=None):
    """Starts it; returns the server, its service and its port."""
    # Another server may not take the same port beside it, as gRPC would let it.
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
    service = Service(repository)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    address = f"127.0.0.1:{port}"
    bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    return server, service, bound


if __name__ == "__main__":
    pair = tuple(Path(name).read_bytes() for name in sys.argv[3:5])
    running, _, _ = serve(sys.argv[1], int(sys.argv[2]), grpc.ssl_server_credentials([pair]) if pair else None)
    print("ready", flush=True)
    running.wait_for_termination()
