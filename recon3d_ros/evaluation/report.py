# SPDX-License-Identifier: Apache-2.0
"""An evaluation as text for people (Markdown) and for programs (JSON)."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from recon3d_ros.evaluation.depth import DepthError
from recon3d_ros.evaluation.surface import Distances, SurfaceError
from recon3d_ros.evaluation.trajectory import Statistics, TrajectoryError

_SCALINGS = {
    "none": "as it stands",
    "trajectory": "scale of the trajectory",
    "median": "one scale for all",
    "keyframe": "a scale for each keyframe",
}


@dataclass(frozen=True)
class Evaluation:
    """An estimate against the truth: what could be compared, and one line for each thing that could not (notes)."""

    estimate: str
    truth: str
    trajectory: TrajectoryError | None = None
    depth: DepthError | None = None
    surface: SurfaceError | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The values of the trajectory, then `depth`, `surface` and `notes`; what is not known is left out."""
        values: dict[str, object] = {"estimate": self.estimate, "truth": self.truth}
        if self.trajectory is not None:
            error = self.trajectory
            values |= dataclasses.asdict(error) | {
                "ate_percent_of_path": error.ate_percent_of_path,
                "coverage": error.coverage,
                "T_truth_map": error.T_truth_map.tolist(),
            }
        for name, section in (("depth", self.depth), ("surface", self.surface)):
            if section is not None:
                values[name] = dataclasses.asdict(section)
        values["notes"] = list(self.notes)
        known = {k: v for k, v in values.items() if v is not None and v != math.inf}
        return json.dumps(known, indent=2) + "\n"

    def to_markdown(self) -> str:
        """A section for each thing compared."""
        parts = [f"# Evaluation\n\n`{self.estimate}` against `{self.truth}`"]
        if self.trajectory is not None:
            parts.append(_trajectory(self.trajectory))
        if self.depth is not None:
            parts.append(_depth(self.depth))
        if self.surface is not None:
            parts.append(_surface(self.surface))
        parts += [f"- {note}" for note in self.notes]
        return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _trajectory(e: TrajectoryError) -> str:
    errors = [
        ("ATE [m]", e.ate),
        (f"RPE translation over {e.delta} [m]", e.rpe_translation),
        (f"RPE rotation over {e.delta} [deg]", e.rpe_rotation),
        ("relative rotation, any two poses [deg]", e.relative_rotation),
    ]
    rows = [(name, *_columns(s)) for name, s in errors]
    found = "" if e.scale_found is None else f", scale found {e.scale_found:.6g}"
    facts = [
        ("alignment", f"{e.alignment}{found}"),
        ("ATE of the path", f"{_number(e.ate_percent_of_path)} % of {e.path:.4g} m"),
        ("ATE of a camera that never moves", f"{_number(e.spread)} m"),
        ("coverage", f"{e.covered} of {e.frames} frames ({100 * e.coverage:.1f} %), {e.pairs} compared"),
    ]
    return (
        "## Trajectory\n\n" + _table(("", "rmse", "mean", "median", "max"), rows) + "\n" + _table(None, facts)
    )


def _depth(e: DepthError) -> str:
    drift = f", of single keyframes {e.scale_low:.3f} … {e.scale_high:.3f} of the median"
    facts = [
        ("AbsRel, median", f"{100 * e.abs_rel_median:.3g} %"),
        ("AbsRel, mean", f"{100 * e.abs_rel_mean:.3g} %"),
        ("ratio below 1.25", f"{100 * e.below_125:.1f} %"),
        ("coverage of the truth", f"{100 * e.coverage:.1f} %"),
        ("scale", f"{_SCALINGS[e.scaling]}: {e.scale:.6g}{drift}"),
        ("compared", f"{e.keyframes} keyframes, {e.pixels:,} pixels"),
    ]
    return "## Depth\n\n" + _table(None, facts)


def _surface(e: SurfaceError) -> str:
    rows = [
        ("accuracy [m]", *_distances(e.accuracy), f"precision {100 * e.precision:.1f} %"),
        ("completeness [m]", *_distances(e.completeness), f"recall {100 * e.recall:.1f} %"),
    ]
    unseen = f", {100 * e.unseen:.1f} % of the samples lie where the truth has not looked" if e.unseen else ""
    facts = [
        (f"F-score at {e.threshold:.3g} m", f"{100 * e.f_score:.1f} %"),
        ("compared", f"{e.samples:,} samples, {e.truth_points:,} true points{unseen}"),
    ]
    header = ("", "mean", "median", "p90", f"within {e.threshold:.3g} m")
    return "## Surface\n\n" + _table(header, rows) + "\n" + _table(None, facts)


def _columns(s: Statistics | None) -> tuple[str, ...]:
    return ("–",) * 4 if s is None else tuple(_number(v) for v in (s.rmse, s.mean, s.median, s.max))


def _distances(d: Distances) -> tuple[str, ...]:
    return tuple(_number(v) for v in (d.mean, d.median, d.p90))


def _number(value: float) -> str:
    return f"{value:.4g}"


def _table(header: tuple[str, ...] | None, rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; without header its columns have no names."""
    header = header or ("",) * len(rows[0])
    lines = [f"| {' | '.join(header)} |".replace("|  ", "| "), "|---" * len(header) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"
