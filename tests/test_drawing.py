"""The randomness of a candidate, and what truncation leaves to be drawn."""

from __future__ import annotations

import math
from typing import Any

import pytest

from valuepalette.engines import Sampling
from valuepalette.engines.drawing import candidate_key, draw, gumbel, truncate

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
pytestmark = pytest.mark.models

SHARES = [0.4, 0.25, 0.2, 0.1, 0.05]
ROWS = 40_000


def drawn(sampling: Sampling, step: int = 0, shares: list[float] = SHARES) -> list[float]:
    """How often each token is drawn from these shares, over many candidates."""
    keys = torch.tensor([candidate_key(0, "a prompt", index) for index in range(ROWS)])
    logits = torch.tensor(shares).log().expand(ROWS, -1)
    return (torch.bincount(draw(logits, keys, step, sampling), minlength=len(shares)) / ROWS).tolist()


def close(seen: list[float], wanted: list[float]) -> bool:
    """Within five standard deviations of a binomial share."""
    return all(abs(s - w) <= 5 * math.sqrt(w * (1 - w) / ROWS) for s, w in zip(seen, wanted, strict=True))


@pytest.mark.parametrize("step", [0, 1, 49])
def test_tokens_are_drawn_in_their_shares(step: int) -> None:
    assert close(drawn(Sampling(top_k=0), step), SHARES)


def test_temperature_sharpens() -> None:
    squares = [share**2 for share in SHARES]
    assert close(drawn(Sampling(top_k=0, temperature=0.5)), [s / sum(squares) for s in squares])


def test_top_k_keeps_the_likeliest() -> None:
    assert close(drawn(Sampling(top_k=2)), [0.4 / 0.65, 0.25 / 0.65, 0, 0, 0])
    assert drawn(Sampling(top_k=1)) == [1, 0, 0, 0, 0]
    assert close(drawn(Sampling(top_k=50)), SHARES)


@pytest.mark.parametrize(("top_p", "kept"), [(0.3, 1), (0.41, 2), (0.64, 2), (0.66, 3), (0.96, 5), (1.0, 5)])
def test_top_p_keeps_the_fewest_that_have_the_mass(top_p: float, kept: int) -> None:
    scores, tokens = truncate(torch.tensor([SHARES]).log(), 0, top_p)
    assert int(scores.isfinite().sum()) == kept
    assert tokens[0, :kept].tolist() == list(range(kept))
    total = sum(SHARES[:kept])
    wanted = [share / total if index < kept else 0 for index, share in enumerate(SHARES)]
    assert close(drawn(Sampling(top_k=0, top_p=top_p)), wanted)


def test_top_p_counts_what_top_k_left() -> None:
    """Of the first three, .4 of .85 is .47 and .65 of .85 is .76."""
    assert close(drawn(Sampling(top_k=3, top_p=0.7)), [0.4 / 0.65, 0.25 / 0.65, 0, 0, 0])
    assert close(drawn(Sampling(top_k=3, top_p=0.45)), [1, 0, 0, 0, 0])


def test_the_noise_is_gumbel_and_free_of_correlation() -> None:
    keys = torch.tensor([candidate_key(seed, "x", 0) for seed in range(2000)])
    noise = torch.stack([gumbel(keys, step, torch.arange(20)[None]) for step in range(5)])
    uniform = torch.exp(-torch.exp(-noise))
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.005)
    assert uniform.var().item() == pytest.approx(1 / 12, abs=0.002)
    centred = (uniform - 0.5) / uniform.std()
    for axis in range(3):
        neighbour = (centred * centred.roll(1, axis)).mean().item()
        assert abs(neighbour) < 5 / math.sqrt(uniform.numel())
    bins = torch.histc(uniform, 100, 0, 1)
    expected = uniform.numel() / 100
    assert ((bins - expected) ** 2 / expected).sum().item() < 99 + 5 * math.sqrt(2 * 99)


def test_a_draw_does_not_depend_on_its_row() -> None:
    logits = torch.randn(30, 100, generator=torch.Generator().manual_seed(0))
    keys = torch.arange(30) * 7919
    for sampling in (Sampling(), Sampling(top_k=0), Sampling(top_k=0, top_p=0.8)):
        whole = draw(logits, keys, 3, sampling)
        order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
        assert torch.equal(draw(logits[order], keys[order], 3, sampling), whole[order])
        assert torch.equal(draw(logits[:1], keys[:1], 3, sampling), whole[:1])


@pytest.mark.parametrize("size", [63, 64, 65, 1000])
def test_a_large_vocabulary_is_drawn_in_its_shares(size: int) -> None:
    weights = [1.0 + index % 7 for index in range(size)]
    shares = [weight / sum(weights) for weight in weights]
    seen = drawn(Sampling(top_k=0), shares=shares)
    misfit = sum((s - w) ** 2 / w for s, w in zip(seen, shares, strict=True)) * ROWS
    assert misfit < size - 1 + 5 * math.sqrt(2 * (size - 1)), "chi-squared"


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9])
def test_top_p_of_a_large_vocabulary_takes_no_short_cut(top_p: float) -> None:
    """Where the first thousand do not have the mass, all are sorted; where they do, the answer is the same."""
    generator = torch.Generator().manual_seed(0)
    for spread in (0.1, 5.0):
        scores = torch.randn(3, 5000, generator=generator) * spread
        kept, tokens = truncate(scores, 0, top_p)
        ordered, names = scores.sort(descending=True)
        shares = ordered.softmax(-1)
        for row in range(3):
            wanted = names[row][shares[row].cumsum(-1) - shares[row] < top_p]
            assert tokens[row][kept[row].isfinite()].tolist() == wanted.tolist()


def test_keys_are_those_of_seed_prompt_and_index() -> None:
    turns = [{"role": "user", "content": "Hi"}]
    made = {
        candidate_key(seed, prompt, index)
        for seed in (0, 1)
        for prompt in ("Hi", "Hi ", turns, [*turns, {"role": "assistant", "content": "Hi"}])
        for index in range(3)
    }
    assert len(made) == 24
    assert all(-(2**63) <= key < 2**63 for key in made)
    assert candidate_key(0, "Hi", 0) == -6858724392338575244, 'BLAKE2b of [0, "Hi", 0]'
