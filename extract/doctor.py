"""Whether this machine is fit for stage one: `extract doctor`.

In: the folder where the store would be. Out: one line a check, ok, note or problem, with a remedy. It also runs on its
own (`python -m extract.doctor`), for when a broken package keeps the `extract` command from starting. No package is
therefore imported before it is checked.
"""

import http.client
import importlib
import os
import platform
import shutil
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Literal

from magnet_core.console import human_bytes
from magnet_core.errors import MagnetError
from magnet_core.hub_address import hub_address, without_password

PACKAGES = (
    "timm",
    "torch_geometric",
    "huggingface_hub",
    "h5py",
    "polars",
    "anndata",
    "tifffile",
    "imagecodecs",
    "lmdb",
)
FAISS_BUILDS = ("faiss-cpu", "faiss-gpu")
HUB_TIMEOUT_S = 3
TRUE_VALUES = {"1", "ON", "YES", "TRUE"}  # as the hub client reads them
LITTLE_DISK, TOO_LITTLE_DISK = 20 * 2**30, 2**30
LITTLE_MEMORY = 8 * 2**30
OLDEST_PYTHON = (3, 11)
REINSTALL = "make venv, or pip install -r requirements.lock"


@dataclass(frozen=True)
class Check:
    """One line: what was checked, its state, and what to do about it."""

    name: str
    state: Literal["ok", "note", "problem"]
    found: str
    remedy: str = ""

    def line(self) -> str:
        """Format as text."""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.state:<8} {self.name:<12} {self.found}{remedy}"


def examine(store: Path) -> Iterator[Check]:
    """Run all checks in turn."""
    yield check_python()
    yield check_torch()
    yield from check_packages()
    yield check_faiss()
    yield check_openslide()
    yield check_cuda()
    yield from check_hub()
    yield check_disk(store)
    yield check_memory()
    yield Check("processors", "ok", f"{usable_cores()} cores")


def check_python() -> Check:
    """Python is new enough."""
    fits = sys.version_info >= OLDEST_PYTHON
    remedy = "" if fits else "use Python 3.11, 3.12 or 3.13"
    return Check("python", "ok" if fits else "problem", platform.python_version(), remedy)


def check_torch() -> Check:
    """The builds of torch and torchvision belong together: they are imported in turn."""
    builds = []
    for name in ("torch", "torchvision"):
        module = try_import(name)
        if isinstance(module, str):
            return Check(name, "problem", module, f"take torch and torchvision from one place: {REINSTALL}")
        builds.append(f"{name} {module.__version__}")
    return Check("torch", "ok", " with ".join(builds))


def check_packages() -> Iterator[Check]:
    """Every other package is installed."""
    versions = {name: _version(name) for name in PACKAGES}
    missing = [name for name, version in versions.items() if version is None]
    installed = ", ".join(f"{name} {version}" for name, version in versions.items() if version is not None)
    yield Check("packages", "ok", installed or "none")
    if missing:
        yield Check("packages", "problem", f"missing: {', '.join(missing)}", REINSTALL)


def check_faiss() -> Check:
    """Exactly one build of FAISS is installed, and it can be imported."""
    builds = [f"{name} {version}" for name in FAISS_BUILDS if (version := _version(name)) is not None]
    if len(builds) > 1:
        return Check("faiss", "problem", " and ".join(builds), "they exclude each other: uninstall both, install one")
    module = try_import("faiss")
    if isinstance(module, str):
        return Check("faiss", "problem", module, "pip install 'magnet-hd[cpu]' or 'magnet-hd[gpu]'")
    gpus = module.get_num_gpus() if hasattr(module, "get_num_gpus") else 0
    return Check("faiss", "ok", f"{builds[0] if builds else module.__version__}, {gpus} GPUs usable")


def check_openslide() -> Check:
    """OpenSlide's C library can be loaded."""
    module = try_import("openslide")
    if isinstance(module, str):
        return Check("openslide", "problem", module, "pip install openslide-bin")
    return Check("openslide", "ok", f"library {module.__library_version__}, openslide-python {module.__version__}")


