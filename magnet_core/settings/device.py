"""The name of a device, as both stages take it: what it may look like; whether it is there is known to torch alone."""

from typing import Annotated

from pydantic import Field

Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|xpu|cuda(:[0-9]+)?)$", description="auto, cpu, cuda or cuda:N")]
