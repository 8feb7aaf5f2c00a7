# SPDX-License-Identifier: Apache-2.0
"""Flags shared by several commands, and the configuration they stand for."""

from __future__ import annotations

import argparse

from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.params import build, load_yaml


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """--config, --set, --backend, --prior, --quiet."""
    parser.add_argument(
        "--backend",
        choices=("auto", "geometric", "rgbd", "gct", "slam3r"),
        help="reconstructor (default: auto)",
    )
    parser.add_argument("--config", metavar="FILE", help="parameter file (YAML), laid over the defaults")
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="one parameter, laid over the file; repeatable",
    )
    parser.add_argument(
        "--prior", action="store_true", default=None, help="take poses that come with the source as prior"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar, warnings only")


def config_from(args: argparse.Namespace) -> Config:
    """Defaults, then the file, then --set, then the flags. Raises InputError for what is unknown or out of range."""
    values: dict[str, object] = load_yaml(args.config) if args.config else {}
    for item in args.set:
        name, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"--set takes name=value, got '{item}'")
        values[name.strip()] = value.strip()
    if args.backend is not None:
        values["backend"] = args.backend
    if getattr(args, "weights", None) is not None:
        values["gct.weights"] = args.weights
    if args.prior:
        values["prior"] = True
    for name in ("map", "save_map"):
        if getattr(args, name, None) is not None:
            values[name] = getattr(args, name)
    return build(Config, values)
