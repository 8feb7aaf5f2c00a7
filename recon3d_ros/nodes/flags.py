# SPDX-License-Identifier: Apache-2.0
"""What the command line knows of the programs: flags, and what they say. Importable without ROS."""

from __future__ import annotations

import argparse
from pathlib import Path

#: The observer says so once every topic has a publisher.
OBSERVER_READY = "all topics have a publisher"


def add_replay_flags(parser: argparse.ArgumentParser) -> None:
    """BAG, --rate, --loop, --wait, --quiet."""
    parser.add_argument("bag", metavar="BAG", type=Path, help="rosbag2 folder, .mcap or .db3 file")
    parser.add_argument(
        "--rate", type=_rate, default=1.0, metavar="X", help="speed, 1 as recorded (default: 1)"
    )
    parser.add_argument("--loop", action="store_true", help="start again at the end")
    parser.add_argument(
        "--wait",
        type=float,
        default=30.0,
        metavar="S",
        help="longest wait for subscribers, seconds (default: 30)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value < 1000:
        raise argparse.ArgumentTypeError("must lie between 0 and 1000")
    return value
