"""Questions to an OpenAI-compatible endpoint. The key never leaves this module except to the endpoint."""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import cv2

from kanoclip.runtime.errors import KnowledgeError
from kanoclip.runtime.system.net import has_secret
from kanoclip.runtime.types import Image

if TYPE_CHECKING:
    from openai import OpenAI

_NO_KEY = "none"
"""The client wants some key; servers on one's own machine want none."""
_REASON = 200
_LONGEST_SIDE = 1024
_JPEG_QUALITY = 90


class FatalError(KnowledgeError):
    """A failure that every further question would meet too: a wrong key, an unknown model."""


@dataclass(frozen=True)
class Endpoint:
    """Where to ask.

    Attributes:
        url: Base URL, such as `https://api.openai.com/v1`; without credentials.
        key: Secret, None for none.
        key_name: The environment variable that holds it, for messages.
        timeout: Seconds to wait for an answer.
        retries: Times to ask again after 408, 409, 429, 5xx or a broken connection, with growing pauses.
    """

    url: str
    key: str | None
    key_name: str
    timeout: float
    retries: int

    def __repr__(self) -> str:
        """Without the key."""
        return f"Endpoint(url={self.url!r}, key_name={self.key_name!r})"


def check_endpoint(endpoint: Endpoint, allow_http: bool) -> None:
    """Refuses a URL that cannot be asked, or to which a key would travel in the clear.

    Raises:
        KnowledgeError: The URL is none, holds credentials, or is plain http to another machine.
    """
    try:
        parts = urlsplit(endpoint.url)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        raise KnowledgeError("--endpoint is not a URL: give one such as https://api.openai.com/v1") from None
    # Not by its parts: a `#` or `/` in a password ends the host early.
    if "@" in endpoint.url or has_secret(endpoint.url):
        raise KnowledgeError(f"--endpoint holds a user name, a password or a key: put the key into {endpoint.key_name}")
    if parts.scheme not in ("http", "https") or not host:
        raise KnowledgeError("--endpoint is not an http(s) URL: give one such as https://api.openai.com/v1")
    if parts.scheme == "http" and endpoint.key is not None and not (allow_http or _loopback(host)):
        raise KnowledgeError(
            f"the key in {endpoint.key_name} would travel to {host} unencrypted: use https, or --allow-http if the "
            "network is yours"
        )


def data_url(image: Image) -> str:
    """An image as a JPEG in a data URL, its longer side at most 1024 pixels."""
    scale = _LONGEST_SIDE / max(image.shape[:2])
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


class Client:
    """Asks one endpoint. May be used by several threads."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Opens nothing yet."""
        from openai import OpenAI

        self.endpoint = endpoint
        self._client: OpenAI = OpenAI(
            base_url=endpoint.url,
            api_key=endpoint.key or _NO_KEY,
            timeout=endpoint.timeout,
            max_retries=endpoint.retries,
        )

    def ask(self, model: str, question: str, image: Image | None = None) -> str:
        """One question, one answer.

        Args:
            model: As the endpoint names it.
            question: Text.
            image: An image that the question is about, uint8 [H, W, 3], BGR.

        Raises:
            FatalError: The key is refused, or the model is unknown.
            KnowledgeError: The endpoint failed, even after the retries, or gave no text.
        """
        import openai

        content: Any = question
        if image is not None:
            attached = {"type": "image_url", "image_url": {"url": data_url(image)}}
            content = [attached, {"type": "text", "text": question}]
        where = self.endpoint.url
        # `from None`: what the server answered may hold the key, and a traceback would show it.
        try:
            answer = self._client.chat.completions.create(model=model, messages=[{"role": "user", "content": content}])
            text = answer.choices[0].message.content
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise FatalError(
                f"{where} refuses the key ({error.status_code}): put a valid one into the environment variable "
                f"{self.endpoint.key_name}"
            ) from None
        except openai.NotFoundError:
            raise FatalError(
                f"{where} knows no such address or model '{model}' (404): check --endpoint (it usually ends in /v1) "
                "and --model"
            ) from None
        except openai.APIStatusError as error:
            raise KnowledgeError(
                f"{where} answered {error.status_code}{self._reason(error)}: try again later"
            ) from None
        except openai.APITimeoutError:
            raise KnowledgeError(
                f"{where} did not answer within {self.endpoint.timeout:g} s: try again, or raise --timeout"
            ) from None
        except openai.APIConnectionError as error:
            reason = self._clean(str(error.__cause__ or error))
            raise KnowledgeError(f"cannot reach {where} ({reason}): check --endpoint and the network") from None
        except Exception as error:  # an answer of another shape raises many kinds
            raise KnowledgeError(
                f"{where} gave no chat completion ({type(error).__name__}): is it OpenAI-compatible?"
            ) from None
        if not isinstance(text, str) or not text.strip():
            raise KnowledgeError(f"{where} gave an empty answer: try again, or another --model")
        return text

    def _reason(self, error: Any) -> str:
        body = error.body if isinstance(error.body, dict) else {}
        message = body.get("message")
        return f" ({self._clean(message)})" if isinstance(message, str) and message.strip() else ""

    def _clean(self, text: str) -> str:
        """One short line without the key."""
        if self.endpoint.key:
            text = text.replace(self.endpoint.key, "***")
        return " ".join(text.split())[:_REASON]


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
