# SPDX-License-Identifier: Apache-2.0
"""Camera frames in; camera poses, a coloured point cloud and a live triangle mesh out. Needs numpy alone to import."""

__version__ = "0.1.0"
