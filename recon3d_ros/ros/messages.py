# SPDX-License-Identifier: Apache-2.0
"""The message types that need care to find: those of this package, and `TFMessage`.

`tf2_msgs` of the system wins; where there is none, the one that was built along with this package serves. Its name stays
`tf2_msgs.msg`, since the C converter looks the type up by that name.
"""

from __future__ import annotations

import sys
from pathlib import Path

import recon3d_ros
from recon3d_ros.core.errors import MissingDependency

__all__ = ["Keyframe", "Status", "TFMessage"]

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
    sys.path.append(str(Path(recon3d_ros.__file__).parent / "_vendor"))
    from tf2_msgs.msg import TFMessage
