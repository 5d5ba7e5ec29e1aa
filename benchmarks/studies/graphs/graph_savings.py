"""What each saving in the graph is worth: the graph that ships against the same graph without that one saving.

    python -m kanoclip.benchmarks.studies.graphs.graph_savings --output graph-savings-nano.json
    python -m kanoclip.benchmarks.studies.graphs.graph_savings --backbone vit-l-14-336 --tower-only --rounds 5

Each graph answers the same within the parity bound of float32, and that is checked. The plain image tower, CLIP as it
is, takes turns with them: what the local-aware path and the heads cost in time is its ratio.
"""

from __future__ import annotations

import copy
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import numpy as np
from torch import Tensor

from kanoclip.benchmarks.studies.graphs.flops import write_plain_tower
from kanoclip.benchmarks.studies.results import write_result
from kanoclip.export import onnx_writer
from kanoclip.export.graph import DeployGraph
from kanoclip.export.quantisation.calibration import plain_session
from kanoclip.export.work import gemm_flops
from kanoclip.runtime.bundle.tolerances import BOUNDS
from kanoclip.runtime.errors import KanoclipError
from kanoclip.train.backbones import get_backbone
from kanoclip.train.checkpoint import build_model, load_checkpoint
from kanoclip.train.model.bicmci import HEADS, RESIDUAL_SCALE, BiCMCI, TextState
from kanoclip.train.model.deformable import DeformableSelfAttention
from kanoclip.train.model.kanoclip import KAnoCLIP, ModelConfig, to_pixels
from kanoclip.train.model.layers import attention, merge_heads, split_heads
from kanoclip.train.model.towers.clip_vv import FinalBlock
from kanoclip.train.weights import CHECKPOINT, packaged
from kanoclip.train.weights.load import load_clip

SHIPPED, TOWER = "as it ships", "plain image tower"
ENGINES = ("onnxruntime", "openvino")


class WholeFinalBlock(FinalBlock):
    """The last block's original path for every token, of which the class token alone is read."""

    def forward(self, original: Tensor) -> tuple[Tensor, Tensor | None]:
        """As FinalBlock.forward."""
        normed = self.ln_1(original)
        assert self.q is not None and self.k is not None
        q, k, v = (split_heads(part(normed), self.heads) for part in (self.q, self.k, self.v))
        return v, self.residual(original, attention(q, k, v))[:, :1]


class ProjectingBiCMCI(BiCMCI):
    """Projects every patch to queries, keys and values of the cross-attentions, as fig. 3 draws it."""

    def forward(self, patches: Tensor, text: TextState) -> tuple[Tensor, Tensor]:
        """As BiCMCI.forward."""
        patches = patches + RESIDUAL_SCALE * self.deformable_out(self.deformable(self.deformable_norm(patches)))
        normed, words = self.cross_patch_norm(patches), self.cross_text_norm(text.tokens)
        q = split_heads(self.text_to_visual_q(normed), HEADS)
        k, v = (split_heads(part, HEADS) for part in self.text_to_visual_kv(words).chunk(2, dim=-1))
        seen = merge_heads(attention(q, k, v))
        q = split_heads(self.visual_to_text_q(words), HEADS)
        k, v = (split_heads(part, HEADS) for part in self.visual_to_text_kv(normed).chunk(2, dim=-1))
        read = merge_heads(attention(q, k, v))
        refined_patches = patches + RESIDUAL_SCALE * self.text_to_visual_out(seen)
        return refined_patches, text.tokens + RESIDUAL_SCALE * self.visual_to_text_out(read)


