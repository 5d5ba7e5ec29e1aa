"""Tensors out of torch's zip archives, TorchScript's among them, without executing anything of theirs.

Both kinds hold a pickle of how the tensors are arranged, and each tensor's bytes in a file of its own. The pickle is
read by an unpickler that knows tensors, plain containers and the names of TorchScript's modules, which become
dictionaries: it imports nothing, and calls nothing but what stands below.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LISTS = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist")


class ArchiveError(Exception):
    """What is wrong with an archive, in words that follow the file's name."""


class TensorError(ArchiveError):
    """Tensors of the right shapes whose numbers cannot be used; the message has the remedy."""


class ScriptModule:
    """A module of TorchScript: what it held, and none of its code."""

    def __init__(self) -> None:
        self.held: Mapping[str, Any] = {}

    def __setstate__(self, held: Any) -> None:
        if not isinstance(held, Mapping):
            raise ArchiveError("holds a TorchScript module of an unknown form")
        self.held = held


@dataclass(frozen=True)
class _Storage:
    """A tensor's bytes, not read yet."""

    key: str
    dtype: torch.dtype
    elements: int


def read_archive(path: Path) -> tuple[Any, bool]:
    """Reads a zip archive that torch.save or torch.jit.save has written.

    Returns:
        What was pickled, with `ScriptModule` for modules, and whether it is TorchScript.

    Raises:
        ArchiveError: It is cut short, of another kind, or holds anything but tensors and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
            if len(pickles) != 1:
                kind = "numpy's arrays (.npz)" if any(n.endswith(".npy") for n in names) else "something else"
                raise ArchiveError(f"is a zip archive of {kind}, not of torch")
            root = pickles[0].removesuffix("data.pkl")
            read = [entry for entry in archive.infolist() if entry.filename.startswith((pickles[0], f"{root}data/"))]
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in read):
                # Its size in memory would have no bound; only TorchScript's code is compressed by torch.
                raise ArchiveError("holds compressed tensors, which torch does not write: save it again with torch")
            if f"{root}byteorder" in names and archive.read(f"{root}byteorder").strip() != b"little":
                raise ArchiveError("was written on a big-endian machine: save it again on another")
            reader = _Unpickler(io.BytesIO(archive.read(pickles[0])), lambda key: archive.read(f"{root}data/{key}"))
            return reader.load(), f"{root}constants.pkl" in names
    except ArchiveError:
        raise
    except (zipfile.BadZipFile, EOFError, KeyError, OSError, RuntimeError) as error:
        raise ArchiveError("is cut short or damaged: copy it again") from error
    except Exception as error:  # a pickle that is no pickle raises whatever its bytes happen to mean
        raise ArchiveError("is no archive of tensors that can be read: save its state_dict again with torch") from error


class _Unpickler(pickle.Unpickler):
    """Knows tensors and no other object."""

    def __init__(self, file: io.BytesIO, read: Callable[[str], bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        self._read = read
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return self._tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return lambda tensor, *_: tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch.jit._pickle" and name in _LISTS:
            return list
        if module == "torch.jit._pickle" and name == "restore_type_tag":
            return lambda value, _: value
        if module == "__torch__" or module.startswith("__torch__."):
            return ScriptModule
        raise ArchiveError(
            f"holds a pickled {module}.{name}, which is not executed: save the model's state_dict (tensors alone) again"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, elements = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or type(elements) is not int:
            raise ArchiveError("holds a tensor of an unknown kind: save its state_dict again with torch")
        return _Storage(str(key), dtype, elements)

    def _tensor(self, storage: _Storage, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
        if storage.key not in self._storages:
            content = bytearray(self._read(storage.key))
            if len(content) != storage.elements * storage.dtype.itemsize:
                raise ArchiveError("is cut short or damaged: copy it again")
            empty = torch.empty(0, dtype=storage.dtype)
            self._storages[storage.key] = torch.frombuffer(content, dtype=storage.dtype) if content else empty
        if math.prod(size) > storage.elements:
            # Rows that lie on each other: what is joined or copied later would have no bound.
            raise ArchiveError("holds a tensor that is larger than its bytes: save its state_dict again with torch")
        # as_strided refuses what lies outside of the storage.
        return self._storages[storage.key].as_strided(tuple(size), tuple(stride), offset)
