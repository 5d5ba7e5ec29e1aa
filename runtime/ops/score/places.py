"""Where an image lies, a path or a URL, and how its bytes come from there."""

from __future__ import annotations

import re
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from kanoclip.runtime.errors import SourceError, one_line
from kanoclip.runtime.sources.files.images import too_long
from kanoclip.runtime.sources.files.reading import AS_IT_IS, Reading
from kanoclip.runtime.system.files.regular import read_regular
from kanoclip.runtime.system.net import has_secret

PAUSES_S = (0.2, 1.0, 3.0)
"""Before each further try of what a network gave no answer to."""
_LOGIN = re.compile(r"[^:]+://[^/@:?#]*:[^@]*@")
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


def is_url(place: str) -> bool:
    """Whether a place is read through fsspec rather than from this machine's own folders."""
    return _URL.match(place) is not None


def filesystem_of(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URL, and the URL's path in it.

    Raises:
        SourceError: fsspec or the library for this kind of URL is missing, the URL is none, or holds a password, which
            would end up in the table.
    """
    # Not by parsing alone: a `#`, `/` or `?` in a password ends what a parser takes for the host.
    if _LOGIN.match(url) is not None or has_secret(f"http://host/?{url.partition('?')[2]}"):
        kind = url.partition(":")[0]
        raise SourceError(f"{kind}://: no password in a URL, for results hold it: let its library find it")
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise SourceError(f"{url}: fsspec is not installed: pip install 'kanoclip-edge[score]'") from error
    try:
        # What was listed is dropped at once: a bucket may list a million names.
        filesystem, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError, OSError) as error:
        raise SourceError(f"{url} cannot be opened ({one_line(error)})") from error
    return filesystem, str(path)


@lru_cache(maxsize=16)
def _of_root(root: str) -> Any:
    return filesystem_of(root)[0]


def read_bytes(place: str, reading: Reading = AS_IT_IS) -> bytes | str:
    """An image file's bytes, or the reason why it cannot be read: for one, that it is larger than an image may be.

    A network that gives no answer is asked again, as `PAUSES_S` says. A file that is not there, or is refused, is not.
    """
    if not is_url(place):
        try:
            raw = read_regular(Path(place), reading.max_bytes)
            return too_long(reading) if raw is None else raw
        except OSError as error:
            return error.strerror or "cannot be read"
    try:
        raw = _fetch(place, reading.max_bytes)
        return too_long(reading) if raw is None else raw
    except Exception as error:  # each store's library has errors of its own
        words = error.strerror if isinstance(error, OSError) else None
        return words or one_line(error) or type(error).__name__


def _fetch(url: str, limit: int) -> bytes | None:
    """None for more bytes than the limit."""
    scheme, _, rest = url.partition("://")
    filesystem = _of_root(f"{scheme}://{rest.partition('/')[0]}")
    path = filesystem._strip_protocol(url)
    for pause in PAUSES_S:
        try:
            return _cat(filesystem, path, limit)
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            raise
        except Exception:  # each store's library has errors of its own
            time.sleep(pause)
    return _cat(filesystem, path, limit)


def _cat(filesystem: Any, path: str, limit: int) -> bytes | None:
    content = bytes(filesystem.cat_file(path, start=0, end=limit + 1))
    return None if len(content) > limit else content
