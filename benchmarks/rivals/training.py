"""What the methods that train share: the upper layers alone, and where they say how far they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from memtune.backbone import Backbone
from memtune.evidence.training import Batch, Epoch


class Upper:
    """The layers of a decoder from ``first`` on, run on states from below that are computed once and kept.

    Nothing below ``first`` changes while these layers are trained, so its states do not change either. The states take
    ``tokens x hidden x 4`` bytes a fact.
    """

    def __init__(self, backbone: Backbone, first: int, batches: Sequence[Batch]) -> None:
        self.decoder: Any = backbone.model.get_decoder()
        self.first = first
        self._below = {batch.facts: self._states_below(batch) for batch in batches}

    @torch.no_grad()
    def _states_below(self, batch: Batch) -> Tensor:
        states: Tensor = self.decoder(input_ids=batch.ids, use_cache=False, output_hidden_states=True).hidden_states[
            self.first
        ]
        return states.clone()

    def final(self, batch: Batch) -> Tensor:
        """The LM head's input ``(facts, longest, hidden)``."""
        with self._layers_above():
            out: Tensor = self.decoder(inputs_embeds=self._below[batch.facts], use_cache=False).last_hidden_state
        return out

    @contextmanager
    def _layers_above(self) -> Iterator[None]:
        layers = self.decoder.layers
        self.decoder.layers = layers[self.first :]
        try:
            yield
        finally:
            self.decoder.layers = layers


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def say_epoch(name: str) -> Callable[[Epoch], None]:
    """Says each epoch of the method ``name``."""

    def told(epoch: Epoch) -> None:
        say(
            f"{name} epoch {epoch.number}: loss mean {epoch.loss_mean:.4f}, worst {epoch.loss_max:.4f}, "
            f"{epoch.seconds:.1f} s"
        )

    return told
