"""A real Ray cluster of two nodes of this machine, of a processor each."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def two_nodes(second: Mapping[str, str] | None = None) -> Iterator[Any]:
    """Yield the cluster, to which nodes may be added; its `address` is what `--address` takes.

    `second` is what the environment of the second node has beside ours.
    """
    utils = pytest.importorskip("ray.cluster_utils", reason="needs the [cluster] extra")
    nodes = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes.add_node(num_cpus=1, env_vars=dict(second or {}))
    nodes.wait_for_nodes()
    try:
        yield nodes
    finally:
        nodes.shutdown()
