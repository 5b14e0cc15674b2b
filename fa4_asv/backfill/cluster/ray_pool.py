"""Ray as the engine. The only module that imports it; `pip install 'fa4_asv[cluster]'` brings it.

Ray carries bytes and plain values; that Ray itself pickles what it carries is part of trusting the cluster:
whoever may submit to it may run anything there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from fa4_asv.backfill.cluster.node_launcher import ask
from fa4_asv.backfill.cluster.pool import News
from fa4_asv.base.errors import Fa4AsvError

LOCAL = "local"
_OBJECT_STORE = 128 << 20  # of a local Ray: parcels are small, its default is a third of the memory


def _task(order: bytes, folder: str) -> Iterator[Any]:
    """In a worker: where it runs, then the answer. `folder` "" is the sources' package, where Ray starts workers."""
    yield ray.get_runtime_context().get_node_id()
    yield ask(order, folder)


class RayPool:
    """A `Pool` on a Ray cluster at `address` ("local" starts one here with `local_cores`).

    `folder` is the checkout as every node sees it; "" where `package`, a folder here, is sent to them instead.
    Each order asks for `cores`, and with `gpu` for one whole card of that type.
    """

    def __init__(
        self,
        address: str,
        cores: int,
        gpu: str = "",
        folder: str = "",
        package: Path | None = None,
        local_cores: int = 1,
    ) -> None:
        self._cores, self._gpu, self._folder = cores, gpu, folder
        self._running: dict[Any, int] = {}
        self._tickets: dict[int, Any] = {}
        self._where: dict[int, str] = {}
        environment: dict[str, Any] = (
            {"working_dir": str(package)} if package else {"env_vars": {"PYTHONPATH": folder}}
        )
        options: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": "error",
            "runtime_env": environment,
        }
        if address == LOCAL:
            os.environ.setdefault("RAY_worker_niceness", "0")  # noqa: SIM112 - Ray's name; its 15 yields to everybody else on a laptop
            options |= {
                "num_cpus": local_cores,
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE,
            }
        try:
            ray.init(address, **options)
        except (RayError, ConnectionError, OSError, RuntimeError, ValueError, TimeoutError) as error:
            message = " ".join(str(error).split())[:300]
            raise Fa4AsvError(f"cannot use Ray at {address!r}: {message}") from None
        # Retries are ours: Ray's own would run a task again without telling.
        self._options: dict[str, Any] = {"num_cpus": cores, "num_returns": "streaming", "max_retries": 0}
        if gpu:
            self._options |= {"num_gpus": 1, "accelerator_type": gpu}
        self._remote = ray.remote(_task)

    def submit(self, ticket: int, order: bytes, avoid: frozenset[str]) -> None:
        options = dict(self._options)
        if avoid:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(avoid))})"}
        stream = self._remote.options(**options).remote(order, self._folder)
        self._running[stream] = ticket
        self._tickets[ticket] = stream

    def wait(self, seconds: float) -> list[News]:
        if not self._running:
            time.sleep(seconds)
            return []
        streams = list(self._running)
        ready, _ = ray.wait(streams, num_returns=1, timeout=seconds)
        more, _ = ray.wait(streams, num_returns=len(streams), timeout=0)
        return [self._read(stream) for stream in dict.fromkeys([*ready, *more])]

    def _read(self, stream: Any) -> News:
        ticket = self._running[stream]
        node = self._where.get(ticket, "")
        try:
            value = ray.get(next(stream))
        except (RayError, StopIteration) as error:
            self._forget(ticket)
            return News(ticket, "lost", node, why=f"the worker was lost ({_first_sentence(error)})")
        if ticket not in self._where:
            self._where[ticket] = value
            return News(ticket, "started", value)
        self._forget(ticket)
        return News(ticket, "answer", node, body=value)

    def _forget(self, ticket: int) -> Any:
        stream = self._tickets.pop(ticket)
        del self._running[stream]
        self._where.pop(ticket, None)
        return stream

    def cancel(self, ticket: int) -> None:
        if ticket in self._tickets:
            ray.cancel(self._forget(ticket), force=True)

    def nodes(self) -> dict[str, str]:
        return {
            node["NodeID"]: node["NodeManagerHostname"] or node["NodeManagerAddress"]
            for node in ray.nodes()
            if self._fits(node) >= 1
        }

    def slots(self) -> int:
        return sum(self._fits(node) for node in ray.nodes())

    def _fits(self, node: dict[str, Any]) -> int:
        total = node["Resources"]
        if not node["Alive"]:
            return 0
        fits = int(total.get("CPU", 0) // self._cores)
        if self._gpu:
            typed = f"accelerator_type:{self._gpu}" in total
            fits = min(fits, int(total.get("GPU", 0))) if typed else 0
        return fits

    def demand(self) -> str:
        card = f" and a whole {self._gpu}" if self._gpu else ""
        return f"{self._cores} core(s){card}"

    def close(self) -> None:
        for ticket in list(self._tickets):
            ray.cancel(self._forget(ticket), force=True)
        ray.shutdown()


def _first_sentence(error: BaseException) -> str:
    """Ray explains at length; its first sentence says what happened."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(". ")[0][:200]
