# SPDX-License-Identifier: Apache-2.0
"""The command `recon3d`. Exit codes: 0 done, 1 failed while working (what was computed is kept), 2 the input or a flag is
wrong, 130 interrupted (what was computed is kept)."""

from __future__ import annotations

import argparse
import logging
import sys

from recon3d_ros import __version__
from recon3d_ros.cli import demo, doctor, evaluate, mesh, nodes, params, run, weights
from recon3d_ros.core.errors import InputError, ReconError


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="recon3d",
        description="Turn camera frames into camera poses, a coloured point cloud and a triangle mesh.",
    )
    top.add_argument("--version", action="version", version=f"recon3d {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for module in (demo, run, mesh, nodes, evaluate, weights, doctor, params):
        module.add_parser(commands)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    args = parser().parse_args(arguments)
    try:
        return int(args.func(args))
    except InputError as error:
        print(f"recon3d: {error}", file=sys.stderr)
        return 2
    except ReconError as error:
        print(f"recon3d: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
