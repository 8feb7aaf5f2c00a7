# SPDX-License-Identifier: Apache-2.0
"""Connected parts: small ones go, with their vertices."""

import numpy as np

from recon3d_ros.core.types import MeshBlock
from recon3d_ros.mapping.components import remove_small_components

VERTICES = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
#: A tetrahedron, a vertex that nothing uses, and a triangle by itself.
TRIANGLES = np.array([(0, 1, 2), (5, 6, 7), (0, 2, 3), (0, 3, 1), (1, 3, 2)], np.int32)
MESH = MeshBlock((0, 0, 0), VERTICES, TRIANGLES, np.arange(24, dtype=np.uint8).reshape(8, 3), -VERTICES)


def test_small_components_go_with_their_vertices():
    kept = remove_small_components(MESH, 2)
    assert np.array_equal(kept.triangles, TRIANGLES[[0, 2, 3, 4]]) and kept.triangles.dtype == np.int32
    for now, before in ((kept.vertices, VERTICES), (kept.colours, MESH.colours), (kept.normals, -VERTICES)):
        assert np.array_equal(now, before[:4])


def test_what_is_large_enough_stays_and_loses_only_unused_vertices():
    everything = remove_small_components(MESH, 1)
    assert np.array_equal(everything.vertices, VERTICES[[0, 1, 2, 3, 5, 6, 7]])
    assert np.array_equal(everything.vertices[everything.triangles], VERTICES[TRIANGLES])


def test_nothing_may_be_left():
    nothing = remove_small_components(MESH, 100)
    assert nothing.vertices.shape == nothing.triangles.shape == nothing.colours.shape == (0, 3)
    assert remove_small_components(nothing, 1).triangles.shape == (0, 3)


def test_parts_that_a_late_triangle_joins_are_one():
    n = 40
    strip = np.array([(i, i + 1, i + 2) for i in range(0, 2 * n, 2)], np.int32)
    order = np.random.default_rng(1).permutation(n)
    mesh = MeshBlock(
        (0, 0, 0), *(np.zeros((2 * n + 1, 3), kind) for kind in (np.float32, np.int32, np.uint8))
    )
    mesh = MeshBlock(mesh.id, mesh.vertices, strip[order], mesh.colours)
    assert len(remove_small_components(mesh, n).triangles) == n
    assert len(remove_small_components(mesh, n + 1).triangles) == 0
