# SPDX-License-Identifier: Apache-2.0
"""`recon3d eval EST GT`: trajectory, depth and surface against the truth, in one report."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from recon3d_ros.core.errors import InputError

if TYPE_CHECKING:
    from recon3d_ros.evaluation.evaluate import Options
    from recon3d_ros.evaluation.report import Evaluation


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    text = "compare trajectory, depth and surface with the truth"
    parser = commands.add_parser("eval", help=text, description=text)
    parser.add_argument(
        "estimate", metavar="EST", help="output folder of `recon3d run`, TUM file, or PLY file"
    )
    parser.add_argument(
        "truth",
        metavar="GT",
        help="TUM-style folder, TUM file, PLY file, synthetic:SCENE/PATH, or another output folder",
    )
    parser.add_argument("--surface", metavar="PLY", help="true mesh or cloud, in the frame of GT's poses")
    parser.add_argument(
        "--align",
        "--alignment",
        choices=("auto", "se3", "sim3", "none"),
        default="auto",
        help="auto (default): with scale (sim3) unless the report of EST says that the scale is known",
    )
    parser.add_argument(
        "--tolerance",
        type=_positive,
        default=0.02,
        metavar="S",
        help="largest difference of paired stamps, seconds",
    )
    parser.add_argument(
        "--delta",
        default="1f",
        metavar="N",
        help="distance of the RPE: frames, metres or seconds (1f, 1m, 1s)",
    )
    parser.add_argument(
        "--depth-scale",
        choices=("auto", "none", "trajectory", "median", "keyframe"),
        default="auto",
        help="factor on the depth: none, that of the alignment, one for all, one for each keyframe; "
        "auto (default): median after an alignment with scale, none otherwise",
    )
    parser.add_argument(
        "--threshold",
        type=_positive,
        metavar="M",
        help="of the F-score, metres (default: 2 voxels of the mesh, or 0.05)",
    )
    parser.add_argument(
        "--max-depth", type=_positive, default=math.inf, metavar="M", help="leave out true depth beyond it"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--out",
        metavar="FILE",
        action="append",
        default=[],
        help="write the report too: .md or .json; repeatable",
    )
    parser.set_defaults(func=command)


def command(args: argparse.Namespace) -> int:
    """Compare, write, print."""
    import dataclasses

    from recon3d_ros.evaluation.estimate import open_estimate
    from recon3d_ros.evaluation.evaluate import evaluate
    from recon3d_ros.evaluation.truth import open_truth

    files = [_report_file(name) for name in args.out]
    options = _options(args)
    estimate, truth = open_estimate(args.estimate), open_truth(args.truth)
    if args.surface:
        truth = dataclasses.replace(truth, surface=Path(args.surface))
    result = evaluate(estimate, truth, options)
    for file in files:
        _write(result, file)
    print(result.to_json() if args.json else result.to_markdown(), end="")
    return 0


def _options(args: argparse.Namespace) -> Options:
    from recon3d_ros.evaluation.evaluate import Options
    from recon3d_ros.evaluation.pairs import Delta

    return Options(
        alignment=args.align,
        tolerance_ns=round(args.tolerance * 1e9),
        delta=Delta.parse(args.delta),
        depth_scale=args.depth_scale,
        threshold=args.threshold,
        max_depth=args.max_depth,
    )


def _report_file(name: str) -> Path:
    path = Path(name)
    if path.suffix not in (".md", ".json"):
        raise InputError(f"--out {name}: a report ends in .md or .json")
    return path


def _write(result: Evaluation, file: Path) -> None:
    from recon3d_ros.runtime.results import write_text

    write_text(file, result.to_json() if file.suffix == ".json" else result.to_markdown())


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above zero, got {text}")
    return value
