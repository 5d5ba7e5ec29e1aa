"""pyarrow, imported where a table is touched and not before."""

from __future__ import annotations

from typing import Any

from kanoclip.runtime.errors import SourceError


def parquet() -> Any:
    """`pyarrow.parquet`.

    Raises:
        SourceError: It is not installed.
    """
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise SourceError("pyarrow is not installed: pip install 'kanoclip-edge[score]'") from error
    return pyarrow.parquet
