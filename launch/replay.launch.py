# SPDX-License-Identifier: Apache-2.0
"""A recording through reconstructor and mesher, on the recording's own time. It takes the arguments of slam.launch.py too,
such as rate, loop, image_topic and rviz."""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

# What is set here of slam.launch.py.
SET = {"use_sim_time": "true"}

# name, description; they have no default
REQUIRED = (("bag", "rosbag2 folder, .mcap or .db3 file to play; everything ends with it"),)


def generate_launch_description():
    """slam.launch.py with a bag."""
    slam = [FindPackageShare("recon3d_ros"), "/launch/slam.launch.py"]
    declared = [DeclareLaunchArgument(name, description=text) for name, text in REQUIRED]
    return LaunchDescription([*declared, IncludeLaunchDescription(slam, launch_arguments=SET.items())])
