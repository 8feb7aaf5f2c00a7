# SPDX-License-Identifier: Apache-2.0
"""The geometric backend on a synthetic flight and on recordings, one JSON line each; with `--pycolmap` beside COLMAP's
incremental mapping of the same frames with the same camera in the same run (`pip install pycolmap`).

Frames are given at `--hz`, as a camera would, so that depth has its own time: `ms` is what a frame takes until it is
answered, `depth_ms` what the depth of a keyframe takes in its thread beside, and `depth_dropped` counts the keyframes that
came too fast for it (with `--hz 0` none: frames then wait for depth). `peak_rss_mb` holds all images. ATE is after
alignment with scale. Both sides have two threads. Each recording runs in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from paced import paced, pipeline_of

from recon3d_ros.core.camera import Camera
from recon3d_ros.core.camera_files import load_camera
from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import InputError
from recon3d_ros.core.geometry import inverse, pose, rotation_angle
from recon3d_ros.core.trajectory import Trajectory, read_tum, to_ns
from recon3d_ros.core.types import Frame, Update
from recon3d_ros.evaluation.depth import depth_error, keyframe_depth
from recon3d_ros.evaluation.trajectory import compare
from recon3d_ros.evaluation.truth import Views, open_truth
from recon3d_ros.runtime.metrics import peak_rss_mb
from recon3d_ros.runtime.sources import open_source

#: Of either side. The libraries read the variables when they are loaded.
THREADS = 2
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
DATA = Path(os.environ.get("RECON3D_DATA") or Path(__file__).parents[2] / "shared/data")
SYNTHETIC = "synthetic:"


@dataclass(frozen=True)
class Recording:
    """source: in the folder of recordings, or synthetic. frames: taken, 0 for all. camera: calibration file beside the
    source. truth: poses file in it. photos: any two may overlap, so that COLMAP matches all pairs. gps: positions file."""

    source: str
    frames: int = 0
    camera: str = ""
    truth: str = ""
    photos: bool = False
    gps: str = ""

    @property
    def name(self) -> str:
        """For `--only`."""
        return self.source.removeprefix(SYNTHETIC).partition("?")[0]

    @property
    def is_synthetic(self) -> bool:
        """Needs no file."""
        return self.source.startswith(SYNTHETIC)

    @property
    def path(self) -> str:
        """As `open_source` takes it."""
        return self.source if self.is_synthetic else str(DATA / self.source)


COLMAP = "colmap.json"
PSEUDO = "poses_colmap.txt"
RECORDINGS = (
    Recording("synthetic:building/orbit?frames=200"),
    Recording("synthetic:building/lookaround?frames=150"),
    Recording("kitti-odometry-a"),
    Recording("strecha-fountain-P11", photos=True),
    Recording("strecha-castle-P30", photos=True),
    Recording("lingbot-courthouse", 78, COLMAP, PSEUDO),
    Recording("7scenes-redkitchen"),
    Recording("tum-fr1-rpy"),
    Recording("drone-caliterra", 0, COLMAP, PSEUDO, photos=True),
    Recording("drone-brighton-beach", 0, COLMAP, PSEUDO, photos=True, gps="gps.txt"),
    Recording("worldsystem-drone/hall_0140_segment_014.h264", camera="camchain-imucam.yaml"),
    Recording("lingbot-oxford"),
)


@dataclass(frozen=True, eq=False)
class Run:
    """What the backend made of the frames. milliseconds [N]: of each. depths: the latest answer with depth, by keyframe."""

    trajectory: Trajectory
    milliseconds: np.ndarray
    keyframes: int
    depths: dict[int, Update]
    statistics: dict[str, float]
    peak_rss_mb: float


def frames_of(recording: Recording, limit: int) -> list[Frame]:
    """All frames, without their depth. Raises InputError for a recording that is not there."""
    camera = _camera(Path(recording.path), recording.camera) if recording.camera else None
    source = open_source(recording.path, camera=camera)
    count = limit or recording.frames or None
    return [Frame(f.stamp_ns, f.image, f.camera) for f in islice(source, count)]


def _camera(path: Path, file: str) -> Camera:
    folder = path if path.is_dir() else path.parent
    if file != COLMAP:
        return load_camera(folder / file)
    data = json.loads((folder / file).read_text())
    f, cx, cy, k1 = data["params"]
    # COLMAP's pixel centres lie at halves.
    return Camera(
        data["width"], data["height"], f, f, cx - 0.5, cy - 0.5, "plumb_bob", (k1, 0.0, 0.0, 0.0, 0.0)
    )


def reconstruct(frames: Sequence[Frame], hz: float) -> Run:
    """Give the frames to the backend, one every 1/hz seconds or as soon as it is done (hz 0)."""
    depths: dict[int, Update] = {}
    with pipeline_of(Config(backend="geometric"), realtime=hz > 0) as pipeline:
        for steps in paced(pipeline, frames, hz):
            depths |= {s.update.index: s.update for s in steps if s.update.depth is not None}
        return Run(
            pipeline.trajectory(),
            np.array(pipeline.metrics.latency_ms),
            len(pipeline.keyframes),
            depths,
            pipeline.reconstructor.statistics(),
            peak_rss_mb(),
        )


def trajectory_errors(trajectory: Trajectory, truth: Trajectory | None, frames: Sequence[Frame]) -> dict:
    """ATE and rotation errors; where there is no truth the net motion: its turn, and its angle to the first view."""
    if len(trajectory) < 3:
        return {}
    if truth is None:
        motion = inverse(trajectory.poses[0]) @ trajectory.poses[-1]
        forward = motion[2, 3] / np.linalg.norm(motion[:3, 3])
        return {
            "turn_deg": round(np.degrees(rotation_angle(motion[:3, :3])), 2),
            "off_axis_deg": round(float(np.degrees(np.arccos(forward))), 2),
        }
    stamps = np.array([f.stamp_ns for f in frames])
    error = compare(trajectory, truth, "sim3", frames_ns=stamps)
    return {
        "ate_m": round(error.ate.rmse, 5),
        "ate_percent": round(error.ate_percent_of_path, 4),
        "path_m": round(error.path, 3),
        "still_m": round(error.spread, 4),
        "rpe_deg": error.rpe_rotation and round(error.rpe_rotation.rmse, 4),
        "relative_rotation_deg": round(error.relative_rotation.median, 4),
        "coverage": round(error.coverage, 4),
    }


def gps_error(trajectory: Trajectory, file: Path) -> float:
    """RMS distance to GPS positions (`seconds lat lon alt east north up ...`) after alignment with scale, metres."""
    rows = [line.split() for line in file.read_text().splitlines() if not line.startswith("#")]
    poses = np.stack([pose(np.eye(3), np.array(row[4:7], np.float64)) for row in rows])
    gps = Trajectory(np.array([to_ns(row[0]) for row in rows]), poses)
    return round(compare(trajectory, gps, "sim3").ate.rmse, 3)


def depth_errors(depths: dict[int, Update], views: Views | None) -> dict:
    """AbsRel with a scale for each keyframe, and the coverage of the truth."""
    compared = []
    for update in depths.values():
        assert update.camera is not None and update.depth is not None
        truth = None if views is None else views.at(update.stamp_ns, update.camera, 20_000_000)
        if truth is not None:
            compared.append(keyframe_depth(update.depth, truth))
    error = depth_error(compared, "keyframe")
    if error is None:
        return {}
    return {
        "depth_abs_rel_percent": round(100 * error.abs_rel_median, 3),
        "depth_coverage_percent": round(100 * error.coverage, 1),
    }


def ours(recording: Recording, frames: Sequence[Frame], hz: float, truth: Trajectory | None) -> dict:
    """The line of the backend."""
    run = reconstruct(frames, hz)
    p50, p95 = np.percentile(run.milliseconds, [50, 95])
    depth_ms = [v for n, v in run.statistics.items() if n.startswith("depth_") and n.endswith("_ms")]
    filled = [np.isfinite(u.depth).mean() for u in run.depths.values()]
    has_depth = recording.is_synthetic or (Path(recording.path) / "depth.txt").is_file()
    result = {
        "frames": len(frames),
        "tracked": len(run.trajectory),
        "keyframes": run.keyframes,
        **trajectory_errors(run.trajectory, truth, frames),
        "ms": {"p50": round(p50, 1), "p95": round(p95, 1)},
        "seconds_per_frame": round(1e-3 * float(run.milliseconds.mean()), 4),
        "depth_ms": round(sum(depth_ms), 1),
        "depth_dropped": run.statistics["depth_dropped"],
        "depth_filled_percent": round(100 * float(np.mean(filled)), 1) if filled else 0.0,
        **depth_errors(run.depths, open_truth(recording.path).views if has_depth else None),
        "peak_rss_mb": round(run.peak_rss_mb),
        "images_mb": round(sum(f.image.nbytes for f in frames) / 2**20),
    }
    if recording.gps:
        result["gps_m"] = gps_error(run.trajectory, Path(recording.path) / recording.gps)
    return result


def colmap(recording: Recording, frames: Sequence[Frame], truth: Trajectory | None) -> dict:
    """COLMAP's incremental mapping of the same frames, with the same intrinsics, which it may refine where they are a
    guess."""
    import pycolmap

    pycolmap.logging.minloglevel = 2
    with tempfile.TemporaryDirectory() as folder:
        images, database = Path(folder) / "images", Path(folder) / "database.db"
        images.mkdir()
        for i, frame in enumerate(frames):
            cv2.imwrite(str(images / f"{i:06d}.png"), frame.image[:, :, ::-1])
        begin = time.perf_counter()
        maps = _incremental(images, database, frames[0].camera, recording.photos)
        seconds = time.perf_counter() - begin
    best = max(maps.values(), key=lambda m: m.num_reg_images(), default=None)
    registered = {} if best is None else {image.name: image for image in best.images.values()}
    names = sorted(n for n, image in registered.items() if image.has_pose)
    poses = [registered[n].cam_from_world().inverse().matrix() for n in names]
    stamps = np.array([frames[int(Path(n).stem)].stamp_ns for n in names], dtype=np.int64)
    trajectory = Trajectory(stamps, np.array([pose(T[:, :3], T[:, 3]) for T in poses]).reshape(-1, 4, 4))
    return {
        "registered": len(names),
        "maps": len(maps),
        **trajectory_errors(trajectory, truth, frames),
        "seconds_per_frame": round(seconds / len(frames), 4),
    }


def _incremental(images: Path, database: Path, camera: Camera | None, photos: bool) -> dict:
    import pycolmap

    known = camera is not None and not camera.estimated
    reader, extraction = pycolmap.ImageReaderOptions(), pycolmap.FeatureExtractionOptions()
    reader.camera_model = "FULL_OPENCV" if known else "SIMPLE_RADIAL"
    if known and camera is not None:
        lens = [*camera.distortion, 0, 0, 0, 0, 0, 0, 0, 0][:8]
        values = [camera.fx, camera.fy, camera.cx + 0.5, camera.cy + 0.5, *lens]
        reader.camera_params = ",".join(f"{v:.9g}" for v in values)
    matching, mapping = pycolmap.FeatureMatchingOptions(), pycolmap.IncrementalPipelineOptions()
    extraction.num_threads = matching.num_threads = mapping.num_threads = THREADS
    extraction.use_gpu = matching.use_gpu = False
    mapping.random_seed = 0
    mapping.ba_refine_focal_length = mapping.ba_refine_extra_params = not known
    pycolmap.extract_features(
        database,
        images,
        camera_mode=pycolmap.CameraMode.SINGLE,
        reader_options=reader,
        extraction_options=extraction,
    )
    if photos:
        pycolmap.match_exhaustive(database, matching_options=matching)
    else:
        pycolmap.match_sequential(database, matching_options=matching)
    return pycolmap.incremental_mapping(database, images, images.parent, options=mapping)


def ratios(mine: dict, other: dict) -> dict:
    """Ours over COLMAP's: below 1 is better."""
    out = {"seconds": round(mine["seconds_per_frame"] / other["seconds_per_frame"], 4)}
    if "ate_m" in mine and other.get("ate_m"):
        out["ate"] = round(mine["ate_m"] / other["ate_m"], 2)
    return out


