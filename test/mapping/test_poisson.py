# SPDX-License-Identifier: Apache-2.0
"""Poisson surfaces: holes close, nothing is invented, and without Open3D one line says so."""

import sys

import numpy as np
import pytest

from recon3d_ros.core.errors import MissingDependency
from recon3d_ros.core.types import MeshBlock
from recon3d_ros.mapping.components import without_unused
from recon3d_ros.mapping.poisson import poisson


def globe(rows, holes=()):
    """A unit sphere of rows x 2 rows quads, red above and blue below, without the vertices nearer to a hole [3] than its
    radius."""
    polar, round_ = np.meshgrid(
        np.linspace(0, np.pi, rows + 1), np.linspace(0, 2 * np.pi, 2 * rows, endpoint=False)
    )
    points = np.stack(
        [np.sin(polar) * np.cos(round_), np.sin(polar) * np.sin(round_), np.cos(polar)], axis=-1
    )
    i = np.arange(points.size // 3).reshape(polar.shape)
    j = np.roll(i, -1, axis=0)
    a, b, c, d = (part.ravel() for part in (i[:, :-1], i[:, 1:], j[:, 1:], j[:, :-1]))
    triangles = np.concatenate([np.column_stack([a, b, c]), np.column_stack([a, c, d])])
    vertices = points.reshape(-1, 3)
    open_ = np.zeros(len(vertices), np.bool_)
    for centre, radius in holes:
        open_ |= np.linalg.norm(vertices - centre, axis=1) < radius
    triangles = triangles[~open_[triangles].any(axis=1)].astype(np.int32)
    colours = np.where(vertices[:, 2:] > 0, (255, 0, 0), (0, 0, 255)).astype(np.uint8)
    return without_unused(MeshBlock((0, 0, 0), vertices.astype(np.float32), triangles, colours))


def open_edges(mesh):
    """Number of edges of one triangle alone."""
    edges = np.sort(mesh.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    return int((np.unique(edges, axis=0, return_counts=True)[1] == 1).sum())


def test_m14_without_open3d_one_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(
        MissingDependency, match=r"open3d is not available .*pip install 'recon3d_ros\[poisson\]'"
    ):
        poisson(globe(8))


def test_a_small_hole_is_closed_and_the_surface_stays():
    pytest.importorskip("open3d")
    mesh = globe(40, holes=[((1.0, 0.0, 0.0), 0.15)])
    whole = poisson(mesh, 6)
    assert open_edges(mesh) > 0 and open_edges(whole) == 0
    assert np.abs(np.linalg.norm(whole.vertices, axis=1) - 1).max() < 0.02
    assert (whole.normals * whole.vertices).sum(axis=1).min() > 0.95
    red = (whole.colours == (255, 0, 0)).all(axis=1)
    clear = np.abs(whole.vertices[:, 2]) > 0.1
    assert (red == (whole.vertices[:, 2] > 0))[clear].all()


def test_where_nothing_was_seen_no_surface_is_invented():
    pytest.importorskip("open3d")
    half = globe(40, holes=[((0.0, 0.0, -1.0), 1.3)])
    surface = poisson(half, 6)
    assert open_edges(surface) > 0 and surface.vertices[:, 2].min() > half.vertices[:, 2].min() - 0.3
