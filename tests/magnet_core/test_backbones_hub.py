"""Weights from a hub of our own on loopback: each way it can fail, and that what it gave once is used offline."""

import dataclasses
import hashlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save

from magnet_core.backbones.encoder import build_encoder
from magnet_core.backbones.find import find_backbone
from magnet_core.errors import MagnetError

ROOT = Path(__file__).resolve().parents[2]
MODEL = "timm:test_resnet"
REPOSITORY = "timm/test_resnet.r160_in1k"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLDER = "89abcdef0123456789abcdef0123456789abcdef"

# These run in a process of their own: the hub client reads its environment once, when it is imported.
RUN = """
import contextlib, io
from extract.__main__ import main
def run(backbone):
    sys.argv[1:] = ["run", "--samples", "samples.csv", "--backbone", backbone]
    error, code = io.StringIO(), 0
    with contextlib.redirect_stderr(error):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    return {"code": code, "error": error.getvalue()}
"""
BUILD = """
from magnet_core.backbones.encoder import build_encoder
from magnet_core.backbones.find import find_backbone
from magnet_core.errors import MagnetError
def build(backbone):
    try:
        state = build_encoder(find_backbone(backbone)).model.state_dict()
    except MagnetError as error:
        return {"error": str(error)}
    return {"sum": float(state["conv1.0.weight"].double().sum())}
"""


