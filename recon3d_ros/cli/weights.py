# SPDX-License-Identifier: Apache-2.0
"""`recon3d weights`: which weights of learned backends there are, fetching them, and checking them."""

from __future__ import annotations

import argparse
import importlib.util
import logging
from pathlib import Path

from recon3d_ros.backends.learned import weights
from recon3d_ros.core.errors import InputError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    text = "weights of the learned backends: list, fetch, verify"
    parser = commands.add_parser("weights", help=text, description=text)
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    text = "which weights there are, and which are on this machine"
    actions.add_parser("list", help=text, description=text).set_defaults(func=show)

    text = "download weights, or go on with a download that was interrupted"
    fetching = actions.add_parser("fetch", help=text, description=text)
    fetching.add_argument("name", metavar="NAME", help="see `recon3d weights list`")
    fetching.add_argument("--repo", metavar="OWNER/NAME", default="", help="another repository on the hub")
    fetching.add_argument("--file", metavar="FILE", default="", help="another file in the repository")
    fetching.add_argument("--to", metavar="DIR", help="another folder (default: that of RECON3D_WEIGHTS)")
    fetching.set_defaults(func=fetch)

    text = "check a weights file: its checksum, and whether it fits the network"
    verifying = actions.add_parser("verify", help=text, description=text)
    verifying.add_argument("weights", metavar="NAME|PATH", help="see `recon3d weights list`, or a file")
    verifying.set_defaults(func=verify)


def show(args: argparse.Namespace) -> int:
    """Print the table."""
    print(f"{'name':20} {'backend':8} {'size':>7}  {'licence':11} {'where':12} for")
    for entry in weights.CATALOGUE:
        path = weights.path_of(entry)
        where = path.name if path else "not fetched"
        size = f"{entry.size_bytes / 1e9:.1f} GB" if entry.size_bytes else "?"
        print(f"{entry.name:20} {entry.backend:8} {size:>7}  {entry.licence:11} {where:12} {entry.text}")
    print(f"folder: {weights.folder()}")
    return 0


def fetch(args: argparse.Namespace) -> int:
    """Download into the folder of weights; says the licence."""
    entry = weights.named(args.name)
    folder = Path(args.to).expanduser() if args.to else weights.folder()
    for transport in ("httpx", "httpx2"):
        logging.getLogger(transport).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").propagate = False  # it prints for itself
    print(f"{entry.name} from {args.repo or entry.repository}, licence {_licence(entry, args.repo)}")
    path = weights.fetch(entry, folder, args.repo, args.file)
    print(f"weights in {path}")
    if folder != weights.folder():
        print(f"use them with  --weights {path}")
    return 0


def verify(args: argparse.Namespace) -> int:
    """Compare with the checksum beside the file and with the network; 1 if anything differs."""
    path, backend = _file_of(args.weights)
    print(path)
    checksum = weights.verify(path)
    if not checksum.expected:
        _line("none", "checksum", f"sha256 {checksum.found}; no {path.name}.sha256 beside it to compare with")
    elif checksum.differs:
        _line(
            "WRONG",
            "checksum",
            f"sha256 {checksum.found}, expected {checksum.expected}: copy or fetch it again",
        )
    else:
        _line("ok", "checksum", f"sha256 {checksum.found}")
    fits = _verify_structure(path, backend)
    return 1 if checksum.differs or not fits else 0


def _verify_structure(path: Path, backend: str) -> bool:
    if importlib.util.find_spec("torch") is None:
        _line("none", "structure", "not checked without torch: pip install 'recon3d_ros[learned]'")
        return True
    from recon3d_ros.backends.gct import loading
    from recon3d_ros.backends.learned.checkpoint import read

    try:
        checkpoint = read(path)
        problems = loading.problems(checkpoint)
    except InputError as error:
        problems = (str(error),)
    for problem in problems:
        _line("WRONG", "structure", problem)
    if not problems:
        head = "with" if loading.has_point_head(checkpoint) else "without"
        _line(
            "ok", "structure", f"{len(checkpoint.tensors)} tensors fit backend {backend}, {head} point head"
        )
    return not problems


def _file_of(given: str) -> tuple[Path, str]:
    """The file that a catalogue name or a path stands for, and the backend that it is for."""
    names = {entry.name: entry for entry in weights.CATALOGUE}
    path = Path(given).expanduser()
    entry = names.get(given) or names.get(path.stem)
    backend = entry.backend if entry else "gct"
    if given not in names and not path.is_file():
        raise InputError(f"weights '{given}': no such file, and no such name; there are {', '.join(names)}")
    return weights.locate(backend, given), backend


def _licence(entry: weights.Weights, repository: str) -> str:
    return f"see https://huggingface.co/{repository}" if repository else entry.licence


def _line(state: str, what: str, text: str) -> None:
    print(f"  {state:6} {what:10} {text}")
