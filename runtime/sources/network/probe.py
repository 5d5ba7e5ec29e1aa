"""Asks a streaming server whether it is there, and why it refuses: FFmpeg, inside OpenCV, does not tell.

Both take a second or two. A camera that is off answers nothing, and FFmpeg would wait for its whole timeout; one that
is starting may take the connection and say nothing for as long.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from base64 import b64encode
from contextlib import suppress
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from kanoclip.runtime.errors import SourceError, SourceRefusedError, one_line
from kanoclip.runtime.system.net import PublicUrl

PROBE_TIMEOUT_S = 1.5
ANSWER_TIMEOUT_S = 2.0
"""For the server's first words."""

_PORTS = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "http": 80, "https": 443}
_LONGEST_ANSWER = 1 << 16
_AGENT = "kanoclip"


def probe(address: PublicUrl) -> None:
    """Makes sure that somebody answers at a URL's address.

    Args:
        address: With credentials, of which nothing is sent.

    Raises:
        SourceError: Nobody does; the message says how that was found out, and what to mend in the address.
    """
    name = address.shown
    try:
        parts = urlsplit(address.url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme.lower())
    except ValueError:  # its words quote the part at fault, which may be the password
        raise SourceRefusedError(
            f"{name}: no usable address (the host or the port cannot be read){address.hint}"
        ) from None
    try:
        _reach(parts, host, port, name)
    except SourceError as error:
        raise type(error)(f"{address.scrub(str(error))}{address.hint}") from None


def _reach(parts: SplitResult, host: str | None, port: int | None, name: str) -> None:
    if not host or port is None or parts.scheme.lower() in {"udp", "tcp"}:
        return  # nobody to ask: what comes, comes
    if parts.scheme.lower() in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return  # FFmpeg goes through that proxy, and the camera may not be in reach from here
    try:
        with socket.create_connection((host, port), PROBE_TIMEOUT_S) as connection:
            if parts.scheme.lower() == "rtsp":
                connection.settimeout(ANSWER_TIMEOUT_S)
                if _request(connection, "OPTIONS", _bare(parts), 1) is None:
                    raise SourceError(f"{name}: what answers at port {port} speaks no RTSP: check the port")
    except socket.gaierror:
        raise SourceError(f"{name}: no address known for this name: check it, or the name server") from None
    except ConnectionRefusedError:
        raise SourceError(
            f"{name}: nobody listens at port {port}: the camera is starting, or the port is another"
        ) from None
    except TimeoutError:
        raise SourceError(
            f"{name}: no answer: check that the camera has power and its cable, and the address"
        ) from None
    except OSError as error:
        raise SourceError(f"{name}: not reached ({error.strerror or error})") from None
    except ValueError:  # a host name that no name server could know, such as an empty label
        raise SourceRefusedError(f"{name}: no usable address (the host cannot be read)") from None


def refusal(address: PublicUrl) -> SourceError:
    """Finds out why a stream cannot be opened although its server answers.

    Args:
        address: With credentials, which are sent as FFmpeg has sent them.

    Returns:
        The error to raise: `SourceRefusedError` where the server wants other credentials.
    """
    parts, name = urlsplit(address.url), address.shown
    status: tuple[int, str] | None = None
    with suppress(OSError, ValueError, http.client.HTTPException):
        if parts.scheme.lower() == "rtsp":
            status = _describe(parts)
        elif parts.scheme.lower() in {"http", "https"}:
            status = _get(parts)
    if status is None:
        return SourceError(
            f"{name}: cannot be opened as a video stream; check address, credentials and that the camera answers "
            f"(for example with ffplay){address.hint}"
        )
    code, words = status[0], address.scrub(status[1])
    if code in {401, 403}:
        given = (
            f"the user name or password is wrong{address.hint}"
            if parts.username
            else f"give them as {parts.scheme}://USER:PASSWORD@..."
        )
        return SourceRefusedError(f"{name}: the camera wants credentials ({code} {words}): {given}")
    if code in {404, 410, 454}:
        return SourceError(f"{name}: the camera knows no such stream ({code} {words}): check the path")
    if code >= 300:
        return SourceError(f"{name}: the camera answers {code} {words}")
    return SourceError(f"{name}: answers ({words}), but with no video that OpenCV can decode; try it with ffplay")


