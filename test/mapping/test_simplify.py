# SPDX-License-Identifier: Apache-2.0
"""Fewer triangles, the same surface and colours."""

import sys

import numpy as np
import pytest

from recon3d_ros.core.errors import MissingDependency
from recon3d_ros.core.types import MeshBlock
from recon3d_ros.mapping.normals import area_normals, with_normals
from recon3d_ros.mapping.simplify import simplified


def sheet(number, offset=0.0):
    """A wavy sheet of number x number vertices over the unit square, red left and blue right."""
    x, y = np.meshgrid(*[np.linspace(0, 1, number)] * 2)
    vertices = np.stack([x, y, 0.1 * np.sin(4 * x)], axis=-1).reshape(-1, 3)
    i = np.arange(number * number).reshape(number, number)
    a, b, c, d = (part.ravel() for part in (i[:-1, :-1], i[:-1, 1:], i[1:, 1:], i[1:, :-1]))
    triangles = np.concatenate([np.column_stack([a, b, c]), np.column_stack([a, c, d])]).astype(np.int32)
    colours = np.where(vertices[:, :1] < 0.5, (255, 0, 0), (0, 0, 255)).astype(np.uint8)
    return MeshBlock((0, 0, 0), (vertices + offset).astype(np.float32), triangles, colours)


@pytest.mark.parametrize(("share", "offset"), [(0.5, 0.0), (0.1, 0.0), (0.1, 500.0)])
def test_the_share_of_triangles_that_is_asked_for_is_left_on_the_same_surface(share, offset):
    pytest.importorskip("fast_simplification")
    mesh = sheet(60, offset)
    less = simplified(mesh, share)
    assert abs(len(less.triangles) / len(mesh.triangles) - share) < 0.02
    x, _, z = (less.vertices - np.float32(offset)).T
    assert np.abs(z - 0.1 * np.sin(4 * x)).max() < 0.003
    assert (less.vertices.dtype, less.triangles.dtype) == (np.float32, np.int32)
    assert less.triangles.max() < len(less.vertices) and (area_normals(less)[:, 2] > 0.5).all()


def test_colours_and_normals_are_carried_over():
    pytest.importorskip("fast_simplification")
    less = simplified(with_normals(sheet(60)), 0.1)
    x = less.vertices[:, 0]
    clear = np.abs(x - 0.5) > 0.03
    red = less.colours == (255, 0, 0)
    assert (red.all(axis=1) == (x < 0.5))[clear].all()
    truth = np.column_stack([-0.4 * np.cos(4 * x), np.zeros(len(x)), np.ones(len(x))])
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    inner = np.abs(less.vertices[:, :2] - 0.5).max(axis=1) < 0.45
    assert (less.normals * truth).sum(axis=1)[inner].min() > 0.98


def test_normals_of_a_thin_wall_stay_on_their_side():
    pytest.importorskip("fast_simplification")
    front, back = sheet(40), sheet(40)
    vertices = np.concatenate([front.vertices, back.vertices - np.float32([0, 0, 1e-4])])
    triangles = np.concatenate([front.triangles, back.triangles[:, ::-1] + 1600])
    wall = MeshBlock((0, 0, 0), vertices, triangles.astype(np.int32), np.zeros((3200, 3), np.uint8))
    wall = MeshBlock(wall.id, wall.vertices, wall.triangles, wall.colours, area_normals(wall))
    less = simplified(wall, 0.2)
    assert ((less.normals * area_normals(less)).sum(axis=1) > 0).all()


def test_without_the_library_one_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "fast_simplification", None)
    with pytest.raises(MissingDependency, match=r"pip install 'recon3d_ros\[mesh\]'"):
        simplified(sheet(5), 0.5)
