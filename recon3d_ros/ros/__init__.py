# SPDX-License-Identifier: Apache-2.0
"""Where ROS 2 meets the core: message conversion, QoS, TF, environment. Only this package and `nodes` import rclpy."""
