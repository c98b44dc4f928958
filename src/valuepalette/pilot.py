"""Pilot: the one table everything shares. A row is a sampled candidate, a value is a column of numbers."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported; no checker sees them.
from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from valuepalette.describing import Description, describe
from valuepalette.grouping import Array, Groups
from valuepalette.joining import counterparts
from valuepalette.layout import RESERVED, lay_out
from valuepalette.naming import short
from valuepalette.prompts import encoded, prompt_codes, read_prompts
from valuepalette.provenance import PilotMetadata
from valuepalette.reading import Source, check_names, plain, read_source
from valuepalette.transcripts import MESSAGES, transcript

__all__ = ["RESERVED", "Pilot", "PilotMetadata", "read_prompts", "transcript"]

Index = NDArray[np.intp]


@dataclass(frozen=True, eq=False, repr=False)
class Pilot:
    """Candidates drawn from a base model, with their values; immutable. Made by `read` and `from_arrays`.

    table     the rows as given; columns `prompt_id`, `candidate`, `prompt` (text) or `messages` (a conversation),
              `response`, then, where recorded, `drawn`, `tokens`, `finish_reason`, `logprob`, `probability`, then
              others, then the values as float64
    values    names of the V values; larger is better
    columns   names of the columns that belong to a prompt: a cohort, a weight
    metadata  model, sampling settings, rewards

    n rows, N prompts in the order in which they first appear. Rows need not be sorted.

    >>> pilot = Pilot.from_arrays({"humor": [0.0, 1.0, 0.5, 0.5]}, prompt_id=[7, 7, 8, 8])
    >>> pilot
    Pilot(4 rows, 2 prompts, 2 candidates each, values: humor)
    >>> pilot.groups().base
    array([0.5])
    """

    table: pa.Table
    values: tuple[str, ...]
    columns: tuple[str, ...]
    metadata: PilotMetadata

    @classmethod
    def read(
        cls,
        source: object,
        *,
        values: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        metadata: PilotMetadata | None = None,
        format: str | None = None,
    ) -> Pilot:
        """Read a pilot from a file, a folder of Parquet parts, or an Arrow-compatible table.

        source    Parquet, CSV, JSONL or JSON (compressed or not); a pyarrow table, a pandas or polars DataFrame,
                  anything with `__arrow_c_stream__`. The reference's JSON (`prompt`, `generated`) and preference
                  pairs (`chosen`, `rejected`; hh-rlhf transcripts become conversations) are recognised
        values    which columns are values; else those the file's metadata names; else every column of floats
        columns   which columns belong to the prompt; else those the metadata names; else every other column
                  that is the same in all rows of a prompt
        metadata  replaces what the file carries
        format    `parquet`, `jsonl`, `json` or `csv`, where the name does not tell

        Raises ValueError in one line that names file, row and column: a number that is missing, not finite or text;
        a candidate that is there twice; a prompt that differs within one prompt_id.
        """
        return cls._of(read_source(source, format), values, columns, metadata)

    @classmethod
    def from_arrays(
        cls,
        values: Mapping[str, ArrayLike],
        prompt_id: ArrayLike | None = None,
        prompts: Sequence[Any] | None = None,
        responses: Sequence[str] | None = None,
        columns: Mapping[str, ArrayLike] | None = None,
        metadata: PilotMetadata | None = None,
    ) -> Pilot:
        """A pilot from arrays with an entry per row.

        values     by name, shape (n,)
        prompt_id  which rows share a prompt; else rows with the same prompt do
        prompts    texts, or conversations as lists of `{"role": …, "content": …}`
        columns    columns of the prompt, and any of `candidate`, `drawn`, `tokens`, `finish_reason`, `logprob`,
                   `probability`
        """
        for argument, given in (("values", values), ("columns", columns)):
            if not isinstance(given, Mapping) and (given is not None or argument == "values"):
                raise TypeError(f"{argument} must map names to arrays, got {short(given)}")
        columns = dict(columns or {})
        check_names(dict.fromkeys([*columns, *values]), "arrays")
        if twice := [name for name in columns if name in values]:
            raise ValueError(f"{twice[0]} is given twice")
        table: dict[str, Any] = {}
        if prompt_id is not None:
            table["prompt_id"] = _array("prompt_id", prompt_id)
        if prompts is not None:
            if isinstance(prompts, str) or not isinstance(prompts, Iterable):
                raise TypeError(f"prompts must be a list of texts or conversations, got {short(prompts)}")
            prompts = list(prompts)
            texts = [prompt if isinstance(prompt, str) else None for prompt in prompts]
            conversations = [
                None if text is not None else prompt for text, prompt in zip(texts, prompts, strict=True)
            ]
            if any(text is not None for text in texts):
                table["prompt"] = _array("prompts", texts, pa.large_string())
            if any(conversation is not None for conversation in conversations):
                table["messages"] = _array("prompts", conversations, MESSAGES)
        if responses is not None:
            table["response"] = _array("responses", responses, pa.large_string())
        for name, column in [*columns.items(), *values.items()]:
            if name in table:
                raise ValueError(f"{name} is given twice")
            table[name] = _array(name, column)
        lengths = {name: len(column) for name, column in table.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"all arrays must have one entry per row, got {lengths}")
        source = Source(pa.table(table), (("arrays", max(lengths.values(), default=0)),))
        if not source.table.num_rows:
            raise ValueError("arrays: hold no rows")
        return cls._of(source, list(values), [name for name in columns if name not in RESERVED], metadata)

    @classmethod
    def _of(
        cls,
        source: Source,
        values: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        metadata: PilotMetadata | None = None,
    ) -> Pilot:
        layout = lay_out(source, values, columns, metadata)
        return cls(layout.table, layout.values, layout.columns, layout.metadata)

    def _again(self, table: pa.Table, **changes: Any) -> Pilot:
        """A pilot like this one over another table, validated anew."""
        told = {"values": self.values, "columns": self.columns, "metadata": self.metadata, **changes}
        return Pilot._of(Source(table, (("pilot", table.num_rows),)), **told)

    def __reduce__(self) -> tuple[Any, ...]:
        return Pilot, (self.table, self.values, self.columns, self.metadata)

    def __repr__(self) -> str:
        fewest, most = self.sizes.min(), self.sizes.max()
        each = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        return (
            f"Pilot({self.rows} rows, {self.prompts} prompts, {each} candidates each, "
            f"values: {', '.join(self.values) or 'none'})"
        )

    @property
    def rows(self) -> int:
        """n, the number of candidates in all."""
        return self.table.num_rows

    @property
    def prompts(self) -> int:
        """N, the number of prompts."""
        return len(self.sizes)

    @property
    def candidates(self) -> int | None:
        """K, where every prompt has as many; else None."""
        return int(self.sizes[0]) if (self.sizes == self.sizes[0]).all() else None

    @cached_property
    def array(self) -> Array:
        """The values, shape (n, V), in row order; read-only."""
        out = np.empty((self.rows, len(self.values)))
        for i, name in enumerate(self.values):
            out[:, i] = self.table[name]
        return _readonly(out)

    @cached_property
    def prompt_index(self) -> Index:
        """The number of each row's prompt, shape (n,); prompts count from 0 in the order they first appear."""
        return _readonly(encoded(self.table["prompt_id"]).astype(np.intp))

    @cached_property
    def sizes(self) -> Index:
        """K_g, the number of candidates of each prompt, shape (N,)."""
        return _readonly(np.bincount(self.prompt_index))

    @cached_property
    def starts(self) -> Index:
        """Where each prompt's rows start in `order`, shape (N + 1,)."""
        return _readonly(np.concatenate([[0], np.cumsum(self.sizes)]))

    @cached_property
    def order(self) -> Index:
        """The stable permutation that sorts rows by prompt, shape (n,)."""
        if (np.diff(self.prompt_index) >= 0).all():
            return _readonly(np.arange(self.rows))
        return _readonly(np.argsort(self.prompt_index, kind="stable"))

    @property
    def responses(self) -> list[str] | None:
        """The responses in row order; None where the pilot has none."""
        return self.table["response"].to_pylist() if "response" in self.table.column_names else None

    def texts(self) -> list[str | list[dict[str, str]]]:
        """The prompt of each row: a text, or a list of messages shared by the candidates of a prompt."""
        kinds = [name for name in ("prompt", "messages") if name in self.table.column_names]
        if not kinds:
            raise ValueError("the pilot holds no prompts, only their prompt_id")
        heads = self.table.select(kinds).take(pa.array(self.order[self.starts[:-1]])).to_pylist()
        prompts = [head.get("messages") or head["prompt"] for head in heads]
        return [prompts[g] for g in self.prompt_index]

    def column(self, name: str) -> NDArray[Any]:
        """A column of the prompt, shape (N,); ValueError where it differs inside a prompt."""
        if name not in self.table.column_names:
            there = ", ".join(["prompt_id", *self.columns])
            raise ValueError(f"column must be one of {there}, got {name!r}")
        heads = self.order[self.starts[:-1]]
        if name not in self.columns and name != "prompt_id":
            codes = encoded(self.table[name])
            differs = codes != codes[heads][self.prompt_index]
            if differs.any():
                row = int(np.argmax(differs))
                at = f"prompt_id {self.table['prompt_id'][row].as_py()!r} (row {row}, from 0)"
                raise ValueError(
                    f"column {name} must be the same for all candidates of a prompt; differs in {at}"
                )
        return self.table[name].take(pa.array(heads)).to_numpy()

    def groups(self, weighting: str = "prompts") -> Groups:
        """The candidates by prompt, in `order`.

        weighting  `prompts`: all weigh the same; `rows`: as many candidates, as much weight; or a column of the
                   prompt that holds positive numbers
        """
        if weighting in self._grouped:
            return self._grouped[weighting]
        if weighting == "prompts":
            weights = np.ones(self.prompts)
        elif weighting == "rows":
            weights = self.sizes.astype(float)
        elif weighting in self.table.column_names:
            weights = self._weights(weighting)
        else:
            there = ", ".join(["prompts", "rows", *self.columns])
            raise ValueError(f"weighting must be one of {there}, got {weighting!r}")
        values = _readonly(self.array[self.order])
        return self._grouped.setdefault(weighting, Groups(values, self.starts, weights / weights.sum()))

    @cached_property
    def _grouped(self) -> dict[str, Groups]:
        """By weighting, so that the second palette on a pilot finds its means and spreads computed."""
        return {}

    def _weights(self, name: str) -> Array:
        column = self.column(name)
        try:
            weights = column.astype(float)
        except (TypeError, ValueError):
            raise ValueError(f"weighting: column {name} must hold numbers, got {short(column[0])}") from None
        wrong = ~((weights > 0) & np.isfinite(weights))
        if wrong.any():
            g = int(np.argmax(wrong))
            prompt = self.column("prompt_id")[g]
            raise ValueError(f"weighting: {name} must be positive, got {weights[g]} for prompt_id {prompt!r}")
        return weights

    def scale(self, value: str) -> str:
        """`real`, `probability` or `log-probability`; `real` where nothing is recorded."""
        if value not in self.values:
            raise ValueError(f"value must be one of {', '.join(self.values)}, got {value!r}")
        return self.metadata.scale(value)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write Parquet (zstd) with the metadata in its schema; a reader never sees a half-written file."""
        import pyarrow.parquet as pq

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            pq.write_table(self.table, part, compression="zstd")
            part.replace(path)
        except pa.ArrowException as error:
            raise ValueError(f"{path}: {(str(error).splitlines() or ['cannot be written'])[0]}") from None
        finally:
            part.unlink(missing_ok=True)

    def split(self, fraction: float, seed: int) -> tuple[Pilot, Pilot]:
        """Two pilots that share no prompt; the first holds `fraction` of the prompts, drawn at random.

        Rows keep their order. Prompts with the same text stay together, whatever their prompt_id.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"fraction must lie between 0 and 1, got {fraction}")
        units = prompt_codes(self.table)
        units = self.prompt_index if units is None else units
        count = int(units.max()) + 1
        first = round(fraction * count)
        if not 0 < first < count:
            raise ValueError(f"fraction must leave a prompt on both sides, got {fraction} of {count} prompts")
        chosen = np.zeros(count, bool)
        chosen[np.random.default_rng(seed).permutation(count)[:first]] = True
        return self.select(chosen[units]), self.select(~chosen[units])

    def select(self, rows: ArrayLike) -> Pilot:
        """The rows of a mask, shape (n,), or of an index, in its order."""
        rows = np.asarray(rows)
        if rows.dtype == bool:
            if rows.shape != (self.rows,):
                raise ValueError(f"a mask must have shape ({self.rows},), got {rows.shape}")
            rows = np.flatnonzero(rows)
        if rows.ndim != 1 or not rows.size or rows.dtype.kind not in "iu":
            raise ValueError(f"rows must be a mask or a list of at least one row number, got {short(rows)}")
        if rows.min() < 0 or rows.max() >= self.rows:
            raise ValueError(f"rows must lie between 0 and {self.rows - 1}, got {rows.min()} to {rows.max()}")
        return self._again(self.table.take(pa.array(rows)))

    def with_values(
        self,
        values: Mapping[str, ArrayLike] | Pilot,
        rewards: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Pilot:
        """This pilot with more values: arrays in row order, or a pilot joined by prompt_id and candidate.

        rewards  what the metadata records of the new values; a pilot brings its own

        Raises ValueError where a value is there already, a row has no counterpart, or a counterpart has another
        prompt or response.
        """
        if isinstance(values, Pilot):
            at = counterparts(self.table, values.table)
            new: dict[str, Any] = {name: values.table[name].take(pa.array(at)) for name in values.values}
            own = values.metadata.rewards
            rewards = {name: own[name] for name in new if name in own} | dict(rewards or {})
        else:
            new = {name: _array(name, column) for name, column in values.items()}
        table = self.table
        for name, column in new.items():
            if name in table.column_names:
                raise ValueError(f"{name} is a column of the pilot already")
            if len(column) != self.rows:
                raise ValueError(f"{name} must have {self.rows} entries, one per row, got {len(column)}")
            table = table.append_column(name, column)
        metadata = replace(self.metadata, rewards={**self.metadata.rewards, **(rewards or {})})
        return self._again(table, values=(*self.values, *new), metadata=metadata)

    def describe(self, weighting: str = "prompts") -> Description:
        """Means, spread, quantiles, reach at each k, share of variance within prompts, correlations."""
        blank = truncated = None
        if "response" in self.table.column_names:
            blank = int(pc.sum(pc.equal(pc.utf8_trim_whitespace(self.table["response"]), "")).as_py())
        if "finish_reason" in self.table.column_names:
            truncated = int(pc.sum(pc.equal(self.table["finish_reason"], "length")).as_py() or 0)
        return describe(
            self.groups(weighting), self.values, weighting=weighting, blank=blank, truncated=truncated
        )


def _array(name: str, entries: Any, kind: pa.DataType | None = None) -> pa.Array | pa.ChunkedArray:
    if isinstance(entries, pa.Array | pa.ChunkedArray):
        return entries
    try:
        own = isinstance(entries, np.ndarray) and entries.dtype != object
        return pa.array(entries.copy() if own else plain(entries), kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        line = (str(error).splitlines() or ["not an array"])[0]
        raise ValueError(f"{name} must be an array with an entry per row: {line}") from None


def _readonly(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array
