# SPDX-License-Identifier: Apache-2.0
"""Files of a model hub, through huggingface_hub, which reads HF_ENDPOINT (a mirror), HF_TOKEN and HF_HUB_OFFLINE.

`hf_hub_download` (release 2) throws a partial file away when it fails; here it is kept, so that an interrupted download of
gigabytes goes on where it stopped."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from recon3d_ros.core.errors import InputError, ReconError, require

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Offer:
    """A file as the hub offers it. url: of the one commit that was found. version: its entity tag. size: bytes, or None
    where the hub does not say."""

    repository: str
    file: str
    url: str
    version: str
    size: int | None

    @property
    def sha256(self) -> str:
        """Checksum of the file; empty where the hub gives none (files that are not in its large-file storage)."""
        return self.version if re.fullmatch("[0-9a-f]{64}", self.version) else ""


class _Interrupted(ReconError):
    """The connection broke while bytes were coming."""


def ask(repository: str, file: str) -> Offer:
    """What the hub has under that name. Raises InputError for a wrong name, ReconError where the hub does not answer."""
    _check_endpoint(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    hub = require("huggingface_hub", "learned")
    with _explained(repository, file):
        found = hub.get_hf_file_metadata(hub.hf_hub_url(repository, file))
        if not found.commit_hash or not found.etag:
            raise ReconError(
                "the server does not answer as a hub does: check HF_ENDPOINT, proxy and firewall"
            )
        url = hub.hf_hub_url(repository, file, revision=found.commit_hash)
        return Offer(repository, file, url, found.etag, found.size)


def download(offer: Offer, part: Path) -> None:
    """Write the file to `part`, going on after the bytes that are there already, with a progress bar. A connection that
    breaks is taken up again as long as each attempt brings bytes. Raises InputError and ReconError as `ask` does; `part`
    stays."""
    while True:
        held = part.stat().st_size if part.exists() else 0
        try:
            _continue(offer, part, held)
            return
        except _Interrupted:
            if part.stat().st_size <= held:
                raise
            log.warning("the connection broke after %.2f GB; going on", part.stat().st_size / 1e9)


@contextmanager
def alone(part: Path) -> Iterator[None]:
    """Inside, the folder of `part` exists and no other process writes to `part`. Raises InputError where that cannot be,
    ReconError for errors of the disk inside."""
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        file: IO[bytes] = open(part, "ab")  # noqa: SIM115
    except OSError as error:
        raise InputError(
            f"cannot write to {part.parent} ({error.strerror}): choose another folder with --to or RECON3D_WEIGHTS"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError("these weights are being fetched by another process: wait for it") from error
        except OSError as error:
            log.debug("%s has no locks: %s", part.parent, error)
        try:
            yield
        except OSError as error:
            raise ReconError(
                f"cannot write to {part.parent} ({error.strerror}): fetch again once mended"
            ) from error


def check_room(offer: Offer, part: Path) -> None:
    """Raises ReconError where the rest of the file does not fit on the disk of `part`."""
    missing = (offer.size or 0) - part.stat().st_size
    free = shutil.disk_usage(part.parent).free
    if missing > free:
        raise ReconError(
            f"{missing / 1e9:.2f} GB to fetch but {free / 1e9:.2f} GB free in {part.parent}: make room, or choose another "
            "folder with --to or RECON3D_WEIGHTS"
        )


def _continue(offer: Offer, part: Path, held: int) -> None:
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    if offer.size is not None and held > offer.size:
        os.truncate(part, 0)
        held = 0
    with _explained(offer.repository, offer.file), open(part, "ab") as sink:
        http_get(
            offer.url,
            sink,
            resume_size=held,
            headers=build_hf_headers(),
            expected_size=offer.size,
            displayed_filename=offer.file,
        )


@contextmanager
def _explained(repository: str, file: str) -> Iterator[None]:
    """Errors of the library, of its transport (which differs by release) and of the disk, as one line with the mend."""
    from huggingface_hub.utils import HfHubHTTPError, HFValidationError

    transport: type[Exception] = HfHubHTTPError.__mro__[1]  # HTTPError of requests, httpx or httpx2
    try:
        yield
    except HFValidationError as error:
        raise InputError(f"'{repository}' is no name of a repository: give --repo OWNER/NAME") from error
    except (transport, OSError) as error:
        if getattr(error, "response", None) is not None:
            raise _refusal(error, repository, file) from error
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise ReconError(
                "the disk is full: make room and fetch again, it goes on where it stopped"
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise _Interrupted(
            f"no connection to the hub ({reason}): check the network, or set HF_ENDPOINT to a mirror; "
            "fetching again goes on where it stopped"
        ) from error


def _check_endpoint(address: str) -> None:
    """The library answers an address that is none with errors of many kinds, some of them when it is imported."""
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise InputError(
            f"HF_ENDPOINT is '{address}', which is no address: set it to https://HOST or unset it"
        )


def _refusal(error: Exception, repository: str, file: str) -> ReconError:
    response = error.response  # type: ignore[attr-defined]
    code = response.headers.get("X-Error-Code", "")
    if code == "EntryNotFound":
        return InputError(f"repository {repository} has no file '{file}': give its name with --file")
    if code == "GatedRepo" or response.status_code == 403:
        return InputError(f"access to {repository} is restricted: ask for it there, then set HF_TOKEN")
    if code == "RepoNotFound" or response.status_code in (401, 404):
        return InputError(
            f"no repository {repository} with '{file}' for you there: give --repo OWNER/NAME and --file, or set "
            "HF_TOKEN if it is private"
        )
    return ReconError(f"the hub answers with error {response.status_code}: try again later")
