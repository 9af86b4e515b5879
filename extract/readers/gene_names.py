"""Unique gene names. Symbols repeat in every annotation (two Ensembl ids, one symbol); ids stay as they are."""

import numpy as np

# G genes


def unique_names(names: np.ndarray) -> np.ndarray:
    """Append -1, -2, … to the second, third, … occurrence of a name, as AnnData does; (G,) str in and out.

    A suffixed name that another gene already bears is passed over.
    """
    taken = set(names.tolist())
    if len(taken) == len(names):
        return names
    seen: set[str] = set()
    suffix: dict[str, int] = {}
    unique = []
    for name in names.tolist():
        candidate = name
        while candidate in seen or (candidate != name and candidate in taken):
            suffix[name] = suffix.get(name, 0) + 1
            candidate = f"{name}-{suffix[name]}"
        seen.add(candidate)
        unique.append(candidate)
    return np.array(unique)
