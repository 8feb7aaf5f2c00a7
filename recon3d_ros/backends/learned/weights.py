# SPDX-License-Identifier: Apache-2.0
"""Which weights there are, where they lie on this machine, and how they get there. Needs no torch."""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from recon3d_ros.backends.learned import hub
from recon3d_ros.core.errors import InputError, ReconError

log = logging.getLogger(__name__)

#: Forms of weights files, the preferred first.
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class Weights:
    """Published weights: the backend that uses them, repository and file on the hub, size (about, 0: not known), licence,
    and in a line what they are for."""

    name: str
    backend: str
    repository: str
    file: str
    size_bytes: int
    licence: str
    text: str


#: Of each backend the recommended first. Names of repository and files are inferred (specification, section 14), nobody has
#: compared them with the hub; `recon3d weights fetch NAME --repo R --file F` overrides them.
CATALOGUE = tuple(
    Weights(name, "gct", "robbyant/lingbot-map", f"{name}.pt", 4_630_000_000, "Apache-2.0", text)
    for name, text in (
        ("lingbot-map-long", "recommended: long sequences"),
        ("lingbot-map", "balanced"),
        ("lingbot-map-stage1", "first stage of training, bidirectional"),
    )
)


@dataclass(frozen=True)
class Checksum:
    """sha256 of a file, and the one written beside it (empty: none)."""

    found: str
    expected: str

    @property
    def differs(self) -> bool:
        """The file is not the one that the checksum was written for."""
        return bool(self.expected) and self.found != self.expected


def folder() -> Path:
    """Where weights lie: `$RECON3D_WEIGHTS`, else recon3d_ros/weights in the user's cache folder."""
    if os.environ.get("RECON3D_WEIGHTS"):
        return Path(os.environ["RECON3D_WEIGHTS"]).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "recon3d_ros" / "weights"


def named(name: str) -> Weights:
    """The catalogue entry of that name. Raises InputError that says which there are."""
    found = {w.name: w for w in CATALOGUE}
    if name not in found:
        near = difflib.get_close_matches(name, found, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(found)}"
        raise InputError(f"no weights are named '{name}'; {hint}")
    return found[name]


def path_of(weights: Weights) -> Path | None:
    """Where these weights lie on this machine, None if they do not."""
    candidates = (folder() / f"{weights.name}{suffix}" for suffix in SUFFIXES)
    return next((path for path in candidates if os.path.isfile(path)), None)


def find(backend: str, given: str = "") -> Path | None:
    """Weights for `backend`: the file or the catalogue entry that `given` names; if it is empty, the first catalogue entry
    that is on this machine. None if there are none."""
    if given and os.path.isfile(os.path.expanduser(given)):
        return Path(given).expanduser()
    entries = (w for w in CATALOGUE if w.backend == backend and given in ("", w.name))
    return next((path for w in entries if (path := path_of(w)) is not None), None)


def locate(backend: str, given: str = "") -> Path:
    """As `find`, but raises InputError with the mend where there are none."""
    path = find(backend, given)
    if path is not None:
        return path
    entries = [w.name for w in CATALOGUE if w.backend == backend]
    if not entries or (given and given not in entries):
        there = f"no such file, and none of {', '.join(entries)}" if entries else "no such file"
        raise InputError(f"weights '{given}' of backend {backend}: {there}; give a file with --weights PATH")
    raise InputError(
        f"the weights of backend {backend} are not on this machine: bring them with  "
        f"recon3d weights fetch {given or entries[0]}  or give a file with --weights PATH"
    )


def fetch(weights: Weights, into: Path, repository: str = "", file: str = "") -> Path:
    """Download weights to `into`, as NAME.SUFFIX with its sha256 beside it, or go on with a download that was interrupted;
    nothing is loaded if they are there already. `repository` and `file` override the catalogue. Raises InputError for wrong
    names and folders, ReconError for what fails on the way (network, disk, damage)."""
    offer = hub.ask(repository or weights.repository, file or weights.file)
    suffix = Path(offer.file).suffix
    target = into / f"{weights.name}{suffix if suffix in SUFFIXES else '.pt'}"
    if _is_there(target, offer):
        with suppress(OSError):
            _beside(target).write_text(f"{offer.sha256}  {target.name}\n")
        log.info("%s is there already, and the one on the hub", target)
        return target
    part = into / f".{target.name}.{re.sub('[^0-9A-Za-z]', '', offer.version)[:16]}.part"
    with hub.alone(part):
        hub.check_room(offer, part)
        hub.download(offer, part)
        found = _sha256(part)
        if offer.sha256 and found != offer.sha256:
            damaged = target.with_name(f"{target.name}.damaged")
            os.replace(part, damaged)
            raise ReconError(
                f"what arrived is damaged (sha256 {found[:12]}..., the hub says {offer.sha256[:12]}...), kept as "
                f"{damaged}: fetch again with  recon3d weights fetch {weights.name}"
            )
        if not offer.sha256:
            log.warning(
                "the hub gives no checksum of %s; the one beside it is that of what arrived", offer.file
            )
        _beside(target).write_text(f"{found}  {target.name}\n")
        os.replace(part, target)
    for stale in into.glob(f".{target.name}.*.part"):
        stale.unlink(missing_ok=True)
    return target


def verify(path: Path) -> Checksum:
    """The checksum of a file, and the one beside it (PATH.sha256, as sha256sum writes it)."""
    expected = ""
    if _beside(path).is_file():
        match = re.match(r"\\?([0-9a-fA-F]{64})\b", _beside(path).read_text(errors="replace"))
        if match is None:
            raise InputError(
                f"{_beside(path)}: no checksum in it; write it anew with sha256sum, or remove it"
            )
        expected = match[1].lower()
    return Checksum(_sha256(path), expected)


def _is_there(target: Path, offer: hub.Offer) -> bool:
    """Whether `target` is what the hub offers."""
    if not offer.sha256 or not os.path.isfile(target) or target.stat().st_size != offer.size:
        return False
    return _sha256(target) == offer.sha256


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()