def measure(recording: Recording, args: argparse.Namespace) -> dict:
    """One line."""
    frames = frames_of(recording, args.frames)
    folder = Path(recording.path)
    truth = read_tum(folder / recording.truth) if recording.truth else open_source(recording.path).truth
    result = {"bench": "geometric", "name": recording.name, **ours(recording, frames, args.hz, truth)}
    if args.pycolmap:
        result["pycolmap"] = colmap(recording, frames, truth)
        result["ratio"] = ratios(result, result["pycolmap"])
    return result


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(r.name for r in RECORDINGS)
    parser.add_argument(
        "--only", action="append", metavar="NAME", help=f"repeatable; a part will do: {names}"
    )
    parser.add_argument("--frames", type=int, default=0, help="take the first N frames only")
    parser.add_argument("--hz", type=float, default=10.0, help="frames a second; 0: as fast as it goes")
    parser.add_argument("--pycolmap", action="store_true", help="run COLMAP on the same frames")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Each recording in a process of its own, so that memory is its own."""
    args = _arguments()
    if args.pycolmap:
        try:
            import pycolmap  # noqa: F401
        except ImportError:
            print("--pycolmap needs COLMAP's package:  pip install pycolmap", file=sys.stderr)
            return 2
    wanted = [r for r in RECORDINGS if not args.only or any(part in r.name for part in args.only)]
    if not wanted:
        print(f"no recording is called {', '.join(args.only)}", file=sys.stderr)
        return 2
    if args.here:
        cv2.setNumThreads(THREADS)
        print(json.dumps(measure(wanted[0], args)), flush=True)
        return 0
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(THREADS))}
    failed = 0
    for recording in wanted:
        if not recording.is_synthetic and not Path(recording.path).exists():
            print(f"{recording.name}: not in {DATA}; set RECON3D_DATA", file=sys.stderr)
            continue
        flags = [
            "--frames",
            str(args.frames),
            "--hz",
            str(args.hz),
            *(["--pycolmap"] if args.pycolmap else []),
        ]
        command = [sys.executable, __file__, "--here", "--only", recording.name, *flags]
        failed += subprocess.run(command, env=environment).returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        print(f"geometric: {error}", file=sys.stderr)
        sys.exit(2)
