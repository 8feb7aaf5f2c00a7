# SPDX-License-Identifier: Apache-2.0
"""A synthetic flight through the real nodes (`recon3d demo`), and RViz to watch it."""

from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.substitutions import ExecutableInPackage, FindPackageShare

from launch import LaunchDescription

# name, default, description; they are flags of `recon3d demo` too
ARGUMENTS = (
    ("scene", "building", "building, terrain or room"),
    ("path", "orbit", "orbit, lawnmower, forward or hover"),
    ("frames", "150", "length of the flight"),
    ("rate", "1.0", "speed of the flight, 1: real time"),
    ("out", "out/demo", "folder for the results"),
)

# What is set here of slam.launch.py, which adds RViz alone.
SET = {"nodes": "none", "image_topic": "/camera/image_raw"}


def generate_launch_description():
    """The command, with all its nodes, and RViz in the same ROS domain."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, default, text in ARGUMENTS
    ]
    flags = [word for name, _, _ in ARGUMENTS for word in (f"--{name}", LaunchConfiguration(name))]
    program = ExecutableInPackage(package="recon3d_ros", executable="recon3d")
    domain = EnvironmentVariable("ROS_DOMAIN_ID", default_value="0")
    slam = [FindPackageShare("recon3d_ros"), "/launch/slam.launch.py"]
    return LaunchDescription(
        [
            *declared,
            # The command would choose a domain of its own.
            SetEnvironmentVariable("ROS_DOMAIN_ID", domain),
            ExecuteProcess(
                cmd=[program, "demo", *flags], output="screen", sigterm_timeout="30", on_exit=Shutdown()
            ),
            IncludeLaunchDescription(slam, launch_arguments=SET.items()),
        ]
    )
