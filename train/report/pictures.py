"""Maps of genes inside the page: images as data URIs, made smaller where they are large.

In: a study's maps-<gene>.png. Out: a block. An image that would make the page too heavy is named instead.
"""

import base64
import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from magnet_core.errors import MagnetError
from train.report.parts import Pictures

LARGE = 150_000  # bytes; above, colours are reduced to a palette, which maps hardly show
COLOURS = 128


def maps(folder: Path, *, limit: int) -> list[Pictures]:
    """All maps of a study's folder, as far as `limit` bytes go."""
    images, left_out = [], []
    for path in sorted(folder.glob("maps-*.png")):
        content = compact(path)
        if len(content) > limit:
            left_out.append(path.name)
            continue
        limit -= len(content)
        uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        images.append((path.stem.removeprefix("maps-").replace("-", ", "), uri))
    note = f"In the folder alone, to keep this page small: {', '.join(left_out)}." if left_out else ""
    return [Pictures("Maps of genes", images, note)] if images or left_out else []


def compact(path: Path) -> bytes:
    """The image as PNG, with a palette where it is large and that makes it smaller."""
    content = path.read_bytes()
    if len(content) <= LARGE:
        return content
    buffer = io.BytesIO()
    try:
        with Image.open(path) as image:
            image.convert("RGB").quantize(COLOURS).save(buffer, format="png", optimize=True)
    except (UnidentifiedImageError, OSError) as error:
        raise MagnetError(path, expected="a picture", found=str(error), remedy="run the study again") from error
    return min(content, buffer.getvalue(), key=len)
