"""The gateway keeps to its own OpenAPI: schemathesis asks what it allows and what it does not, and compares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="not installed: schemathesis")
pytest.importorskip("uvicorn", reason="not installed: uvicorn")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

from gateways import gateway, pilot, running  # noqa: E402
from valuepalette.server.app import create_app  # noqa: E402

MODES = schemathesis.GenerationMode
MEANING = [positive_data_acceptance]
"""That a body is as described does not make it sensible: a palette may ask for what the pilot has not."""


@pytest.fixture(scope="module")
def operations() -> Iterator[dict[str, Any]]:
    """By method and path."""
    with running(create_app(gateway(pilot(prompts=12)))) as url:
        schema = schemathesis.openapi.from_url(url.removesuffix("/v1") + "/openapi.json")
        found = [result.ok() for result in schema.get_all_operations()]
        yield {f"{operation.method.upper()} {operation.path}": operation for operation in found}


def keeps_to_it(operation: Any, mode: Any, examples: int) -> set[int]:
    """Every answer has a status, a type and a body that the document names; the statuses that came."""
    came = set[int]()

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        answer = case.call()
        came.add(answer.status_code)
        case.validate_response(answer, excluded_checks=MEANING)

    one()
    return came


PATHS = {
    "POST /v1/chat/completions": {200, 400, 403},
    "POST /v1/completions": {200, 400, 403},
    "POST /v1/rewards": {200, 400},
    "GET /v1/models": {200},
    "GET /healthz": {200},
    "GET /readyz": {200},
    "GET /metrics": {200},
}
"""And what random requests may be answered with, beside a refusal of a body."""


def test_every_path_is_asked(operations: dict[str, Any]) -> None:
    assert set(operations) == set(PATHS)


@pytest.mark.parametrize("path", PATHS)
def test_what_it_says_of_itself_is_true(operations: dict[str, Any], path: str) -> None:
    assert keeps_to_it(operations[path], MODES.POSITIVE, 40) <= PATHS[path] | {404, 422}
    if path.startswith("POST"):
        assert keeps_to_it(operations[path], MODES.NEGATIVE, 40) <= {400, 403, 404, 405, 422}


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in PATHS if path.startswith("POST")])
@pytest.mark.parametrize("mode", list(MODES))
def test_what_it_says_of_itself_is_true_very_often(operations: dict[str, Any], path: str, mode: Any) -> None:
    assert keeps_to_it(operations[path], mode, 2000) <= {200, 400, 403, 404, 405, 422}
