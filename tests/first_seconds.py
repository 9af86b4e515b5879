"""A command in a process of its own: what it says of a mistake, and what it imported and took before it said so."""

import re
import subprocess
import sys
from dataclasses import dataclass

_CODE = """
import re, sys
from pathlib import Path
from {module}.__main__ import main
sys.argv = {arguments}
try:
    main()
finally:
    slow = {{"torch", "timm", "anndata", "matplotlib", "polars"}} & set(sys.modules)
    status = Path("/proc/self/status")
    peak = re.search(r"VmHWM:\\s+(\\d+)", status.read_text()) if status.exists() else None
    print(sorted(slow), int(peak[1]) // 1024 if peak else 0)
"""


@dataclass(frozen=True)
class Told:
    """Exit code, stderr, modules imported that take long, and the peak of memory in MB (0 where it is not known)."""

    code: int
    said: str
    slow: str
    megabytes: int


def tell(command: str) -> Told:
    """Run a command line to its end."""
    module, *arguments = command.split()
    code = _CODE.format(module=module, arguments=[module, *arguments])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    slow, megabytes = re.findall(r"^(\[.*\]) (\d+)$", done.stdout, re.MULTILINE)[-1]
    return Told(done.returncode, done.stderr, slow, int(megabytes))
