# SPDX-License-Identifier: Apache-2.0
"""The message types that need care to find: those of this package, and `TFMessage`.

`tf2_msgs` of the system wins; where there is none, the one that was built along with this package serves. Its name stays
`tf2_msgs.msg`, since the C converter looks the type up by that name.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import recon3d_ros
from recon3d_ros.core.errors import MissingDependency

__all__ = ["Keyframe", "Status", "TFMessage", "message_type", "vehicle_odometry_type"]


def _find_vendored() -> None:
    """What was built along with this package is found too, after all that is installed."""
    folder = str(Path(recon3d_ros.__file__).parent / "_vendor")
    if folder not in sys.path:
        sys.path.append(folder)


try:
    from recon3d_ros.msg import Keyframe, Status
except ImportError as error:
    raise MissingDependency(
        f"the messages of recon3d_ros do not load ({error}): build them with  colcon build , "
        "or install them with  pip install 'recon3d_ros[ros]'"
    ) from error

try:
    from tf2_msgs.msg import TFMessage
except ImportError:
    _find_vendored()
    from tf2_msgs.msg import TFMessage


def message_type(name: str) -> type | None:
    """The class of a type such as `sensor_msgs/msg/Image`, None if its package is not installed."""
    package, _, message = name.rpartition("/")
    try:
        found: type | None = getattr(importlib.import_module(package.replace("/", ".")), message, None)
    except ImportError:
        return None
    return found


def vehicle_odometry_type() -> Any:
    """The class px4_msgs/VehicleOdometry. Raises MissingDependency where px4_msgs is not installed."""
    _find_vendored()
    try:
        from px4_msgs.msg import VehicleOdometry
    except ImportError as error:
        raise MissingDependency(
            f"odometry of PX4 is not used: px4_msgs is not available ({error}); build https://github.com/PX4/px4_msgs in "
            "the workspace and source it, or publish odometry as nav_msgs/Odometry (MAVROS does)"
        ) from error
    return VehicleOdometry
