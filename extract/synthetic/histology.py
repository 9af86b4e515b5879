"""What the synthetic tissue is made of: cell types and their looks, domains and their recipes. Tables only.

The six domains come in three pairs. The two domains of a pair mix the same cell types in the same shares at the same
density; they differ in how the cells are arranged over some 100 µm. One nucleus does not tell them apart, a region
does: this is what a bin alone cannot learn and region context can (paper, section 2.2).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class CellType:
    """Look of a cell under H&E (lengths in µm, stains in optical density) and its RNA content relative to others.

    nucleus_um   length and width of the nucleus      size_cv     spread of its size from cell to cell
    irregularity waviness of its outline              bend        curvature along its length, per µm
    chromatin    haematoxylin of the nucleus          clumps      contrast of the chromatin
    rim          darkening under the membrane         nucleoli    number of dark spots
    body_um      length and width of the cytoplasm    shift_um    from nucleus to cytoplasm, along the length
    body_stain   haematoxylin and eosin of the cytoplasm; body_opacity: how much it hides what lies below
    """

    name: str
    nucleus_um: tuple[float, float]
    size_cv: float
    irregularity: float
    bend: float
    chromatin: float
    clumps: float
    rim: float
    nucleoli: int
    body_um: tuple[float, float]
    shift_um: float
    body_stain: tuple[float, float]
    body_opacity: float
    rna: float


#                        nucleus      cv   irreg  bend  chrom clump rim nucl  body        shift stain         opac  rna
CELL_TYPES = (
    CellType("tumour", (9.6, 7.8), 0.13, 0.07, 0.0, 0.85, 0.35, 0.55, 2, (15.0, 13.0), 0.0, (0.28, 0.50), 0.85, 1.8),
    CellType("epithelium", (8.4, 4.6), 0.08, 0.03, 0.0, 1.25, 0.20, 0.25, 1, (16.0, 7.0), 4.5, (0.14, 0.42), 0.9, 1.4),
    CellType("fibroblast", (14.0, 2.9), 0.15, 0.04, 0.01, 1.75, 0.15, 0.0, 0, (20.0, 4.0), 0.0, (0.1, 0.7), 0.3, 0.8),
    CellType("endothelium", (9.5, 2.3), 0.12, 0.03, 0.07, 2.1, 0.1, 0.0, 0, (14.0, 3.2), 0.0, (0.12, 0.75), 0.5, 0.8),
    CellType("lymphocyte", (5.8, 5.4), 0.06, 0.02, 0.0, 2.3, 0.18, 0.1, 0, (7.0, 6.6), 0.0, (0.25, 0.30), 0.6, 0.5),
    CellType("plasma", (5.8, 5.0), 0.06, 0.03, 0.0, 1.9, 0.55, 0.2, 0, (11.0, 8.5), 2.6, (0.62, 0.46), 0.85, 1.0),
    CellType("macrophage", (8.2, 5.4), 0.1, 0.05, 0.06, 1.05, 0.25, 0.2, 1, (16.0, 14.0), 2.0, (0.06, 0.20), 0.8, 1.1),
)
CELL_NAMES = tuple(cell.name for cell in CELL_TYPES)


@dataclass(frozen=True)
class Lumina:
    """Round spaces of a domain and the cells that line them. Lengths in µm.

    per_mm2 how many are tried for (overlapping ones drop out); radius_um smallest and largest; spacing_um from one
    lining cell to the next; wall_um from the space to the centre of a lining nucleus; radial: the cells stand on
    the wall, else they lie along it.
    """

    lining: str
    per_mm2: float
    radius_um: tuple[float, float]
    spacing_um: float
    wall_um: float
    radial: bool


VESSELS = Lumina("endothelium", 110, (5.0, 13.0), 11.0, 1.4, radial=False)
SMALL_GLANDS = Lumina("epithelium", 1200, (5.0, 11.0), 5.6, 9.0, radial=True)
LARGE_GLANDS = Lumina("epithelium", 600, (20.0, 36.0), 5.6, 9.0, radial=True)


@dataclass(frozen=True)
class Domain:
    """A kind of tissue, some hundreds of µm across.

    family    domains of one family form a pair that single cells do not tell apart
    shares    cell types and their shares, which sum to 1
    density   share of the possible cell places that are taken
    clustered this type fills nests; None: all types are mixed at random
    wobble    (µm, rad): over what length, and by how much, the fibres change direction
    fibres    fibres per mm²
    lumina    spaces in it
    """

    name: str
    family: str
    shares: dict[str, float]
    density: float
    wobble: tuple[float, float]
    fibres: float
    clustered: str | None = None
    lumina: Lumina | None = None


_TUMOUR = {"tumour": 0.55, "lymphocyte": 0.15, "fibroblast": 0.20, "macrophage": 0.06, "endothelium": 0.04}
_STROMA = {"fibroblast": 0.56, "endothelium": 0.16, "macrophage": 0.10, "lymphocyte": 0.08, "plasma": 0.10}
_GLANDS = {"epithelium": 0.60, "fibroblast": 0.18, "plasma": 0.10, "lymphocyte": 0.08, "endothelium": 0.04}

DOMAINS = (
    Domain("tumour_nests", "tumour", _TUMOUR, 0.92, (60.0, 0.6), 2500, clustered="tumour"),
    Domain("tumour_scattered", "tumour", _TUMOUR, 0.92, (60.0, 0.6), 2500),
    Domain("stroma_parallel", "stroma", _STROMA, 0.36, (60.0, 0.25), 9000, lumina=VESSELS),
    Domain("stroma_woven", "stroma", _STROMA, 0.36, (14.0, 1.6), 9000, lumina=VESSELS),
    Domain("glands_small", "glands", _GLANDS, 0.62, (40.0, 0.8), 4500, lumina=SMALL_GLANDS),
    Domain("glands_large", "glands", _GLANDS, 0.62, (40.0, 0.8), 4500, lumina=LARGE_GLANDS),
)
DOMAIN_NAMES = tuple(domain.name for domain in DOMAINS)
FAMILIES = tuple(dict.fromkeys(domain.family for domain in DOMAINS))
GLASS = -1  # the domain index outside the tissue
