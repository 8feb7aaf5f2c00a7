# SPDX-License-Identifier: Apache-2.0
"""Services whose work takes a while: the answer comes when it is done, and the node works on meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.task import Future
from std_srvs.srv import Trigger

from recon3d_ros.core.errors import ReconError
from recon3d_ros.nodes.lifecycle import ManagedNode

log = logging.getLogger(__name__)


class InBackground:
    """A Trigger service that exists while the node is configured. `work` is called in a thread of its own for each request,
    one after the other; it returns the message of success, or raises ReconError with that of a failure. No failure ends
    the node."""

    def __init__(self, node: ManagedNode, name: str, work: Callable[[], str]) -> None:
        self._node, self._name, self._work = node, name.removeprefix("~/"), work
        self._thread: threading.Thread | None = None
        self._left = False
        # A group of its own: while an answer is owed, the group takes no other callback.
        node.add_service(Trigger, name, self._on_request, MutuallyExclusiveCallbackGroup())
        node.configured.callback(self._leave)

    def join(self) -> None:
        """Wait for the work under way; its answer may not come any more."""
        if self._thread is not None:
            self._thread.join()

    def _leave(self) -> None:
        self._left = True
        self.join()

    async def _on_request(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        answer: Future[Trigger.Response] = Future(executor=self._node.executor)
        # The turn of a callback wakes the executor, which then looks at the answer.
        answer.add_done_callback(lambda _: None)
        self._thread = threading.Thread(
            target=lambda: answer.set_result(self._fill(response)), name=self._name, daemon=True
        )
        self._thread.start()
        await answer
        while self._left:  # the service is gone: to send an answer now would end the executor
            await Future[None]()
        return response

    def _fill(self, response: Trigger.Response) -> Trigger.Response:
        self._node.under_way.add(self._name)
        try:
            response.message = self._work()
            response.success = True
        except ReconError as error:
            response.message = str(error)
        except Exception as error:
            log.exception("%s failed", self._name)
            response.message = f"{type(error).__name__}: {error}"
        self._node.under_way.discard(self._name)
        if not response.success:
            log.error("%s: %s", self._name, response.message)
        return response
