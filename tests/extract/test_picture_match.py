"""The counts of another slide of equal size are noticed by Space Ranger's own small picture."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from extract.cli import app
from extract.picture_match import SAME_SLIDE, match_warnings, picture_agreement, vendor_picture
from extract.readers import count_files
from extract.samples import read_samples
from magnet_core.records import Sample
from magnet_core.slides import open_slide, thumbnail


def slide_picture(image: Path) -> np.ndarray:
    with open_slide(image) as slide:
        return thumbnail(slide, 1000)[0]


def picture_of(sample: Sample) -> Path:
    found = vendor_picture(count_files(sample))
    assert found is not None
    return found


def resized(picture: np.ndarray, width: int) -> np.ndarray:
    height = round(width * picture.shape[0] / picture.shape[1])
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "dark": lambda picture: picture // 2,
    "bright": lambda picture: np.minimum(picture * 1.3, 255).astype(np.uint8),
    "gamma": lambda picture: (255 * (picture / 255) ** 2).astype(np.uint8),
    "stain": lambda picture: np.minimum(picture * [0.9, 1.1, 0.7], 255).astype(np.uint8),
    "small": lambda picture: resized(picture, 300),
    "shifted": lambda picture: np.roll(resized(picture, 600), 2, axis=(0, 1)),
}


def test_swapped_counts_are_warned_of_and_right_ones_are_not(small_samples: Path, tmp_path: Path) -> None:
    first, second = read_samples(small_samples)
    sheet = tmp_path / "samples.csv"
    sheet.write_text(
        f"slide_id,image,counts\nright,{first.image},{first.counts}\nswapped,{first.image},{second.counts}\n"
    )
    done = CliRunner().invoke(app, ["inspect", "--samples", str(sheet), "--out", str(tmp_path)])
    assert done.exit_code == 0
    right, _, swapped = done.stdout.partition("\nswapped · ")
    assert "warning" not in right
    assert "warning: the image is not the one in tissue_lowres_image.png (they agree to 0." in swapped
    assert "the counts may be of another slide" in swapped


@pytest.mark.parametrize("change", CHANGES)
def test_the_same_slide_is_known_in_another_light_and_size(small_samples: Path, change: str) -> None:
    for sample in read_samples(small_samples):
        own = np.asarray(Image.open(picture_of(sample)).convert("RGB"))
        agreement = picture_agreement(CHANGES[change](own), slide_picture(sample.image))
        assert agreement is not None
        assert agreement > SAME_SLIDE + 0.15


def test_real_sections_are_told_apart_and_turned_ones_too(shared_data: Path) -> None:
    pictures = [slide_picture(path) for path in sorted((shared_data / "her2st" / "imgs").glob("*.jpg"))]
    for row, first in enumerate(pictures):
        for column, second in enumerate(pictures):
            agreement = picture_agreement(resized(first, 600), second)
            assert agreement is not None
            assert agreement > 0.95 if row == column else agreement < 0.3
        for turned in (first[::-1], first[:, ::-1], first[::-1, ::-1]):
            assert (picture_agreement(turned, first) or 1.0) < 0.4


def test_another_shape_an_unreadable_and_an_empty_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (300, 400, 3), np.uint8)
    path = tmp_path / "tissue_lowres_image.png"
    Image.fromarray(picture[:, :300]).save(path)
    (warning,) = match_warnings(path, picture)
    assert "another shape, 300 × 300 px" in warning
    path.write_bytes(path.read_bytes()[:2000])
    (warning,) = match_warnings(path, picture)
    assert "cannot be read" in warning
    Image.new("RGB", (40, 30), "white").save(path)
    assert match_warnings(path, picture) == []  # nothing to tell by


def test_the_picture_is_found_beside_the_files_or_in_spatial(tmp_path: Path) -> None:
    matrix = tmp_path / "outs" / "filtered_feature_bc_matrix.h5"
    assert vendor_picture([matrix]) is None
    (tmp_path / "outs" / "spatial").mkdir(parents=True)
    hires = tmp_path / "outs" / "spatial" / "GSM1_tissue_hires_image.png"
    hires.touch()
    assert vendor_picture([matrix]) == hires
    lowres = hires.with_name("tissue_lowres_image.png")
    lowres.touch()
    assert vendor_picture([matrix]) == lowres
