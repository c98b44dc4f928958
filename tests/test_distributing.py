"""Shards on Ray: the same solution as in memory, also where a worker dies in the middle of a pass."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import valuepalette as vp
from problems import asked, planted
from test_streaming import NAMES, assert_same, table_of, written
from valuepalette import Palette, Pilot
from valuepalette.distributing import is_dataset, on_ray
from valuepalette.shards import Piece

ray = pytest.importorskip("ray", reason="Ray is not installed")

pytestmark = [
    pytest.mark.extra("ray"),
    # Its own modules warn each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": here}},
    )
    yield
    ray.shutdown()


@dataclass(frozen=True)
class Dying:
    """A task that ends its process on the way, once."""

    task: Callable[[Piece], Any]
    mark: Path
    shard: int

    def __call__(self, piece: Piece) -> Any:
        if piece.place[0] == self.shard and not self.mark.exists():
            self.mark.touch()
            os._exit(1)
        return self.task(piece)


def pilot_of(tmp_path: Path, seed: int) -> tuple[Pilot, Path, Palette]:
    rng = np.random.default_rng(seed)
    p = planted(rng, candidates=6, prompts=30, features=3, joint=False).problem
    table = table_of(p, rng)
    folder = tmp_path / "pilot"
    for number in range(5):
        folder.mkdir(exist_ok=True)
        pq.write_table(table.slice(36 * number, 36), folder / f"part-{number}.parquet")
    palette = Palette({"humor": "reach 40%", "tone": ["keep", "P(> q70) >= 0.3"], "care": "<= +0.1"})
    return Pilot.read(table, values=NAMES[:3]), folder, palette


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_worker_that_dies_in_a_pass(tmp_path: Path) -> None:
    """A worker killed between passes, and one whose process ends in a pass: shards are read again, nothing changes."""
    pilot, folder, palette = pilot_of(tmp_path, 710)
    whole = vp.solve(pilot, palette, 4)
    shards = on_ray(folder, values=NAMES[:3], workers=2)
    before, calls = list(shards.workers), 0

    class Failing:
        """The same shards, of which one dies in the sixth pass."""

        head, rows, memory = shards.head, shards.rows, shards.memory

        def map(self, task: Callable[[Piece], Any], columns: tuple[str, ...] = ()) -> Iterator[Any]:
            nonlocal calls
            calls += 1
            if calls == 3:
                ray.kill(shards.workers[1])
            return shards.map(Dying(task, tmp_path / "died", 1) if calls == 6 else task, columns)

    assert_same(whole, vp.solve(Failing(), palette, 4), margins=False)
    assert (tmp_path / "died").exists()
    assert shards.workers[0] is not before[0]
    assert shards.workers[1] is not before[1]
    assert_same(whole, vp.solve(shards, palette, 4))
    shards.close()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_dataset(tmp_path: Path) -> None:
    """Blocks stay in Ray's store; joint mode and an impossible palette besides."""
    rng = np.random.default_rng(712)
    p = asked(rng, candidates=4, prompts=30, features=2)
    table = table_of(p, rng)
    dataset = ray.data.from_arrow([table.slice(0, 40), table.slice(40, 44), table.slice(84)])
    assert is_dataset(dataset)
    pilot = Pilot.read(table, values=NAMES[:2])
    shards = on_ray(dataset, values=NAMES[:2])
    for palette, mode in (({"humor": "q60"}, "joint"), ({"humor": "reach 100%", "tone": "q95"}, "prompt")):
        told: dict[str, Any] = {"mode": mode, "weighting": "share", "on_infeasible": "return"}
        assert_same(vp.solve(pilot, palette, **told), vp.solve(shards, palette, **told))
    split = ray.data.from_arrow([table.slice(0, 41), table.slice(41)])
    with pytest.raises(ValueError, match="must stand together") as error:
        vp.solve(split, {"humor": "keep"}, weighting="share")
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("cluster")
def test_what_a_task_refuses_is_one_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(713)
    p = asked(rng, candidates=4, prompts=5, features=1)
    folder = written(table_of(p, rng), tmp_path / "pilot", rng, p.starts)
    shards = on_ray(folder, values=NAMES[:1])
    with pytest.raises(ValueError, match="scale") as error:
        vp.solve(shards, {"humor": "x1.2"})
    assert "\n" not in str(error.value)
    for workers in (0, True, 1.5):
        with pytest.raises(ValueError, match="workers must be"):
            on_ray(folder, workers=workers)  # type: ignore[arg-type]
