# SPDX-License-Identifier: Apache-2.0
"""The parameters of `core.config` as ROS parameters: declared with range, unit and meaning, refused with a reason."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from typing import TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from recon3d_ros.core.errors import InputError
from recon3d_ros.core.params import Parameter, build, flatten, parameters

T = TypeVar("T")

#: Parameters that rclpy itself declares, and the prefix of its QoS overrides.
_OF_ROS = ("use_sim_time", "start_type_description_service", "qos_overrides.")


def declare(
    node: Node, config: type[T], live: Collection[str] = (), changed: Callable[[T], None] = lambda _: None
) -> T:
    """Declare every parameter of a configuration class and return what the user gave, laid over the defaults.

    `live` names those that may change while the node runs: `changed` gets the new configuration. All others are
    read-only. The node must have been made with `automatically_declare_parameters_from_overrides`: so names that nobody
    knows are seen. Raises InputError for such a name (naming the nearest known one) or a value that does not fit.
    """
    given = {
        name: parameter.value
        for name, parameter in node.get_parameters_by_prefix("").items()
        if not name.startswith(_OF_ROS)
    }
    for name in given:
        node.undeclare_parameter(name)
    values = flatten(build(config, given))
    known = {p.name: p for p in parameters(config)}
    for name, p in known.items():
        node.declare_parameter(
            name, values[name], descriptor(p, read_only=name not in live), ignore_override=True
        )

    def check(changes: list[RosParameter]) -> SetParametersResult:
        try:
            for change in changes:
                if change.name in known:
                    known[change.name].check(change.value)
        except InputError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def widen(changes: list[RosParameter]) -> list[RosParameter]:
        # `ros2 param set node input.wait 3` sends a whole number.
        return [
            RosParameter(c.name, value=float(c.value))
            if type(c.value) is int and type(values.get(c.name)) is float
            else c
            for c in changes
        ]

    node.add_pre_set_parameters_callback(widen)
    node.add_on_set_parameters_callback(check)
    node.add_post_set_parameters_callback(lambda _: changed(current(node, config)))
    return build(config, values)


def current(node: Node, config: type[T]) -> T:
    """The configuration as the parameters of the node stand now."""
    return build(config, {p.name: node.get_parameter(p.name).value for p in parameters(config)})


def descriptor(p: Parameter, read_only: bool) -> ParameterDescriptor:
    """What `ros2 param describe` shows of a parameter."""
    about = ParameterDescriptor(description=f"{p.text} [{p.unit}]" if p.unit else p.text, read_only=read_only)
    notes = [f"one of: {p.range_text()}"] if p.choices else []
    if read_only:
        notes.append("set at start")
    about.additional_constraints = "; ".join(notes)
    if p.low is not None or p.high is not None:
        if p.type is int:
            low, high = (int(b) if b is not None else o for b, o in ((p.low, -(2**63)), (p.high, 2**63 - 1)))
            about.integer_range = [IntegerRange(from_value=low, to_value=high)]
        else:
            big = sys.float_info.max
            low_f, high_f = (b if b is not None else o for b, o in ((p.low, -big), (p.high, big)))
            about.floating_point_range = [FloatingPointRange(from_value=float(low_f), to_value=float(high_f))]
    return about
