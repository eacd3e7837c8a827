"""Requests to a server: JSON over HTTP, with time-outs, retries, and a key that is never written.

The key comes from the environment variable WAGLE_API_KEY alone. It goes to the address that was
named and nowhere else: redirects are refused.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from dataclasses import dataclass, field
from typing import Any
from urllib import request as urls
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from wagle.system.errors import WagleError

KEY = "WAGLE_API_KEY"
_BUSY = (408, 429, 502, 503, 504)  # worth another try
_BROKEN = 500  # worth one: some servers say it of every request that they do not understand
_LONGEST = 30.0  # seconds between two tries, whatever the server says
_SHOWN = 200  # characters of a server's own message
_HOME = ("localhost", "127.0.0.1", "::1")


class Refused(WagleError):
    """The server answered that it cannot do this; ``status`` is its code."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _NoRedirect(urls.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass(frozen=True)
class Client:
    """A server under one address.

    Attributes:
        address: ``http://host:port/v1``.
        timeout: seconds to wait for an answer.
        tries: how often a request is sent before it fails.
        pause: seconds before the second try; doubled for each one after it.
    """

    address: str
    timeout: float = 120.0
    tries: int = 5
    pause: float = 0.5
    _opener: urls.OpenerDirector = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        proxies = [urls.ProxyHandler({})] if self.at_home else []
        object.__setattr__(self, "_opener", urls.build_opener(_NoRedirect(), *proxies))

    @property
    def at_home(self) -> bool:
        """Whether the server runs on this machine."""
        return urlsplit(self.address).hostname in _HOME

    def get(self, path: str) -> Any:
        """What the server has at a path."""
        return self._sent(path, None)

    def post(self, path: str, content: Any) -> Any:
        """What the server answers.

        Raises:
            Refused: it cannot do this, or stays busy.
            WagleError: it cannot be reached, or its answer is no JSON.
        """
        return self._sent(path, json.dumps(content).encode())

    def _sent(self, path: str, content: bytes | None) -> Any:
        pause = self.pause
        for tried in range(1, self.tries + 1):
            try:
                return self._once(path, content)
            except HTTPError as error:
                again = error.code in _BUSY or (error.code == _BROKEN and tried == 1)
                if not again or tried == self.tries:
                    what = f"{self.address}{path} answered {error.code}: {_message(error)}"
                    raise Refused(what, error.code) from None
                wait = _after(error) or pause
            except (URLError, TimeoutError, OSError, http.client.HTTPException) as error:
                if tried == self.tries:
                    reason = getattr(error, "reason", None) or error
                    raise WagleError(
                        f"{self.address}{path} cannot be reached "
                        f"({str(reason) or type(error).__name__}); is the server running?"
                    ) from None
                wait = pause
            time.sleep(min(wait, _LONGEST))
            pause *= 2
        raise AssertionError("at least one try")

    def _once(self, path: str, content: bytes | None) -> Any:
        heads = {"Content-Type": "application/json", "Accept": "application/json"}
        key = os.environ.get(KEY)
        if key:
            heads["Authorization"] = f"Bearer {key}"
        asked = urls.Request(self.address + path, data=content, headers=heads)
        with self._opener.open(asked, timeout=self.timeout) as reply:
            text = reply.read()
        try:
            return json.loads(text)
        except ValueError:
            raise WagleError(
                f"{self.address}{path} answers with something that is no JSON"
            ) from None


def _message(error: HTTPError) -> str:
    """What a server said about an error, in one line, without the key."""
    try:
        text = error.read(10_000).decode(errors="replace")
    except OSError:
        text = ""
    try:
        found = json.loads(text)
        inner = found.get("error", found)
        text = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
    except (ValueError, AttributeError):
        pass
    line = " ".join(text.split())[:_SHOWN] or str(error.reason)
    key = os.environ.get(KEY)
    return line.replace(key, "...") if key else line


def _after(error: HTTPError) -> float | None:
    """How many seconds the server asks to wait; None if it does not say."""
    try:
        return float(error.headers.get("Retry-After", ""))
    except ValueError:
        return None
