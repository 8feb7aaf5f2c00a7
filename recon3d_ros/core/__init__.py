# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of the package: types, cameras, rigid transforms, parameters, errors. Knows no ROS and no device."""
