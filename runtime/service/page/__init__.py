"""The page: the stream in a browser, and what may be changed about it.

    page = open_page(PageOptions.parse("127.0.0.1:8080"))   # the port is taken, nothing is served yet
    sinks.append(page.sink(source.name))
    page.start(control)
    ...
    page.close()

Frames reach it through a sink that keeps the newest one. A browser asks for the next update when it has shown the last,
so that one which stops reading costs a socket's buffer and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.service.page.options import PageOptions

if TYPE_CHECKING:
    from kanoclip.runtime.service.page.server import Page

__all__ = ["PageOptions", "open_page"]

PACKAGES = frozenset({"starlette", "uvicorn", "websockets", "h11", "anyio"})


def open_page(options: PageOptions) -> Page:
    """Takes the port, so that one which is in use is known before a model is loaded.

    Args:
        options: Where, and for whom.

    Returns:
        The page; it serves once it is started.

    Raises:
        SettingsError: The address cannot be had, the certificate cannot be used, or the web server is not installed.
    """
    try:
        from kanoclip.runtime.service.page.server import Page
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in PACKAGES:
            raise
        raise SettingsError(
            f"--serve needs {error.name}, which is not installed: pip install 'kanoclip-edge[page]'"
        ) from error
    return Page(options)