class UnfoldedGraph(DeployGraph):
    """Normalises pixels and moves the channels before the first convolution, as torchvision's transform does."""

    def forward(self, frame: Tensor, class_index: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """As DeployGraph.forward, of one class."""
        assert class_index is None
        pixels, stem = to_pixels(frame), self.plain.stem
        features = None if stem is None else stem.read(pixels)
        if stem is None or features is None:
            image = self.tower.encode(self.plain.embed(pixels))
        else:
            patches, distance = stem(features)
            image = self.tower.encode(self.plain.place(patches), distance)
        output = self.head(image, self.text, self.text_states(None))
        return output.map, output.score, self.front.describe(self.tower, image, features)


def whole_final_block(graph: DeployGraph, model: KAnoCLIP) -> None:
    """The last block of the original path in full."""
    assert graph.tower.final is not None
    graph.tower.final.__class__ = WholeFinalBlock


def projected_cross_attentions(graph: DeployGraph, model: KAnoCLIP) -> None:
    """Bi-CMCI's cross-attentions over projected patches."""
    for stage in graph.head.stages:
        stage.__class__ = ProjectingBiCMCI


def elementwise_deformable(graph: DeployGraph, model: KAnoCLIP) -> None:
    """The deformable attention matrix summed point by point, as half-precision graphs need it."""
    for part in graph.modules():
        if isinstance(part, DeformableSelfAttention):
            part.elementwise = True


def elementwise_smoothing(graph: DeployGraph, model: KAnoCLIP) -> None:
    """Upsampling and Gaussian as multiplications and sums, as half-precision graphs need it."""
    graph.head.smoothing.elementwise = True


def unfolded_preprocessing(graph: DeployGraph, model: KAnoCLIP) -> None:
    """Channel order, mean and std as operators before the first convolution."""
    graph.plain = copy.deepcopy(model.tower)
    graph.__class__ = UnfoldedGraph


def nothing(graph: DeployGraph, model: KAnoCLIP) -> None:
    """The graph as it ships."""


@dataclass(frozen=True)
class Saving:
    """One saving.

    Attributes:
        undo: Takes it out of a deploy graph.
        rewrite: Name of the pass after the export that makes it, which is left out instead.
    """

    undo: Callable[[DeployGraph, KAnoCLIP], None] = nothing
    rewrite: str | None = None


SAVINGS = {
    SHIPPED: Saving(),
    "last block of the original path for the class token alone": Saving(whole_final_block),
    "products with text tokens made once per class": Saving(projected_cross_attentions),
    "deformable attention as a product of hats": Saving(elementwise_deformable),
    "upsampling and Gaussian as one pair of matrices": Saving(elementwise_smoothing),
    "preprocessing folded into the patch product": Saving(unfolded_preprocessing),
    "GELU in the order that engines fuse": Saving(rewrite="reorder_gelu"),
    "transposed constants folded": Saving(rewrite="fold_transpositions"),
}


def write_graphs(model: KAnoCLIP, folder: Path, savings: Mapping[str, Saving]) -> dict[str, Path]:
    """Writes the float32 graph as it ships and without each saving, and the plain tower.

    Args:
        model: What to export.
        folder: For the files.
        savings: The first one is the graph as it ships.

    Raises:
        KanoclipError: One answers otherwise than the graph that ships.
    """
    size = model.config.image_size
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    paths: dict[str, Path] = {}
    answers: list[list[np.ndarray]] = []
    for number, (name, saving) in enumerate(savings.items()):
        paths[name] = folder / f"graph-{number}.onnx"
        graph = DeployGraph(model, ["object"], "fp32")
        saving.undo(graph, model)
        with patch.object(onnx_writer, saving.rewrite or "reorder_gelu", _unless(saving.rewrite)):
            onnx_writer.write_onnx(graph, size, onnx_writer.BatchSpec(), 18, paths[name])
        del graph
        answers.append(plain_session(str(paths[name]), 1)(frame, ["map", "score"]))
        drift = max(float(np.abs(a - b).max()) for a, b in zip(answers[0], answers[-1], strict=True))
        if not drift <= BOUNDS["fp32"].score:
            raise KanoclipError(f"the graph without '{name}' answers otherwise: {drift:.1e}")
    paths[TOWER] = folder / "tower.onnx"
    clip, _ = load_clip(get_backbone(model.config.backbone), "none")
    write_plain_tower(clip.visual, size, paths[TOWER])
    return paths


def _unless(rewrite: str | None) -> Callable[[Any], None]:
    return onnx_writer.reorder_gelu if rewrite is None else lambda graph: None


def runner(engine: str, path: Path, size: tuple[int, int], threads: int) -> Callable[[], object]:
    """Runs a graph on one frame, or a plain tower on one image.

    Args:
        engine: One of ENGINES.
        path: The ONNX file.
        size: (height, width).
        threads: Of the CPU.
    """
    rng = np.random.default_rng(0)
    frame: np.ndarray = rng.integers(0, 256, (1, *size, 3), dtype=np.uint8)
    if path.stem == "tower":
        frame = rng.standard_normal((1, 3, *size)).astype(np.float32)
    if engine == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda: session.run(None, {name: frame})
    from kanoclip.runtime.engines.openvino import shared_core

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    request = shared_core().compile_model(str(path), "CPU", settings).create_infer_request()
    return lambda: request.infer([frame])


def measure(paths: dict[str, Path], engine: str, size: tuple[int, int], threads: int, rounds: int) -> dict[str, Any]:
    """Milliseconds in turns, and how many times the graph that ships: the median of the rounds' ratios.

    Args:
        paths: Graphs; the first is the one that the others are compared with.
        engine: One of ENGINES.
        size: (height, width).
        threads: Of the CPU.
        rounds: Turns of each.
    """
    runs = {name: runner(engine, path, size, threads) for name, path in paths.items()}
    for run in runs.values():
        run()
        run()
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            spent[name].append((time.perf_counter() - started) * 1e3)
    shipped = np.array(spent[SHIPPED])
    return {
        name: {"median_ms": float(np.median(times)), "ratio": float(np.median(np.array(times) / shipped))}
        for name, times in spent.items()
    }


@click.command()
@click.option("--backbone", default="nano", show_default=True, help="nano with its weights, another one seeded.")
@click.option("--rounds", type=click.IntRange(min=1), default=40, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--tower-only", is_flag=True, help="Only the graph that ships and the plain tower, as memory allows for ViT-L."
)
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(backbone: str, rounds: int, threads: int, tower_only: bool, output: Path | None) -> None:
    """Measure the float32 graph without each of its savings, in ONNX Runtime and OpenVINO on the CPU."""
    if backbone == "nano":
        model = load_checkpoint(packaged(CHECKPOINT), "auto").model
    else:
        model = build_model(ModelConfig(backbone, get_backbone(backbone).native_size), "none").model
    size = model.config.image_size
    with tempfile.TemporaryDirectory() as folder:
        paths = write_graphs(model, Path(folder), {SHIPPED: SAVINGS[SHIPPED]} if tower_only else SAVINGS)
        gflop = {name: sum(gemm_flops(path).values()) / 1e9 for name, path in paths.items()}
        engines = {engine: measure(paths, engine, size, threads, rounds) for engine in ENGINES}
    tower = {engine: found[SHIPPED]["median_ms"] / found[TOWER]["median_ms"] for engine, found in engines.items()}
    result = {
        "backbone": backbone,
        "threads": threads,
        "rounds": rounds,
        "without": {
            name: {
                "gflop": gflop[name],
                "gflop_ratio": gflop[name] / gflop[SHIPPED],
                **{engine: found[name] for engine, found in engines.items()},
            }
            for name in paths
        },
        "graph_to_plain_tower": {"gflop": gflop[SHIPPED] / gflop[TOWER], **tower},
    }
    click.echo(json.dumps(result, indent=2))
    if output is not None:
        write_result(output, result)


if __name__ == "__main__":
    main()
