"""The memory bank: all experts, stacked, and the frozen projections they share.

An expert is a rank-1 slice of a low-rank branch beside the backbone: a key row ``(d_key,)`` that is found, and a value
row ``(d_value,)`` that is added (Lamini-1, Figure 4). A fact owns one contiguous run of experts, one per answer token.

Rows are kept in int8 unless the bank was made for float32: 164 bytes an answer token instead of 644. The error of a
value row is at most half a 127th of its largest entry, which moves a token's log-odds by a few hundredths; whoever
accepts a fact measures the rows as they are stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .questions import ragged_rows
from .rounding import quantised

__all__ = ["ROWS", "Bank", "BankSizes", "Projections"]

BY_EXPERT = ("keys", "values", "scales")
BY_FACT = ("loss", "worst", "accepted")
BLOCK = 4096  # rows of the head at a time
ROWS = {"int8": torch.int8, "float32": torch.float32}


@dataclass(frozen=True)
class BankSizes:
    facts: int
    experts: int
    hidden: int
    id_bytes: int  # UTF-8 bytes of all ids
    d_key: int = 32
    d_value: int = 128
    rows: str = "int8"  # how keys and values are kept: a name of ROWS


class Projections(nn.Module):
    """The frozen ends of the branch, in float32. They depend on the backbone and the seed, never on a fact."""

    mean: Tensor  # (hidden,) average final state: without it all cosines are near 1
    down: Tensor  # (hidden, d_key)
    up: Tensor  # (hidden, d_value)

    def __init__(self, hidden: int, d_key: int, d_value: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(hidden, dtype=torch.float32))
        self.register_buffer("down", torch.zeros(hidden, d_key, dtype=torch.float32))
        self.register_buffer("up", torch.zeros(hidden, d_value, dtype=torch.float32))

    @classmethod
    def for_backbone(cls, head: Tensor, mean: Tensor, *, d_key: int, d_value: int, seed: int) -> Projections:
        """``head`` (vocabulary, hidden) is the LM head's weight, ``mean`` (hidden,) the average final state.

        The up-projection is whitened against the head: a step that raises one token then moves the others least. It
        takes the fit from 4.4 to 3.2 Newton steps per answer token on SmolLM2-135M.
        """
        draw = torch.Generator().manual_seed(seed)
        hidden = head.shape[1]
        made = cls(hidden, d_key, d_value)
        down, up = (_orthonormal(hidden, width, draw) for width in (d_key, d_value))
        values, vectors = torch.linalg.eigh(_covariance(head))
        white = (vectors / (values + 1e-3 * values[-1]).sqrt()) @ vectors.T
        made.mean.copy_(mean)
        made.down.copy_(down)
        made.up.copy_(white @ up)
        return made

    def same_as(self, other: Projections) -> bool:
        """Bit for bit: only then do fitted rows mean the same."""
        mine, theirs = self.state_dict(), other.state_dict()
        return all(torch.equal(mine[name], theirs[name]) for name in mine)

    def query(self, hidden: Tensor) -> Tensor:
        """Unit keys ``(..., d_key)`` of final states ``(..., hidden)``."""
        return F.normalize((hidden.float() - self.mean) @ self.down, dim=-1)


class Bank(nn.Module):
    """``keys`` (experts, d_key), ``values`` (experts, d_value), ``offsets`` (facts + 1,): fact i owns the rows
    ``offsets[i]:offsets[i + 1]``. ``scales`` (experts,): a value row is its entries times its scale, which is 1 in a
    bank of float32 rows. Of a key only the direction counts: it has no scale.

    ``loss`` and ``worst`` (facts,): mean and worst answer-token loss in nats that acceptance measured, infinite before.
    ``accepted`` (facts,): only these may fire. ``ids`` (bytes,) and ``id_offsets`` (facts + 1,): the facts' ids.
    """

    keys: Tensor
    values: Tensor
    scales: Tensor
    offsets: Tensor
    loss: Tensor
    worst: Tensor
    accepted: Tensor
    ids: Tensor
    id_offsets: Tensor

    def __init__(self, sizes: BankSizes) -> None:
        super().__init__()
        self.hidden, self.rows = sizes.hidden, sizes.rows
        self.register_buffer("keys", torch.zeros(sizes.experts, sizes.d_key, dtype=ROWS[sizes.rows]))
        self.register_buffer("values", torch.zeros(sizes.experts, sizes.d_value, dtype=ROWS[sizes.rows]))
        self.register_buffer("scales", torch.ones(sizes.experts, dtype=torch.float32))
        self.register_buffer("offsets", torch.zeros(sizes.facts + 1, dtype=torch.int64))
        for name in ("loss", "worst"):
            self.register_buffer(name, torch.full((sizes.facts,), float("inf"), dtype=torch.float32))
        self.register_buffer("accepted", torch.zeros(sizes.facts, dtype=torch.bool))
        self.register_buffer("ids", torch.zeros(sizes.id_bytes, dtype=torch.uint8))
        self.register_buffer("id_offsets", torch.zeros(sizes.facts + 1, dtype=torch.int64))

    @classmethod
    def assigned(cls, ids: list[str], experts: list[int], hidden: int, rows: str = BankSizes.rows) -> Bank:
        """An empty bank in which fact i owns ``experts[i]`` rows, one after the other."""
        encoded = [name.encode() for name in ids]
        data = b"".join(encoded)
        sizes = BankSizes(len(ids), sum(experts), hidden, len(data), rows=rows)
        bank = cls(replace(sizes, d_key=min(sizes.d_key, hidden), d_value=min(sizes.d_value, hidden)))
        bank.offsets.copy_(_offsets(experts))
        bank.id_offsets.copy_(_offsets([len(name) for name in encoded]))
        bank.ids.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        return bank

    @property
    def sizes(self) -> BankSizes:
        d_key, d_value = self.keys.shape[1], self.values.shape[1]
        return BankSizes(len(self.loss), len(self.keys), self.hidden, len(self.ids), d_key, d_value, self.rows)

    def id_of(self, fact: int) -> str:
        return bytes(self.ids[self.id_offsets[fact] : self.id_offsets[fact + 1]].tolist()).decode("utf-8", "replace")

    def numbers_of(self, ids: Iterable[str]) -> dict[str, int]:
        """The numbers of the facts that have these ids; an id that no fact has is left out."""
        wanted = {name.encode(): name for name in ids}
        data = self.ids.cpu().numpy().tobytes()
        runs = enumerate(data[start:end] for start, end in pairwise(self.id_offsets.tolist()))
        return {wanted[run]: number for number, run in runs if run in wanted}

    def take(self, facts: Tensor) -> Bank:
        """The facts numbered ``facts`` (any order), all that is known of them byte for byte; no other."""
        (rows, offsets), (letters, id_offsets) = (ragged_rows(o, facts) for o in (self.offsets, self.id_offsets))
        columns = {name: getattr(self, name).index_select(0, rows) for name in BY_EXPERT}
        columns |= {name: getattr(self, name)[facts] for name in BY_FACT}
        columns |= {"offsets": offsets, "id_offsets": id_offsets, "ids": self.ids.index_select(0, letters)}
        return self.holding(columns)

    def joined(self, other: Bank) -> Bank:
        """The facts of this bank, then those of ``other``, which has the same kind of rows."""
        assert self.rows == other.rows
        columns = {
            name: torch.cat([getattr(self, name), getattr(other, name)]) for name in (*BY_EXPERT, *BY_FACT, "ids")
        }
        for name in ("offsets", "id_offsets"):
            mine, theirs = getattr(self, name), getattr(other, name)
            columns[name] = torch.cat([mine, mine[-1] + theirs[1:]])
        return self.holding(columns)

    def put_back(self, facts: Tensor, part: Bank) -> None:
        """The inverse of ``take``: all that ``part`` knows of its facts is known of those numbered ``facts`` here."""
        assert self.rows == part.rows
        rows, _ = ragged_rows(self.offsets, facts)
        for names, places in ((BY_EXPERT, rows), (BY_FACT, facts)):
            for name in names:
                mine = getattr(self, name)
                mine[places] = getattr(part, name).to(mine.device)

    def holding(self, columns: dict[str, Tensor]) -> Bank:
        """A bank of the same kind of rows that holds these tensors, its own by their names."""
        sizes = replace(
            self.sizes, facts=len(columns["loss"]), experts=len(columns["keys"]), id_bytes=len(columns["ids"])
        )
        with torch.device("meta"):  # all of it is replaced
            made = Bank(sizes)
        made.load_state_dict(columns, assign=True)
        return made.requires_grad_(False)

    def experts_of(self, fact: int) -> int:
        return int(self.offsets[fact + 1] - self.offsets[fact])

    def put(self, experts: Tensor, keys: Tensor, values: Tensor) -> None:
        """Stores float32 ``keys`` (n, d_key) and ``values`` (n, d_value) of ``experts`` (n,), rounded if rows are."""
        if self.rows == "int8":
            (keys, _), (values, scales) = quantised(keys), quantised(values)
            self.scales[experts] = scales.to(self.scales.device)
        self.keys[experts], self.values[experts] = keys.to(self.keys.device), values.to(self.values.device)

    def run(self, fact: int) -> slice:
        return slice(int(self.offsets[fact]), int(self.offsets[fact + 1]))


def _covariance(head: Tensor) -> Tensor:
    """Of the rows of ``head`` (vocabulary, hidden): float64 (hidden, hidden). A large head has no room for all of its
    rows in float64.
    """
    blocks = head.cpu().split(BLOCK)
    mean = torch.stack([block.double().sum(0) for block in blocks]).sum(0) / len(head)
    centred = (block.double() - mean for block in blocks)
    products = (block.T @ block for block in centred)
    total: Tensor = reduce(torch.add, products)
    return total / (len(head) - 1)


def _orthonormal(rows: int, columns: int, draw: torch.Generator) -> Tensor:
    basis, _ = torch.linalg.qr(torch.randn(rows, columns, generator=draw, dtype=torch.float64))
    return torch.as_tensor(basis)


def _offsets(lengths: list[int]) -> Tensor:
    return F.pad(torch.tensor(lengths, dtype=torch.int64).cumsum(0), (1, 0))
