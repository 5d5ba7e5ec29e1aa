"""A model repository for NVIDIA Triton Inference Server, from a bundle.

    REPOSITORY/NAME/config.pbtxt
    REPOSITORY/NAME/1/model.onnx      or model.plan, where the bundle has an engine of full TensorRT

Triton takes frames at model size: `kanoclip.runtime.detect.preprocess.resize` is the client's part.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from kanoclip.export.staging import staged
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.schema import MODEL_FILE
from kanoclip.runtime.bundle.manifest.signature import BATCH, TensorSpec
from kanoclip.runtime.engines.triton.backend import GRAPH_PARAMETER, batches_by_itself
from kanoclip.runtime.errors import ExportError

CONFIG = "config.pbtxt"
VERSION = "1"
QUEUE_DELAY_US = 2000
"""How long Triton may hold a frame back to make a larger batch; a frame of a 30 Hz camera lasts 33,000."""
_TYPES = {"uint8": "TYPE_UINT8", "int64": "TYPE_INT64", "float32": "TYPE_FP32"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def check_repository(repository: Path, name: str) -> None:
    """Refuses, before any work, a place where no model can be put.

    Raises:
        ExportError: The name is none that a URL can hold, the folder is missing, or something else is there already.
    """
    if not _NAME.fullmatch(name):
        raise ExportError(f"'{name}' cannot be a Triton model's name: use letters, digits, '_', '-' and '.'")
    if not repository.is_dir():
        raise ExportError(f"{repository} is not a folder: make it first")
    if (repository / name).exists() and not (repository / name / CONFIG).is_file():
        raise ExportError(f"{repository / name} exists and is no Triton model: name another --triton")


def write_repository(bundle: Bundle, repository: Path) -> Path:
    """Puts a bundle's model into a repository, in place of an earlier one of its name.

    Args:
        bundle: What to serve. An engine of full TensorRT in it is served as a plan; else its ONNX graph is.
        repository: Folder that Triton is started with (`--model-repository`).

    Returns:
        The model's folder.

    Raises:
        ExportError: The bundle's name or the folder will not do, or it cannot be written.
    """
    manifest = bundle.manifest
    check_repository(repository, manifest.name)
    plan = next((engine.file for engine in manifest.engines if engine.flavour == "tensorrt"), None)
    target = repository / manifest.name
    with staged(target) as folder:
        (folder / VERSION).mkdir()
        if plan is not None:
            shutil.copyfile(bundle.file(plan), folder / VERSION / "model.plan")
        else:
            for name in manifest.files:
                if name == MODEL_FILE or name.startswith(MODEL_FILE + "."):  # and its external weights
                    shutil.copyfile(bundle.file(name), folder / VERSION / name)
        (folder / CONFIG).write_text(configuration(bundle, plan=plan is not None), encoding="utf-8")
    return target


def configuration(bundle: Bundle, *, plan: bool) -> str:
    """The model's `config.pbtxt`: Triton's ModelConfig in protobuf's text form.

    A dynamic batch axis is Triton's own (`max_batch_size`), and its scheduler fills it; a fixed one, and any beside a
    reference memory, is a part of the shapes. A parameter says which graph it is, so that boxes with another bundle
    notice.
    """
    manifest = bundle.manifest
    lines = [
        f'name: "{manifest.name}"',
        f'backend: "{"tensorrt" if plan else "onnxruntime"}"',
        f"max_batch_size: {manifest.max_batch if batches_by_itself(manifest) else 0}",
    ]
    for kind, specs in (("input", manifest.inputs), ("output", manifest.outputs)):
        items = ",\n".join(_tensor(spec, batched=batches_by_itself(manifest)) for spec in specs)
        lines.append(f"{kind} [\n{items}\n]")
    if batches_by_itself(manifest):
        lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY_US} }}")
    lines.append(f'parameters {{ key: "{GRAPH_PARAMETER}" value {{ string_value: "{bundle.graph_digest()}" }} }}')
    return "\n".join(lines) + "\n"


def _tensor(spec: TensorSpec, *, batched: bool) -> str:
    # Where Triton makes the batches, their axis is not a part of the shape.
    dims = [-1 if isinstance(axis, str) else axis for axis in spec.shape if not (batched and axis == BATCH)]
    # A value a frame has no axis but the batch's: Triton wants one, and takes it away again.
    reshape = " reshape { shape: [ ] }" if not dims else ""
    shape = ", ".join(map(str, dims or [1]))
    return f'  {{ name: "{spec.name}" data_type: {_TYPES[spec.dtype]} dims: [ {shape} ]{reshape} }}'
