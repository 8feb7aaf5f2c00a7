# SPDX-License-Identifier: Apache-2.0
"""The program `slam`: reconstructor and mesher in one process; keyframes go from one to the other by reference."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

from recon3d_ros.nodes import process, saving
from recon3d_ros.nodes.mesher import MesherNode
from recon3d_ros.nodes.reconstructor import ReconstructorNode
from recon3d_ros.runtime.results import Results


def finish(reconstructor: ReconstructorNode, mesher: MesherNode) -> list[str]:
    """Work off what waits in both nodes; where `output` is set, save all results there. Returns what failed."""
    reconstructor.finish()
    mesher.finish()
    return saving.save_all(reconstructor, lambda results: with_mesh(results, mesher))


def with_mesh(results: Results, mesher: MesherNode) -> Results:
    """Results of the reconstructor with what the mesher made of them."""
    loop, report, mesh = mesher.loop, results.report, mesher.loop.surface()
    report = dataclasses.replace(
        report,
        triangles=len(mesh.triangles),
        voxel_size=loop.mesher.voxel_size,
        stage_ms={**report.stage_ms, **loop.metrics.stages},
        drops={**report.drops, **mesher.drops()},
        published={**(report.published or {}), **mesher.published},
    )
    return dataclasses.replace(results, mesh=mesh, report=report)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both nodes until a signal; where `output` is set, save what they have then."""

    def make(stop: process.Stop) -> process.Session:
        mesher = MesherNode(follow=False)
        reconstructor = ReconstructorNode(consumer=mesher)
        return process.Session([reconstructor, mesher], lambda: finish(reconstructor, mesher))

    return process.run(make, arguments)


if __name__ == "__main__":
    sys.exit(main())
