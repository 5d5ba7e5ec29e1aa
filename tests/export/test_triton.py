from __future__ import annotations

import shutil

import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from kanoclip.export.triton import CONFIG, write_repository
from kanoclip.runtime.bundle.bundle import Bundle, sha256_of
from kanoclip.runtime.bundle.manifest.parts import EngineInfo, FileInfo
from kanoclip.runtime.bundle.manifest.schema import MODEL_FILE
from kanoclip.runtime.errors import ExportError

TYPES = {
    model_config_pb2.TYPE_UINT8: onnx.TensorProto.UINT8,
    model_config_pb2.TYPE_INT64: onnx.TensorProto.INT64,
    model_config_pb2.TYPE_FP32: onnx.TensorProto.FLOAT,
}


def shapes_that_triton_expects(config, tensor):
    """What Triton's ONNX backend compares with the graph: dims, reshaped, after the batch axis where there is one."""
    dims = list(tensor.reshape.shape) if tensor.HasField("reshape") else list(tensor.dims)
    return ([-1] if config.max_batch_size else []) + dims


@pytest.mark.parametrize("classes", [("bolt",), ("bolt", "nut")])
@pytest.mark.parametrize(("batch", "dynamic"), [(1, False), (4, False), (4, True)])
@pytest.mark.parametrize("grid", [None, (4, 8)])
def test_triton_reads_a_configuration_that_is_the_graphs(tmp_path, make_toy_bundle, classes, batch, dynamic, grid):
    folder = make_toy_bundle(
        tmp_path / "b" / "toy.kanoclip", classes=classes, max_batch=batch, dynamic=dynamic, grid=grid
    )
    (tmp_path / "models").mkdir()
    target = write_repository(Bundle.open(folder), tmp_path / "models")
    assert target == tmp_path / "models" / "toy"
    config = text_format.Parse((target / CONFIG).read_text(), model_config_pb2.ModelConfig())
    assert (config.name, config.backend) == ("toy", "onnxruntime")
    assert config.parameters["kanoclip_graph"].string_value == Bundle.open(folder).graph_digest()
    assert config.max_batch_size == (batch if dynamic else 0)
    assert config.HasField("dynamic_batching") is dynamic
    graph = onnx.load(target / "1" / MODEL_FILE).graph
    assert len(config.output) == (2 if grid is None else 3)
    for listed, found in ((config.input, graph.input), (config.output, graph.output)):
        assert [tensor.name for tensor in listed] == [value.name for value in found]
        for tensor, value in zip(listed, found, strict=True):
            assert TYPES[tensor.data_type] == value.type.tensor_type.elem_type
            shape = [axis.dim_value or -1 for axis in value.type.tensor_type.shape.dim]
            assert shapes_that_triton_expects(config, tensor) == shape, tensor.name
            assert len(tensor.dims) > 0, "Triton refuses a tensor without dims"
    assert sorted(path.name for path in target.rglob("*")) == ["1", CONFIG, MODEL_FILE]


def with_files(folder, make_toy_bundle, files, **changes):
    """A toy bundle with more files beside its graph."""
    make_toy_bundle(folder)
    listed = {MODEL_FILE: FileInfo(sha256_of(folder / MODEL_FILE), (folder / MODEL_FILE).stat().st_size)}
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        listed[name] = FileInfo(sha256_of(folder / name), len(content))
    return Bundle.open(make_toy_bundle(folder, files=listed, **changes))


def test_an_engine_of_full_tensorrt_is_served_as_a_plan(tmp_path, make_toy_bundle):
    engines = tuple(
        EngineInfo(f"engines/{f}.engine", f, "10.3.0", ("8.7",), "linux-aarch64") for f in ("tensorrt-rtx", "tensorrt")
    )
    files = {engine.file: engine.flavour.encode() for engine in engines}
    bundle = with_files(tmp_path / "toy.kanoclip", make_toy_bundle, files, engines=engines)
    target = write_repository(bundle, tmp_path)
    config = text_format.Parse((target / CONFIG).read_text(), model_config_pb2.ModelConfig())
    assert config.backend == "tensorrt"
    assert (target / "1" / "model.plan").read_bytes() == b"tensorrt", "an RTX engine is nothing that Triton loads"
    assert not (target / "1" / MODEL_FILE).exists()


def test_external_weights_go_along(tmp_path, make_toy_bundle):
    bundle = with_files(tmp_path / "toy.kanoclip", make_toy_bundle, {MODEL_FILE + ".data": b"weights"})
    target = write_repository(bundle, tmp_path)
    assert (target / "1" / (MODEL_FILE + ".data")).read_bytes() == b"weights"


def test_a_model_of_the_same_name_is_replaced_whole_and_anything_else_left_alone(tmp_path, make_toy_bundle):
    bundle = Bundle.open(make_toy_bundle(tmp_path / "b" / "toy.kanoclip"))
    models = tmp_path / "models"
    models.mkdir()
    target = write_repository(bundle, models)
    (target / "1" / "model.plan").write_bytes(b"old")
    write_repository(bundle, models)
    assert not (target / "1" / "model.plan").exists() and [path.name for path in models.iterdir()] == ["toy"]

    shutil.rmtree(target)
    target.mkdir()
    (target / "holiday.jpg").touch()
    with pytest.raises(ExportError, match="exists and is no Triton model"):
        write_repository(bundle, models)
    assert (target / "holiday.jpg").exists()


@pytest.mark.parametrize("name", ["line 3", "../up", "", "a/b"])
def test_names_that_no_url_can_hold(tmp_path, make_toy_bundle, name):
    bundle = Bundle.open(make_toy_bundle(tmp_path / "b" / "toy.kanoclip"))
    object.__setattr__(bundle.manifest, "name", name)
    with pytest.raises(ExportError, match="cannot be a Triton model's name"):
        write_repository(bundle, tmp_path)


def test_a_missing_repository(tmp_path, make_toy_bundle):
    bundle = Bundle.open(make_toy_bundle(tmp_path / "b" / "toy.kanoclip"))
    with pytest.raises(ExportError, match="is not a folder: make it first"):
        write_repository(bundle, tmp_path / "models")