def check_cuda() -> Check:
    """Which GPUs torch can use; a driver without a usable GPU is worth a note."""
    torch = try_import("torch")
    if isinstance(torch, str):
        return Check("gpu", "note", "not looked for without torch")
    names = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    if names:
        listed = ", ".join(f"cuda:{n} {gpu.name} ({human_bytes(gpu.total_memory)})" for n, gpu in enumerate(names))
        return Check("gpu", "ok", listed)
    if shutil.which("nvidia-smi") is None:
        return Check("gpu", "ok", "none; everything runs on the CPU, encoders slowly")
    build = torch.version.cuda or "none: a CPU build"
    return Check("gpu", "note", f"a driver, but no GPU that torch can use (CUDA of torch: {build})", REINSTALL)


def check_hub() -> Iterator[Check]:
    """Whether weights can be fetched: address, token (never its value), offline flag, and one request."""
    try:
        address = hub_address()
    except MagnetError as error:
        yield Check("hub", "problem", str(error))
        return
    endpoint = without_password(address)
    hub = try_import("huggingface_hub")
    token = bool(os.environ.get("HF_TOKEN")) if isinstance(hub, str) else hub.get_token() is not None
    said = "a token is set" if token else "no token"
    remedy = "" if token else "gated models (UNI) need one in HF_TOKEN, or a local file by --weights PATH"
    yield Check("hub token", "ok" if token else "note", said, remedy)
    local = "weights that are cached already can be used, others by --weights PATH"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in TRUE_VALUES:
        yield Check("hub", "note", f"{endpoint}, not asked: HF_HUB_OFFLINE is set", local)
        return
    fault = unreachable(address)
    if fault is None:
        yield Check("hub", "ok", f"{endpoint} answers")
    else:
        yield Check("hub", "note", f"{endpoint} cannot be reached ({fault})", f"{local}; a mirror by HF_ENDPOINT")


def unreachable(endpoint: str, *, timeout_s: float = HUB_TIMEOUT_S) -> str | None:
    """Say why an http address does not answer within the timeout; None if it answers at all, even with a refusal.

    A user and password in it are not sent: an answer without them is an answer.
    """
    parts = urllib.parse.urlsplit(endpoint)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    try:
        headers = {"User-Agent": "magnet-hd"}
        request = urllib.request.Request(bare, method="HEAD", headers=headers)  # noqa: S310 `hub_address` is http
        with urllib.request.urlopen(request, timeout=timeout_s):  # noqa: S310 as above
            return None
    except urllib.error.HTTPError as error:
        error.close()
        return None
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error))


def check_disk(store: Path) -> Check:
    """Check free space and the right to write at the store's place."""
    folder = store.absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return Check("disk", "problem", f"{folder} cannot be written to", "choose another --store")
    free = shutil.disk_usage(folder).free
    free_space = f"{human_bytes(free)} free in {folder}"
    if free < TOO_LITTLE_DISK:
        return Check("disk", "problem", free_space, "free some, or choose another --store")
    if free < LITTLE_DISK:
        return Check("disk", "note", free_space, "'extract run --dry-run' tells what is needed")
    return Check("disk", "ok", free_space)


def check_memory() -> Check:
    """Memory of the machine."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return Check("memory", "note", "not told by this system")
    if total < LITTLE_MEMORY:
        return Check("memory", "note", human_bytes(total), "use a smaller --batch-size")
    return Check("memory", "ok", human_bytes(total))


def usable_cores() -> int:
    """Cores this process may run on."""
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def try_import(name: str) -> ModuleType | str:
    """Import a module, or say in one line why it cannot be."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError, OSError, AttributeError) as error:  # what mismatched binaries raise
        return " ".join(f"{name}: {type(error).__name__}: {error}".split())[:200]


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def main(store: Path = Path("store")) -> int:
    """Print every check; return the exit code, 1 if there is a problem."""
    checks = []
    for check in examine(store):
        checks.append(check)
        sys.stdout.write(f"{check.line()}\n")
        sys.stdout.flush()
    problems = sum(check.state == "problem" for check in checks)
    sys.stdout.write(f"{problems} problem(s), {sum(check.state == 'note' for check in checks)} note(s)\n")
    return int(problems > 0)


if __name__ == "__main__":
    raise SystemExit(main())
