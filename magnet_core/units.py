"""Lengths: everything is in µm until pixels are cut, at a working resolution of 0.25 µm/px unless a run says another.

The paper (section 3) gives patches in pixels at 0.25 µm/px: bin 112, spot 224, region 512. The same squares in µm
are 28, 56 and 128, whatever the resolution of the slide they are cut from.
"""

WORKING_MPP = 0.25  # µm/px at which patches reach the encoders (paper, section 3)

BIN_PATCH_UM = 28.0
SPOT_PATCH_UM = 56.0
REGION_PATCH_UM = 128.0


def patch_px(patch_um: float, mpp: float = WORKING_MPP) -> int:
    """Side of a square of `patch_um` µm in whole pixels at `mpp` µm/px."""
    return round(patch_um / mpp)
