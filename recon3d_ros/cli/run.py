# SPDX-License-Identifier: Apache-2.0
"""`recon3d run SOURCE`: a recording to an output folder; no ROS needed."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recon3d_ros.cli.options import add_config_options, config_from

if TYPE_CHECKING:
    from recon3d_ros.core.config import Config
    from recon3d_ros.runtime.depth_folder import DepthFolder
    from recon3d_ros.runtime.pipeline import Step
    from recon3d_ros.runtime.results import Results
    from recon3d_ros.runtime.runner import OfflineRun
    from recon3d_ros.runtime.sources.base import Source
    from recon3d_ros.viz.rerun_sink import RerunSink

log = logging.getLogger(__name__)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    text = "reconstruct a recording: folder of images, video, TUM-style folder, rosbag2, synthetic:SCENE/PATH"
    parser = commands.add_parser("run", help=text, description=text)
    parser.add_argument("source", metavar="SOURCE", help="path, or synthetic:building/orbit")
    parser.add_argument("--out", metavar="DIR", default="out/run", help="output folder (default: out/run)")
    parser.add_argument(
        "--camera", metavar="FILE", help="calibration: camera_calibration YAML, Kalibr camchain or calib.json"
    )
    parser.add_argument("--image-topic", metavar="TOPIC", help="of a bag with several cameras")
    parser.add_argument(
        "--depth-topic", metavar="TOPIC", help="of a bag with several depth images; 'none': leave depth out"
    )
    parser.add_argument("--odometry-topic", metavar="TOPIC", help="of a bag with several, with --prior")
    parser.add_argument(
        "--weights",
        metavar="PATH",
        help="weights of the learned backend: a file, or a name of `recon3d weights list`",
    )
    parser.add_argument("--map", metavar="DIR", help="go on with a saved map, such as out/run/map")
    parser.add_argument(
        "--save-map",
        action="store_true",
        default=None,
        help="save the map in DIR/map, to go on with it another time",
    )
    parser.add_argument(
        "--rerun",
        metavar="FILE",
        nargs="?",
        const="",
        help="write a Rerun recording (default: DIR/recording.rrd)",
    )
    parser.add_argument(
        "--save-depth",
        action="store_true",
        help="write the depth of each keyframe to DIR/depth, for recon3d eval",
    )
    add_config_options(parser)
    parser.set_defaults(func=command)


def command(args: argparse.Namespace) -> int:
    """Reconstruct, save, report."""
    from recon3d_ros.runtime.results import prepare_folder
    from recon3d_ros.runtime.runner import OfflineRun
    from recon3d_ros.runtime.saved_map import FOLDER

    config = config_from(args)
    folder = prepare_folder(args.out)
    with _logging_to(folder / "log.txt", args.quiet):
        source = _open(args, config)
        log.info("source: %s", source.describe())
        run = OfflineRun(source, config)
        try:
            with _stopping(run), _recording(args, folder) as sink, _saving_depth(args, folder) as depth:

                def on_step(step: Step) -> None:
                    if sink:
                        sink.log_step(step)
                    if depth:
                        depth.write(step.update)

                with _progress(source, args.quiet) as on_frame:
                    run.run(on_step, on_frame)
                results = run.results()
                if sink and results.mesh is not None:
                    sink.log_mesh(results.mesh)
                failures = save_all(results, source, folder)
                if config.save_map:
                    failures += run.save_map(folder / FOLDER)
            failures += depth.failures if depth else []
        finally:
            run.close()
    print(f"results in {folder}")
    if run.stop.is_set():
        return 130
    return 1 if failures else 0


def save_all(results: Results, source: Source, folder: Path) -> list[str]:
    """Compare with the truth where there is one, write the output folder, print the report; returns what failed."""
    from recon3d_ros.cli.assess import assess
    from recon3d_ros.runtime.results import save
    from recon3d_ros.viz.preview import save_preview

    report = assess(results.report, results.trajectory, results.mesh, source.truth, source.surface)
    results = dataclasses.replace(results, report=report)
    failures = save(results, folder)
    mesh = results.mesh
    surface = (mesh.vertices, mesh.triangles, mesh.colours) if mesh is not None else None
    try:
        save_preview(
            folder / "preview.png", surface, (results.cloud_points, results.cloud_colours), results.trajectory
        )
    except OSError as error:
        failures.append(f"preview.png not written: {error}")
        log.error("%s", failures[-1])
    print(report.to_markdown())
    return failures


def _open(args: argparse.Namespace, config: Config) -> Source:
    from recon3d_ros.core.camera_files import load_camera
    from recon3d_ros.runtime.sources import open_source

    camera = load_camera(args.camera) if args.camera else None
    return open_source(
        args.source,
        camera=camera,
        prior=config.prior,
        image_topic=args.image_topic,
        depth_topic=args.depth_topic,
        odometry_topic=args.odometry_topic,
        sync=config.input.sync,
    )


@contextmanager
def _stopping(run: OfflineRun) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) ends the run after the current frame; a second one ends it at once."""

    def stop(number: int, _: object) -> None:
        if run.stop.is_set():
            raise KeyboardInterrupt
        log.warning("stopping; what was computed is saved (once more to end at once)")
        run.stop.set()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _progress(source: Source, quiet: bool) -> Iterator[Callable[[], None]]:
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    with (
        logging_redirect_tqdm(),
        tqdm(total=source.length, unit="frame", disable=quiet, file=sys.stderr) as bar,
    ):
        yield lambda: bar.update() and None


@contextmanager
def _recording(args: argparse.Namespace, folder: Path) -> Iterator[RerunSink | None]:
    if args.rerun is None:
        yield None
        return
    from recon3d_ros.viz.rerun_sink import RerunSink

    sink = RerunSink(args.rerun or folder / "recording.rrd")
    try:
        yield sink
    finally:
        sink.close()


@contextmanager
def _saving_depth(args: argparse.Namespace, folder: Path) -> Iterator[DepthFolder | None]:
    from recon3d_ros.runtime.depth_folder import DepthFolder, remove_depth

    # Also where none is asked for: that of an earlier run does not belong to the poses of this one.
    remove_depth(folder)
    if not args.save_depth:
        yield None
        return
    depth = DepthFolder(folder)
    try:
        yield depth
    finally:
        depth.close()


@contextmanager
def _logging_to(path: Path, quiet: bool) -> Iterator[None]:
    handler = logging.FileHandler(path, mode="w")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    others = {h: h.level for h in root.handlers} if quiet else {}
    root.addHandler(handler)
    for other in others:
        other.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
        for other, level in others.items():
            other.setLevel(level)
