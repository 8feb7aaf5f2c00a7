# SPDX-License-Identifier: Apache-2.0
"""The service `~/save_mesh`: its answer comes when the file is there, and the node works on meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.task import Future
from std_srvs.srv import Trigger

from recon3d_ros.core.config import Config, MeshParams
from recon3d_ros.core.errors import ReconError
from recon3d_ros.core.types import MeshBlock
from recon3d_ros.nodes.lifecycle import ManagedNode
from recon3d_ros.runtime.mesh_file import MeshOptions
from recon3d_ros.runtime.mesh_saver import MeshSaver

log = logging.getLogger(__name__)

#: Parameters that it reads at every call.
LIVE = ("output", "mesh.save_format", "mesh.save_simplify", "mesh.save_poisson", "mesh.save_poisson_depth")


class SaveMesh:
    """Saves what `surface` returns, which is called in a thread of its own, as the configuration asks at that time."""

    def __init__(
        self, node: ManagedNode, surface: Callable[[], MeshBlock], config: Callable[[], Config]
    ) -> None:
        self._node, self._surface, self._config = node, surface, config
        self._saver = MeshSaver()
        self._thread: threading.Thread | None = None
        surface()  # compiles its kernels, which would hold up the node later
        # A group of its own: while an answer is owed, the group takes no other callback.
        node.add_service(Trigger, "~/save_mesh", self._on_save, MutuallyExclusiveCallbackGroup())

    def close(self) -> None:
        """Give up a save under way; its answer may not come any more."""
        self._saver.close()
        if self._thread is not None:
            self._thread.join()

    async def _on_save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        answer: Future[Trigger.Response] = Future(executor=self._node.executor)
        # The turn of a callback wakes the executor, which then looks at the answer.
        answer.add_done_callback(lambda _: None)
        config = self._config()
        self._thread = threading.Thread(
            target=lambda: answer.set_result(self._saved(config, response)), name="save mesh", daemon=True
        )
        self._thread.start()
        return await answer or response

    def _saved(self, config: Config, response: Trigger.Response) -> Trigger.Response:
        """The answer; no failure may end the node."""
        if not config.output:
            response.message = "set the parameter 'output' to a folder first"
            return response
        try:
            path = self._saver.save(self._surface(), config.output, options(config.mesh))
            response.success, response.message = True, f"saved {path}"
        except ReconError as error:
            response.message = str(error)
        except Exception as error:
            log.exception("save_mesh failed")
            response.message = f"{type(error).__name__}: {error}"
        if not response.success:
            log.error("mesh not saved: %s", response.message)
        return response


def options(params: MeshParams) -> MeshOptions:
    """What the parameters say about the file."""
    return MeshOptions(
        params.save_simplify, params.save_poisson, params.save_poisson_depth, params.save_format
    )
