# SPDX-License-Identifier: Apache-2.0
"""The mesher alone, for a reconstructor that runs in another process of this machine. It takes the arguments of
slam.launch.py; with the same `namespace` it finds its reconstructor."""

from launch.actions import IncludeLaunchDescription
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

# What is set here of slam.launch.py.
SET = {"nodes": "mesher"}


def generate_launch_description():
    """slam.launch.py without the reconstructor."""
    slam = [FindPackageShare("recon3d_ros"), "/launch/slam.launch.py"]
    return LaunchDescription([IncludeLaunchDescription(slam, launch_arguments=SET.items())])
