"""Opens a slide that a trained run can predict: its features are made like those of the training slides.

In: a run, and a store, its own or another. Out: an open `Slide`. If the settings of the training features are unknown,
only the widths of the features are compared.
"""

from collections.abc import Mapping

from cache.fingerprint import digest
from cache.reader import ArrayFile
from cache.store import FeatureFile, Store
from magnet_core.errors import MagnetError
from magnet_core.levels import find_target
from magnet_core.symmetry import NUM_SYMMETRIES
from train.data.slide import Slide, open_slide_data
from train.learning.trained_run import TrainedRun
from train.settings.fit import DataConfig


def open_slide_for(run: TrainedRun, store: Store, slide_id: str) -> Slide:
    """Open a slide for the run's target; levels or features that do not fit the run are an error with the remedy."""
    data = run.config.data
    data = data.changed(store=store.root, settings_digest=choose_settings(run, store, slide_id))
    slide = open_slide_data(store, slide_id, find_target(data.target), data)
    model = run.predictor.model
    expected = {slide.fine.name: model.fine_dim, **model.context_dims}
    widths = {slide.fine.name: slide.fine.fine_width}
    widths |= {name: level.width for name, level in slide.contexts.items() if name in expected}
    if widths != expected:
        raise MagnetError(
            f"{store.root}: {slide_id}, features of {data.backbone}",
            expected=f"the widths the run was trained with ({_listed(expected)})",
            found=_listed(widths),
            remedy="extract the slide with the backbone and weights of the training store",
        )
    return slide


def choose_settings(run: TrainedRun, store: Store, slide_id: str) -> str:
    """Return the settings digest of the slide's features that fit the run; empty where the run's own is unknown."""
    data = run.config.data
    own_digest = run.features_settings_digest or training_settings(data)
    files = [file for file in store.feature_files(slide_id) if file.backbone == data.backbone]
    if not own_digest or not files:  # without files, opening the slide says what to do
        return ""
    alike = [file.settings_digest for file in files if own_digest in digests_alike(file)]
    if not alike:
        raise MagnetError(
            f"{store.root}: {slide_id}, features of {data.backbone}",
            expected=f"the settings of the training store ({own_digest})",
            found=", ".join(sorted(file.settings_digest for file in files)),
            remedy="extract with the --weights, --tokens, --own, --stain and --precision of the training store",
        )
    return own_digest if own_digest in alike else alike[0]


def training_settings(data: DataConfig) -> str:
    """Return the settings digest of a run's features, if need be from its own store; empty where that lacks it."""
    if data.settings_digest or not (data.store / "store.json").is_file():
        return data.settings_digest
    store = Store(data.store)
    files = (file for slide_id in store.slide_ids() for file in store.feature_files(slide_id))
    digests = {file.settings_digest for file in files if file.backbone == data.backbone}
    return digests.pop() if len(digests) == 1 else ""


def digests_alike(file: FeatureFile) -> set[str]:
    """Return the settings digests that a file has, or would have with other views or without own squares.

    The first view is the same, and so is all else that is kept beside them.
    """
    with ArrayFile(file.path) as features:
        settings = features.header["settings"]
    without_own = {name: value for name, value in settings.items() if name != "own"}
    alike = [{**each, "views": views} for each in (settings, without_own) for views in (1, NUM_SYMMETRIES)]
    return {file.settings_digest, *map(digest, alike)}


def _listed(widths: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {width}" for name, width in sorted(widths.items()))
