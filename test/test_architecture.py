# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: an arrow that runs back up, or an optional package on a path that does not need it, fails here."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "recon3d_ros"

#: Room -> rooms it may import (besides itself).
ARROWS = {
    "core": set(),
    "keyframing": {"core"},
    "store": {"core"},
    "mapping": {"core"},
    "synth": {"core"},
    "backends": {"core", "keyframing"},
    "runtime": {"core", "backends", "mapping", "store", "keyframing", "synth"},
    "evaluation": {"core", "mapping", "runtime", "synth"},
    "viz": {"core", "runtime"},
    "ros": {"core", "runtime"},
    "nodes": {"core", "runtime", "ros", "backends", "store", "mapping"},
    "cli": {"core", "runtime", "ros", "nodes", "viz", "evaluation", "synth", "backends"},
}
#: What the learned backends share.
LEARNED = "backends/learned"
#: Optional module -> folders whose modules may import it at their top.
OPTIONAL = {
    "rclpy": {"ros", "nodes"},
    "torch": {"backends/gct", LEARNED},
    "safetensors": {LEARNED},
    "huggingface_hub": set(),
    "gtsam": set(),
    "open3d": set(),
    "cupy": {"mapping/cuda"},
    "rerun": set(),
    "rosbags": set(),
    "evo": set(),
}


def modules():
    return [p for p in ROOT.rglob("*.py") if p.relative_to(ROOT).parts[0] not in ("msg", "_vendor", "_lib")]


def imports(path, top_only):
    """Dotted names imported by a module; only those at its top level if asked."""
    tree = ast.parse(path.read_text())
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    room = path.relative_to(ROOT).parts[0] if path.parent != ROOT else ""
    if not room:
        return
    for name in imports(path, top_only=False):
        parts = name.split(".")
        if parts[0] == "recon3d_ros" and len(parts) > 1 and (ROOT / parts[1]).is_dir() and parts[1] != "msg":
            assert parts[1] in ARROWS[room] | {room}, f"{room} must not import {name}"
    for name in imports(path, top_only=True):
        allowed = OPTIONAL.get(name.split(".")[0])
        folder = path.relative_to(ROOT).parent.as_posix()
        assert allowed is None or folder in allowed, f"{name} must be imported where it is used"


def test_no_backend_imports_another():
    shared = {"__pycache__", Path(LEARNED).name}
    folders = [p for p in (ROOT / "backends").iterdir() if p.is_dir() and p.name not in shared]
    for folder in folders:
        others = {f"recon3d_ros.backends.{other.name}" for other in folders if other != folder}
        for path in folder.rglob("*.py"):
            assert not [
                n for n in imports(path, top_only=False) if any(n.startswith(other) for other in others)
            ], path


def test_backends_are_chosen_without_torch():
    code = "import sys, recon3d_ros.backends.registry, recon3d_ros.cli.main; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_needs_no_third_party_module():
    code = (
        "import sys, recon3d_ros; heavy = {'numpy','cv2','numba','scipy','yaml','rclpy','torch'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_names_its_licence_and_its_purpose(path):
    text = path.read_text()
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0")
    if path.name != "__init__.py":
        assert ast.get_docstring(ast.parse(text)), "no module docstring"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_prints_outside_the_command_line(path):
    if path.relative_to(ROOT).parts[0] == "cli":
        return
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    assert not [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
