# SPDX-License-Identifier: Apache-2.0
"""Every parameter of the package, each defined once. Lengths of the map are metres where its scale is known and units of
the map where it is not; image lengths are shares of the image width, so that they hold at every resolution."""

from __future__ import annotations

from dataclasses import dataclass, field

from recon3d_ros.core.backend_params import GctParams, GeometricParams, RgbdParams
from recon3d_ros.core.params import param


@dataclass(frozen=True)
class InputParams:
    """What arrives and how long it is waited for."""

    transport: str = param("auto", "transport of the image topic", choices=("auto", "raw", "compressed"))
    reliability: str = param(
        "auto",
        "reliability asked of image publishers; auto adapts to them",
        choices=("auto", "reliable", "best_effort"),
    )
    camera: str = param(
        "",
        "live: calibration file (camera_calibration YAML) used where no camera_info is published or it is empty; guess: a "
        "guessed focal length; empty: images wait for camera_info",
    )
    prior_frame: str = param(
        "",
        "live, with prior: frame of /tf (such as odom) in which the camera is looked up where nothing publishes odom; "
        "empty: none",
    )
    queue: int = param(
        8, "frames that may wait; beyond it the oldest is dropped and counted", low=1, high=1000
    )
    wait: float = param(
        5.0,
        "time without data after which the node says what it waits for, and after which, with prior, odometry is given up",
        unit="s",
        low=0.1,
    )
    sync: float = param(0.03, "largest stamp difference of an image and its depth or pose", unit="s", low=0.0)


@dataclass(frozen=True)
class FrameParams:
    """Names of coordinate frames (REP-105) and which transforms are published."""

    map: str = param("map", "world frame of the map")
    odom: str = param("odom", "continuous world frame")
    base: str = param("", "frame of the vehicle body; empty: the camera is the body")
    camera: str = param("", "optical frame; empty: the frame_id of the images")
    prefix: str = param(
        "",
        "put before these names and the frame_ids of inputs that lack it, such as drone1/ where drones share /tf",
    )
    publish_tf: bool = param(True, "publish map -> odom")
    publish_odom_tf: bool = param(True, "publish odom -> base where no other node does")

    def named(self, frame: str) -> str:
        """A frame as it is called on TF: with the prefix, once, and without a leading slash; no name stays none."""
        frame, prefix = frame.lstrip("/"), self.prefix.lstrip("/")
        return frame if not frame or frame.startswith(prefix) else prefix + frame

    def optical(self, frame_id: str) -> str:
        """The frame of images that name `frame_id`, as it is called on TF."""
        return self.named(self.camera or frame_id)


@dataclass(frozen=True)
class KeyframeParams:
    """When a frame becomes a keyframe."""

    min_flow: float = param(
        0.06, "flow against the last keyframe that makes a new one", unit="image width", low=0.0, high=1.0
    )
    max_gap: int = param(
        40, "frames after which a new keyframe is made in any case while the camera moves", low=1
    )
    min_alive: float = param(
        0.7,
        "share of the last keyframe's content still in view below which a new one is made",
        low=0.0,
        high=1.0,
    )
    rest: float = param(
        0.1,
        "share of min_flow below which the camera counts as at rest: then max_gap makes no keyframe",
        low=0.0,
        high=1.0,
    )
    min_sharpness: float = param(
        0.0,
        "gradient energy, as a share of that of the frames before, below which a keyframe that is due waits for a sharper "
        "frame, two frames at most; 0: off. Backend geometric",
        low=0.0,
        high=1.0,
    )


@dataclass(frozen=True)
class ScaleParams:
    """Metres and gravity for a backend that knows neither."""

    gps: bool = param(
        True, "take positions that come with the images (EXIF, gps.txt, topic fix) as reference"
    )
    imu: bool = param(True, "live: take the direction of gravity from the topic imu")
    camera_height: float = param(
        0.0, "height of the camera above flat ground, of a ground vehicle; 0: not known", unit="m", low=0.0
    )
    wait: int = param(
        32,
        "keyframes whose depth waits for the scale before the map keeps the backend's unit",
        low=8,
        high=1000,
    )
    follow: float = param(
        0.05,
        "share of the way that the scale goes at each keyframe to what the newest ones say",
        low=0.0,
        high=1.0,
    )


@dataclass(frozen=True)
class StoreParams:
    """Keyframes in memory."""

    slots: int = param(8, "keyframes held for readers at any time", low=2, high=256)
    lease_timeout: float = param(
        2.0,
        "time a keyframe is kept for readers that are not done with it; a writer that needs its slot waits",
        unit="s",
        low=0.0,
    )


@dataclass(frozen=True)
class CloudParams:
    """The point cloud of keyframes."""

    stride: int = param(
        2, "every n-th row and column of the depth image becomes a published point", low=1, high=64
    )
    publish_rate: float = param(
        0.0, "largest rate of published clouds, by their stamps; 0: one for each keyframe", unit="Hz", low=0.0
    )
    min_confidence: float = param(0.3, "points of less confidence are dropped", low=0.0, high=1.0)
    voxel_size: float = param(
        0.0, "voxel of the saved global cloud; 0: that of the mesh", unit="map", low=0.0
    )
    max_points: int = param(
        2_000_000, "points of the global cloud; beyond it the oldest tenth is dropped", low=1000
    )


