"""Bundles of one model in several precisions: our own exports, and what NNCF makes of the same float32 graph."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from kanoclip.benchmarks.studies.graphs.vit_l import measured
from kanoclip.export.graph import DeployGraph
from kanoclip.export.onnx_writer import BatchSpec, write_onnx
from kanoclip.export.quantisation.quantize import quantizable
from kanoclip.runtime.bundle.bundle import Bundle, sha256_of
from kanoclip.runtime.bundle.manifest.parts import FileInfo
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME, MODEL_FILE
from kanoclip.runtime.types import Image
from kanoclip.train.checkpoint import LoadedModel

PLAIN = "fp32"
FORMS = (PLAIN, "int8", "int8-cpu")
NNCF_FORMS = ("nncf, heads ignored", "nncf, the same layers as ours")


def export(form: str, backbone: str, calibration: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Exports one form; its bundle and the gate's result."""
    bundle = folder / f"{form}.kanoclip"
    command = [sys.executable, "-m", "kanoclip.runtime.cli.main", "export", f"--{form}", "--output", str(bundle)]
    command += ["--json"]
    if backbone != "nano":
        # On good images only: which of a few images random weights like more is no matter of precision.
        command += ["--backbone", backbone, "--weights", "none", "--parity-images", str(calibration)]
        command += ["--parity-limit", "2"]
    if form != PLAIN:
        command += ["--calibration-images", str(calibration)]
    printed, cost = measured(command)
    parity = json.loads(printed)["parity"]
    return bundle, {"quantisation": parity["quantisation"], "export": cost}


def with_nncf(form: str, loaded: LoadedModel, frames: Sequence[Image], plain: Path) -> Path:
    """The same bundle with the graph that NNCF makes.

    Args:
        form: One of NNCF_FORMS.
        loaded: The model.
        frames: uint8 [h, w, 3], BGR, at model size: for calibration.
        plain: The float32 bundle.
    """
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, AdvancedSmoothQuantParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    bundle = plain.with_name(f"nncf-{NNCF_FORMS.index(form)}.kanoclip")
    shutil.copytree(plain, bundle)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plain.onnx"
        size = loaded.model.config.image_size
        write_onnx(DeployGraph(loaded.model, ["object"], "fp32"), size, BatchSpec(), 18, path, in_half=False)
        model = onnx.load(path)
        nodes = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm", "Conv")]
        ours = quantizable(model.graph)
    settings = None
    ignored = [node.name for node in model.graph.node if node.name.startswith("head")]
    if form == NNCF_FORMS[1]:
        ignored += [node.name for node in nodes if node.name not in ours and node.name not in ignored]
        settings = AdvancedQuantizationParameters(
            # It multiplies in the heads too, ignored or not.
            smooth_quant_alphas=AdvancedSmoothQuantParameters(matmul=-1, convolution=-1),
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
        )
    made = nncf.quantize(
        model,
        nncf.Dataset(list(frames), lambda frame: {"frame": frame[None]}),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(frames),
        ignored_scope=nncf.IgnoredScope(names=ignored),
        advanced_parameters=settings,
    )
    for path in bundle.glob(MODEL_FILE + "*"):
        path.unlink()
    onnx.save_model(made, bundle / MODEL_FILE, save_as_external_data=True, location=MODEL_FILE + ".data")
    names = [path for path in bundle.rglob("*") if path.is_file() and path.name != MANIFEST_NAME]
    files = {path.relative_to(bundle).as_posix(): FileInfo(sha256_of(path), path.stat().st_size) for path in names}
    manifest = replace(Bundle.open(plain).manifest, precision="int8-cpu", files=files)
    (bundle / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return bundle
