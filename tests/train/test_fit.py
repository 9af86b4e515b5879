import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from cache.store import Store
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.pipeline import run
from magnet_core.errors import MagnetError
from magnet_core.levels import find_target
from magnet_core.losses import magnet_loss
from tests.train.setting import config, labels_of, parts
from train import pipeline
from train.data.fold_choice import choose_fold
from train.data.slide import Slide, open_slide_data
from train.data.subgraph import SubgraphSpec, build_batch
from train.learning.trained_run import load_run
from train.model.whole_slide import predict_slide
from train.pipeline import fit

CPU = torch.device("cpu")


@pytest.mark.parametrize("target", [8, 16, 55])
def test_fit_leaves_a_whole_run_that_predicts_as_it_did(small_store: Store, tmp_path: Path, target: int) -> None:
    settings = config(small_store, tmp_path, f"data.target={target}", "fold=1")
    result = fit(settings)
    assert result.systems.keys() == {"magnet", "gene_mean", "colour_ridge", "feature_ridge"}
    for metrics in result.systems.values():
        assert metrics.keys() == {"mse", "mae", "pcc_bin", "pcc_gene"}
        assert all(np.isfinite(value) for value in metrics.values())
    assert result.systems["gene_mean"]["pcc_gene"] == 0
    fold = result.cell().cell.fold
    genes = pl.read_parquet(result.folder / "genes.parquet")
    assert genes.height == 4 * len(fold.test) * 20
    table = pl.read_csv(result.folder / "table.csv")
    assert table["system"].to_list()[-1] == "noise ceiling (upper bound)"
    magnet = table.row(0, named=True)
    assert magnet["pcc_gene_low"] < magnet["pcc_gene_mean"] < magnet["pcc_gene_high"]
    assert np.isfinite(magnet["of_ceiling"])

    loaded = load_run(result.cell().folder)
    (test_slide,) = fold.test
    slide = open_slide_data(small_store, test_slide, find_target(target), settings.data)
    prediction = predict_slide(loaded.predictor, slide)
    truth = slide.labels(loaded.panel, settings.data.normalise)[slide.fine.name]
    assert truth is not None
    assert np.mean((prediction - truth) ** 2) == pytest.approx(result.systems["magnet"]["mse"], rel=1e-5)


