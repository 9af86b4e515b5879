"""The part `end-to-end` of `bench_gpu.py`: a whole small experiment on a device, and the same on the CPU.

In: four synthetic slides. Out: rows of how far apart the features of both are, and the metrics of both fits.
"""

import tempfile
from pathlib import Path

import numpy as np
from bench_gpu_rows import Budget, PartRows, Scale

from cache.store import Store
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.pipeline import run
from extract.synthetic.config import SynthConfig
from extract.synthetic.dataset import synthesise
from train.pipeline import fit
from train.settings.fit import load_config

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "quick.toml"

# Both run in float32, but a GPU may compute convolutions in TF32, whose relative error is some 1e-3, and features are
# stored in float16. A wrong patch, level or row would be apart by about 1.
FEATURE_GOAL = 0.01
# Chosen, not measured: rounding and another order of sums should move so short a training by less.
PCC_GOAL, MSE_GOAL = 0.02, 0.02


def end_to_end(scale: Scale, rows: PartRows, budget: Budget) -> None:
    """Both stages over four synthetic slides on the device, and both on the CPU, by the programs' own pages."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = synthesise(folder / "data", SynthConfig(slides=4, seed=1, size_mm=scale.small_mm, genes=200))
        stores = [
            extracted(samples, folder / f"store{number}", device, scale)
            for number, device in enumerate((scale.device, "cpu"))
        ]
        apart = features_apart(*stores, scale.small_backbone)
        rows.compare(f"features: root mean square of {scale.device} − cpu, ÷ sd, at the worst", apart, FEATURE_GOAL)
        for mode, title in (("frozen", "frozen"), ("full", "fine-tuned")):
            ours, theirs = (
                metrics(store, folder / f"runs{number}-{mode}", device, mode, scale)
                for number, (store, device) in enumerate(zip(stores, (scale.device, "cpu"), strict=True))
            )
            told = {f"{metric}_{place}": round(of[metric], 6) for metric in ("pcc_gene", "mse")
                    for place, of in (("device", ours), ("cpu", theirs))}  # fmt: skip
            apart = abs(ours["pcc_gene"] - theirs["pcc_gene"])
            rows.compare(f"fit, {title}: PCC per gene, |{scale.device} − cpu|", apart, PCC_GOAL, **told)
            share = abs(ours["mse"] / theirs["mse"] - 1)
            rows.compare(f"fit, {title}: MSE, |{scale.device} ÷ cpu − 1|", share, MSE_GOAL)


def extracted(samples: Path, store: Path, device: str, scale: Scale) -> Store:
    """Extract all slides on a device, in float32 on any of them, so that both are the same arithmetic."""
    config = RunConfig(
        samples=samples,
        store=store,
        geometry=GeometryConfig(targets=(8,), bins=scale.small_bins, spots=scale.small_bins // 4),
        embedding=EmbeddingConfig(backbone=scale.small_backbone, weights="random", token_grid=2, precision="fp32"),
        device=device,
    )
    summary = run(config)
    if summary.failed:
        raise SystemExit(f"extract run on {device} failed: {summary.failed}")
    return Store(store)


def features_apart(first: Store, second: Store, backbone: str) -> float:
    """How far apart an array of features is, root mean square in standard deviations; the worst of all slides'."""
    worst = 0.0
    for slide_id in first.slide_ids():
        ours, theirs = (store.features(slide_id, backbone) for store in (first, second))
        for name in theirs.names():
            values = theirs.read(name).astype(np.float32)
            apart = np.sqrt(np.square(ours.read(name).astype(np.float32) - values).mean())
            worst = max(worst, float(apart / values.std()))
    return worst


def metrics(store: Store, runs: Path, device: str, mode: str, scale: Scale) -> dict[str, float]:
    """Metrics of MagNet on the test slide of fold 0, after all epochs: a choice among them may fall elsewhere."""
    settings = {
        "data.store": store.root, "runs": runs, "split.file": runs / "folds.json", "device": device,
        "data.backbone": scale.small_backbone, "data.panel": 50, "encoder.mode": mode, "compute.precision": "fp32",
        "optim.epochs": scale.epochs, "validation.share": 0,
    }  # fmt: skip
    assigned = [f"{name}={value}" for name, value in settings.items()]
    return fit(load_config(RECIPE, assigned)).systems["magnet"]
