# SPDX-License-Identifier: Apache-2.0
"""`recon3d slam`, `reconstructor`, `mesher`, `replay`: the live nodes from the command line."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
from pathlib import Path

from recon3d_ros.cli.options import add_config_options, config_from
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import require
from recon3d_ros.core.params import flatten
from recon3d_ros.nodes.flags import add_replay_flags

_NODES = {
    "slam": "reconstruct and mesh live from ROS topics, in one process",
    "reconstructor": "reconstruct live from ROS topics; the mesher is another process",
    "mesher": "mesh the keyframes of a reconstructor in another process",
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the command line."""
    for name, text in _NODES.items():
        parser = commands.add_parser(name, help=text, description=text)
        parser.add_argument("--out", metavar="DIR", help="folder in which results are saved at the end")
        add_config_options(parser)
        _add_ros_arguments(parser)
        parser.set_defaults(func=command, node=name)
    text = "play a rosbag2 recording into live topics, with /clock"
    parser = commands.add_parser("replay", help=text, description=text)
    add_replay_flags(parser)
    _add_ros_arguments(parser)
    parser.set_defaults(func=replay)


def _add_ros_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ros-args",
        nargs=argparse.REMAINDER,
        default=[],
        help="all that follows is for ROS, such as -r image:=/camera/image_raw -p name:=value -r __ns:=/drone1",
    )


def command(args: argparse.Namespace) -> int:
    """Run a node until a signal; where it saved a map, add the picture of it."""
    require("rclpy", extra="ros")
    arguments = ros_arguments(args)
    code = int(importlib.import_module(f"recon3d_ros.nodes.{args.node}").main(arguments))
    if args.out and args.node != "mesher" and (Path(args.out) / "report.json").is_file():
        save_picture(Path(args.out))
    return code


def replay(args: argparse.Namespace) -> int:
    """Play a bag until its end or a signal."""
    require("rclpy", extra="ros")
    from recon3d_ros.nodes.replay import play

    return play(args, ["--ros-args", *args.ros_args])


def save_picture(folder: Path) -> None:
    """Add preview.png to an output folder that a node saved. Raises OSError where it cannot be written."""
    from recon3d_ros.runtime.saved import load
    from recon3d_ros.viz.preview import save_preview

    saved = load(folder)
    mesh = saved.mesh
    surface = None if mesh is None else (mesh.vertices, mesh.triangles, mesh.colours)
    save_preview(folder / "preview.png", surface, saved.cloud, saved.trajectory)


def ros_arguments(args: argparse.Namespace) -> list[str]:
    """The flags in the words of ROS, then what the user said to ROS directly."""
    config = config_from(args)
    if args.out:
        config = dataclasses.replace(config, output=args.out)
    level = ["--log-level", "warn"] if args.quiet else []
    return ["--ros-args", *level, *config_arguments(config), *args.ros_args]


def config_arguments(config: Config) -> list[str]:
    """What differs from the defaults, as ROS takes it behind --ros-args."""
    defaults = flatten(Config())
    changed = {name: value for name, value in flatten(config).items() if value != defaults[name]}
    # As JSON, texts stand in quotes: none is taken for a number.
    return [word for name, value in changed.items() for word in ("-p", f"{name}:={json.dumps(value)}")]
