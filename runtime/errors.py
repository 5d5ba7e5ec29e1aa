"""The one exception family of the project."""

from __future__ import annotations

MESSAGE = 300
"""Characters of a message: what it quotes may be a million."""


def one_line(text: object, most: int = MESSAGE) -> str:
    r"""A message, which may be pages long, as one line of some characters at most, its end, the remedy, among them.

    Examples:
        >>> one_line("a\n  b")
        'a b'
        >>> len(one_line("x" * 1000)), one_line("x" * 1000 + ": take less")[-13:]
        (300, 'x: take less')
    """
    line = " ".join(str(text).split())
    if len(line) <= most:
        return line
    end = most // 3
    return f"{line[: most - end - 5]} ... {line[-end:]}"


def printable(text: str, keep: str = "") -> str:
    r"""Text as a terminal or a log may have it: what is no visible character stands there by its number.

    File names, class names and addresses may hold control characters, which move the cursor or change colours, and
    marks of direction, by which `gnp.exe` reads as `exe.png`.

    Args:
        text: Any, also what is in no encoding at all.
        keep: Characters that are left as they are, such as a line's end.

    Examples:
        >>> print(printable("a\x1b[31m\u202eb.png"))
        a\x1b[31m\u202eb.png
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else _by_number(one) for one in text)


def _by_number(one: str) -> str:
    code = ord(one)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class KanoclipError(Exception):
    """A failure whose message names the thing at fault and the remedy, in one line.

    The command line prints the message and nothing else (exit code 1); `--debug` adds the traceback.
    """


class BundleError(KanoclipError):
    """A bundle that is missing, damaged, of an unknown schema or unsafe to open."""


class MemoryFileError(BundleError):
    """A file of a reference memory that is missing, damaged or made for another bundle."""


class FleetError(KanoclipError):
    """A store of bundles that cannot be reached or read, or a bundle in it that is not to be trusted."""


class BackendError(KanoclipError):
    """An inference engine that is not installed, not available on this machine, or that failed."""


class DeviceLostError(BackendError):
    """A GPU that failed or stopped answering in the middle of the work; a new backend may still work."""


class StoppedWaitingError(BackendError):
    """A wait for a server that was away, ended because the run is to end."""


class FrameError(KanoclipError):
    """A frame or class name that the detector cannot take."""


class SourceError(KanoclipError):
    """A camera, file, folder or URL that cannot be read."""


class SourceRefusedError(SourceError):
    """A source that says no, such as to a password, or that cannot work here: trying again soon is no remedy."""


class SinkError(KanoclipError):
    """An output that cannot be opened or written."""


class ServiceError(KanoclipError):
    """An address that cannot be listened on."""


class SettingsError(KanoclipError):
    """Settings, a flag or a region of interest that make no sense, or do not fit the bundle or the frames."""


class CalibrationError(KanoclipError):
    """Good frames that are too few, or that no threshold can be set by."""


class CheckpointError(KanoclipError):
    """A checkpoint or weights file that is missing, damaged or of another architecture."""


class ExportError(KanoclipError):
    """An export that cannot be made, or whose result fails a check."""


class DataError(KanoclipError):
    """A dataset, image or mask on disk that is missing, damaged or not in a known layout."""


class KnowledgeError(KanoclipError):
    """A knowledge base that cannot be read, or an endpoint that cannot extend it."""


class TrainingError(KanoclipError):
    """A training run that cannot start, go on or be resumed."""