class Hub(BaseHTTPRequestHandler):
    """A hub with one public model; other repositories answer as their organisation is called."""

    files: Mapping[str, bytes] = {}
    asked: list[tuple[str, str, str | None]] = []
    endpoint = ""

    def do_HEAD(self) -> None:
        self.asked.append((self.command, self.path, self.headers.get("authorization")))
        organisation = self.path.split("/")[1]
        if organisation == "dropped":
            self.close_connection = True
        elif organisation == "refused":
            self.answer(401)
        elif organisation == "gated":
            self.answer(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Your request awaits a review."})
        elif organisation == "broken":
            self.answer(500)
        elif organisation != "timm":
            self.answer(404, {"X-Error-Code": "RepoNotFound"})
        elif "/resolve/gone/" in self.path:
            self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        elif self.path in self.files:
            content = self.files[self.path]
            etag = hashlib.sha256(content).hexdigest()
            self.answer(200, {"ETag": f'"{etag}"', "X-Repo-Commit": self.commit()}, content)
        else:
            self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.commit()})

    do_GET = do_HEAD

    def commit(self) -> str:
        return COMMIT if "/resolve/main/" in self.path else OLDER

    def answer(self, status: int, headers: Mapping[str, str] | None = None, content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


DESCRIBED = {"architecture": "test_resnet", "num_classes": 1000, "pretrained_cfg": {"input_size": [3, 160, 160]}}
# What a config.json may hold, and what is said of it.
HOSTILE = {
    b"[" * 100_000: "lists too deep to read",
    b'{"architecture": ' + b"1" * 5000 + b"}": "Exceeds the limit",
    b'{"architecture": 5}': "no timm architecture in its config.json",
    b'{"architecture": "nope"}': "Unknown model",
    b'{"architecture": "test_resnet", "pretrained_cfg": {"input_size": 5}}': "TypeError",
    b'{"architecture": "test_vit", "pretrained_cfg": {}, "model_args": {"embed_dim": 7}}': "from which timm can build",
    b'{"architecture": "test_vit", "pretrained_cfg": {}, "model_args": {"depth": 1e99}}': "from which timm can build",
}


def built(*, seed: int) -> Any:
    return build_encoder(find_backbone(MODEL), "random", seed=seed).model


@pytest.fixture(scope="module")
def hub() -> Iterator[type[Hub]]:
    weights, older = (
        save({key: value.contiguous() for key, value in built(seed=seed).state_dict().items()}) for seed in (9, 8)
    )
    Hub.files = {
        f"/{REPOSITORY}/resolve/v1/model.safetensors": older,
        f"/{REPOSITORY}/resolve/v1/config.json": json.dumps(DESCRIBED).encode(),
        **{f"/timm/hostile-{number}/resolve/main/config.json": config for number, config in enumerate(HOSTILE)},
        **{f"/timm/hostile-{number}/resolve/main/model.safetensors": weights for number in range(len(HOSTILE))},
        f"/{REPOSITORY}/resolve/main/model.safetensors": weights,
        "/timm/foreign/resolve/main/model.safetensors": b"not reached",
        "/timm/foreign/resolve/main/config.json": b'{"model_type": "dinov2"}',
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Hub
    server.shutdown()
    server.server_close()
    thread.join()


def ask(expression: str, *, home: Path, **variables: str) -> Any:
    """Evaluate an expression of `run` and `build` in another process, with a hub cache in `home`."""
    of_the_hub = ("hf_", "hugging", "http_proxy", "https_proxy", "all_proxy")
    environment = {key: value for key, value in os.environ.items() if not key.lower().startswith(of_the_hub)}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment |= {"HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **variables}
    needed = (RUN if "run(" in expression else "") + BUILD
    done = subprocess.run(
        [sys.executable, "-c", f"import json, sys\n{needed}print(json.dumps({expression}))"],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


REFUSALS = {
    "gated/model": "the hub's answer 403 ('Your request awaits a review.'), a gated repository: ask for access at "
    "https://huggingface.co/gated/model for the account of the token that was sent",
    "refused/model": "the hub's answer 401 to the token that was sent; its page is https://huggingface.co/refused/model",
    "unknown/model": "the hub's answer 404, no such repository, or none that may be shown to the token that was sent",
    "dropped/model": "no way to http://127.0.0.1",
    "broken/model": "the hub's answer 500",
    "timm/empty": "none of model.safetensors, pytorch_model.bin",
    "timm/foreign": "no timm architecture in its config.json",
    "no-name/of/a/repository": "which is no repository name",
    "timm/empty@gone": "a hub that has no revision 'gone' of it",
}


class Answers(NamedTuple):
    """What a process with a hub said: of each refused model, and of the one there is, fetched twice."""

    refused: dict[str, dict[str, Any]]
    fetched: list[dict[str, float]]
    asked: list[tuple[str, str, str | None]]
    home: Path


@pytest.fixture(scope="module")
def online(hub: type[Hub], tmp_path_factory: pytest.TempPathFactory) -> Answers:
    home = tmp_path_factory.mktemp("home")
    Image.new("RGB", (8, 8)).save(home / "slide.png")
    (home / "samples.csv").write_text("slide_id,image\nS1,slide.png\n")
    refused = ", ".join(f"{name!r}: run('hf-hub:{name}')" for name in REFUSALS)
    expression = f"[{{{refused}}}, [build('{MODEL}'), build('{MODEL}')]]"
    answers, fetched = ask(expression, home=home, HF_ENDPOINT=hub.endpoint, HF_TOKEN="hf_test")
    return Answers(answers, fetched, asked=list(hub.asked), home=home)


@pytest.mark.parametrize(("repository", "says"), REFUSALS.items())
def test_a_refusal_ends_a_run_with_one_line_that_names_the_page_and_the_other_way(
    online: Answers, repository: str, says: str
) -> None:
    answer = online.refused[repository]
    assert answer["code"] == 1
    line = answer["error"].strip()
    assert line.startswith(f"error: backbone 'hf-hub:{repository}': expected ")
    assert "\n" not in line
    for part in (says, f"(https://huggingface.co/{repository.partition('@')[0]})", "--weights PATH"):
        assert part in line
    assert not (online.home / "store").exists()


def on_the_hub(hub: type[Hub], monkeypatch: pytest.MonkeyPatch, cache: Path, *, token: str | None = None) -> None:
    """Make the hub on loopback this process's, with an empty cache, and with a token or none at all."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", token is None)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)


@pytest.mark.parametrize("token", [None, "hf_test"])
@pytest.mark.parametrize("organisation", ["gated", "refused", "unknown"])
def test_whether_a_row_of_the_table_is_gated_is_what_the_hub_answers(
    hub: type[Hub], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, organisation: str, token: str | None
) -> None:
    on_the_hub(hub, monkeypatch, tmp_path, token=token)
    spec = dataclasses.replace(find_backbone("h-optimus-0"), hub_id=f"{organisation}/H-optimus-0")
    with pytest.raises(MagnetError) as told:
        build_encoder(spec)
    assert ("a gated repository" in str(told.value)) == (organisation == "gated")
    asked_by = "the token that was sent" if token else "a request without a token"
    after = " for the account of the token that was sent" if token else ", then set HF_TOKEN"
    answer = "the hub's answer 403 ('Your request awaits a review.')"
    says = {
        "gated": f"{answer}, a gated repository: ask for access at {spec.page}{after}",
        "refused": f"the hub's answer 401 to {asked_by}; its page is {spec.page}",
        "unknown": f"the hub's answer 404, no such repository, or none that may be shown to {asked_by}",
    }
    assert says[organisation] in str(told.value)
    assert "hf_test" not in str(told.value)


def test_a_row_that_was_gated_once_is_fetched_like_any_other(
    hub: type[Hub], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_the_hub(hub, monkeypatch, tmp_path)
    spec = dataclasses.replace(find_backbone("h-optimus-0"), hub_id="timm/no-weights")
    with pytest.raises(MagnetError, match="found none of model.safetensors, pytorch_model.bin") as told:
        build_encoder(spec)
    assert "gated" not in str(told.value)


def test_a_refusal_is_asked_for_once(online: Answers) -> None:
    for organisation in ("gated", "refused", "unknown", "dropped", "broken"):
        assert [path for _, path, _ in online.asked if path.startswith(f"/{organisation}/")] == [
            f"/{organisation}/model/resolve/main/model.safetensors"
        ]


def test_weights_are_fetched_once_with_the_token(online: Answers) -> None:
    state = build_encoder(find_backbone(MODEL), "random", seed=9).model.state_dict()
    expected = pytest.approx(float(state["conv1.0.weight"].double().sum()), rel=1e-12)
    assert [answer["sum"] for answer in online.fetched] == [expected, expected]
    assert sum(command == "GET" and REPOSITORY in path for command, path, _ in online.asked) == 1
    assert {token for _, _, token in online.asked} == {"Bearer hf_test"}


@pytest.mark.parametrize(("number", "says"), [*enumerate(HOSTILE.values())])
def test_a_description_on_the_hub_that_makes_no_sense_is_one_line(
    hub: type[Hub], online: Answers, cached: pytest.MonkeyPatch, number: int, says: str
) -> None:
    cached.setattr(constants, "ENDPOINT", hub.endpoint)
    cached.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    with pytest.raises(MagnetError, match=says) as told:
        build_encoder(find_backbone(f"hf-hub:timm/hostile-{number}"))
    assert len(str(told.value)) < 1000


def test_a_revision_is_what_the_hub_has_there(hub: type[Hub], online: Answers, cached: pytest.MonkeyPatch) -> None:
    cached.setattr(constants, "ENDPOINT", hub.endpoint)
    cached.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    newest, pinned = (build_encoder(find_backbone(f"{MODEL}{at}")) for at in ("", "@v1"))
    described = build_encoder(find_backbone(f"hf-hub:{REPOSITORY}@v1"))
    for encoder, seed in ((newest, 9), (pinned, 8), (described, 8)):
        state, expected = encoder.model.state_dict(), built(seed=seed).state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], expected[key]) for key in expected)
    assert (pinned.spec.name, pinned.spec.revision, pinned.spec.pinned_name) == (MODEL, "v1", f"{MODEL}@v1")
    assert pinned.spec.settings == newest.spec.settings


def test_weights_of_another_sha256_are_not_loaded(hub: type[Hub], online: Answers, cached: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        pytest.fail("it was loaded")

    cached.setattr(constants, "HF_HUB_OFFLINE", True)
    [weights] = [
        content for path, content in hub.files.items() if path == f"/{REPOSITORY}/resolve/main/model.safetensors"
    ]
    sha256 = hashlib.sha256(weights).hexdigest()
    assert build_encoder(find_backbone(MODEL), sha256=sha256).width > 0
    cached.setattr("magnet_core.backbones.encoder.load_weights", load)
    wrong = sha256[:-1] + ("1" if sha256[-1] == "0" else "0")
    with pytest.raises(MagnetError, match=f"expected a file of sha256 {wrong}, found sha256 {sha256}; do not use"):
        build_encoder(find_backbone(MODEL), sha256=wrong)


def test_no_password_of_the_address_and_no_token_is_shown(
    online: Answers, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = f"http://me:s3cret@127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(online.home / "another"))
    with pytest.raises(MagnetError, match="no way to http://…@127.0.0.1:") as told:
        build_encoder(find_backbone("resnet50"))
    logging.getLogger("huggingface_hub.file_download").warning("tried %s, retrying", address)
    assert "s3cret" not in str(told.value) + capfd.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "hf_sécret")
    with pytest.raises(MagnetError, match="an HF_TOKEN or HF_ENDPOINT with characters outside ASCII"):
        build_encoder(find_backbone("resnet50"))


@pytest.fixture
def cached(online: Answers, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The cache that the other process filled, in this one."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(online.home / "hub"))
    return monkeypatch


def sum_of_weights() -> float:
    return float(build_encoder(find_backbone(MODEL)).model.state_dict()["conv1.0.weight"].double().sum())


def test_what_was_fetched_is_used_offline_and_the_rest_is_said_to_be_absent(
    hub: type[Hub], online: Answers, cached: pytest.MonkeyPatch
) -> None:
    cached.setattr(constants, "HF_HUB_OFFLINE", True)  # as the variable sets it
    cached.setattr(constants, "ENDPOINT", hub.endpoint)
    asked_before = len(hub.asked)
    assert sum_of_weights() == online.fetched[0]["sum"]
    with pytest.raises(MagnetError, match="HF_HUB_OFFLINE is set, and the local cache has none.*--weights PATH"):
        build_encoder(find_backbone("resnet50"))
    assert len(hub.asked) == asked_before


def test_a_hub_out_of_reach_is_not_waited_for(online: Answers, cached: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
    cached.setattr(constants, "ENDPOINT", nowhere)
    waits: list[float] = []
    cached.setattr(time, "sleep", waits.append)
    assert sum_of_weights() == online.fetched[0]["sum"]
    with pytest.raises(MagnetError, match=f"no way to {nowhere}.*--weights PATH"):
        build_encoder(find_backbone("resnet50"))
    assert waits == []  # the hub client by itself would wait and try again, for 23 seconds


@pytest.mark.slow
def test_the_environment_alone_sets_offline(hub: type[Hub], online: Answers) -> None:
    asked_before = len(hub.asked)
    expression = f"[build('{MODEL}'), build('resnet50')]"
    fetched, absent = ask(expression, home=online.home, HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="1")
    assert fetched == online.fetched[0]
    assert "HF_HUB_OFFLINE is set" in absent["error"]
    assert len(hub.asked) == asked_before
