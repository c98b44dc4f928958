"""The next token of each row: truncation, and randomness that belongs to the candidate.

A row carries a 64-bit key made from the seed, its prompt and its index. The uniform number of (key, step, token)
is a hash of these three and of nothing else, so a candidate stays the same whatever shares its batch. The token
drawn is the argmax of log-probability plus Gumbel noise, which has the tempered, truncated distribution exactly;
and as the noise belongs to the token's identity and not to its rank, rounding in the logits changes a draw only
where two tokens tie to that rounding.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from valuepalette.engines import Prompt, Sampling

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["candidate_key", "draw", "gumbel", "truncate"]

_BLOCK = 64  # about the square root of a vocabulary would be least work
_HEAD = 1024  # so many tokens have `top_p` of the chances as a rule; where not, more are looked at


def candidate_key(seed: int, prompt: Prompt, candidate: int) -> int:
    """The 64-bit key (signed) that a candidate's randomness is drawn from.

    >>> candidate_key(0, "Hello", 1) == candidate_key(0, "Hello", 1)
    True
    >>> candidate_key(0, "Hello", 1) == candidate_key(0, "Hello", 2)
    False
    """
    said = prompt if isinstance(prompt, str) else [[turn["role"], turn["content"]] for turn in prompt]
    text = json.dumps([seed, said, candidate])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


def draw(logits: Tensor, keys: Tensor, step: int, sampling: Sampling) -> Tensor:
    """One token for each row of `logits` (rows, vocabulary), by the rows' `keys` (rows,), int64."""
    scores = logits.float() if sampling.temperature == 1 else logits.float() / sampling.temperature
    if sampling.top_p < 1 or 0 < sampling.top_k < scores.shape[-1]:
        scores, tokens = truncate(scores, sampling.top_k, sampling.top_p)
    else:
        scores, tokens = _block(scores, keys, step)
    best = (scores.double() + gumbel(keys, step, tokens)).argmax(-1, keepdim=True)
    return tokens.gather(-1, best).squeeze(-1)


def truncate(scores: Tensor, top_k: int, top_p: float) -> tuple[Tensor, Tensor]:
    """The scores that may be drawn and the tokens they belong to; what `top_p` excludes scores -inf.

    `top_k` comes first, then the fewest tokens that together have `top_p` of what is left.
    """
    import torch

    size = scores.shape[-1]
    kept, tokens = scores.topk(min(top_k or _HEAD, size), dim=-1)
    if top_p < 1:
        total = (kept if top_k else scores).logsumexp(-1, keepdim=True)
        while not top_k and kept.shape[-1] < size and ((kept - total).exp().sum(-1) < top_p).any():
            kept, tokens = scores.topk(min(4 * kept.shape[-1], size), dim=-1)
        shares = (kept - total).exp()
        kept = kept.masked_fill(shares.cumsum(-1) - shares >= top_p, -torch.inf)
    return kept, tokens


def _block(scores: Tensor, keys: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Draws a block of neighbouring tokens by their joint weight: noise for every token would cost too much.

    Gives the scores and the tokens of the block; the token is then drawn among them. The blocks' own noise goes
    by numbers beyond the tokens'.
    """
    import torch

    rows, size = scores.shape
    blocks = -(-size // _BLOCK)
    scores = torch.nn.functional.pad(scores, (0, blocks * _BLOCK - size), value=-torch.inf)
    scores = scores.view(rows, blocks, _BLOCK)
    names = torch.arange(blocks, device=scores.device)
    noise = gumbel(keys, step, (1 << 32) + names[None])
    chosen = (scores.logsumexp(-1).double() + noise).argmax(-1)
    within = torch.arange(_BLOCK, device=scores.device)
    return scores[torch.arange(rows, device=scores.device), chosen], chosen[:, None] * _BLOCK + within


def gumbel(keys: Tensor, step: int, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise for each row's key and each token, float64, shape (rows, tokens)."""
    states = _mix(keys + _signed((step + 1) * _STRIDE))[:, None]
    bits = _mix(states + tokens * _STRIDE) >> 11 & (1 << 53) - 1
    uniform = (bits.double() + 0.5) * 2.0**-53
    return -(-uniform.log()).log()


def _signed(number: int) -> int:
    """A number modulo 2^64 as torch's int64 holds it."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


_STRIDE = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _mix(bits: Tensor) -> Tensor:
    """The finaliser of SplitMix64: every bit of the result depends on every bit given."""
    bits = (bits ^ (bits >> 30 & (1 << 34) - 1)) * _FIRST
    bits = (bits ^ (bits >> 27 & (1 << 37) - 1)) * _SECOND
    return bits ^ (bits >> 31 & (1 << 33) - 1)
