# SPDX-License-Identifier: Apache-2.0
"""`recon3d params`: prints or writes all parameters with their meaning."""

from __future__ import annotations

import argparse
from pathlib import Path

from recon3d_ros.cli.options import add_config_options, config_from
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.params import dump_yaml, markdown_table


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    text = "print or write the parameters"
    parser = commands.add_parser("params", help=text, description=text)
    add_config_options(parser)
    parser.add_argument(
        "--format",
        choices=("ros", "yaml", "markdown"),
        default="ros",
        help="form (default: a ROS parameter file)",
    )
    parser.add_argument("--out", metavar="FILE", help="write to a file instead of the screen")
    parser.set_defaults(func=command)


def command(args: argparse.Namespace) -> int:
    """Print or write the parameters."""
    config = config_from(args)
    text = (
        markdown_table(Config) if args.format == "markdown" else dump_yaml(config, ros=args.format == "ros")
    )
    if not args.out:
        print(text, end="")
        return 0
    try:
        Path(args.out).write_text(text)
    except OSError as error:
        raise InputError(f"cannot write {args.out}: {error.strerror}") from error
    return 0
