"""What each kernel is to compute, in float64 and in the plainest way: one loop per thing that the text speaks of."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .gate_maxsim import Words

__all__ = ["expert_attention", "fit_step", "gate_maxsim", "route_topk"]


def route_topk(questions: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Scores float64 (q, k) and indices int64 (q, k): a stable sort leaves equal scores in the order of their index."""
    scores, indices = (questions.double() @ keys.double().T).sort(dim=1, descending=True, stable=True)
    return scores[:, :k], indices[:, :k]


def gate_maxsim(asked: Words, stored: Words, pairs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """For each pair float64 (words, 9 figures and 2 partners) of the asked question, and of the stored one."""
    there = [_found(_question(asked, a), _question(stored, b)) for a, b in pairs.tolist()]
    back = [_found(_question(stored, b), _question(asked, a)) for a, b in pairs.tolist()]
    return there, back


def _question(words: Words, number: int) -> Words:
    run = slice(int(words.offsets[number]), int(words.offsets[number + 1]))
    return Words(words.offsets, *(column[run] for column in words[1:]))


def _found(mine: Words, other: Words) -> Tensor:
    rows = torch.zeros(len(mine.bucket), 11, dtype=torch.float64)
    for i in range(len(rows) if len(other.bucket) else 0):
        both = (mine.sketch[i] & other.sketch).sum(1).double()
        either = (mine.sketch[i] | other.sketch).sum(1).double()
        spelling, inside = both / either.clamp_min(1), both / mine.sketch[i].sum().clamp_min(1)
        meaning = F.cosine_similarity(mine.meaning[i].double()[None], other.meaning.double(), dim=1, eps=1e-12)
        relation = F.cosine_similarity(mine.relation[i].double()[None], other.relation.double(), dim=1, eps=1e-12)
        equal = (mine.bucket[i] == other.bucket).double()
        named = torch.where(other.name, spelling, 0.0)
        spelt, meant = int(spelling.argmax()), int(meaning.argmax())
        best = [grid.max() for grid in (spelling, meaning, relation, equal, inside, (spelling + meaning) / 2)]
        figures = [*(b.clamp_min(0) for b in best), meaning[spelt], spelling[meant], named.max()]
        rows[i] = torch.tensor([*figures, spelt, meant], dtype=torch.float64)
    return rows


def expert_attention(
    hidden: Tensor,
    queries: Tensor,
    steps: Tensor,
    offsets: Tensor,
    runs: Tensor,
    keys: Tensor,
    values: Tensor,
    up: Tensor,
    value_scales: Tensor | None = None,
    *,
    beta: float,
    slope: float,
) -> Tensor:
    """float64 (p, h)."""
    written = hidden.double()
    for sequence, (first, count) in enumerate(runs.tolist()):
        for position in range(int(offsets[sequence]), int(offsets[sequence + 1]) if count else 0):
            key, value = (rows[first : first + count].double() for rows in (keys, values))
            if value_scales is not None:
                value = value * value_scales[first : first + count, None].double()
            cosine = F.normalize(key, dim=1) @ queries[position].double()
            distance = (torch.arange(count, device=keys.device) - steps[position]).abs()
            weight = torch.softmax(beta * (cosine - slope * distance), 0)
            written[position] += up.double() @ (weight @ value)
    return written


def fit_step(hidden: Tensor, values: Tensor | None, targets: Tensor, head: Tensor, seen: Tensor) -> tuple[Tensor, ...]:
    """float64: log-sum-exp, log-probability and log-odds of the targets (t,), expected row of the others (t, r)."""
    logits = hidden.double() @ head.double().T
    if values is not None:
        logits = logits + values.double() @ seen.double().T
    target = targets[:, None]
    others = logits.scatter(1, target, float("-inf"))
    odds = logits.gather(1, target).squeeze(1) - others.logsumexp(1)
    log_prob = logits.log_softmax(1).gather(1, target).squeeze(1)
    return logits.logsumexp(1), log_prob, odds, others.softmax(1) @ seen.double()
