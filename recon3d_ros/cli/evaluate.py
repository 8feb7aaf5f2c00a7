# SPDX-License-Identifier: Apache-2.0
"""`recon3d eval EST GT`: trajectory errors of two TUM files."""

from __future__ import annotations

import argparse
import dataclasses
import json

from recon3d_ros.core.trajectory import read_tum
from recon3d_ros.evaluation.trajectory import TrajectoryError, compare


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    text = "compare an estimated trajectory with the true one (TUM files)"
    parser = commands.add_parser("eval", help=text, description=text)
    parser.add_argument("estimate", metavar="EST", help="estimated trajectory")
    parser.add_argument("truth", metavar="GT", help="true trajectory")
    parser.add_argument(
        "--alignment", choices=("sim3", "se3"), default="sim3", help="with or without scale (default: sim3)"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.02,
        metavar="S",
        help="largest difference of paired stamps, seconds",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=command)


def command(args: argparse.Namespace) -> int:
    """Print the errors."""
    error = compare(
        read_tum(args.estimate), read_tum(args.truth), args.alignment, round(args.tolerance * 1e9)
    )
    print(_json(error) if args.json else _table(error))
    return 0


def _json(error: TrajectoryError) -> str:
    values = dataclasses.asdict(error) | {"ate_percent_of_path": error.ate_percent_of_path}
    values["T_truth_map"] = error.T_truth_map.tolist()
    return json.dumps(values, indent=2)


def _table(error: TrajectoryError) -> str:
    lines = [
        f"{error.pairs} pairs, path {error.path:.4g} m, alignment {error.alignment}, scale {error.scale:.6g}",
        f"{'':24}{'rmse':>12}{'mean':>12}{'median':>12}{'max':>12}",
    ]
    rows = (
        ("ATE [m]", error.ate),
        ("RPE translation [m]", error.rpe_translation),
        ("RPE rotation [deg]", error.rpe_rotation),
    )
    for name, s in rows:
        lines.append(f"{name:24}{s.rmse:12.5g}{s.mean:12.5g}{s.median:12.5g}{s.max:12.5g}")
    return "\n".join([*lines, f"ATE is {error.ate_percent_of_path:.4g} % of the path"])
