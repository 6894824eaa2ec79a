"""What the gate learns from: the user's own questions against each other, against synthetic wordings of themselves,
and against what people ask that is stored nowhere.

Nothing of a test set is in it. Each network of the gate is trained without one third of the facts, so that every score
behind the threshold is one that the network gave to a fact it had not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from memtune.lessons import background_prompts, spread
from memtune.memory.compare import gate_features
from memtune.memory.gate import MEMBERS, Gate
from memtune.memory.index import all_pairs, search
from memtune.memory.questions import Questions
from memtune.memory.stored import StoredQuestions
from memtune.names import NameFinder
from memtune.reading import Reading
from memtune.rewordings import fragments, near_misses, overlaps, rewordings
from memtune.wordings import Wordings

__all__ = ["BACKGROUND", "FOLDS", "NEAR_MISS", "NEIGHBOUR", "REWORDED", "Rows", "Workshop"]
__all__ += ["REWORDED_FACTS", "compared", "train", "training_rows"]

REWORDED_FACTS = 1500  # every rewording has to be read
COMPARED_FACTS = 20_000  # with their neighbours among all: what is hard to tell apart in a large file is rare
REWORDINGS = 4
NEAR_MISSES, RENAMED = 1000, 40  # so many at least, of a question at most: the threshold is a quantile of their scores
NEIGHBOURS = 3
STRANGERS_NEIGHBOURS = 4  # stored questions that a stranger's is compared with
SAME, REWORDED, NEIGHBOUR, BESIDE, NEAR_MISS, OVERLAP, BACKGROUND = range(7)  # kinds of rows
FOLDS = 3
STEPS, BATCH, RATE = 4000, 256, 2e-2  # many small steps: as long as 1500 of 512, and the better gate
LESSON_SHARE = 0.05  # of the draws, at least; the rest is the user's own questions
LENDERS, LENT = 100, 20_000  # questions, at least and at most, whose names are put into others
LESSONS_WORTH = 80  # stored questions: a file of so many gets half of the draws, a smaller one leans on the lessons


@dataclass(frozen=True)
class Workshop:
    """What rows are made with: it reads any text as the router would, and finds the names in it."""

    reading: Reading
    names: NameFinder


@dataclass(frozen=True)
class Rows:
    """The gate's training set. ``kind``: what a row is; ``fold``: the third of the facts that it belongs to."""

    features: Tensor  # float32 (rows, features)
    kind: Tensor  # int64 (rows,)
    fold: Tensor  # int64 (rows,)
    pairs: Tensor  # int64 (rows, 2): asked question, numbered within its kind, and stored question

    @property
    def questions(self) -> int:
        """How many stored questions the rows were made of."""
        return int((self.kind == SAME).sum())

    @property
    def positive(self) -> Tensor:
        return self.kind <= REWORDED


def training_rows(
    workshop: Workshop, wordings: Wordings, stored: StoredQuestions, strangers: Questions, seed: int
) -> Rows:
    """The user's own questions against each other, against synthetic wordings of themselves, and the background."""
    chosen, owner = spread(len(wordings), REWORDED_FACTS), wordings.owner
    own, beside = torch.tensor(chosen), compared(len(wordings))
    lines = list(background_prompts())
    lenders = _lenders(wordings, lines)
    renamed = min(RENAMED, max(1, NEAR_MISSES // len(chosen)))
    kinds: dict[int, Callable[[str], list[str]]] = {
        REWORDED: lambda text: rewordings(text, workshop.names, REWORDINGS, seed),
        NEAR_MISS: lambda text: near_misses(text, lenders, workshop.names, renamed, seed),
        OVERLAP: lambda text: [*overlaps(text, lines, workshop.names, seed), *fragments(text, workshop.names)],
    }
    parts: list[Rows] = []

    def add(asked: Questions, pairs: Tensor, kind: int, fold: Tensor) -> None:
        features = gate_features(asked, stored, pairs, workshop.reading.reader.idf)
        parts.append(Rows(features, torch.full((len(pairs),), kind), fold, pairs))

    def fold_of(wording: Tensor) -> Tensor:
        if len(own) < 10 * FOLDS:  # so few facts that none can be spared: the rewordings are held out instead
            return torch.arange(len(wording)) % FOLDS
        return owner[wording] % FOLDS

    def add_neighbours(asked: Questions, mine: Tensor, count: int, kind: int) -> None:
        pairs = _nearest_others(asked, stored, owner, mine, count)
        add(asked, pairs, kind, fold_of(mine[pairs[:, 0]]))

    add(stored.take(own), torch.stack([torch.arange(len(own)), own], 1), SAME, fold_of(own))
    add_neighbours(stored.take(beside), beside, NEIGHBOURS, NEIGHBOUR)
    for kind, write in kinds.items():
        made = [(i, text) for i in chosen for text in write(wordings[i])]
        if made:
            asked, mine = workshop.reading.texts(text for _, text in made), torch.tensor([i for i, _ in made])
            add(asked, torch.stack([torch.arange(len(made)), mine], 1), kind, fold_of(mine))
            if kind == REWORDED:
                add_neighbours(asked, mine, 1, BESIDE)
    pairs = all_pairs(search(strangers.vectors, stored.vectors, STRANGERS_NEIGHBOURS)[1])
    add(strangers, pairs, BACKGROUND, pairs[:, 0] % FOLDS)
    return Rows(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Rows)))


