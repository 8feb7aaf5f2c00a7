# SPDX-License-Identifier: Apache-2.0
"""Access to a rosbag2 recording: topics, and messages of the standard types. Types that others defined are left alone, so
that a bag with odd ones can be read too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recon3d_ros.core.errors import InputError, require

#: File name endings of the two storages.
SUFFIXES = (".mcap", ".db3")


@dataclass(frozen=True)
class Topic:
    """A topic of a bag: message type such as `sensor_msgs/msg/Image`, and number of messages."""

    type: str
    count: int


@dataclass(frozen=True, eq=False)
class BagMessage:
    """A message and the time at which it was recorded."""

    topic: str
    log_time_ns: int
    message: Any


class Bag:
    """A recording on disk. `messages` works inside `opened`. Raises InputError for what is no bag or cannot be read."""

    def __init__(self, path: Path) -> None:
        rosbag2 = require("rosbags.rosbag2", extra="ros")
        typesys = require("rosbags.typesys", extra="ros")
        self._reader_type = rosbag2.Reader
        self._types = typesys.get_typestore(typesys.Stores.LATEST)
        self.path = _storage(path)
        self._reader: Any = None
        with self.opened():
            self.topics = self._topics()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Open the files for reading."""
        try:
            reader = self._reader_type(self.path)
            reader.open()
        except Exception as error:  # a broken file can raise anything in the parsers beneath
            raise InputError(
                f"cannot read bag {self.path}: {' '.join(str(error).split())}; if the recording broke off, mend it with"
                "  ros2 bag reindex  or  mcap recover"
            ) from error
        outer, self._reader = self._reader, reader
        try:
            yield
        finally:
            self._reader = outer
            reader.close()

    def messages(self, topics: Sequence[str], skipped: Counter[str]) -> Iterator[BagMessage]:
        """Messages of these topics in the order of recording. What is damaged is counted in `skipped`; a bag that breaks
        off ends there, counted too."""
        connections = [c for c in self._reader.connections if c.topic in topics]
        if not connections:
            return
        stream = self._reader.messages(connections)
        while True:
            try:
                connection, log_time, data = next(stream)
            except StopIteration:
                return
            except Exception:  # as when opening
                skipped["bag damaged"] += 1
                return
            try:
                message = self._types.deserialize_cdr(data, connection.msgtype)
            except Exception:  # as when opening
                skipped["damaged message"] += 1
                continue
            yield BagMessage(connection.topic, log_time, message)

    def first(self, topic: str) -> Any | None:
        """The first readable message of a topic, None if there is none."""
        return next((item.message for item in self.messages([topic], Counter())), None)

    def topics_of(self, *types: str) -> list[str]:
        """Names of the topics of these types that hold messages, sorted."""
        return sorted(name for name, topic in self.topics.items() if topic.type in types and topic.count > 0)

    def listing(self) -> str:
        """All topics with their types, for an error message."""
        return ", ".join(f"{name} ({topic.type})" for name, topic in sorted(self.topics.items())) or "none"

    def _topics(self) -> dict[str, Topic]:
        topics = self._reader.topics.items()
        return {name: Topic(info.msgtype or "", info.msgcount) for name, info in topics}


def is_bag(path: Path) -> bool:
    """True if a path looks like a rosbag2 recording."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or bool(_storage_files(path))
    return path.suffix in SUFFIXES


def _storage(path: Path) -> Path:
    """What the reader takes: the folder, or its only file where the recorder left no metadata.yaml."""
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        files = _storage_files(path)
        if len(files) != 1:
            raise InputError(f"bag {path} has no metadata.yaml: write it with  ros2 bag reindex {path}")
        return files[0]
    return path


def _storage_files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix in SUFFIXES)
