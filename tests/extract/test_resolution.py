"""Statements of the µm/px: who is believed, what contradicts, and how a user overrides files that are wrong."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from extract.resolution import ResolvedMpp, enlarging, resolve_mpp
from magnet_core.errors import MagnetError
from magnet_core.records import Genes, Sample, SlideCounts


def resolve(
    *, sheet: float | None = None, platform: float | None, image: float | None, overrides: bool = False
) -> ResolvedMpp:
    slide: Any = SimpleNamespace(mpp=image, mpp_source="resolution tags")
    no_genes = Genes(np.array([]), np.array([]))
    counts = SlideCounts("space_ranger_hd", no_genes, mpp=platform, mpp_source="Space Ranger")
    return resolve_mpp(Sample("P1", slide, mpp=sheet, mpp_overrides=overrides), slide, counts)


def test_the_first_statement_is_believed() -> None:
    assert resolve(sheet=0.5, platform=0.51, image=0.49) == ResolvedMpp(0.5, "samples.csv")
    assert resolve(platform=0.51, image=0.5) == ResolvedMpp(0.51, "Space Ranger")
    assert resolve(platform=None, image=0.5) == ResolvedMpp(0.5, "resolution tags")


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        ({"sheet": 0.5, "platform": 0.53, "image": None}, "0.5000 from samples.csv and 0.5300 from Space Ranger"),
        ({"sheet": 0.5, "platform": None, "image": 0.25}, "0.5000 from samples.csv and 0.2500 from resolution tags"),
        ({"platform": 0.5, "image": 0.47}, "0.5000 from Space Ranger and 0.4700 from resolution tags"),
        ({"sheet": 0.5, "platform": 0.5, "image": 0.25}, "and 0.5000 from Space Ranger and 0.2500 from resolution"),
    ],
)
def test_a_conflict_of_more_than_5_percent_names_all_and_the_way_out(statements: dict[str, Any], found: str) -> None:
    with pytest.raises(MagnetError, match="with a '!' into the column 'mpp' of samples.csv, such as 0.5!") as caught:
        resolve(**statements)
    assert found in str(caught.value)


def test_the_users_number_overrides_the_files_where_it_says_so() -> None:
    assert resolve(sheet=0.5, platform=0.25, image=10.0, overrides=True) == ResolvedMpp(0.5, "samples.csv")


def test_without_any_statement_there_is_no_guess() -> None:
    with pytest.raises(MagnetError, match="expected its µm/px in samples.csv, .* write it into the column 'mpp'"):
        resolve(platform=None, image=None)


def test_without_any_statement_the_image_says_why() -> None:
    with pytest.raises(MagnetError, match=r"found none of them \(Space Ranger; resolution tags\)"):
        resolve(platform=None, image=None)


def test_a_slide_coarser_than_what_encoders_see_is_told_with_the_factor() -> None:
    assert [enlarging(mpp) for mpp in (0.12, 0.25, 0.2528)] == [None] * 3
    assert "0.687 µm/px are enlarged 2.7 times to the 0.25 µm/px" in str(enlarging(0.687))
    assert "enlarged 2 times" in str(enlarging(0.5))
