"""The verb tune on a Ray cluster: one task a shard, then merge. Ray places the tasks and runs those again that died."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from memtune.config import Config
from memtune.errors import ConfigError, MemtuneError, ProjectError
from memtune.events import Note, OnEvent, Progress, ignore
from memtune.merge import merge
from memtune.project import Project
from memtune.shards import Shard
from memtune.tune import TuneResult
from memtune.tune_shard import tune_shard

__all__ = ["tune_ray"]


def tune_ray(
    project_dir: Path,
    config: Config,
    *,
    shards: int | None = None,
    address: str | None = None,
    on_event: OnEvent = ignore,
) -> TuneResult:
    """Fits the facts as ``shards`` tasks (one for each GPU of the cluster, or else core) and merges what they leave.

    The project directory must be at the same path on every machine of the cluster. A Ray that the caller is connected
    to is used and left running. Raises ProjectError, ModelError, ConfigError.
    """
    ray = _ray()
    device = Project(project_dir).need("model", "memtune ingest FACTS")["device"]
    connected = ray.is_initialized()
    if not connected:
        _connect(ray, address)
    try:
        gpus = 0 if device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
        count = shards or gpus or int(ray.cluster_resources().get("CPU", 1))
        needs = {"num_cpus": _cores(ray, count), "num_gpus": 1 if gpus else 0}
        on_event(Note(f"{count} shards on Ray: {needs['num_cpus']} cores and {needs['num_gpus']} GPUs each"))
        _fit_all(ray, needs, (str(project_dir.resolve()), config), count, on_event)
    finally:
        if not connected:
            ray.shutdown()
    return merge(project_dir, config, on_event=on_event)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError("Ray is not installed", hint="python -m pip install 'ray>=2.40'") from error
    return ray


def _connect(ray: Any, address: str | None) -> None:
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"no Ray cluster at {address or 'RAY_ADDRESS'}: {first}", hint="--address takes HOST:6379, or auto"
        ) from error


def _cores(ray: Any, shards: int) -> int:
    """Of each shard, so that all run at once, as far as a shard of that size fits on every machine."""
    machines = [machine["Resources"].get("CPU", 0) for machine in ray.nodes() if machine["Alive"]]
    return max(1, int(min(sum(machines) / shards, min(filter(None, machines), default=1))))


def _fit_all(ray: Any, needs: dict[str, int], work: tuple[str, Config], count: int, on_event: OnEvent) -> None:
    task = ray.remote(fit).options(**needs)
    pending = {task.remote(*work, Shard(count, number)): number for number in range(1, count + 1)}
    while pending:
        [done], _ = ray.wait(list(pending))
        number = pending.pop(done)
        try:
            ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, MemtuneError) else error from None
        except ray.exceptions.RayError as error:
            first = str(error).partition("\n")[0]
            raise ProjectError(
                f"Ray gave up shard {number} of {count}: {first}", hint="the same command goes on with what was done"
            ) from error
        on_event(Progress("shards", count - len(pending), count))


def fit(project_dir: str, config: Config, shard: Shard) -> None:
    """The task: what an earlier attempt has kept is not done again."""
    tune_shard(Path(project_dir), config, shard)
