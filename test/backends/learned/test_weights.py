# SPDX-License-Identifier: Apache-2.0
"""Weights are found, downloaded whole or not at all, and checked."""

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from recon3d_ros.backends.learned import weights
from recon3d_ros.core.errors import InputError, ReconError

NET = weights.Weights("net", "gct", "owner/weights", "net.pt", 0, "Apache-2.0", "for tests")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of weights of this test."""
    path = tmp_path / "weights"
    monkeypatch.setenv("RECON3D_WEIGHTS", str(path))
    return path


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def one_line(caught):
    text = str(caught.value)
    assert len(text.splitlines()) == 1, text
    return text


def test_a_download_leaves_the_file_and_its_checksum(folder, hub):
    path = weights.fetch(NET, folder)
    assert path == folder / "net.pt" and path.read_bytes() == hub.content
    assert names(folder) == ["net.pt", "net.pt.sha256"]
    subprocess.run(["sha256sum", "-c", "--quiet", "net.pt.sha256"], cwd=folder, check=True)
    assert weights.verify(path) == weights.Checksum(hub.version, hub.version)


def test_what_is_there_is_not_loaded_again(folder, hub):
    weights.fetch(NET, folder)
    assert weights.fetch(NET, folder) == folder / "net.pt" and len(hub.transfers) == 1


def test_a_file_brought_by_hand_gets_its_checksum_and_is_not_loaded(folder, hub):
    folder.mkdir()
    (folder / "net.pt").write_bytes(hub.content)
    weights.fetch(NET, folder)
    assert not hub.transfers and weights.verify(folder / "net.pt").expected == hub.version


def test_a_newer_file_on_the_hub_replaces_the_old_one(folder, hub):
    weights.fetch(NET, folder)
    hub.content = b"newer" * 1000
    hub.version = hashlib.sha256(hub.content).hexdigest()
    assert weights.fetch(NET, folder).read_bytes() == hub.content
    assert not weights.verify(folder / "net.pt").differs


def test_a_broken_connection_is_taken_up_where_it_broke(folder, hub):
    hub.cuts = [15 << 16]
    assert weights.fetch(NET, folder).read_bytes() == hub.content
    assert [h.get("range") for h in hub.transfers] == [None, "bytes=983040-"]


def test_an_interrupted_download_goes_on_in_the_next_run(folder, hub):
    hub.cuts, hub.refusals = [15 << 16], [None, 500]
    with pytest.raises(ReconError, match="error 500: try again later"):
        weights.fetch(NET, folder)
    assert not (folder / "net.pt").exists()
    assert weights.fetch(NET, folder).read_bytes() == hub.content
    assert hub.transfers[-1]["range"] == "bytes=983040-"
    assert names(folder) == ["net.pt", "net.pt.sha256"]


def test_parts_of_another_version_are_not_mixed_in(folder, hub):
    folder.mkdir()
    (folder / ".net.pt.0123456789abcdef.part").write_bytes(b"of last year")
    assert weights.fetch(NET, folder).read_bytes() == hub.content
    assert names(folder) == ["net.pt", "net.pt.sha256"]


def test_a_part_that_is_too_long_is_started_anew(folder, hub):
    folder.mkdir()
    part = folder / f".net.pt.{hub.version[:16]}.part"
    part.write_bytes(hub.content + b"more")
    assert weights.fetch(NET, folder).read_bytes() == hub.content


def test_damage_on_the_way_is_found_and_the_former_file_stays(folder, hub):
    folder.mkdir()
    (folder / "net.pt").write_bytes(b"former")
    good, hub.content = hub.content, b"x" + hub.content[1:]
    with pytest.raises(ReconError, match="damaged") as caught:
        weights.fetch(NET, folder)
    assert "recon3d weights fetch net" in one_line(caught)
    assert names(folder) == ["net.pt", "net.pt.damaged"] and (folder / "net.pt").read_bytes() == b"former"
    hub.content = good
    assert weights.fetch(NET, folder).read_bytes() == good


def test_a_token_goes_to_the_hub_and_not_to_other_hosts(folder, hub):
    weights.fetch(NET, folder)
    sent = {(path.split("/")[1], headers.get("authorization")) for _, path, headers in hub.requests}
    assert {("owner", "Bearer hf_secret"), ("cdn", None)} <= sent
    assert {first for first, token in sent if token} == {"owner"}


def test_repository_and_file_of_the_catalogue_can_be_overridden(folder, hub):
    other = weights.Weights("mine", "gct", "owner/gone", "gone.bin", 0, "", "")
    assert weights.fetch(other, folder, "owner/weights", "net.pt") == folder / "mine.pt"


def test_a_file_without_checksum_on_the_hub_is_taken_with_a_warning(folder, hub, caplog):
    hub.version = "0123456789012345678901234567890123456789"
    path = weights.fetch(NET, folder)
    assert "gives no checksum" in caplog.text
    assert weights.verify(path).expected == hashlib.sha256(hub.content).hexdigest()


@pytest.mark.parametrize(
    ("repository", "file", "kind", "told"),
    [
        ("owner/weights", "gone.pt", InputError, "no file 'gone.pt'.*--file"),
        ("owner/gone", "net.pt", InputError, "no repository owner/gone.*--repo.*HF_TOKEN"),
        ("owner/gated", "net.pt", InputError, "restricted.*HF_TOKEN"),
        ("a/b/c", "net.pt", InputError, "'a/b/c' is no name of a repository: give --repo"),
        ("owner/busy", "net.pt", ReconError, "error 503: try again later"),
    ],
)
def test_refusals_of_the_hub_name_the_mend(folder, hub, repository, file, kind, told):
    with pytest.raises(kind, match=told) as caught:
        weights.fetch(NET, folder, repository, file)
    one_line(caught)
    assert not folder.exists()


def test_a_server_that_cannot_be_reached_is_told(folder, hub):
    hub.close()
    with pytest.raises(ReconError, match=r"no connection to the hub.*HF_ENDPOINT") as caught:
        weights.fetch(NET, folder)
    one_line(caught)
    assert not isinstance(caught.value, InputError)


def test_a_server_that_is_no_hub_is_told(folder, hub):
    hub.is_hub = False
    with pytest.raises(ReconError, match="does not answer as a hub does: check HF_ENDPOINT"):
        weights.fetch(NET, folder)


@pytest.mark.parametrize(
    "address", ["mirror", "ftp://mirror", "http://[::", "http://mirror:port", "https://"]
)
def test_an_address_that_is_none_is_told(folder, monkeypatch, address):
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(InputError, match=r"HF_ENDPOINT is .* no address: set it to https://HOST") as caught:
        weights.fetch(NET, folder)
    one_line(caught)


def test_more_than_the_disk_holds_is_not_begun(folder, hub):
    hub.size = 10**15
    with pytest.raises(ReconError, match=r"1000000\.00 GB to fetch but .* GB free.*--to"):
        weights.fetch(NET, folder)
    assert not hub.transfers


def test_a_disk_that_fills_up_is_told(hub):
    with pytest.raises(ReconError, match="the disk is full: make room"):
        weights.hub.download(weights.hub.ask("owner/weights", "net.pt"), Path("/dev/full"))


def test_a_folder_that_cannot_be_made_is_told(tmp_path, hub):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write to .*file/weights.*--to or RECON3D_WEIGHTS"):
        weights.fetch(NET, tmp_path / "file" / "weights")


def test_two_downloads_of_the_same_file_do_not_mix(folder, hub):
    folder.mkdir()
    with open(folder / f".net.pt.{hub.version[:16]}.part", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process"):
            weights.fetch(NET, folder)


def test_the_folder_is_that_of_the_environment_or_the_cache(monkeypatch):
    monkeypatch.setenv("HOME", "/home/pilot")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("RECON3D_WEIGHTS", raising=False)
    assert weights.folder() == Path("/home/pilot/.cache/recon3d_ros/weights")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert weights.folder() == Path("/var/cache/recon3d_ros/weights")
    monkeypatch.setenv("RECON3D_WEIGHTS", "~/w")
    assert weights.folder() == Path("/home/pilot/w")


def test_weights_are_found_by_name_by_path_or_as_the_first_that_is_there(folder, tmp_path):
    folder.mkdir()
    assert weights.find("gct") is None and weights.find("gct", "lingbot-map") is None
    (folder / "lingbot-map-stage1.pt").touch()
    assert weights.find("gct") == folder / "lingbot-map-stage1.pt"
    (folder / "lingbot-map-long.safetensors").touch()
    assert weights.find("gct") == folder / "lingbot-map-long.safetensors"
    assert weights.find("gct", "lingbot-map-stage1") == folder / "lingbot-map-stage1.pt"
    assert weights.find("slam3r") is None
    own = tmp_path / "own.bin"
    own.touch()
    assert weights.find("gct", str(own)) == own == weights.locate("gct", str(own))


def test_missing_weights_are_told_with_the_mend(folder):
    with pytest.raises(
        InputError, match=r"recon3d weights fetch lingbot-map-long .*--weights PATH"
    ) as caught:
        weights.locate("gct")
    one_line(caught)
    with pytest.raises(InputError, match="recon3d weights fetch lingbot-map "):
        weights.locate("gct", "lingbot-map")
    with pytest.raises(InputError, match=r"'no/such.pt' of backend gct: no such file.*--weights PATH"):
        weights.locate("gct", "no/such.pt")
    with pytest.raises(InputError, match="did you mean 'lingbot-map-long'"):
        weights.named("lingbotmap-long")


def test_a_backend_without_published_weights_asks_for_a_file(folder):
    with pytest.raises(InputError, match="--weights PATH"):
        weights.locate("unheard-of")


def test_a_changed_file_differs_from_its_checksum(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(b"abc")
    assert weights.verify(path) == weights.Checksum(hashlib.sha256(b"abc").hexdigest(), "")
    (tmp_path / "a.pt.sha256").write_text(f"{weights.verify(path).found.upper()} *a.pt\n")
    assert not weights.verify(path).differs
    path.write_bytes(b"abd")
    assert weights.verify(path).differs
    (tmp_path / "a.pt.sha256").write_text("soon")
    with pytest.raises(InputError, match="no checksum in it"):
        weights.verify(path)


def test_neither_torch_nor_the_hub_library_is_needed_to_look():
    code = (
        "import sys; from recon3d_ros.backends.learned import weights; weights.find('gct');"
        "sys.exit(', '.join({'torch', 'huggingface_hub', 'numpy'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