def test_panel_baselines_and_model_are_the_same_whatever_the_test_slide_holds(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(small_store, tmp_path / "plain", "fold=0")
    fold = choose_fold(settings)
    plain = fit(settings)
    labels, means, asked = Slide.labels, Slide.mean_counts, []

    def marked_labels(slide: Slide, *arguments: object) -> dict[str, np.ndarray | None]:
        values = labels(slide, *arguments)  # type: ignore[arg-type]
        if slide.slide_id not in fold.test:
            return values
        return {level: None if known is None else known * 0 + 1e3 for level, known in values.items()}

    def watched_means(slide: Slide) -> np.ndarray:
        asked.append(slide.slide_id)
        return means(slide)

    monkeypatch.setattr(Slide, "labels", marked_labels)
    monkeypatch.setattr(Slide, "mean_counts", watched_means)
    marked = fit(config(small_store, tmp_path / "marked", "fold=0"))
    assert set(asked) == set(fold.train)
    first, second = load_run(plain.cell().folder), load_run(marked.cell().folder)
    np.testing.assert_array_equal(first.panel.ids, second.panel.ids)
    for name, value in first.predictor.state_dict().items():
        torch.testing.assert_close(value, second.predictor.state_dict()[name], rtol=0, atol=0)
    for system in plain.systems:
        assert marked.systems[system]["mse"] > 1e5  # the same predictions, far from the planted marker


def test_cached_views_turn_with_the_pixels(small_store: Store, tmp_path: Path) -> None:
    extraction = RunConfig(
        samples=small_store.root.parent / "data/samples.csv",
        store=tmp_path / "store",
        geometry=GeometryConfig(targets=(55,), spots=12),
        embedding=EmbeddingConfig(backbone="timm:test_convnext", weights="random", token_grid=1, views=8),
        slides=("S1",),
    )
    run(extraction)
    store = Store(extraction.store)
    settings = config(store, tmp_path, "data.target=55", "data.standardise=false")
    slide, predictor = parts(store, settings)
    spec = SubgraphSpec.to_train(predictor.model, halo=0, pixels=True)
    batch = build_batch(slide, np.arange(9), labels_of(slide, settings), spec=spec, device=CPU, symmetry=5)
    assert batch.symmetry == 5
    features = store.features("S1", "timm:test_convnext")
    turned = features.read("region/view5/tokens")[slide.around["region"].rows[:9]]
    context = batch.graph.contexts["region"]
    assert context.seen is not None
    seen = context.tokens.flatten(1)[context.seen]  # (9,4,C): of one token a patch
    np.testing.assert_array_equal(seen.numpy(), turned[:, :, 0].astype(np.float32))


def test_every_parameter_of_encoder_and_model_gets_a_gradient(small_store: Store, tmp_path: Path) -> None:
    settings = config(small_store, tmp_path)
    slide, predictor = parts(small_store, settings)
    spec = SubgraphSpec.to_train(predictor.model, halo=0, pixels=True)
    batch = build_batch(slide, np.arange(48), labels_of(slide, settings), spec=spec, device=CPU)
    loss, _ = magnet_loss(predictor(batch), batch.labels, graph=batch.graph, config=settings.loss)
    loss.backward()
    for name, parameter in predictor.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_training_follows_the_seed(small_store: Store, tmp_path: Path) -> None:
    first, again, other = (
        fit(config(small_store, tmp_path / name, "optim.epochs=1", f"seed={seed}")).systems["magnet"]["mse"]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("optimiser", [["optim.name=adamw"], ["optim.name=sgd", "optim.lr=1e-2"]])
@pytest.mark.parametrize("sampler", ["compact", "random"])
def test_training_lowers_the_loss(small_store: Store, tmp_path: Path, optimiser: list[str], sampler: str) -> None:
    result = fit(config(small_store, tmp_path, "optim.epochs=4", f"sampler={sampler}", *optimiser))
    losses = json.loads((result.cell().folder / "run.json").read_text())["losses"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["fold=7"], r"--fold: expected 0 to 2 \(3 folds"),
        (["data.backbone=uni"], "expected features of uni, found .*extract run --backbone uni"),
        (["data.target=10"], r"expected 8, 16 or 55"),
        (["data.panel=5000"], "expected 5000 genes measured on all 2 training slides"),
        (["data.store=nowhere"], "nowhere: expected a store"),
    ],
)
def test_wrong_input_is_one_line(small_store: Store, tmp_path: Path, settings: list[str], says: str) -> None:
    with pytest.raises(MagnetError, match=says):
        fit(config(small_store, tmp_path, *settings))


def test_given_again_a_fit_computes_nothing_and_other_settings_are_refused_unless_they_may_replace_its_table(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fit(config(small_store, tmp_path, "name=one", "encoder.mode=frozen"))

    def refuse(*_: object) -> None:
        raise AssertionError("computed again")

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "compute", refuse)
        assert fit(config(small_store, tmp_path, "name=one", "encoder.mode=frozen", "device=cpu")).text == first.text
    other = ["name=one", "encoder.mode=frozen", "optim.epochs=1"]
    with pytest.raises(MagnetError, match=r"one of other optim\.epochs; give another --name, or --overwrite"):
        fit(config(small_store, tmp_path, *other))
    second = fit(config(small_store, tmp_path, *other, "overwrite=true"))
    assert second.systems["magnet"] != first.systems["magnet"]
    assert (first.cell().folder / "cell.json").exists()


def test_a_fault_ends_a_fit_and_its_finished_cells_stay(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(small_store, tmp_path, "optim.name=sgd", "optim.lr=1e30", "encoder.mode=frozen")
    with pytest.raises(MagnetError, match="expected a finite loss"):
        fit(settings)
    assert not (tmp_path / settings.run_name).exists()
