"""Sampling and scoring on a Ray cluster: the files of a local run, whatever dies in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

import standin_vllm
from fakes import FakeEngine, FakeReward, goats
from test_collecting import PROMPTS, REWARDS, SAMPLING, contents
from tiny import save_tiny
from valuepalette import collecting
from valuepalette.cli import main
from valuepalette.clusters import actors
from valuepalette.clusters.actors import ActorEngine, Cluster
from valuepalette.clusters.llm import ProcessorEngine
from valuepalette.collecting import Line, sample, score
from valuepalette.engines import Sampling
from valuepalette.engines.loading import load_causal_lm
from valuepalette.engines.transformers import TransformersEngine
from valuepalette.engines.vllm import VLLMEngine
from valuepalette.parts import Shard, draw_shard
from valuepalette.study import Study

ray = pytest.importorskip("ray", reason="Ray is not installed")

HERE = Path(__file__).parent
SETTINGS: dict[str, Any] = {"k": 3, "sampling": SAMPLING, "seed": 1, "shard": 2, "quiet": True}
CPUS = Cluster(2, "cpu")

pytestmark = [
    pytest.mark.extra("ray"),
    # Its own modules warn each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def told(root: Path) -> dict[str, str]:
    """What the nodes' environment says: the tests' modules, and a stand-in for vLLM."""
    found = [HERE, HERE / "standins", HERE.parent / "src"]
    return {
        "PYTHONPATH": os.pathsep.join(map(str, found)),
        "STANDIN_TOLD": str(root / "told.jsonl"),
        "STANDIN_DIES": str(root / "died"),
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module", autouse=True)
def cluster(root: Path) -> Iterator[None]:
    """Two CPUs, and a GPU by name: nothing here computes on one."""
    ray.init(
        num_cpus=2,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": told(root)},
    )
    yield
    ray.shutdown()


class Watched(FakeEngine):
    """Writes down what it is asked; may end its process at a prompt, so many times."""

    def __init__(self, folder: Path, *, dies_at: str = "", times: int = 0) -> None:
        super().__init__()
        self.folder, self.dies_at, self.times = folder, dies_at, times

    def sample(self, prompts, k, **settings):  # type: ignore[no-untyped-def]
        before = sum(self.dies_at in path.read_text() for path in self.folder.glob("begun-*"))
        note = self.folder / f"begun-{os.getpid()}-{time.monotonic_ns()}"
        note.write_text("\n".join(prompts))
        if self.dies_at in prompts and before < self.times:
            os._exit(1)
        return super().sample(prompts, k, **settings)


def begun(folder: Path) -> list[str]:
    """The first prompt of each shard that was begun."""
    return sorted(path.read_text().splitlines()[0] for path in folder.glob("begun-*"))


@pytest.mark.slow
def test_the_files_are_those_of_a_local_run(tmp_path: Path) -> None:
    columns = {"audience": ["children", "adults"] * 5}
    here = sample(FakeEngine(), PROMPTS, tmp_path / "here", columns=columns, logprobs=True, **SETTINGS)
    there = sample(
        ActorEngine(FakeEngine, CPUS),
        PROMPTS,
        tmp_path / "there",
        columns=columns,
        logprobs=True,
        **SETTINGS,
    )
    assert there.table == here.table
    lines: dict[str, Line] = {**REWARDS, "length": {"reward": "length", "unit": "characters"}}
    score(tmp_path / "here", lines, quiet=True)
    pilot = score(tmp_path / "there", lines, crew=CPUS, quiet=True)
    assert pilot.values == ("goats", "size", "length")
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


class Weighed:
    """Draws here, and weighs what would go to another machine."""

    fingerprint: ClassVar[dict[str, str]] = dict(FakeEngine().fingerprint)

    def draw_shards(self, shards: Sequence[Shard]) -> Iterator[Shard]:
        self.bytes = [len(ray.cloudpickle.dumps(shard)) for shard in shards]
        for shard in shards:
            draw_shard(FakeEngine(), shard)
            yield shard


def test_a_shard_travels_without_the_others(tmp_path: Path) -> None:
    engine = Weighed()
    columns = {"note": [str(number) * 100_000 for number in range(10)]}
    pilot = sample(engine, PROMPTS, tmp_path / "pilot", columns=columns, **SETTINGS)
    assert list(pilot.column("note")) == columns["note"]
    assert 200_000 < max(engine.bytes) < 210_000


@pytest.mark.slow
@pytest.mark.models
def test_a_model_draws_the_same_bits_in_an_actor(tmp_path: Path) -> None:
    model = str(save_tiny(tmp_path / "model", chat=True))

    def opened() -> TransformersEngine:
        return TransformersEngine(load_causal_lm(model, dtype="float32", device="cpu"))

    told = {**SETTINGS, "logprobs": True}
    sample(opened(), PROMPTS[:4], tmp_path / "here", **told)
    sample(ActorEngine(opened, CPUS), PROMPTS[:4], tmp_path / "there", **told)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_an_actor_that_dies_costs_its_shard(tmp_path: Path) -> None:
    sample(FakeEngine(), PROMPTS, tmp_path / "whole", **SETTINGS)

    def opened() -> Watched:
        return Watched(tmp_path, dies_at=PROMPTS[4], times=1)

    sample(ActorEngine(opened, CPUS), PROMPTS, tmp_path / "pilot", **SETTINGS)
    assert contents(tmp_path / "pilot") == contents(tmp_path / "whole")
    assert begun(tmp_path) == sorted([*PROMPTS[::2], PROMPTS[4]])


@pytest.mark.slow
def test_a_shard_that_kills_its_actor_every_time_is_given_up(tmp_path: Path) -> None:
    def opened() -> Watched:
        return Watched(tmp_path, dies_at=PROMPTS[4], times=99)

    with pytest.raises(RuntimeError, match="died 3 times at one shard"):
        sample(ActorEngine(opened, CPUS), PROMPTS, tmp_path / "pilot", **SETTINGS)
    assert begun(tmp_path).count(PROMPTS[4]) == 3
    assert not (tmp_path / "pilot" / "part-00002.parquet").exists()


@pytest.mark.slow
def test_a_reward_whose_actor_dies(tmp_path: Path) -> None:
    class Dying(FakeReward):
        def score(self, prompts, responses):  # type: ignore[no-untyped-def]
            if prompts[0] == PROMPTS[4] and not (tmp_path / "died").exists():
                (tmp_path / "died").touch()
                os._exit(1)
            return super().score(prompts, responses)

    for folder in ("whole", "pilot"):
        sample(FakeEngine(), PROMPTS, tmp_path / folder, **SETTINGS)
    score(tmp_path / "whole", {"goats": lambda: FakeReward("goats", goats)}, quiet=True)
    score(tmp_path / "pilot", {"goats": lambda: Dying("goats", goats)}, crew=CPUS, quiet=True)
    assert (tmp_path / "died").exists()
    assert contents(tmp_path / "pilot") == contents(tmp_path / "whole")


SCRIPT = """
import sys, time, ray
from pathlib import Path
from test_clusters import CPUS, PROMPTS, REWARDS, SETTINGS, Watched, told
from valuepalette.clusters.actors import ActorEngine
from valuepalette.collecting import sample, score
if __name__ == "__main__":
    folder, delay = Path(sys.argv[1]), float(sys.argv[2])
    class Slow(Watched):
        def sample(self, prompts, k, **settings):
            found = super().sample(prompts, k, **settings)
            time.sleep(delay)
            return found
    env = {"env_vars": told(folder)}
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=env)
    sample(ActorEngine(lambda: Slow(folder), CPUS), PROMPTS, folder / "pilot", **SETTINGS)
    score(folder / "pilot", REWARDS, crew=CPUS)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """The process that leads is killed, its cluster with it; what was written is not drawn again."""
    sample(FakeEngine(), PROMPTS, tmp_path / "whole", **SETTINGS)
    score(tmp_path / "whole", REWARDS, quiet=True)
    script, parts = tmp_path / "run.py", tmp_path / "pilot"
    script.write_text(SCRIPT)
    told_env = {**os.environ, **told(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, script, tmp_path, "3"],
        env=told_env,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    patience = time.monotonic() + 300
    while len(list(parts.glob("part-*.parquet"))) < 2 and process.poll() is None:
        assert time.monotonic() < patience
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    time.sleep(10)  # what its actors had in hand may still come to its end
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("part-*.parquet")}
    assert 2 <= len(kept) < 5
    before = len(begun(tmp_path))
    subprocess.run([sys.executable, script, tmp_path, "0"], env=told_env, check=True, capture_output=True)
    assert len(begun(tmp_path)) - before == 5 - len(kept)
    assert contents(parts) == contents(tmp_path / "whole")


