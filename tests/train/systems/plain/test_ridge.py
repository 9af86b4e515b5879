import numpy as np

from train.systems.plain.ridge import PENALTIES, Ridge


def test_ridge_is_the_normal_equations_at_the_penalty_it_chose() -> None:
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


def test_the_penalty_is_the_one_of_least_generalised_cross_validation_error() -> None:
    rng = np.random.default_rng(1)
    inputs, labels = rng.normal(size=(40, 30)), rng.normal(size=(40, 3))
    labels += 2 * inputs[:, :3]
    centred, targets = inputs - inputs.mean(axis=0), labels - labels.mean(axis=0)

    def error(penalty: float) -> float:
        hat = centred @ np.linalg.solve(centred.T @ centred + penalty * np.eye(30), centred.T)
        return float(np.square(targets - hat @ targets).sum() / (len(inputs) - np.trace(hat)) ** 2)

    assert Ridge().fit(inputs, labels).penalty == min(PENALTIES, key=error)


def test_noise_without_signal_is_shrunk_to_the_mean() -> None:
    rng = np.random.default_rng(2)
    ridge = Ridge().fit(rng.normal(size=(60, 50)), rng.normal(size=(60, 20)))
    fresh = ridge.predict(rng.normal(size=(200, 50)))
    assert fresh.std(axis=0).mean() < 0.1


def test_with_several_patients_the_penalty_is_the_best_for_one_that_is_left_out() -> None:
    rng = np.random.default_rng(3)
    patients = np.repeat(["a", "b", "c"], 30)
    context = np.repeat(rng.normal(size=(3, 12)), 30, axis=0) + 0.01 * rng.normal(size=(90, 12))
    inputs, labels = np.concatenate([context, rng.normal(size=(90, 4))], axis=1), rng.normal(size=(90, 5))
    labels += np.repeat(rng.normal(size=(3, 5)), 30, axis=0)  # each patient has a level of its own

    def error(penalty: float) -> float:
        total = 0.0
        for patient in "abc":
            out = patients == patient
            mean, label_mean = inputs[~out].mean(axis=0), labels[~out].mean(axis=0)
            centred = inputs[~out] - mean
            weights = np.linalg.solve(
                centred.T @ centred + penalty * np.eye(16), centred.T @ (labels[~out] - label_mean)
            )
            total += np.square(labels[out] - (inputs[out] - mean) @ weights - label_mean).sum()
        return total

    chosen = Ridge().fit(inputs, labels, patients=patients).penalty
    assert chosen == min(PENALTIES, key=error)
    assert chosen > Ridge().fit(inputs, labels).penalty  # which takes the patients' levels for signal
