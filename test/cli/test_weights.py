# SPDX-License-Identifier: Apache-2.0
"""`recon3d weights` and `--weights` as a user meets them: exit codes and what is printed."""

import hashlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from recon3d_ros.cli import doctor
from recon3d_ros.cli.main import main, parser
from recon3d_ros.cli.options import config_from
from recon3d_ros.core.errors import InputError

CONTENT = b"weights" * 1000


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of weights of this test."""
    path = tmp_path / "weights"
    path.mkdir()
    monkeypatch.setenv("RECON3D_WEIGHTS", str(path))
    return path


@pytest.fixture
def small(folder):
    """A small network under the name of published weights, its architecture in the header."""
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    from recon3d_ros.backends.gct.architecture import Architecture
    from recon3d_ros.backends.gct.model import Gct

    sizes = {"depth": 4, "vit_depth": 1, "camera_depth": 1, "dpt_features": 16, "dpt_channels": (8, 8, 8, 8)}
    heads = {"heads": 1, "vit_heads": 1, "camera_heads": 1}
    small = Architecture(image_size=28, width=64, selected=(0, 1, 2, 3), **sizes, **heads)
    torch.manual_seed(0)
    path = folder / "lingbot-map.safetensors"
    safetensors.save_file(Gct(small).state_dict(), path, metadata={"architecture": small.to_json()})
    return path


@pytest.fixture
def hub():
    """Address of a server that has every file of `robbyant/lingbot-map` and no other repository."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            found = self.path.startswith("/robbyant/lingbot-map/resolve/")
            self.send_response(200 if found else 401)
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", f'"{hashlib.sha256(CONTENT).hexdigest()}"')
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(CONTENT)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def recon3d(*arguments, **environment):
    """The command in a process of its own, since huggingface_hub reads its environment when it is imported."""
    pytest.importorskip("huggingface_hub")
    return subprocess.run(
        [sys.executable, "-m", "recon3d_ros.cli.main", *map(str, arguments)],
        env=os.environ | {"NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "0"} | environment,
        capture_output=True,
        text=True,
    )


def test_the_list_says_what_there_is_and_what_is_here(folder, capsys):
    (folder / "lingbot-map-stage1.pt").touch()
    assert main(["weights", "list"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "not fetched" in rows["lingbot-map-long"] and "Apache-2.0" in rows["lingbot-map-long"]
    assert "lingbot-map-stage1.pt" in rows["lingbot-map-stage1"]
    assert str(folder) in rows["folder:"]


def test_fetched_weights_lie_in_the_folder_and_the_licence_is_said(folder, hub):
    done = recon3d("weights", "fetch", "lingbot-map-long", HF_ENDPOINT=hub)
    assert done.returncode == 0, done.stderr
    assert "Apache-2.0" in done.stdout and str(folder / "lingbot-map-long.pt") in done.stdout
    assert (folder / "lingbot-map-long.pt").read_bytes() == CONTENT
    assert "HTTP Request" not in done.stderr


def test_another_folder_and_file_are_taken_and_the_flag_for_them_is_said(folder, hub, tmp_path):
    target = tmp_path / "stick"
    done = recon3d(
        "weights", "fetch", "lingbot-map", "--file", "a/b.safetensors", "--to", target, HF_ENDPOINT=hub
    )
    assert done.returncode == 0, done.stderr
    assert f"--weights {target / 'lingbot-map.safetensors'}" in done.stdout and not list(folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["lingbot"], 2, "no weights are named 'lingbot'; did you mean 'lingbot-map'?"),
        (["lingbot-map", "--repo", "robbyant/gone"], 2, "--repo OWNER/NAME"),
        (["lingbot-map", "--to", "/proc/nowhere"], 2, "cannot write to /proc/nowhere"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(folder, hub, arguments, code, told):
    done = recon3d("weights", "fetch", *arguments, HF_ENDPOINT=hub)
    assert done.returncode == code and told in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("environment", [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}])
def test_no_network_ends_with_code_1_and_the_mend(folder, environment):
    done = recon3d("weights", "fetch", "lingbot-map", **{"HF_ENDPOINT": "http://127.0.0.1:9"} | environment)
    assert (
        done.returncode == 1 and "no connection to the hub" in done.stderr and "Traceback" not in done.stderr
    )


def test_good_weights_are_verified_by_name_and_by_path(small, capsys):
    subprocess.run(f"sha256sum {small.name} > {small.name}.sha256", shell=True, cwd=small.parent, check=True)
    for given in ("lingbot-map", str(small)):
        assert main(["weights", "verify", given]) == 0
        output = capsys.readouterr().out
        assert output.count(" ok ") == 2 and "tensors fit backend gct, without point head" in output


def test_a_changed_byte_is_found(small, capsys):
    subprocess.run(f"sha256sum {small.name} > {small.name}.sha256", shell=True, cwd=small.parent, check=True)
    content = bytearray(small.read_bytes())
    content[-1] ^= 1
    small.write_bytes(content)
    assert main(["weights", "verify", "lingbot-map"]) == 1
    assert "WRONG  checksum" in capsys.readouterr().out


def test_weights_of_another_network_are_found(folder, capsys):
    torch = pytest.importorskip("torch")
    torch.save({"layer.weight": torch.ones(3)}, folder / "other.pt")
    assert main(["weights", "verify", str(folder / "other.pt")]) == 1
    output = capsys.readouterr().out
    assert "none   checksum" in output and "1342 missing" in output
    assert "1 unexpected (layer.weight)" in output


def test_a_file_that_is_no_weights_file_is_found(folder, capsys):
    pytest.importorskip("torch")
    (folder / "page.pt").write_text("<html>")
    assert main(["weights", "verify", str(folder / "page.pt")]) == 1
    assert "WRONG  structure  " in capsys.readouterr().out


@pytest.mark.parametrize("given", ["nothing.pt", "lingbot-map"])
def test_verifying_what_is_not_there_ends_with_code_2(folder, capsys, given):
    assert main(["weights", "verify", given]) == 2
    assert given in capsys.readouterr().err


def test_the_flag_sets_the_parameter_and_leaves_the_backend(tmp_path):
    def config(*arguments):
        return config_from(parser().parse_args(["run", "source", *arguments]))

    assert config().gct.weights == "" and config().backend == "auto"
    flagged = config("--weights", "my.pt", "--set", "gct.weights=other.pt")
    assert flagged.gct.weights == "my.pt" and flagged.backend == "auto"
    assert config("--backend", "gct", "--weights", "my.pt").backend == "gct"
    with pytest.raises(InputError):
        config("--set", "gct.weight=typo")


def test_the_doctor_names_the_weights_that_are_here(folder, capsys):
    doctor.command(parser().parse_args(["doctor"]))
    assert f"none     weights              in {folder}" in capsys.readouterr().out
    (folder / "lingbot-map-long.pt").touch()
    doctor.command(parser().parse_args(["doctor"]))
    output = capsys.readouterr().out
    assert f"lingbot-map-long.pt in {folder}" in output
    for module in ("safetensors", "huggingface_hub"):
        assert any(module in line for line in output.splitlines())
    if "missing  torch" not in output:
        assert "CUDA device" in output
