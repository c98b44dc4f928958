"""The commands: what they print, what they write, how they fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import test_study
import valuepalette
from valuepalette.cli import main
from valuepalette.cli.steps import _palette
from valuepalette.pilot import Pilot
from valuepalette.planner import plan
from valuepalette.solution import Solution
from valuepalette.solving import solve
from valuepalette.study import Study

ROOT = Path(__file__).parents[1]


@pytest.fixture
def pilot(tmp_path: Path) -> Path:
    """40 prompts, 6 candidates each, two values."""
    rng = np.random.default_rng(3)
    path = tmp_path / "pilot.parquet"
    values = {"humor": rng.normal(size=240), "tone": rng.normal(size=240)}
    Pilot.from_arrays(values, prompts=[f"Say {number // 6}." for number in range(240)]).write(path)
    return path


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study whose engine and rewards cost nothing."""
    path = test_study.write(tmp_path)
    monkeypatch.setattr(Study, "read", classmethod(lambda _, path: test_study.study(path)))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_pilot_is_solved_for_what_is_asked(pilot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "solve", pilot, "--ask", "humor=q70", "--ask", "tone = keep", "-k", 4)
    expected = solve(Pilot.read(pilot), {"humor": "q70", "tone": "keep"}, 4)
    assert (code, out, err) == (0, f"{expected}\n", "")


def test_every_way_to_ask(pilot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "solve", pilot, "--ask", "humor>=q60", "--ask", "tone=<= 0.1", "--json")
    assert code == 0
    assert (
        json.loads(out)["solutions"][0]["asked"]
        == solve(Pilot.read(pilot), {"humor": ">= q60", "tone": "<= 0.1"}).asked
    )


