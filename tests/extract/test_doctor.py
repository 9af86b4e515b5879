"""The doctor tells a healthy machine from a broken one, and never shows a token."""

import http.server
import importlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from extract import doctor
from extract.cli import app
from extract.doctor import Check
from magnet_core.console import run_command


@pytest.fixture
def hub() -> Iterator[str]:
    """A server that refuses everybody, as a gated page does."""

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_command_names_each_check_and_hides_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_ENDPOINT", hub)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    result = CliRunner().invoke(app, ["doctor", "--store", str(tmp_path / "a" / "store")])
    assert result.exit_code == 0
    for name in ("python", "torch", "packages", "faiss", "openslide", "gpu", "hub token", "disk", "memory"):
        assert f" {name} " in result.stdout
    assert f"ok       hub          {hub} answers" in result.stdout
    assert "a token is set" in result.stdout
    assert "hf_secret" not in result.output
    assert not (tmp_path / "a").exists()


def test_an_unreachable_hub_is_a_note_and_an_offline_one_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, hub: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    unreachable = list(doctor.check_hub())[-1]
    assert unreachable.state == "note"
    assert "--weights PATH" in unreachable.remedy
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "not asked" in list(doctor.check_hub())[-1].found


@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_password_in_the_hubs_address_is_not_shown(monkeypatch: pytest.MonkeyPatch, hub: str, offline: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.replace("://", "://me:s3@cret@"))
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    line = list(doctor.check_hub())[-1].line()
    assert hub.replace("://", "://…@") in line
    assert "cret" not in line
    assert ("answers" in line) == (offline == "0")


@pytest.mark.parametrize(
    "address",
    ["hub", "file:///etc/passwd", "http://", "http://[::1", "http://hub:99999", "http://me:s3/cret@hub", "http://a b"],
)
def test_an_address_that_is_none_is_one_line_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    [check] = doctor.check_hub()
    assert check.state == "problem"
    assert "HF_ENDPOINT: expected an address such as https://" in check.found
    monkeypatch.setattr("sys.argv", ["extract", "backbones"])
    with pytest.raises(SystemExit) as end:
        run_command("extract.cli")
    assert end.value.code == 1
    assert capsys.readouterr().err.strip() == f"error: {check.found}"
    assert "s3" not in check.found


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("operator torchvision::nms\ndoes not exist"),
            "torchvision: RuntimeError: operator torchvision::nms",
        ),
        (ImportError("undefined symbol"), "torchvision: ImportError: undefined symbol"),
    ],
)
def test_torch_and_torchvision_that_do_not_fit_are_a_problem(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def refuse(name: str) -> SimpleNamespace:
        if name == "torchvision":
            raise error
        return SimpleNamespace(__version__="2.0")

    monkeypatch.setattr(importlib, "import_module", refuse)
    check = doctor.check_torch()
    assert check.state == "problem"
    assert check.found.startswith(said)
    assert "\n" not in check.line()
    assert "from one place" in check.remedy


def test_two_builds_of_faiss_and_missing_packages_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0")
    assert doctor.check_faiss().state == "problem"
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "timm" else "1.0")
    assert [check.state for check in doctor.check_packages()] == ["ok", "problem"]
    assert "timm" in list(doctor.check_packages())[1].found


@pytest.mark.parametrize(("free", "state"), [(2**20, "problem"), (5 * 2**30, "note"), (2**40, "ok")])
def test_free_disk_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    assert doctor.check_disk(tmp_path / "not" / "yet").state == state


def test_a_place_that_is_no_folder_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert doctor.check_disk(tmp_path / "file").state == "problem"


def test_exit_code_is_1_only_for_problems(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for states, code in ((("ok", "note"), 0), (("ok", "problem"), 1)):
        found = [Check("x", state, "y", "z") for state in states]  # type: ignore[arg-type]
        monkeypatch.setattr(doctor, "examine", lambda store, found=found: iter(found))
        assert doctor.main(Path()) == code
    assert "problem  x            y; z" in capsys.readouterr().out


def test_it_starts_without_importing_any_package_it_checks() -> None:
    script = "import sys, extract.doctor; print(sorted({'torch', 'timm', 'faiss', 'numpy'} & set(sys.modules)))"
    root = Path(doctor.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