@pytest.mark.slow
def test_what_an_actor_refuses_is_one_line(tmp_path: Path) -> None:
    class Refusing(FakeEngine):
        def sample(self, prompts, k, **settings):  # type: ignore[no-untyped-def]
            raise ValueError("prompts[0] must be short")

    with pytest.raises(ValueError, match="must be short") as refused:
        sample(ActorEngine(Refusing, CPUS), PROMPTS, tmp_path / "a", **SETTINGS)
    assert str(refused.value) == "prompts[0] must be short"

    class Failing(FakeEngine):
        def sample(self, prompts, k, **settings):  # type: ignore[no-untyped-def]
            raise KeyError("token")

    with pytest.raises(RuntimeError, match="KeyError") as failed:
        sample(ActorEngine(Failing, CPUS), PROMPTS, tmp_path / "b", **SETTINGS)
    assert str(failed.value) == "KeyError: 'token'"
    assert "in sample" in failed.value.__notes__[0]


@pytest.mark.slow
def test_engines_that_differ_between_nodes_are_refused(tmp_path: Path) -> None:
    def opened() -> FakeEngine:
        (tmp_path / "opened").touch()
        return FakeEngine()

    def other() -> FakeEngine:
        first = not (tmp_path / "opened").exists()
        opened()
        return FakeEngine(model="fake" if first else "another")

    with pytest.raises(ValueError, match='the same on every node, got model: "fake" -> "another" on '):
        sample(ActorEngine(other, CPUS), PROMPTS, tmp_path / "pilot", **SETTINGS)