def test_one_line_of_json_and_the_solution_in_a_file(pilot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out_path = pilot.parent / "solution.json"
    _, out, _ = run(capsys, "solve", pilot, "--ask", "humor=q60", "--json", "--out", out_path)
    assert out.count("\n") == 1
    told = json.loads(out)["solutions"][0]
    saved = Solution.load(out_path)
    assert told["weights"] == dict(saved.weights)
    assert told["status"] == saved.status.name == "OPTIMAL"
    assert told["path"] == str(out_path)


def test_what_cannot_be_had_is_proved_and_is_an_error(
    pilot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "solve", pilot, "--ask", "humor=9")
    assert code == 1
    assert out.startswith("INFEASIBLE")
    assert err == "valuepalette: cannot be had: what is asked\n"


def test_a_plan_of_a_pilot(pilot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--ask", "humor=+0.6", "--ask", "tone=keep")
    expected = plan(Pilot.read(pilot), {"humor": "+0.6", "tone": "keep"})
    assert run(capsys, "plan", pilot, *asked) == (0, f"{expected}\n", "")
    costs = ("--answer-tokens", 20, "--finetune-tokens", 1e6, "--train-price", 1)
    code, out, _ = run(capsys, "plan", pilot, *asked, "-k", 2, "-k", 6, *costs, "--json")
    told = json.loads(out)["plans"][0]
    assert (code, told["smallest"], told["palette"]) == (0, expected.smallest, None)
    assert {2, 6} <= {entry["candidates"] for entry in told["choices"]}
    assert told["choices"][-1]["answers"] == 10_000
    assert run(capsys, "plan", pilot, "--ask", "humor=9")[::2] == (
        1,
        "valuepalette: cannot be had: what is asked\n",
    )
    assert run(capsys, "plan", pilot)[2].startswith("valuepalette: a pilot must come with --ask")


def test_candidates_are_decoded_and_judged_from_files(
    pilot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    solution, answers = pilot.parent / "solution.json", pilot.parent / "answers.parquet"
    run(capsys, "solve", pilot, "--ask", "humor=q60", "--out", solution)
    code, out, _ = run(capsys, "decode", pilot, "--solution", solution, "--out", answers, "--seed", 2)
    assert (code, out) == (0, f"written to {answers}\n")
    assert np.asarray(Pilot.read(answers).table["drawn"]).sum() == 40
    code, out, err = run(capsys, "evaluate", answers, "--solution", solution)
    assert code == 0
    assert "humor" in out
    assert err.startswith("warning: 40 of 40 prompts are the pilot's own")
    assert err.count("\n") == 1


def test_a_study_from_end_to_end(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "sample", study)
    folder = study.parent / "run"
    assert code == 0
    assert out.splitlines() == [
        f"{folder / 'pilot'}: candidates of 30 prompts",
        f"{folder / 'held_out'}: candidates of 20 prompts",
        f"Next: valuepalette score {study}",
    ]
    assert "sampling pilot: 30 of 30 prompts in" in err
    code, out, _ = run(capsys, "score", study, "--json")
    assert code == 0
    assert json.loads(out)["values"] == ["goats", "variety", "shortness", "length"]

    code, out, err = run(capsys, "solve", study)
    assert code == 1
    assert out.startswith("funny:\nOPTIMAL")
    assert "\n\nimpossible:\nINFEASIBLE" in out
    assert f"written to {folder / 'solutions' / 'impossible.json'}" in out
    assert err == "valuepalette: cannot be had: impossible\n"
    assert run(capsys, "solve", study, "--palette", "funny")[0] == 0

    code, out, err = run(capsys, "plan", study, "--json")
    assert (code, err) == (1, "valuepalette: cannot be had: impossible\n")
    assert [told["palette"] for told in json.loads(out)["plans"]] == ["funny", "impossible"]
    assert "k = " in run(capsys, "plan", study, "--palette", "funny", "--prompt-tokens", 9)[1]
    assert (
        run(capsys, "plan", study, "--seed", 3)[2] == "valuepalette: --seed goes with a pilot, got a study\n"
    )

    code, out, err = run(capsys, "decode", study)
    assert err == "valuepalette: cannot be had: impossible; `valuepalette solve` says why\n"
    assert run(capsys, "decode", study, "--palette", "impossible") == (1, "", err)
    assert (code, out) == (1, f"funny:\nwritten to {folder / 'answers' / 'decoding' / 'funny.parquet'}\n")
    code, out, _ = run(capsys, "evaluate", study, "--palette", "funny", "--json")
    assert code == 0
    told = json.loads(out)["evaluations"][0]
    assert told["palette"] == "funny"
    assert [row["name"] for row in told["rows"] if row["check"]] == ["shortness"]


def test_scoring_again_must_be_asked_for(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "sample", study)
    run(capsys, "score", study)
    part = study.parent / "run" / "pilot" / "part-00000.parquet"
    before = part.stat().st_mtime_ns
    assert run(capsys, "score", study)[0] == 0
    assert part.stat().st_mtime_ns == before
    code, _, err = run(capsys, "score", study, "--again", "gaots")
    assert (code, err.count("\n")) == (1, 1)
    assert "got 'gaots'" in err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["solve", "PILOT"], 'a pilot must come with --ask, such as --ask "humor=q60"'),
        (
            ["solve", "PILOT", "--ask", "humor"],
            "--ask must be NAME=ENTRY, such as \"humor=q60\", got 'humor'",
        ),
        (
            ["solve", "PILOT", "--ask", "humor @ audience = q60"],
            "--ask must be NAME=ENTRY, such as \"humor=q60\", got 'humor @ audience = q60'",
        ),
        (
            ["solve", "PILOT", "--ask", "humor=1", "-k", "x"],
            "--candidates must be a whole number or \"limit\", got 'x'",
        ),
        (["solve", "PILOT", "--palette", "a"], "--palette goes with a study, got a pilot"),
        (["solve", "study.toml", "--ask", "humor=1"], "--ask goes with a pilot, got a study"),
        (["solve", "absent.toml"], "absent.toml: no such study"),
        (["solve", "absent.parquet", "--ask", "humor=1"], "absent.parquet: no such file"),
        (["decode", "PILOT"], "candidates must come with --solution and --out"),
        (["evaluate", "PILOT"], "answers must come with --solution"),
        (["solve", "PILOT", "--ask", "humour=q60"], ""),
        (["slove"], 'Unknown command "slove". Did you mean "solve"?'),
        (["solve", "--bogus"], "Unknown option: --bogus."),
    ],
)
def test_an_error_is_one_line(
    pilot: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    code, out, err = run(capsys, *(pilot if word == "PILOT" else word for word in arguments))
    assert (code, out) == (1, "")
    assert err.startswith(f"valuepalette: {line}")
    assert err.count("\n") == 1


def test_a_traceback_only_with_debug(pilot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="must come with --ask"):
        main(["solve", str(pilot), "--debug"])


def test_an_error_nobody_expected_says_its_kind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("valuepalette.doctor.examine", lambda: {}["absent"])
    code, _, err = run(capsys, "doctor")
    assert (code, err) == (1, "valuepalette: KeyError: 'absent' (--debug says where)\n")


def test_control_c_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("valuepalette.doctor.examine", stop)
    assert run(capsys, "doctor") == (130, "", "")


def test_compare(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "sample", study)
    run(capsys, "score", study)
    given = ("compare", study, "--palette", "funny", "--methods")
    code, out, _ = run(capsys, *given, "map-d, best")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[5:7]] == ["map-d", "best"]
    code, out, _ = run(capsys, *given, "best", "--json")
    assert [each["method"] for each in json.loads(out)["comparisons"][0]["runs"]] == ["best"]
    assert "must be among map-d" in run(capsys, *given, "ppo")[2]


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "doctor", "--json")
    packages = json.loads(out)["packages"]
    assert code == 0
    assert {
        "part": "core",
        "package": "numpy",
        "wanted": ">=2.0",
        "version": np.__version__,
        "fits": True,
    } in packages
    assert "numpy" in run(capsys, "doctor")[1]


