# SPDX-License-Identifier: Apache-2.0
"""A hub on this machine, which answers as the real one does; no other network is touched."""

from __future__ import annotations

import hashlib
import re
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

REPOSITORY, FILE, COMMIT = "owner/weights", "net.pt", "0123456789abcdef" * 2 + "01234567"


class Hub:
    """One repository with one file. Large files lie on another host (`localhost`), to which the hub redirects.

    requests: (method, path, headers) in the order they came. cuts: for each next transfer, the bytes after which the
    connection breaks (None: it does not). refusals: for each next transfer, a status instead of an answer (None: none)."""

    def __init__(self) -> None:
        self.content = bytes(range(256)) * 16_000
        self.version = hashlib.sha256(self.content).hexdigest()
        self.size: int | None = None
        self.is_hub = True
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.cuts: list[int | None] = []
        self.refusals: list[int | None] = []
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def transfers(self) -> list[dict[str, str]]:
        """Headers of the requests for the bytes of the file."""
        return [headers for method, path, headers in self.requests if method == "GET" and "/cdn/" in path]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        self.hub.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        if self.path == f"/cdn/{FILE}":
            self._transfer(with_body)
        elif not self.hub.is_hub:
            self._send(200)
        elif re.fullmatch(rf"/{REPOSITORY}/resolve/(main|{COMMIT})/{FILE}", self.path):
            self._send(
                302,
                Location=f"http://localhost:{self.hub.port}/cdn/{FILE}",
                X_Repo_Commit=COMMIT,
                X_Linked_Size=str(self.hub.size or len(self.hub.content)),
                X_Linked_ETag=f'"{self.hub.version}"',
                ETag='"of the redirection"',
            )
        elif self.path.startswith("/owner/busy/"):
            self._send(503)
        elif self.path.startswith("/owner/gated/"):
            self._send(403, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
        elif self.path.startswith(f"/{REPOSITORY}/"):
            self._send(404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
        else:
            self._send(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")

    def _transfer(self, with_body: bool) -> None:
        hub = self.hub
        refusal = hub.refusals.pop(0) if hub.refusals else None
        if refusal is not None:
            self._send(refusal)
            return
        given = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        begin = int(given[1]) if given else 0
        body = hub.content[begin:]
        self.send_response(206 if given else 200)
        if given:
            self.send_header("Content-Range", f"bytes {begin}-{len(hub.content) - 1}/{len(hub.content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = hub.cuts.pop(0) if hub.cuts else None
        with suppress(ConnectionError):  # the client may leave
            self.wfile.write(body if cut is None else body[:cut])
        self.close_connection = cut is not None

    def _send(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hub(monkeypatch):
    """The hub, with huggingface_hub told to go there."""
    constants = pytest.importorskip("huggingface_hub.constants")
    hub = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield hub
    hub.close()
