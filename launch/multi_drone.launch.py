# SPDX-License-Identifier: Apache-2.0
"""Several drones: slam.launch.py for each, in a namespace and with frames of its own, on one /tf. It takes the arguments of
slam.launch.py too, for all drones alike; topics are best relative ones, such as image_topic:=camera/image_raw, which lie
in each namespace."""

from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

# name, default, description
ARGUMENTS = (
    ("drones", "drone1,drone2", "names of the drones, separated by commas: their namespaces"),
    ("output", "", "folder in which each drone saves its results at the end, in a folder of its name"),
)


def generate_launch_description():
    """Declare the arguments; the drones are known once their values are."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=make_drones)])


def make_drones(context):
    """One group for each drone, so that what is set for one is not seen by the next."""
    given = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    slam = [FindPackageShare("recon3d_ros"), "/launch/slam.launch.py"]
    names = [name.strip() for name in given["drones"].split(",") if name.strip()]
    return [
        GroupAction([IncludeLaunchDescription(slam, launch_arguments=own(name, given["output"]).items())])
        for name in names
    ]


def own(name, output):
    """What is set of slam.launch.py for one drone."""
    return {
        "namespace": name,
        "frame_prefix": f"{name}/",
        **({"output": f"{output}/{name}"} if output else {}),
    }
