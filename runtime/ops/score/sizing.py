"""How many engines a machine holds, and how far each should read ahead."""

from __future__ import annotations

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest import MODEL_FILE
from kanoclip.runtime.system.hardware import own_cores
from kanoclip.runtime.system.machine import available_bytes

WEIGHTS_TIMES = 6
"""Memory of an engine in sizes of its graph's files, beside `BASE`: ViT-L/14@336 took 4.0 GB at the most in OpenVINO
and 1.9 GB in ONNX Runtime (docs/measurements.md), and its weights are 0.6 GB where stored in half precision."""
BASE = 250 << 20
SHARE = 0.8
"""Of the memory that is free, what engines may take."""
REMOTE_READERS = 8
"""A network's answer takes its time, and little of a core's."""


def default_processes(bundle: Bundle, threads: int, gpu: bool) -> int:
    """One for each core that its threads leave, as memory allows; on a GPU one."""
    if gpu:
        return 1
    files = bundle.manifest.files
    weights = sum(info.size for name, info in files.items() if name.startswith(MODEL_FILE))
    free = available_bytes()
    room = own_cores() if free is None else int(SHARE * free / (BASE + WEIGHTS_TIMES * weights))
    return max(1, min(own_cores() // threads, room))


def default_readers(remote: bool, feeds: bool) -> int:
    """One for local files, whose decoding takes the core that the engine wants; more from afar, or to feed others.

    Args:
        remote: The pictures come over a network.
        feeds: The engine is no core of this machine, but its GPU or a server.
    """
    if remote:
        return REMOTE_READERS
    return own_cores() if feeds else 1