def test_help_loads_nothing_heavy_and_is_quick() -> None:
    script = (
        "import sys; from valuepalette.cli import main; main(['--help']);"
        "print([name for name in ('numpy', 'scipy', 'pyarrow', 'torch') if name in sys.modules], file=sys.stderr)"
    )
    best = 9.0
    for _ in range(5):  # the machine may be busy; the quickest says what it costs
        started = time.process_time(), time.monotonic(), os.times().children_user
        done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        assert done.stderr == "[]\n"
        best = min(best, os.times().children_user - started[2])
    assert best < 0.5


def test_every_public_name_is_there_and_importing_loads_nothing_heavy() -> None:
    for name in valuepalette.__all__:
        assert getattr(valuepalette, name) is not None
    assert set(valuepalette.__all__) == {
        name for names in valuepalette._MODULES.values() for name in names
    } | {"__version__"}
    with pytest.raises(AttributeError, match="no attribute 'solver'"):
        _ = valuepalette.solver
    script = "import valuepalette, sys; print('numpy' in sys.modules, valuepalette.__version__)"
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert said.split() == ["False", valuepalette.__version__]


def test_a_study_is_read_without_what_only_some_commands_need() -> None:
    heavy = ("scipy.stats", "torch", "transformers", "ray", "matplotlib")
    script = (
        "import sys, valuepalette.study, valuepalette.cli.steps;"
        f"print(*(name for name in {heavy} if name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout == b"\n"


def test_asks_of_one_value_tails_and_cohorts_add_up() -> None:
    asks = (
        "humor=q60",
        "humor <= 3",
        "tone = P(< -2) <= 0.02",
        "tone @ audience=children = q95",
        "tone @ a=b <= 1",
    )
    palette = _palette(asks)
    assert palette.entries == {"humor": ["q60", "<= 3"], "tone": "P(< -2) <= 0.02"}
    assert palette.cohorts == {"audience=children": {"tone": "q95"}, "a=b": {"tone": "<= 1"}}
