"""The names of the levels in a store, and which of them each prediction target uses.

bin_008um, bin_016um   square bins of Visium HD; further sizes as `TARGETS` has them
spot                   56 µm squares tiled over the tissue, or the measured spots of a spot platform
centre                 a bin-sized patch at the centre of each spot: the bin context of the 55 µm task
region                 128 µm squares tiled over the tissue
"""

from dataclasses import dataclass

from magnet_core.errors import MagnetError

SPOT, CENTRE, REGION = "spot", "centre", "region"


def bin_level(bin_um: int) -> str:
    """Name of the level of square bins of `bin_um` µm, written as Space Ranger writes it."""
    return f"bin_{bin_um:03d}um"


def feature_name(level: str, kind: str, *, view: int = 0) -> str:
    """Name of a feature array in the store: `kind` is pooled or tokens, `view` one of the square's symmetries."""
    return f"{level}/view{view}/{kind}" if view else f"{level}/{kind}"


def own_square_um(level: str, *, patch_um: float) -> float | None:
    """Side of the square that a row of a fine level stands for, cut from patches of `patch_um`; None for other levels.

    A bin's is its size, and a spot fills its patch.
    """
    sides = {bin_level(um): min(float(um), patch_um) for um in bin_sizes()} | {SPOT: patch_um}
    return sides.get(level)


@dataclass(frozen=True)
class Target:
    """What is predicted: the fine level, whose encoder is fine-tuned, and its two frozen context levels.

    The paper (section 3): bins look at spots and regions; in the 55 µm task the spot encoder is fine-tuned and the bin
    and region encoders are frozen.
    """

    um: int
    fine: str
    contexts: tuple[str, str]

    @property
    def levels(self) -> tuple[str, ...]:
        """All levels, the fine one first."""
        return (self.fine, *self.contexts)


# A further bin size is a further row: a multiple of 8 µm, whose bins are there wherever those of 8 µm are.
TARGETS: dict[int, Target] = {
    8: Target(8, bin_level(8), (SPOT, REGION)),
    16: Target(16, bin_level(16), (SPOT, REGION)),
    55: Target(55, SPOT, (CENTRE, REGION)),
}


def find_target(um: int) -> Target:
    """Return the target of so many µm; one that is not in the table is an error."""
    if um not in TARGETS:
        raise MagnetError("--target", expected=targets_in_words(), found=str(um), remedy="choose one of them")
    return TARGETS[um]


def targets_in_words() -> str:
    """Say which targets there are, such as 8, 16 or 55 (µm)."""
    *others, last = map(str, TARGETS)
    return f"{', '.join(others)} or {last} (µm)"


def bin_sizes() -> tuple[int, ...]:
    """Sizes in µm of the bins that a target predicts, the finest first."""
    return tuple(sorted(um for um, target in TARGETS.items() if target.fine == bin_level(um)))
