"""lm-evaluation-harness's `local-chat-completions` measures a palette through the gateway, as any model."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="not installed: lm_eval")
pytest.importorskip("uvicorn", reason="not installed: uvicorn")

from fakes import goats
from gateways import NAME, PALETTES, gateway, pilot, running
from valuepalette.server.app import create_app
from valuepalette.solving import solve

ASKED = 200


def mean_of_goats(results: dict[str, Any]) -> float:
    return results["results"]["talk"]["goats,none"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the harness's own are no affair of ours
def test_the_harness_sees_the_palette(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval
    from lm_eval.api.task import ConfigurableTask

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": f"Say {i}."}) + "\n" for i in range(ASKED)))
    task = {
        "task": "talk",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(questions)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "",
        "process_results": lambda _doc, results: {"goats": goats(results[0])},
        "generation_kwargs": {"temperature": 1.0, "do_sample": True, "max_gen_toks": 12, "until": []},
        "metric_list": [{"metric": "goats", "aggregation": "mean", "higher_is_better": True}],
    }
    levels = dict[str, float]()
    error = float(np.std(pilot().array[:, 0])) / ASKED**0.5
    made = gateway()
    with running(create_app(made)) as url, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for palette in ("", "/funny"):
            results = lm_eval.simple_evaluate(
                model="local-chat-completions",
                model_args={
                    "model": NAME + palette,
                    "base_url": f"{url}/chat/completions",
                    "num_concurrent": 1,
                },
                tasks=[ConfigurableTask(config=task)],
                apply_chat_template=True,
                bootstrap_iters=0,
            )
            assert results is not None
            levels[palette] = mean_of_goats(results)
    solution = solve(pilot(), PALETTES["funny"], 4)
    for palette, wanted in (("", solution.base["goats"]), ("/funny", solution.levels["goats"])):
        assert abs(levels[palette] - wanted) < 4 * error, (levels, wanted)
    assert levels["/funny"] - levels[""] > 4 * error
