"""Which images are to be predicted, as the user names them: `--image`, or a sheet of many.

In: files, or a sheet. Out: one `Sample` an image, and the error of each that lacks files. Imports nothing slow.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cache.fingerprint import digest
from extract.samples import FOLDER_NAME, check_files, read_mpp, read_samples, select
from magnet_core.console import logger, notice
from magnet_core.errors import MagnetError
from magnet_core.paths import no_file
from magnet_core.records import Sample

log = logger(__name__)

_SUFFIXES = re.compile(r"(\.ome)?\.[A-Za-z0-9]{1,5}$", re.IGNORECASE)
_LETTERS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss", "ø": "o"})
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
OPTION, MPP = "--image", "--mpp"


def find_images(
    sheet: Path | None,
    images: Sequence[Path],
    *,
    slides: Sequence[str] = (),
    mpp: str = "",
    tissue: Path | None = None,
    like: Path | None = None,
    measured: bool = False,
) -> tuple[list[Sample], dict[str, str]]:
    """Return the images with all their files, and errors of others by slide id; a single one's is raised.

    `slides` are those of the sheet that are meant; none: all. `tissue` and `like` are of a single image, see `Sample`;
    with `measured` it gets the counts of `like`, too.
    """
    if sheet is None:
        counts, places = (like, None) if measured else (None, like)
        samples = [replace(each, tissue=tissue, counts=counts, like=places) for each in _of_options(images, mpp)]
    else:
        samples = read_samples(sheet)
        samples = select(samples, slides) if slides else samples
    if measured and not any(sample.counts for sample in samples):
        raise MagnetError(
            "--measured",
            expected="counts to compare with",
            found="images alone",
            remedy="name Space Ranger's outs with --like, or counts in the sheet of --samples; or leave it out",
        )
    found, failed = [], {}
    for sample in samples:
        try:
            _check(sample)
        except MagnetError as error:
            if len(samples) == 1:
                raise
            log.error("failed: %s: %s", sample.slide_id, error)
            failed[sample.slide_id] = str(error)
        else:
            found.append(sample)
    return found, failed


def image_id(path: Path) -> str:
    """Name the slide of an image after its file; what cannot be in a folder's name becomes a dash.

    Letters lose their accents; a name of which nothing is left is told apart by a digest.
    """
    called = _SUFFIXES.sub("", path.name)
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFC", called).translate(_LETTERS))
    name = _UNSAFE.sub("-", "".join(each for each in plain if not unicodedata.combining(each)))
    name = name.strip("-._")[:100].rstrip(".")
    return name if FOLDER_NAME.fullmatch(name) else f"slide-{digest({'image': called})[:6]}"


def _of_options(images: Sequence[Path], stated: str) -> list[Sample]:
    mpp, overrides = read_mpp(MPP, stated)
    samples: dict[str, Sample] = {}
    for path in dict.fromkeys(images):
        slide_id = image_id(path)
        if slide_id != _SUFFIXES.sub("", path.name):
            notice(f"{path.name}: its slide is called '{slide_id}'")
        if slide_id.lower() in samples:
            other = samples[slide_id.lower()].image
            raise MagnetError(
                f"{OPTION} {path}",
                expected="a file name that no other image has, as predictions are named after it",
                found=f"'{slide_id}', which {other} has",
                remedy="list both in a sheet with slide_id,image, and name it with --samples",
            )
        samples[slide_id.lower()] = Sample(
            slide_id, path, mpp=mpp, patient=slide_id, mpp_overrides=overrides, mpp_place=MPP
        )
    return list(samples.values())


def _check(sample: Sample) -> None:
    """Refuse an image that is not there."""
    if sample.mpp_place != MPP:
        check_files(sample)
    elif fault := no_file(sample.image):
        raise MagnetError(f"{OPTION} {sample.image}", expected="an image file", found=fault, remedy="correct the path")
    if sample.tissue is not None and (fault := no_file(sample.tissue)):
        raise MagnetError(f"--tissue {sample.tissue}", expected="a file", found=fault, remedy="correct the path")