@dataclass(frozen=True)
class MeshParams:
    """The truncated signed distance field and its surface."""

    device: str = param(
        "auto",
        "where the voxels lie; auto: a GPU if there is one (extra `cuda`) and a voxel is at most 1/200 of the median depth",
        choices=("auto", "cpu", "cuda"),
    )
    voxel_size: float = param(
        0.0, "edge of a voxel; 0: a share of the median depth of the first keyframe", unit="map", low=0.0
    )
    voxel_share: float = param(0.008, "that share", unit="median depth", low=0.0005, high=0.1)
    truncation: float = param(4.0, "truncation distance, at least", unit="voxels", low=1.5, high=32.0)
    noise_truncation: float = param(
        2.0,
        "and at least so many standard deviations of the depth, up to max_truncation; 0: the same at every depth",
        low=0.0,
        high=10.0,
    )
    max_truncation: float = param(8.0, "to where noise may widen it", unit="voxels", low=1.5, high=64.0)
    depth_noise: float = param(
        0.0,
        "standard deviation of the depth at the median depth, growing with its square; 0: measured in every keyframe",
        unit="median depth",
        low=0.0,
        high=0.5,
    )
    max_depth: float = param(3.0, "depth beyond which nothing is integrated", unit="median depth", low=1.0)
    min_weight: float = param(
        0.0,
        "observations a voxel needs before it is meshed; 0: 1 of a depth sensor, 2 of depth that was computed",
        low=0.0,
        high=100.0,
    )
    carve: bool = param(True, "empty the space in front of a measured depth")
    duplicate_share: float = param(
        0.9,
        "a keyframe whose voxels are known to this share, from hardly another place, is not integrated; 0: never so",
        low=0.0,
        high=1.0,
    )
    duplicate_weight: float = param(
        5.0, "observations from which a voxel counts as known there", low=0.0, high=100.0
    )
    duplicate_motion: float = param(
        0.02,
        "way from the last keyframe integrated that is hardly another place",
        unit="median depth",
        low=0.0,
    )
    duplicate_every: int = param(4, "of such keyframes every n-th is integrated all the same", low=1)
    max_blocks: int = param(60_000, "blocks of 8x8x8 voxels held at most (3.6 kB each)", low=64)
    spill: str = param(
        "", "folder for blocks dropped at that bound, which come back when seen again; empty: they are gone"
    )
    depth_memory: int = param(
        256,
        "depth images kept to rebuild the mesh when poses are corrected; 0: none",
        unit="MB",
        low=0,
        high=100_000,
    )
    min_component: int = param(
        100, "connected pieces of fewer triangles are left out of saved meshes", unit="triangles", low=0
    )
    save_format: str = param("ply", "file that ~/save_mesh writes", choices=("ply", "glb"))
    save_simplify: float = param(
        1.0, "share of the triangles that ~/save_mesh keeps (needs the extra `mesh`)", low=0.001, high=1.0
    )
    save_poisson: bool = param(
        False, "~/save_mesh closes holes by Poisson reconstruction (needs the extra `poisson`)"
    )
    save_poisson_depth: int = param(
        8, "depth of the octree of that; each step halves the smallest detail", low=4, high=12
    )
    colour_per_triangle: bool = param(
        False, "mesh messages carry one colour a triangle instead of one a corner: 88 bytes, not 120"
    )
    queue: int = param(
        4, "keyframes that may wait for the mesher; beyond it the oldest is dropped and counted", low=1
    )
    publish_rate: float = param(2.0, "largest rate of mesh messages", unit="Hz", low=0.05, high=60.0)
    adaptive: bool = param(
        False, "send the mesh every second below slow_speed, every two up to fast_speed, and not beyond it"
    )
    slow_speed: float = param(
        0.1, "see adaptive; where the scale is unknown: median depths a second", unit="m/s", low=0.0
    )
    fast_speed: float = param(0.5, "see adaptive; as slow_speed", unit="m/s", low=0.0)
    speed_keyframes: int = param(
        5, "keyframes in a row that must ask for another rate before it changes (adaptive)", low=1
    )
    message_size: int = param(1_000_000, "size at which a mesh message is split", unit="bytes", low=10_000)


@dataclass(frozen=True)
class Config:
    """The whole configuration: parameters outside any group, then the groups."""

    backend: str = param("auto", "reconstructor", choices=("auto", "geometric", "rgbd", "gct", "slam3r"))
    prior: bool = param(False, "take given poses (odometry topic, poses.txt of a folder) as prior")
    autostart: bool = param(
        True, "live nodes configure and activate themselves; false: a lifecycle manager does"
    )
    output: str = param("", "folder in which a live node saves its results when it stops; empty: none")
    map: str = param("", "folder of a saved map to go on with; empty: a new one begins")
    save_map: bool = param(
        False, "with the results the map itself is saved, in the folder map/ beside them, to go on with later"
    )
    on_time_jump: str = param(
        "reset",
        "what becomes of the map when ROS time goes back: it is forgotten, goes on, or is kept while another one begins",
        choices=("reset", "continue", "new_map"),
    )
    threads: int = param(
        0, "threads that OpenCV and torch take for one piece of work; 0: they decide", low=0, high=1024
    )
    cpus: str = param("", "CPUs that a live process may use, such as 0-2,5; empty: all")
    input: InputParams = field(default_factory=InputParams)
    frames: FrameParams = field(default_factory=FrameParams)
    keyframe: KeyframeParams = field(default_factory=KeyframeParams)
    scale: ScaleParams = field(default_factory=ScaleParams)
    store: StoreParams = field(default_factory=StoreParams)
    cloud: CloudParams = field(default_factory=CloudParams)
    mesh: MeshParams = field(default_factory=MeshParams)
    geometric: GeometricParams = field(default_factory=GeometricParams)
    rgbd: RgbdParams = field(default_factory=RgbdParams)
    gct: GctParams = field(default_factory=GctParams)
