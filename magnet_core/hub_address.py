"""Where the Hugging Face hub is: its own address, or the mirror that HF_ENDPOINT names, which may hold a password.

In: the environment. Out: the address, checked before the hub's client reads it at its import; and the same to be shown.
"""

import os
import urllib.parse

from magnet_core.errors import MagnetError

HUB = "https://huggingface.co"
_VARIABLE = "HF_ENDPOINT"


def hub_address() -> str:
    """Return the address without a slash at its end; one that no request can be sent to is an error."""
    address = os.environ.get(_VARIABLE, HUB).rstrip("/") or HUB
    try:
        parts = urllib.parse.urlsplit(address)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that are no address
        is_address = False
    if not is_address or not address.isprintable() or " " in address:
        raise MagnetError(
            _VARIABLE,
            expected="an address such as https://hub.example.org",
            found=f"'{without_password(address)}'",
            remedy="write it so, with '%2F' for a slash in a password; or unset it",
        )
    return address


def without_password(address: str) -> str:
    """Return an address as it may be shown: without user and password."""
    before, at, host = address.rpartition("@")
    return f"{before.partition('://')[0]}://…@{host}" if at else address
