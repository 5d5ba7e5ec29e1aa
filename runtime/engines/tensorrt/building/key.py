"""What an engine is tied to: no engine runs anywhere else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import EngineInfo
from kanoclip.runtime.engines.tensorrt.device import DeviceInfo, platform_name
from kanoclip.runtime.engines.tensorrt.flavour import Flavour


@dataclass(frozen=True)
class EngineKey:
    """Identity of an engine that is built on the machine that runs it.

    Attributes:
        flavour: `tensorrt` or `tensorrt-rtx`.
        version: Exact; an engine of another one does not load.
        model: Digest of the graph and its weights.
        max_batch: Largest batch of its profile.
        platform: Operating system and architecture.
        compute_capability: Of the GPU.
        device: Name of the GPU; None for RTX, whose engines run on all GPUs of their list of targets.
        cuda_major: Of TensorRT's CUDA; None for RTX.
        memory_rows: Rows of a reference memory; None where the graph takes none.
    """

    flavour: str
    version: str
    model: str
    max_batch: int
    platform: str
    compute_capability: str
    device: str | None
    cuda_major: int | None
    memory_rows: int | None = None

    @property
    def stem(self) -> str:
        """File name in the cache, without a suffix: readable first, then unmistakable."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.flavour}-{self.version}-{short_name(self.compute_capability)}-{digest[:20]}"


def engine_key(bundle: Bundle, flavour: Flavour, gpu: DeviceInfo) -> EngineKey:
    """The key of a bundle's engine on a GPU."""
    return EngineKey(
        flavour=flavour.name,
        version=flavour.version,
        model=bundle.graph_digest(),
        max_batch=bundle.manifest.max_batch,
        platform=platform_name(),
        compute_capability=gpu.compute_capability,
        device=None if flavour.is_rtx else gpu.name,
        cuda_major=None if flavour.is_rtx else cuda_major(flavour, gpu),
        memory_rows=None if bundle.manifest.memory is None else bundle.manifest.memory.rows,
    )


def cuda_major(flavour: Flavour, gpu: DeviceInfo) -> int:
    """What an engine of full TensorRT is tied to: TensorRT's CUDA, or where nothing tells it, the binding's."""
    return gpu.cuda_major if flavour.cuda_major is None else flavour.cuda_major


def short_name(capability: str) -> str:
    """A compute capability in a file's name: `8.9` is `sm89`."""
    return "sm" + capability.replace(".", "")


def runs_on(engine: EngineInfo, flavour: Flavour, gpu: DeviceInfo) -> bool:
    """Whether an engine that travels with a bundle was built for this TensorRT and this GPU.

    An engine cannot be asked: without its own GPU TensorRT calls each one invalid, and a wrong one may crash.
    """
    if (engine.flavour, engine.version, engine.platform) != (flavour.name, flavour.version, platform_name()):
        return False
    if flavour.is_rtx:
        return gpu.compute_capability in engine.compute_capabilities
    if engine.cuda_major != cuda_major(flavour, gpu):
        return False
    if engine.compatibility == "ampere-plus":
        # Not for JetPack: TensorRT's notes leave integrated GPUs out.
        return not gpu.integrated and capability_number(gpu.compute_capability) >= (8, 0)
    same_generation = gpu.compute_capability in engine.compute_capabilities
    return same_generation and (engine.compatibility == "same-compute-capability" or engine.device == gpu.name)


def capability_number(capability: str) -> tuple[int, ...]:
    """`8.9` as (8, 9), which can be compared."""
    return tuple(int(part) for part in capability.split("."))
