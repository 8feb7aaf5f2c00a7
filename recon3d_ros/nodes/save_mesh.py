# SPDX-License-Identifier: Apache-2.0
"""The service `~/save_mesh`: its answer comes when the file is there, and the node works on meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from recon3d_ros.core.config import Config, MeshParams
from recon3d_ros.core.types import MeshBlock
from recon3d_ros.nodes.folders import output_folder
from recon3d_ros.nodes.in_background import InBackground
from recon3d_ros.nodes.lifecycle import ManagedNode
from recon3d_ros.runtime.mesh_file import MeshOptions
from recon3d_ros.runtime.mesh_saver import MeshSaver

#: Parameters that it reads at every call.
LIVE = ("output", "mesh.save_format", "mesh.save_simplify", "mesh.save_poisson", "mesh.save_poisson_depth")


class SaveMesh:
    """Saves what `surface` returns, which is called in a thread of its own, as the configuration asks at that time."""

    def __init__(
        self, node: ManagedNode, surface: Callable[[], MeshBlock], config: Callable[[], Config]
    ) -> None:
        self._surface, self._config = surface, config
        self._saver = MeshSaver()
        surface()  # compiles its kernels, which would hold up the node later
        self._service = InBackground(node, "~/save_mesh", self._save)
        node.configured.callback(self.close)

    def close(self) -> None:
        """Give up a save under way; its answer may not come any more."""
        self._saver.close()
        self._service.join()

    def _save(self) -> str:
        config = self._config()
        path = self._saver.save(self._surface(), output_folder(config), options(config.mesh))
        return f"saved {path}"


def options(params: MeshParams) -> MeshOptions:
    """What the parameters say about the file."""
    return MeshOptions(
        params.save_simplify, params.save_poisson, params.save_poisson_depth, params.save_format
    )
