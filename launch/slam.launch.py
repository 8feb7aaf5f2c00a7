# SPDX-License-Identifier: Apache-2.0
"""Reconstructor and mesher, and where asked a bag and RViz. `ros2 launch recon3d_ros slam.launch.py -s` lists arguments.

Only what was given is passed on, so that a parameter file keeps the last word on all the rest.
"""

from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

# name, default, description
ARGUMENTS = (
    ("namespace", "", "namespace of all nodes, one for each drone"),
    ("use_sim_time", "", "true: time comes from /clock, as with a bag or a simulator"),
    ("params_file", "", "parameter file (YAML); config/default.yaml shows all parameters"),
    ("log_level", "info", "debug, info, warn, error or fatal"),
    (
        "composed",
        "true",
        "true: both nodes in one process, keyframes by reference; false: two processes, shared memory",
    ),
    ("rviz", "false", "true: start RViz with config/rviz/recon3d.rviz"),
    ("bag", "", "rosbag2 folder or file to play; everything ends with it"),
    ("image_topic", "", "images, raw or compressed, such as /camera/image_raw; empty: image"),
    ("camera_info_topic", "", "calibration; empty: camera_info, or the one beside the images"),
    ("depth_topic", "", "depth images registered to the images; empty: depth"),
    ("backend", "", "auto, geometric, rgbd, gct or slam3r"),
    ("map_frame", "", "world frame of the map"),
    ("odom_frame", "", "continuous world frame"),
    ("base_frame", "", "frame of the vehicle body; empty: the camera is the body"),
    ("output", "", "folder in which results are saved at the end"),
)

# launch argument -> parameter
PARAMETERS = {
    "backend": "backend",
    "map_frame": "frames.map",
    "odom_frame": "frames.odom",
    "base_frame": "frames.base",
    "output": "output",
}

# launch argument -> topic of the reconstructor
TOPICS = {"image_topic": "image", "camera_info_topic": "camera_info", "depth_topic": "depth"}

# Topics in config/rviz/recon3d.rviz; in a namespace they lie below it.
SHOWN = ("reconstructor/cloud", "reconstructor/path", "mesher/mesh")


def generate_launch_description():
    """Declare the arguments; the nodes are made once their values are known."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=make_nodes)])


def make_nodes(context):
    """The processes that the arguments ask for."""
    given = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    programs = ["slam"] if is_true(given["composed"]) else ["reconstructor", "mesher"]
    actions = [node(program, given) for program in programs]
    if given["bag"]:
        actions.append(node("replay", given, arguments=[given["bag"]], parameters=[], on_exit=Shutdown()))
    if is_true(given["rviz"]):
        actions.append(rviz(given))
    return actions


def node(program, given, arguments=(), **changes):
    """One of our programs. It names its nodes itself, so no name is given here."""
    remappings = [(topic, given[name]) for name, topic in TOPICS.items() if given[name]]
    options = {
        "namespace": given["namespace"],
        "parameters": parameters(given),
        "remappings": [] if program in ("replay", "mesher") else remappings,
        "output": "screen",
        "sigterm_timeout": "30",
        **changes,
    }
    levels = ["--ros-args", "--log-level", given["log_level"]]
    return Node(package="recon3d_ros", executable=program, arguments=[*arguments, *levels], **options)


def parameters(given):
    """The parameter file, and what was given beside it."""
    values = {PARAMETERS[name]: given[name] for name in PARAMETERS if given[name]}
    if given["use_sim_time"]:
        values["use_sim_time"] = is_true(given["use_sim_time"])
    return ([given["params_file"]] if given["params_file"] else []) + ([values] if values else [])


def rviz(given):
    """RViz with our view, on the topics of the namespace."""
    image = given["image_topic"] or "image"
    return Node(
        package="rviz2",
        executable="rviz2",
        namespace=given["namespace"],
        arguments=["-d", [FindPackageShare("recon3d_ros"), "/config/rviz/recon3d.rviz"]],
        parameters=[{"use_sim_time": is_true(given["use_sim_time"])}],
        remappings=[("/image", image), *((f"/{topic}", topic) for topic in SHOWN)],
    )


def is_true(text):
    """A launch argument as a truth value."""
    return text.lower() in ("true", "1", "yes", "on")
