"""Two projections that are learned from the lessons, for the router's prior.

*Relation* maps a word's early state so that wordings of one relation fall together. *Task* tells of the words that a
question has beside those of a stored one whether they ask for something else to be done with it ("Translate: ...").
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from memtune.backbone import Backbone
from memtune.lessons import FOLDS, Lessons, spread
from memtune.memory.compare import Idf, left_over
from memtune.memory.questions import Questions, Reader, Whitening
from memtune.memory.words import words_of

__all__ = ["relation_map", "seen_through", "task_map", "without_names"]

D_GATE = 64
WHITENED = 256
STEPS = 300
FAMILIES = 300  # a step of the contrastive fit
PER_FAMILY = 4
TEMPERATURE = 0.1
DROPOUT = 0.3  # of the whitened state: relations that are in no lesson then keep apart better (AUC 0.89 -> 0.90)
DECAY = 1e-2  # of the task map
SAME = 7000  # pairs of rewordings, at most
MISTAKEN = 0.05  # of ways that change nothing, for another task


def seen_through(relation: Tensor, task: Tensor, read: Questions) -> Questions:
    """What was read with unmapped relations, mapped."""
    states = read.relation.float()
    return replace(read, relation=(states @ relation).half(), task=(states @ task).half())


def without_names(read: Questions, learned: Lessons, backbone: Backbone, reader: Reader) -> Tensor:
    """For each lesson text the weighed sum of its centred word states, its name left out: ``(texts, hidden)``."""
    names = {name: _words(name, backbone, reader) for name in set(learned.named)}
    rows = []
    for number, (text, name) in enumerate(zip(learned.texts, learned.named, strict=True)):
        words = slice(int(read.offsets[number]), int(read.offsets[number + 1]))
        inside = torch.tensor([word in names[name] for word in _words(text, backbone, reader)], dtype=torch.bool)
        weight = reader.idf(read.buckets[words]) * (~inside if not inside.all() else torch.ones_like(inside))
        rows.append((read.relation[words].float() * weight[:, None]).sum(0))
    return torch.stack(rows)


def _words(text: str, backbone: Backbone, reader: Reader) -> list[str]:
    return [word.text for word in words_of(backbone.prompts.question(text), reader.vocabulary)[0]] if text else []


def relation_map(pooled: Tensor, family: Tensor, used: Tensor) -> Tensor:
    """``(hidden, d_gate)``: wordings of one family near each other, all others apart (InfoNCE, linear).

    Whitened first, so that the fit starts from directions of equal weight.
    """
    torch.manual_seed(0)
    used = used & (family >= 0)
    rows, family = pooled[used], family[used]
    white = Whitening.of(rows, min(WHITENED, rows.shape[1])).map
    states = rows @ white
    states = states / states.norm(dim=1).mean()
    project = torch.nn.Linear(states.shape[1], min(D_GATE, states.shape[1]), bias=False)
    torch.nn.init.orthogonal_(project.weight)
    optimiser = torch.optim.AdamW(project.parameters(), lr=3e-3, weight_decay=1e-2)
    members = [torch.nonzero(family == number).squeeze(1) for number in family.unique()]
    members = [group for group in members if len(group) > 1]
    for _ in range(STEPS):
        drawn = [members[i] for i in torch.randperm(len(members))[:FAMILIES].tolist()]
        batch = torch.cat([group[torch.randperm(len(group))[:PER_FAMILY]] for group in drawn])
        loss = _contrast(F.normalize(project(F.dropout(states[batch], DROPOUT)), dim=-1), family[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return white @ project.weight.detach().T


def _contrast(rows: Tensor, family: Tensor) -> Tensor:
    itself = torch.eye(len(rows), dtype=torch.bool)
    same = (family[:, None] == family) & ~itself
    logits = (rows @ rows.T / TEMPERATURE).masked_fill(itself, -1e9)
    return -(logits.log_softmax(1).masked_fill(~same, 0.0).sum(1) / same.sum(1).clamp_min(1)).mean()


def task_map(read: Questions, wrapped: Questions, learned: Lessons, idf: Idf) -> Tensor:
    """``(hidden,)``: of what is left over of a question, whether it is another task.

    1 is what one of twenty ways that change nothing reaches where the map was not fitted to them. ``read`` and
    ``wrapped``: the lessons' texts, with unmapped relations.
    """
    same = torch.tensor(learned.same)[spread(len(learned.same), SAME)]
    around = torch.tensor([(number, one.stored) for number, one in enumerate(learned.wrapped)])
    left = torch.cat([left_over(read, read, same, idf), left_over(wrapped, read, around, idf)])
    is_task = torch.tensor([False] * len(same) + [one.task for one in learned.wrapped])
    fold = torch.tensor(learned.family)[torch.cat([same, around])[:, 1]] % FOLDS
    unknown = torch.zeros(len(left))
    for number in range(FOLDS):
        mine = fold == number
        unknown[mine] = left[mine] @ _line(left[~mine], is_task[~mine])
    harmless = unknown[len(same) :][~is_task[len(same) :]]
    return _line(left, is_task) / harmless.quantile(1 - MISTAKEN).clamp_min(1e-6)


def _line(left: Tensor, is_task: Tensor) -> Tensor:
    """Logistic regression on standardised states, both kinds weighing the same, its constant left out: (hidden,)."""
    target = is_task.float()
    weight = torch.where(is_task, 0.5 / target.mean(), 0.5 / (1 - target).mean())
    mean, scale = left.mean(0), left.std(0).clamp_min(1e-6)
    line = torch.zeros(left.shape[1] + 1, requires_grad=True)
    optimiser = torch.optim.LBFGS([line], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        logits = (left - mean) / scale @ line[:-1] + line[-1]
        value = F.binary_cross_entropy_with_logits(logits, target, weight) + DECAY * line[:-1].square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return line.detach()[:-1] / scale