def compared(wordings: int) -> Tensor:
    """The stored questions that are compared with their neighbours, which NEIGHBOUR rows number from 0 on."""
    return torch.tensor(spread(wordings, COMPARED_FACTS))


def _lenders(texts: Sequence[str], lines: Sequence[str]) -> list[str]:
    """Questions whose names may stand in a user's question: the user's own, which name things of the same kind.

    Where these are few, prompts of the background help out, those that write names as names.
    """
    capital = [line for line in lines if line != line.lower()]
    mine = [texts[i] for i in spread(len(texts), LENT)]
    return [*mine, *capital[: max(0, LENDERS - len(mine))]]


def _nearest_others(asked: Questions, stored: StoredQuestions, owner: Tensor, mine: Tensor, count: int) -> Tensor:
    """Pairs of each asked question with the ``count`` nearest stored ones of other facts."""
    number = search(asked.vectors, stored.vectors, count + 8)[1]
    pairs = all_pairs(number)
    other = (owner[number] != owner[mine][:, None]).long()
    wanted = (other.cumsum(1) <= count) & (other > 0)
    return pairs[wanted.flatten()]


def train(gate: Gate, rows: Rows, lessons: tuple[Tensor, Tensor], seed: int) -> None:
    """AdamW on draws from the lessons (features, same) and the user's own rows; network m sees no row of fold
    m % FOLDS.
    """
    taught, same = lessons
    features = torch.cat([taught, rows.features])
    target = torch.cat([same, rows.positive]).float()
    weight = _weights(same, rows.positive, max(LESSON_SHARE, LESSONS_WORTH / (LESSONS_WORTH + rows.questions)))
    fold = F.pad(rows.fold, (len(taught), 0), value=-1)
    used = torch.stack([fold != m % FOLDS for m in range(MEMBERS)]).float()
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers go on as if nothing had been drawn
        torch.manual_seed(seed)
        gate.reset(features)
        optimiser = torch.optim.AdamW(gate.parameters(), lr=RATE, weight_decay=3e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS, pct_start=0.1)
        for drawn in torch.multinomial(weight, STEPS * BATCH, replacement=True).view(STEPS, BATCH):
            scores = gate.members(features[drawn])
            losses = F.binary_cross_entropy_with_logits(scores, target[drawn].expand_as(scores), reduction="none")
            optimiser.zero_grad()
            (losses * used[:, drawn]).mean(1).sum().backward()
            optimiser.step()
            schedule.step()
    gate.requires_grad_(False)


def _weights(same: Tensor, positive: Tensor, lesson_share: float) -> Tensor:
    """How often a row is drawn: lessons and own rows by their share, as many that ask the same as do not."""
    weight = torch.zeros(len(same) + len(positive))
    parts = ((same, lesson_share, slice(len(same))), (positive, 1 - lesson_share, slice(len(same), None)))
    for is_same, share, place in parts:
        each = torch.stack([is_same, ~is_same]).float()
        weight[place] = 0.5 * share * (each / each.sum(1, keepdim=True).clamp_min(1.0)).sum(0)
    return weight
