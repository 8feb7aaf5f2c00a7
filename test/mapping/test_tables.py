# SPDX-License-Identifier: Apache-2.0
"""The generated table of marching cubes."""

from collections import Counter

import numpy as np

from recon3d_ros.mapping.tables import EDGES, FACES, TRIANGLES


def ends(edge):
    """The two corners of an edge."""
    x, y, z, axis = EDGES[edge]
    low = int(x + 2 * y + 4 * z)
    return low, low | 1 << int(axis)


def triangles(case):
    row = TRIANGLES[case]
    return row[row >= 0].reshape(-1, 3)


def test_a_case_cuts_exactly_the_edges_between_inside_and_outside():
    for case in range(256):
        crossed = {e for e in range(12) if (case >> ends(e)[0] & 1) != (case >> ends(e)[1] & 1)}
        assert set(triangles(case).ravel().tolist()) == crossed


def test_the_segments_on_a_face_depend_on_that_face_alone():
    """Directed triangle edges that lie on a face, for equal corners on it: equal in every case."""
    for face in FACES:
        seen = {}
        for case in range(256):
            sides = Counter()
            for a, b, c in triangles(case).tolist():
                sides.update([(a, b), (b, c), (c, a)])
            # A side that another triangle runs back along lies inside the cell.
            border = {s for s in sides if s[::-1] not in sides and all(set(ends(e)) <= set(face) for e in s)}
            key = tuple(case >> corner & 1 for corner in face)
            assert seen.setdefault(key, border) == border


def test_triangles_turn_their_front_to_the_outside():
    for corner in range(8):
        (triangle,) = triangles(1 << corner)
        points = [np.mean([[c & 1, c >> 1 & 1, c >> 2] for c in ends(e)], axis=0) for e in triangle]
        normal = np.cross(points[1] - points[0], points[2] - points[0])
        assert normal @ (points[0] - [corner & 1, corner >> 1 & 1, corner >> 2]) > 0
