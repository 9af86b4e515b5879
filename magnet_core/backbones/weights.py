"""Where weights come from: `pretrained` (the hub or its local cache), `random` (seeded), or a file.

Weights are never loaded in part: a checkpoint that leaves a parameter of the encoder unset is an error.
HF_HUB_OFFLINE, HF_ENDPOINT, HF_TOKEN and HF_HOME are the hub client's own and are respected by it.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError
from timm.models import load_state_dict as read_state_dict
from torch import nn

from magnet_core.backbones.spec import BackboneSpec
from magnet_core.errors import MagnetError

_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def weights_file(spec: BackboneSpec, weights: str) -> Path | None:
    """Return the file that holds the weights, fetching it if need be; None for `random`."""
    if weights == "random":
        return None
    if weights == "pretrained":
        return _fetch(spec)
    path = Path(weights).expanduser()
    if not path.is_file():
        raise MagnetError(
            f"--weights {weights}",
            expected="'pretrained', 'random' or a file (safetensors, or a torch state dict)",
            found="no such file",
            remedy="check the path",
        )
    return path


def load_weights(model: nn.Module, path: Path, *, name: str) -> None:
    """Load a checkpoint file into `model`; every parameter and buffer must be found in it."""
    try:
        state = read_state_dict(str(path), use_ema=False, device="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, TypeError) as error:
        raise MagnetError(
            path,
            expected=f"a safetensors file or a torch state dict with weights of '{name}'",
            found=f"a file that cannot be read as one ({type(error).__name__})",
            remedy="export the state dict with safetensors.torch.save_file",
        ) from error
    wanted = model.state_dict()
    missing = sorted(key for key in wanted if key not in state)
    misshapen = sorted(key for key in wanted if key in state and wanted[key].shape != state[key].shape)
    if missing or misshapen:
        example = (missing + misshapen)[0]
        raise MagnetError(
            path,
            expected=f"all {len(wanted)} tensors of '{name}'",
            found=f"{len(missing)} missing and {len(misshapen)} of another shape, such as '{example}'",
            remedy="give the checkpoint of this architecture, or another --backbone",
        )
    model.load_state_dict({key: state[key] for key in wanted})


def _fetch(spec: BackboneSpec) -> Path:
    if spec.hub_id is None:
        raise _unavailable(spec, found="no pretrained weights known for it")
    for filename in _WEIGHT_FILES:
        cached = try_to_load_from_cache(spec.hub_id, filename)
        if isinstance(cached, str):
            return Path(cached)
    for filename in _WEIGHT_FILES:
        with suppress(RemoteEntryNotFoundError), hub_errors(spec):
            return Path(hf_hub_download(spec.hub_id, filename))
    raise _unavailable(spec, found=f"none of {', '.join(_WEIGHT_FILES)} at {spec.page}")


@contextmanager
def hub_errors(spec: BackboneSpec) -> Iterator[None]:
    """Turn what the hub client raises into one line; a file absent from a repository passes through."""
    try:
        yield
    except GatedRepoError as error:
        raise _unavailable(spec, found=f"access is gated: ask for it at {spec.page}") from error
    except RepositoryNotFoundError as error:
        found = f"the hub does not know {spec.hub_id}, or HF_TOKEN may not see it ({spec.page})"
        raise _unavailable(spec, found=found) from error
    except RemoteEntryNotFoundError:
        raise
    except LocalEntryNotFoundError as error:  # no connection, and nothing in the local cache
        raise _unavailable(spec, found="the hub cannot be reached and the local cache has none") from error
    except (HfHubHTTPError, OSError) as error:
        raise _unavailable(spec, found=f"the download failed ({type(error).__name__})") from error


def _unavailable(spec: BackboneSpec, *, found: str) -> MagnetError:
    return MagnetError(
        f"backbone '{spec.name}'",
        expected="its pretrained weights from the Hugging Face hub",
        found=found,
        remedy="use --weights PATH with a checkpoint file, or --weights random to try the pipeline without",
    )
