"""A GPU by the CUDA binding that is installed: cuda-python, else pycuda."""

from __future__ import annotations

from kanoclip.runtime.engines.tensorrt.device import Device
from kanoclip.runtime.errors import BackendError, one_line


def open_device(index: int) -> Device:
    """Opens a GPU.

    Args:
        index: CUDA's number.

    Raises:
        BackendError: No binding is installed, or there is no such GPU.
    """
    try:
        from kanoclip.runtime.engines.tensorrt.cuda_python import CudaPythonDevice
    except ImportError:
        try:
            from kanoclip.runtime.engines.tensorrt.pycuda import PycudaDevice
        except ImportError as error:
            raise BackendError(
                "no CUDA binding: pip install cuda-python (or build pycuda, on a JetPack without wheels for it)"
            ) from error
        return PycudaDevice(index)
    try:
        return CudaPythonDevice(index)
    except RuntimeError as error:  # cuda-python 12.6 where there is no libcuda, which a driver brings
        raise BackendError(f"CUDA cannot look for GPUs: {one_line(error)}: install NVIDIA's driver") from error
