# SPDX-License-Identifier: Apache-2.0
"""`recon3d demo`: a synthetic drone flight, recorded as a bag, played through the real nodes in processes of their own,
watched by one more process, and compared with the truth."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from recon3d_ros.cli.nodes import config_arguments, save_picture
from recon3d_ros.cli.options import add_config_options, config_from
from recon3d_ros.core.errors import InputError, require
from recon3d_ros.core.params import build, flatten

if TYPE_CHECKING:
    from recon3d_ros.core.config import Config
    from recon3d_ros.runtime.report import Report
    from recon3d_ros.runtime.sources.base import Source

log = logging.getLogger(__name__)

#: Longest time that the nodes may need to start (at the first time they compile) and to work off what waits, seconds.
_START, _FINISH = 300.0, 180.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    text = "send a synthetic drone flight through the ROS 2 nodes and compare the map with the truth"
    parser = commands.add_parser("demo", help=text, description=text)
    parser.add_argument("--out", metavar="DIR", default="out/demo", help="output folder (default: out/demo)")
    parser.add_argument(
        "--scene", choices=("building", "terrain", "room"), default="building", help="what is flown over"
    )
    parser.add_argument(
        "--path", metavar="NAME", default="orbit", help="orbit, lawnmower, forward, hover (default: orbit)"
    )
    parser.add_argument(
        "--frames", type=int, default=150, metavar="N", help="length of the flight (default: 150)"
    )
    parser.add_argument("--size", metavar="WxH", default="640x480", help="of the images (default: 640x480)")
    parser.add_argument(
        "--rate", type=float, default=1.0, metavar="X", help="speed of the replay (default: 1)"
    )
    parser.add_argument("--keep-bag", metavar="DIR", help="keep the recording in this new folder")
    add_config_options(parser)
    parser.set_defaults(func=command)


def command(args: argparse.Namespace) -> int:
    """Fly, reconstruct, compare, report. 1 when a message was lost between the processes, or a node failed."""
    from recon3d_ros.runtime.results import prepare_folder
    from recon3d_ros.runtime.sources import open_source

    require("rclpy", extra="ros")
    folder = prepare_folder(args.out)
    # Every frame shall count: queues hold the whole flight, should the machine be busy with something else.
    config = build(
        type(config_from(args)), {**flatten(config_from(args)), "input.queue": 1000, "mesh.queue": 1000}
    )
    source = open_source(f"synthetic:{args.scene}/{args.path}?frames={args.frames}&size={args.size}")
    with tempfile.TemporaryDirectory(prefix="recon3d_") as scratch:
        bag = Path(args.keep_bag or f"{scratch}/flight")
        _record(source, bag, args.quiet)
        received = _fly(bag, folder, config, args)
    report = _assess(folder, source, received)
    print(report.to_markdown())
    print(f"results in {folder}")
    return 0 if _is_complete(report) else 1


def _record(source: Source, bag: Path, quiet: bool) -> None:
    from tqdm import tqdm

    from recon3d_ros.runtime.bag_writer import write_bag

    if bag.exists():
        raise InputError(f"{bag} exists: give a new folder with --keep-bag")
    with tqdm(total=source.length, desc="flight ", unit="frame", disable=quiet) as bar:
        write_bag(bag, source, on_frame=bar.update)


def _fly(bag: Path, folder: Path, config: Config, args: argparse.Namespace) -> dict[str, int]:
    """Play the bag through nodes that save in `folder`; returns the messages that the observer received, by topic."""
    from recon3d_ros.cli.processes import Processes
    from recon3d_ros.nodes.flags import OBSERVER_READY
    from recon3d_ros.runtime.bag_writer import CAMERA_INFO_TOPIC, IMAGE_TOPIC

    counts = folder / "received.json"
    topics = ["-r", f"image:={IMAGE_TOPIC}", "-r", f"camera_info:={CAMERA_INFO_TOPIC}"]
    parameters = config_arguments(dataclasses.replace(config, output=str(folder)))
    log.info("starting the nodes; at the very first time they compile their kernels, which takes a minute")
    with Processes(folder / "log.txt") as processes:
        slam = processes.start("slam", "--ros-args", *parameters, *topics)
        observer = processes.start("observer", str(counts))
        observer.wait_for(OBSERVER_READY, _START)
        log.info("nodes are up, and say more in %s", folder / "log.txt")
        flags = ["--rate", str(args.rate), "--wait", str(_START), *(["--quiet"] if args.quiet else [])]
        replay = processes.start("replay", str(bag), *flags, shown=True)
        replay.wait(2 * _START + 2 * args.frames / args.rate)
        log.info("the flight is over; working off what waits")
        slam.stop(_FINISH)
        observer.stop(_FINISH)
    try:
        return dict(json.loads(counts.read_text()))
    finally:
        counts.unlink(missing_ok=True)


def _assess(folder: Path, source: Source, received: Mapping[str, int]) -> Report:
    """Compare what the nodes saved with the truth; add that, what was received, and the picture to the folder."""
    from recon3d_ros.cli.assess import assess
    from recon3d_ros.runtime.results import write_text
    from recon3d_ros.runtime.saved import load

    saved = load(folder)
    published = {topic: n for topic, n in (saved.report.published or {}).items() if topic in received}
    report = dataclasses.replace(
        saved.report, source=source.describe(), published=published, received=dict(received)
    )
    report = assess(report, saved.trajectory, saved.mesh, source.truth, source.surface)
    write_text(folder / "report.json", report.to_json())
    write_text(folder / "report.md", report.to_markdown())
    save_picture(folder)
    return report


def _is_complete(report: Report) -> bool:
    """True when no message was lost on the way to another process."""
    if report.published == report.received:
        return True
    log.error("messages were lost: published %s, received %s", report.published, report.received)
    return False
