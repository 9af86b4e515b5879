"""Names of the compared systems, in the order of tables: the paper's Table 1, then the plain baselines."""

MAGNET, NOISE_CEILING = "magnet", "noise_ceiling"
RIVAL_TITLES = {
    "st_net": "ST-Net",
    "egn": "EGN",
    "histogene": "HisToGene",
    "bleep": "BLEEP",
    "his2st": "His2ST",
    "triplex": "TRIPLEX",
}
PLAIN_TITLES = {
    "gene_mean": "gene mean",
    "colour_ridge": "colour ridge",
    "feature_ridge": "PCA-256 + ridge on features",
    "hest_ridge": "PCA-256 + ridge, HEST's",
}
SYSTEMS = (*RIVAL_TITLES, MAGNET, *PLAIN_TITLES)
TITLES = {**RIVAL_TITLES, MAGNET: "MagNet", **PLAIN_TITLES, NOISE_CEILING: "noise ceiling"}