@pytest.mark.slow
def test_a_folder_that_a_node_does_not_see_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors, "_digest", lambda _: "another")
    with pytest.raises(ValueError, match=r"manifest\.json must be on storage that every node shares"):
        sample(ActorEngine(FakeEngine, CPUS), PROMPTS, tmp_path / "pilot", **SETTINGS)
    assert not list((tmp_path / "pilot").glob("part-*"))


@pytest.mark.slow
def test_an_actor_has_a_gpu_to_itself_where_there_are_any(tmp_path: Path) -> None:
    def gpus() -> list[str]:
        return ray.get_runtime_context().get_accelerator_ids()["GPU"]

    assert Cluster().told(gpus) == Cluster(device="cuda").told(gpus) == ["0"]
    assert Cluster(device="cpu").told(gpus) == []
    assert (Cluster().count, Cluster(device="cpu").count, Cluster(5).count) == (1, 2, 5)
    for wrong in (0, True, 1.5):
        with pytest.raises(ValueError, match="actors must be a whole number"):
            Cluster(wrong)  # type: ignore[arg-type]


class NoCrew:
    """Not to be asked."""

    def each(self, opener: Any, items: Any, shared: Collection[Path] = ()) -> Iterator[Any]:
        raise AssertionError


def test_a_reward_behind_a_server_is_asked_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample(FakeEngine(), PROMPTS, tmp_path, **SETTINGS)
    monkeypatch.setattr(collecting, "open_reward", lambda name, *_, **__: FakeReward(name))
    line = {"reward": "endpoint", "url": "http://localhost"}
    assert score(tmp_path, {"size": line}, crew=NoCrew(), quiet=True).values == ("size",)
    with pytest.raises(AssertionError):
        score(tmp_path, {"other": "diversity"}, crew=NoCrew(), quiet=True)