def _bare(parts: SplitResult) -> str:
    """The URL without credentials and fragment."""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))


def _credentials(parts: SplitResult) -> tuple[str, str] | None:
    return None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))


def _get(parts: SplitResult) -> tuple[int, str]:
    """What an HTTP server answers: status and words, or the content's type."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # as FFmpeg does: cameras sign their own
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    if (given := _credentials(parts)) is not None:
        passwords.add_password(None, _bare(parts), *given)
    opener = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=context),
        urllib.request.HTTPBasicAuthHandler(passwords),
        urllib.request.HTTPDigestAuthHandler(passwords),
    )
    request = urllib.request.Request(_bare(parts), headers={"User-Agent": _AGENT})
    try:
        with opener.open(request, timeout=ANSWER_TIMEOUT_S) as answer:
            return 200, one_line(answer.headers.get_content_type())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, one_line(error.reason)


def _describe(parts: SplitResult) -> tuple[int, str] | None:
    """What an RTSP server answers to a request for the stream's description."""
    host, port = parts.hostname or "", parts.port or _PORTS["rtsp"]
    url = _bare(parts)
    with socket.create_connection((host, port), PROBE_TIMEOUT_S) as connection:
        connection.settimeout(ANSWER_TIMEOUT_S)
        answer = _request(connection, "DESCRIBE", url, 1)
        given = _credentials(parts)
        if answer is None or answer[0] != 401 or given is None:
            return answer and answer[:2]
        for challenge in answer[2]:
            if (reply := _reply(challenge, url, given)) is not None:
                answer = _request(connection, "DESCRIBE", url, 2, reply)
                break
        return answer and answer[:2]


def _reply(challenge: str, url: str, given: tuple[str, str]) -> str | None:
    """The Authorization header that answers a challenge; None for a scheme that is not known."""
    scheme, _, rest = challenge.partition(" ")
    if scheme.lower() == "basic":
        return "Basic " + b64encode(":".join(given).encode()).decode("ascii")
    if scheme.lower() != "digest":
        return None
    fields = urllib.request.parse_keqv_list(urllib.request.parse_http_list(rest))
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, url, *given)
    request = urllib.request.Request(url, method="DESCRIBE")
    request.selector = url  # RTSP signs the whole URL
    digest = urllib.request.AbstractDigestAuthHandler(passwords).get_authorization(request, fields)
    return None if digest is None else f"Digest {digest}"


def _request(
    connection: socket.socket, method: str, url: str, number: int, authorization: str | None = None
) -> tuple[int, str, list[str]] | None:
    """Sends an RTSP request; gives status, words and challenges, or None when the answer is no RTSP."""
    lines = [f"{method} {url} RTSP/1.0", f"CSeq: {number}", f"User-Agent: {_AGENT}"]
    if authorization is not None:
        lines.append(f"Authorization: {authorization}")
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    answer = b""
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while b"\r\n\r\n" not in answer and len(answer) < _LONGEST_ANSWER:
        if time.monotonic() > deadline:
            raise TimeoutError
        part = connection.recv(4096)
        if not part:
            if not answer:
                raise ConnectionResetError("the connection was closed without an answer")
            break
        answer += part
    head = answer.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    status = re.fullmatch(r"RTSP/1\.\d (\d{3}) ?(.*)", head[0])
    if status is None:
        return None
    pairs = [line.partition(":") for line in head[1:]]
    challenges = [value.strip() for key, _, value in pairs if key.strip().lower() == "www-authenticate"]
    return int(status[1]), one_line(status[2]), challenges
