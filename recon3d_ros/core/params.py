# SPDX-License-Identifier: Apache-2.0
"""The machinery of parameters: a group is a frozen dataclass whose fields are made by `param`; everything that shows a
parameter (YAML, ROS declaration, command line, documentation) is made from the one definition in `core.config`."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from recon3d_ros.core.errors import InputError

Value = bool | int | float | str
T = TypeVar("T")


@dataclass(frozen=True)
class Parameter:
    """One parameter: its dotted name, type, default, meaning and bounds (inclusive; None = open)."""

    name: str
    type: type
    default: Value
    text: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def check(self, value: object) -> Value:
        """`value` in the parameter's type. Raises InputError with the reason for a wrong type, range or choice."""
        converted = _convert(self, value)
        if self.choices and converted not in self.choices:
            raise InputError(
                f"parameter '{self.name}' must be one of {', '.join(self.choices)}; got '{converted}'"
            )
        if isinstance(converted, float) and converted != converted:
            raise InputError(f"parameter '{self.name}' is NaN")
        if not isinstance(converted, (bool, str)):
            too_low = self.low is not None and converted < self.low
            too_high = self.high is not None and converted > self.high
            if too_low or too_high:
                raise InputError(
                    f"parameter '{self.name}' must lie in {self.range_text()}; got {converted:g}"
                )
        return converted

    def range_text(self) -> str:
        """The admissible values as text, such as `0 .. 1`, empty when open."""
        if self.choices:
            return " | ".join(c or '""' for c in self.choices)
        if self.low is None and self.high is None:
            return ""
        return f"{'' if self.low is None else f'{self.low:g}'} .. {'' if self.high is None else f'{self.high:g}'}".strip()


def param(
    default: T,
    text: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> T:
    """A field of a parameter group, with what describes it."""
    about = {"text": text, "unit": unit, "low": low, "high": high, "choices": choices}
    field: T = dataclasses.field(default=default, metadata=about)
    return field


def parameters(config: type) -> Iterator[Parameter]:
    """All parameters of a configuration class, in the order they are written there."""
    for group, cls in _groups(config).items():
        hints = typing.get_type_hints(cls)
        for f in _own_fields(cls):
            yield Parameter(
                f"{group}.{f.name}" if group else f.name,
                hints[f.name],
                typing.cast(Value, f.default),
                **f.metadata,
            )


def flatten(config: object) -> dict[str, Value]:
    """Dotted name -> value of a configuration object."""
    out: dict[str, Value] = {}
    for p in parameters(type(config)):
        group, _, name = p.name.rpartition(".")
        out[p.name] = getattr(getattr(config, group) if group else config, name)
    return out


def build(config: type[T], values: Mapping[str, object]) -> T:
    """A configuration from dotted names; what is not named keeps its default. Raises InputError for an unknown name
    (naming the nearest known one) or a value that does not fit."""
    known = {p.name: p for p in parameters(config)}
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            raise InputError(f"unknown parameter '{name}'" + (f"; did you mean '{near[0]}'?" if near else ""))
    fields: dict[str, Any] = {}
    for group, cls in _groups(config).items():
        prefix = f"{group}." if group else ""
        given = {
            f.name: known[prefix + f.name].check(values[prefix + f.name])
            for f in _own_fields(cls)
            if prefix + f.name in values
        }
        if group:
            fields[group] = cls(**given)
        else:
            fields.update(given)
    return config(**fields)


def load_yaml(path: str | Path) -> dict[str, object]:
    """Dotted name -> value of a parameter file, in the nested form or in the form ROS takes (node: ros__parameters:)."""
    try:
        data = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise InputError(f"cannot read configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
    out: dict[str, object] = {}
    for tree in _ros_sections(data or {}, path):
        out.update(_dotted(tree))
    return out


def dump_yaml(config: object, ros: bool = True) -> str:
    """The configuration as YAML text with one comment per parameter; with `ros`, as a ROS parameter file for any node."""
    lines = ["/**:", "  ros__parameters:"] if ros else []
    indent = "    " if ros else ""
    values = flatten(config)
    last = ""
    for p in parameters(type(config)):
        group, _, name = p.name.rpartition(".")
        if group and group != last:
            lines.append(f"{indent}{group}:")
        last = group
        about = ", ".join(part for part in (p.unit, p.range_text()) if part)
        lines.append(f"{indent}{'  ' if group else ''}# {p.text}" + (f" [{about}]" if about else ""))
        lines.append(f"{indent}{'  ' if group else ''}{name}: {_scalar(values[p.name])}")
    return "\n".join(lines) + "\n"


def markdown_table(config: type) -> str:
    """The table of all parameters for the documentation."""
    rows = ["| parameter | default | range | unit | meaning |", "|---|---|---|---|---|"]
    for p in parameters(config):
        choices = p.range_text().replace("|", "\\|")
        rows.append(f"| `{p.name}` | `{_scalar(p.default)}` | {choices} | {p.unit} | {p.text} |")
    return "\n".join(rows) + "\n"


def _groups(config: type) -> dict[str, type]:
    """Group name -> its class. Parameters outside any group stand on the configuration itself, under the empty name."""
    hints = typing.get_type_hints(config)
    fields = [f.name for f in dataclasses.fields(config)]
    return {"": config} | {name: hints[name] for name in fields if dataclasses.is_dataclass(hints[name])}


def _own_fields(cls: type) -> list[dataclasses.Field[Any]]:
    return [f for f in dataclasses.fields(cls) if "text" in f.metadata]


def _convert(p: Parameter, value: object) -> Value:
    if isinstance(value, str) and p.type is not str:
        value = yaml.safe_load(value)
    if p.type is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if p.type is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    if p.type is str and type(value) is int:  # `-p cpus:=1`
        return str(value)
    if type(value) is not p.type:
        raise InputError(f"parameter '{p.name}' takes {_NAMES[p.type]}; got {value!r}")
    return typing.cast(Value, value)


_NAMES = types.MappingProxyType(
    {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
)


def _ros_sections(data: object, path: str | Path) -> list[dict[str, object]]:
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected 'name: value' lines")
    if not any(isinstance(v, dict) and "ros__parameters" in v for v in data.values()):
        return [data]
    return [
        v["ros__parameters"] or {} for v in data.values() if isinstance(v, dict) and "ros__parameters" in v
    ]


def _dotted(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    out: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            out.update(_dotted(value, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = value
    return out


def _scalar(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace('"', '\\"') + '"'
    text = repr(value)
    return text if isinstance(value, int) or any(c in text for c in ".en") else text + ".0"
