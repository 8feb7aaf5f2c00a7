# SPDX-License-Identifier: Apache-2.0
"""The report, for programs and for people."""

import json
import threading
from dataclasses import replace

from recon3d_ros.runtime.metrics import Metrics, Percentiles
from recon3d_ros.runtime.report import Report

REPORT = Report(
    source="a folder",
    backend="geometric",
    frames=10,
    tracked=9,
    keyframes=3,
    fps=12.5,
    latency_ms=Percentiles(1, 2, 3),
    stage_ms={"store": Percentiles(0.1, 0.2, 0.3)},
    peak_rss_mb=100.0,
    scale_state="unknown",
    points=1000,
    triangles=2000,
    voxel_size=0.01,
    drops={"image size": 2},
)


def test_json_holds_what_is_known_and_nothing_else():
    data = json.loads(REPORT.to_json())
    assert data["latency_ms"] == {"p50": 1, "p95": 2, "max": 3} and data["drops"] == {"image size": 2}
    assert "ate_m" not in data
    known = replace(REPORT, ate_m=0.1, ate_percent_of_path=0.5, truth_path_m=20.0, alignment="sim3")
    assert json.loads(known.to_json())["ate_percent_of_path"] == 0.5


def test_the_text_tells_what_was_given_up_and_what_was_reached():
    known = replace(REPORT, ate_m=0.1, ate_percent_of_path=0.5, truth_path_m=20.0, alignment="sim3")
    text = replace(known, published={"/tf": 5}, received={"/tf": 4}).to_markdown()
    for part in ("9 of 10", "2 image size", "0.5 % of 20 m (sim3)", "| /tf | 5 | 4 |"):
        assert part in text


def test_metrics_time_stages_and_count_frames_per_second():
    metrics = Metrics()
    for _ in range(3):
        with metrics.stage("a"):
            pass
        metrics.answered(1.0)
    assert metrics.stages["a"].max >= metrics.stages["a"].p50 >= 0 and metrics.fps > 0


def test_times_are_read_while_another_thread_adds_stages():
    metrics, ended = Metrics(), threading.Event()

    def work():
        for i in range(3000):
            metrics.add(f"stage {i}", 1.0)
        ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not ended.is_set():
        assert all(times.max == 1.0 for times in metrics.stages.values())
    thread.join()
    assert len(metrics.stages) == 3000
