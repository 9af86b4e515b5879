"""Fetch files from the Hugging Face hub, or say in one line why they cannot be had and what to do instead.

In: a backbone spec and a file name. Out: a path in the hub's local cache (https://huggingface.co/docs/huggingface_hub).
HF_HUB_OFFLINE, HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_ETAG_TIMEOUT and the proxy variables are the hub client's own,
and it respects them; no line shows a token, or a password in HF_ENDPOINT. A hub that is out of reach is met with one
request, not with the client's half minute of retries. Whether weights are gated is what the hub answers, and no table
says it beforehand.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from magnet_core.backbones.spec import BackboneSpec
from magnet_core.errors import MagnetError, without_secrets
from magnet_core.hub_address import without_password
from magnet_core.sealed import read_json

MOST_WORDS = 200  # characters of what the hub says, so that what to do follows


def hub_file(spec: BackboneSpec, filename: str) -> Path | None:
    """Return a file of the spec's repository, from the local cache or fetched into it; None if it has no such file.

    Raises MagnetError when the repository is gated, unknown or out of reach.
    """
    if spec.hub_id is None:
        raise unavailable(spec, found="no pretrained weights known for it")
    with _hub_errors(spec):
        cached = try_to_load_from_cache(spec.hub_id, filename, revision=spec.revision)
        if isinstance(cached, str):
            return Path(cached)
        try:
            # One request that is not repeated. `hf_hub_download` would try an unreachable hub for half a minute.
            url = hf_hub_url(spec.hub_id, filename, revision=spec.revision)
            get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            return Path(hf_hub_download(spec.hub_id, filename, revision=spec.revision))
        except RemoteEntryNotFoundError:
            return None


def require_timm_config(spec: BackboneSpec) -> None:
    """Bring the description of an `hf-hub:` architecture into the local cache, where timm then finds it.

    Raises MagnetError when the repository cannot be reached or does not describe a timm model.
    """
    path = hub_file(spec, "config.json")
    expected = f"a timm model on the Hugging Face hub ({spec.page})"
    remedy = "use a name of 'extract backbones', or --backbone timm:NAME and --weights PATH"
    config = read_json(path, expected=expected, remedy=remedy) if path else None
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        found = "no timm architecture in its config.json"
        raise MagnetError(f"backbone '{spec.pinned_name}'", expected=expected, found=found, remedy=remedy)


def unavailable(spec: BackboneSpec, *, found: str) -> MagnetError:
    """Return the error for weights that cannot be had, with the two ways to go on without the hub."""
    return MagnetError(
        f"backbone '{spec.pinned_name}'",
        expected=f"its pretrained weights from the Hugging Face hub ({spec.page})",
        found=found,
        remedy="use --weights PATH with a checkpoint file, or --weights random to try the pipeline without",
    )


@contextmanager
def _hub_errors(spec: BackboneSpec) -> Iterator[None]:
    """Turn what the hub client raises into one line; what it warns of has no password of its address in it."""
    for handler in logging.getLogger("huggingface_hub").handlers:
        handler.addFilter(_DISCRETION)
    try:
        yield
    except GatedRepoError as error:  # a kind of RepositoryNotFoundError, so it comes first
        raise unavailable(spec, found=f"{_answer(error)}, a gated repository: {_way_in(error, spec)}") from error
    except RevisionNotFoundError as error:
        raise unavailable(spec, found=f"a hub that has no revision '{spec.revision}' of it") from error
    except RepositoryNotFoundError as error:
        found = f"{_answer(error)}, no such repository, or none that may be shown to {_asked_by(error)}"
        raise unavailable(spec, found=found) from error
    except HFValidationError as error:
        raise unavailable(spec, found=f"'{spec.hub_id}', which is no repository name") from error
    except OfflineModeIsEnabled as error:
        raise unavailable(spec, found="HF_HUB_OFFLINE is set, and the local cache has none") from error
    except HfHubHTTPError as error:
        refused = error.response.status_code in {401, 403}
        asked = f" to {_asked_by(error)}; its page is {spec.page}" if refused else ""
        raise unavailable(spec, found=f"{_answer(error)}{asked}") from error
    except (HTTPError, OSError) as error:  # no connection, a dropped one, or no room on the disk
        found = f"no way to {without_password(constants.ENDPOINT)} or to the local cache ({_first_line(error)})"
        raise unavailable(spec, found=found) from error
    except UnicodeEncodeError as error:  # which does not say of what
        raise unavailable(spec, found="an HF_TOKEN or HF_ENDPOINT with characters outside ASCII") from error


def _answer(error: HfHubHTTPError) -> str:
    """Return what the hub said: its status and, where it gave them, its words."""
    words = f" ('{without_secrets(error.server_message.strip())[:MOST_WORDS]}')" if error.server_message else ""
    return f"the hub's answer {error.response.status_code}{words}"


def _asked_by(error: HfHubHTTPError) -> str:
    """Return who was refused: a token may come from HF_TOKEN, or from `hf auth login`."""
    return "the token that was sent" if _with_token(error) else "a request without a token"


def _way_in(error: HfHubHTTPError, spec: BackboneSpec) -> str:
    after = " for the account of the token that was sent" if _with_token(error) else ", then set HF_TOKEN"
    return f"ask for access at {spec.page}{after}"


def _with_token(error: HfHubHTTPError) -> bool:
    return "authorization" in error.response.request.headers


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


class _Discretion(logging.Filter):
    """Lets every record through, without the secrets in it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record in place."""
        record.msg, record.args = without_secrets(record.getMessage()), ()
        return True


_DISCRETION = _Discretion()
