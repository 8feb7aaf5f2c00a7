# SPDX-License-Identifier: Apache-2.0
"""An output folder is read back as it was saved."""

import numpy as np
import pytest

from recon3d_ros.core.config import Config
from recon3d_ros.core.errors import ReconError
from recon3d_ros.runtime.results import save
from recon3d_ros.runtime.runner import OfflineRun
from recon3d_ros.runtime.saved import load
from recon3d_ros.runtime.sources import open_source


@pytest.fixture(scope="module")
def results():
    run = OfflineRun(open_source("synthetic:room/forward?frames=4&size=160x120&depth=1"), Config())
    run.run()
    yield run.results()
    run.close()


def test_report_trajectory_cloud_and_mesh_come_back(results, tmp_path):
    assert not save(results, tmp_path)
    saved = load(tmp_path)
    assert saved.report == results.report
    assert np.allclose(saved.trajectory.poses, results.trajectory.poses, atol=1e-9)
    assert (saved.cloud[0] == results.cloud_points).all() and (saved.cloud[1] == results.cloud_colours).all()
    assert (saved.mesh.triangles == results.mesh.triangles).all()


def test_a_folder_without_a_mesh_or_with_a_damaged_report_says_so(results, tmp_path):
    save(results, tmp_path)
    (tmp_path / "mesh.ply").unlink()
    assert load(tmp_path).mesh is None
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(ReconError, match="damaged"):
        load(tmp_path)
