import numpy as np

from train.baselines.ridge import PENALTIES, Ridge


def test_ridge_is_the_normal_equations_at_the_penalty_it_chose():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(80, 5)) + 3
    labels = inputs @ rng.normal(size=(5, 4)) + rng.normal(size=(80, 4))
    ridge = Ridge().fit(inputs, labels)
    centred = inputs - inputs.mean(axis=0)
    weights = np.linalg.solve(
        centred.T @ centred + ridge.penalty * np.eye(5), centred.T @ (labels - labels.mean(axis=0))
    )
    expected = centred @ weights + labels.mean(axis=0)
    np.testing.assert_allclose(ridge.predict(inputs), expected, rtol=1e-5)


def test_the_penalty_is_the_one_of_least_generalised_cross_validation_error():
    rng = np.random.default_rng(1)
    inputs, labels = rng.normal(size=(40, 30)), rng.normal(size=(40, 3))
    labels += 2 * inputs[:, :3]
    centred, targets = inputs - inputs.mean(axis=0), labels - labels.mean(axis=0)

    def error(penalty: float) -> float:
        hat = centred @ np.linalg.solve(centred.T @ centred + penalty * np.eye(30), centred.T)
        return float(np.square(targets - hat @ targets).sum() / (len(inputs) - np.trace(hat)) ** 2)

    assert Ridge().fit(inputs, labels).penalty == min(PENALTIES, key=error)


def test_noise_without_signal_is_shrunk_to_the_mean():
    rng = np.random.default_rng(2)
    ridge = Ridge().fit(rng.normal(size=(60, 50)), rng.normal(size=(60, 20)))
    fresh = ridge.predict(rng.normal(size=(200, 50)))
    assert fresh.std(axis=0).mean() < 0.1