STUDY = """
[model]
id = "{model}"
dtype = "float32"
device = "cpu"
max_new_tokens = 6
[prompts]
path = "prompts.txt"
held_out = 0.5
[pilot]
candidates = 2
shard = 2
[values]
tone = {{ reward = "python", function = "my_tone:tone" }}
[run]
folder = "{folder}"
{more}
"""


@pytest.mark.slow
@pytest.mark.models
def test_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`--ray` and `engine = "ray"` do what a local run does; a value of one's own is found beside the study."""
    monkeypatch.chdir(tmp_path)
    model = save_tiny(tmp_path / "model", chat=True).name  # a relative path, as the actors must read it
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS[:8]))
    (tmp_path / "my_tone.py").write_text(
        "def tone(prompts, responses):\n    return [len(r) for r in responses]\n"
    )
    for name, lines in (("here", ""), ("flags", ""), ("told", 'engine = "ray"\nactors = 2')):
        folder = "here" if name == "here" else "there"
        (tmp_path / f"{name}.toml").write_text(STUDY.format(model=model, folder=folder, more=lines))
    assert main(["sample", "here.toml"]) == main(["score", "here.toml"]) == 0
    assert main(["sample", "flags.toml", "--ray", "--actors", "2"]) == main(["score", "told.toml"]) == 0
    for part in ("pilot", "held_out"):
        assert contents(tmp_path / "there" / part) == contents(tmp_path / "here" / part)
    capsys.readouterr()
    assert main(["sample", "here.toml", "--actors", "2"]) == 1
    assert "actors go with ray, got 2 without it" in capsys.readouterr().err
    asks = STUDY.replace("{model}", "openai:gpt").format(folder="server", more="")
    (tmp_path / "server.toml").write_text(asks.replace('device = "cpu"\n', ""))
    with pytest.raises(ValueError, match="ray must be left out with openai:gpt"):
        Study.read("server.toml").sample(ray=True)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model, and word of an installed vLLM."""
    info = tmp_path / "vllm-0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return str(save_tiny(tmp_path / "chat", chat=True))


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pydantic.PydanticDeprecatedSince20")
def test_vllm_by_rays_own_processor(
    tmp_path: Path, root: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's processor, real, on a stand-in for vLLM whose process dies once: the files of the engine on one machine."""
    told = {
        **SETTINGS,
        "sampling": Sampling(max_new_tokens=6, temperature=0.7, top_p=0.9, top_k=0, stop=("aB", "Q")),
        "logprobs": True,
    }
    engine = ProcessorEngine(model, Cluster(), dtype="bfloat16")
    there = sample(engine, PROMPTS, tmp_path / "there", **told)
    assert (root / "died").exists()
    options = json.loads((root / "told.jsonl").read_text().splitlines()[-1])
    monkeypatch.setitem(sys.modules, "vllm", standin_vllm.module())
    local = VLLMEngine(model, dtype="bfloat16")
    here = sample(local, PROMPTS, tmp_path / "here", **told)
    assert there.table == here.table
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert set(there.table["finish_reason"].to_pylist()) == {"stop", "length"}
    handed = sys.modules["vllm"].made[0].options
    assert {name: options[name] for name in handed} == handed
    with pytest.raises(ValueError, match=r"prompts\[0\] must leave room"):
        sample(engine, ["long " * 99], tmp_path / "long", **told)


@pytest.mark.models
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pydantic.PydanticDeprecatedSince20")
def test_what_rays_processor_is_told(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ProcessorEngine(
        model, Cluster(8), dtype="float16", options={"tensor_parallel_size": 4, "max_model_len": 99}
    ).config()
    assert (config.model_source, config.concurrency) == (model, (8, 8))
    assert config.engine_kwargs["tensor_parallel_size"] == 4
    assert config.engine_kwargs["max_model_len"] == 99
    assert config.engine_kwargs["dtype"] == "float16"
    monkeypatch.setattr(Cluster, "count", property(lambda _: 16))
    split = ProcessorEngine(model, Cluster(), dtype="float16", options={"tensor_parallel_size": 4})
    assert split.config().concurrency == (4, 4)
    with pytest.raises(ValueError, match="dtype must be told with vllm: on a cluster"):
        ProcessorEngine(model, Cluster())
