# SPDX-License-Identifier: Apache-2.0
"""Reconstructor and mesher, and where asked a bag and RViz. `ros2 launch recon3d_ros slam.launch.py -s` lists arguments.
The other launch files include this one.

Only what was given is passed on, so that a parameter file keeps the last word on all the rest. The nodes configure and
activate themselves (`autostart`), so no lifecycle events are sent from here.
"""

from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
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
    ("nodes", "both", "both, reconstructor, mesher or none"),
    ("autostart", "", "false: the nodes wait for a lifecycle manager to configure and activate them"),
    ("use_respawn", "false", "true: start a program again, 2 s later, that has ended by itself"),
    ("rviz", "false", "true: start RViz with config/rviz/recon3d.rviz"),
    ("bag", "", "rosbag2 folder or file to play; everything ends with it"),
    ("rate", "1.0", "speed of the bag, 1 as recorded"),
    ("loop", "false", "true: play the bag again and again"),
    ("image_topic", "", "images, raw or compressed, such as /camera/image_raw; empty: image"),
    ("camera_info_topic", "", "calibration; empty: camera_info, or the one beside the images"),
    ("depth_topic", "", "depth images registered to the images; empty: depth"),
    ("odom_topic", "", "poses of the flight stack, used with the parameter prior; empty: odom"),
    ("imu_topic", "", "accelerations, for the direction of gravity; empty: imu"),
    ("fix_topic", "", "GPS positions; empty: fix"),
    ("image_transport", "", "auto, raw or compressed"),
    ("backend", "", "auto, geometric, rgbd, gct or slam3r"),
    ("map_frame", "", "world frame of the map"),
    ("odom_frame", "", "continuous world frame"),
    ("base_frame", "", "frame of the vehicle body; empty: the camera is the body"),
    ("frame_prefix", "", "put before all frames, such as drone1/ where several drones share /tf"),
    ("output", "", "folder in which results are saved at the end"),
    ("map", "", "folder of a saved map to go on with"),
    ("save_map", "", "true: with the results the map is saved, to go on with it another time"),
)

# launch argument -> parameter
PARAMETERS = {
    "backend": "backend",
    "autostart": "autostart",
    "image_transport": "input.transport",
    "frame_prefix": "frames.prefix",
    "map_frame": "frames.map",
    "odom_frame": "frames.odom",
    "base_frame": "frames.base",
    "output": "output",
    "map": "map",
    "save_map": "save_map",
}

# those that are true or false
FLAGS = ("autostart", "save_map")

# launch argument -> topic of the reconstructor
TOPICS = {
    "image_topic": "image",
    "camera_info_topic": "camera_info",
    "depth_topic": "depth",
    "odom_topic": "odom",
    "imu_topic": "imu",
    "fix_topic": "fix",
}

# `nodes` -> programs, where they are not composed
PROGRAMS = {
    "both": ("reconstructor", "mesher"),
    "reconstructor": ("reconstructor",),
    "mesher": ("mesher",),
    "none": (),
}

# Topics in config/rviz/recon3d.rviz; in a namespace they lie below it.
SHOWN = ("reconstructor/cloud", "reconstructor/path", "reconstructor/odometry", "mesher/mesh")


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
    respawn = is_true(given["use_respawn"])
    if given["nodes"] not in PROGRAMS:
        raise RuntimeError(f"nodes:={given['nodes']} is none of {', '.join(PROGRAMS)}")
    composed = given["nodes"] == "both" and is_true(given["composed"])
    programs = ("slam",) if composed else PROGRAMS[given["nodes"]]
    actions = [node(program, given, respawn=respawn, respawn_delay=2.0) for program in programs]
    if given["bag"]:
        flags = [given["bag"], "--rate", given["rate"], *(["--loop"] if is_true(given["loop"]) else [])]
        actions.append(node("replay", given, flags, parameters=[], on_exit=Shutdown()))
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
    texts = [name for name in PARAMETERS if given[name] and name not in FLAGS]
    values = {PARAMETERS[name]: ParameterValue(given[name], value_type=str) for name in texts}
    values |= {name: is_true(given[name]) for name in (*FLAGS, "use_sim_time") if given[name]}
    return ([given["params_file"]] if given["params_file"] else []) + ([values] if values else [])


def rviz(given):
    """RViz with our view, on the topics of the namespace."""
    image = given["image_topic"] or "image"
    return Node(
        package="rviz2",
        executable="rviz2",
        namespace=given["namespace"],
        arguments=[
            *("-d", [FindPackageShare("recon3d_ros"), "/config/rviz/recon3d.rviz"]),
            *("-f", given["frame_prefix"] + (given["map_frame"] or "map")),
        ],
        parameters=[{"use_sim_time": is_true(given["use_sim_time"])}],
        remappings=[("/image", image), *((f"/{topic}", topic) for topic in SHOWN)],
    )


def is_true(text):
    """A launch argument as a truth value."""
    return text.lower() in ("true", "1", "yes", "on")
