"""What a pilot records of its making is JSON, read-only, and comes back as it went."""

from __future__ import annotations

import pickle

import pytest

from valuepalette.provenance import KEY, PilotMetadata, decode

METADATA = PilotMetadata(
    model={"id": "embedded:smollm2-135m", "template": "chatml"},
    sampling={"top_k": 50, "stop": ["\n", "é"]},
    system_prompt="Be kind.",
    seed=7,
    rewards={
        "humor": {"definition": "logit of label 1", "version": "1", "scale": "log-probability", "reward": "h"}
    },
    extra={"nested": {"list": [1, {"a": None}]}},
)


def test_it_comes_back_as_it_went() -> None:
    assert PilotMetadata.from_dict(METADATA.to_dict()) == METADATA
    assert PilotMetadata.from_schema(METADATA.to_schema()) == METADATA
    assert pickle.loads(pickle.dumps(METADATA)) == METADATA
    assert METADATA.to_dict()["sampling"] == {"top_k": 50, "stop": ["\n", "é"]}


def test_a_schema_without_it_records_nothing() -> None:
    assert PilotMetadata.from_schema(None) == PilotMetadata.from_schema({b"pandas": b"{}"}) == PilotMetadata()


def test_the_schema_says_which_columns_are_which() -> None:
    entries = decode(METADATA.to_schema(["humor"], []), "file")
    assert (entries["values"], entries["columns"]) == (["humor"], [])
    assert not {"values", "columns"} & set(decode(METADATA.to_schema(), "file"))


def test_it_is_read_only_to_the_bottom() -> None:
    given = {"id": "a", "stop": ["x"]}
    metadata = PilotMetadata(model=given, extra={"a": {"b": 1}})
    given["id"] = "b"
    assert metadata.model["id"] == "a"
    with pytest.raises(TypeError):
        metadata.model["id"] = "c"  # type: ignore[index]
    with pytest.raises(TypeError):
        metadata.extra["a"]["b"] = 2
    with pytest.raises(AttributeError):
        metadata.seed = 1  # type: ignore[misc]


def test_scale() -> None:
    assert METADATA.scale("humor") == "log-probability"
    assert METADATA.scale("unknown") == "real"
    assert METADATA.with_rewards({}).scale("humor") == "real"
    with pytest.raises(
        ValueError, match=r"the scale of humor must be one of real, probability, .* got 'log'"
    ):
        PilotMetadata(rewards={"humor": {"scale": "log"}})


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(TypeError, match=r"model\.id must hold what JSON can"):
        PilotMetadata(model={"id": object()})
    with pytest.raises(TypeError, match=r"extra\.x must hold what JSON can: got nan"):
        PilotMetadata(extra={"x": float("nan")})
    with pytest.raises(TypeError, match=r"sampling must be a mapping, got list"):
        PilotMetadata(sampling=[])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"rewards\['humor'\] must be a mapping, got str"):
        PilotMetadata(rewards={"humor": "x"})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{", "is not JSON"),
        (b"[]", "format must be 1, got 'list'"),
        (b'{"format": 2}', "format must be 1, got 2"),
    ],
)
def test_a_schema_that_cannot_be_read(text: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=f"^file: .*{says}"):
        PilotMetadata.from_schema({KEY: text}, "file")
