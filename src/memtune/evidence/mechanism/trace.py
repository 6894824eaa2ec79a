"""Causal tracing (Meng et al., arXiv 2202.05262; for wrong answers Yu et al., arXiv 2403.18167).

Three kinds of runs. *Clean*: the question as it is. *Corrupted*: Gaussian noise on the embeddings of the subject's
tokens. *Restored*: corrupted, but what attention or MLP give in a window of layers at some positions is put back to
what they gave in the clean run. With y for how much the model prefers what it says over the gold answer:

    total effect = y(corrupted) - y(clean)        indirect effect = y(restored) - y(corrupted)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memtune.backbone import Backbone
from memtune.errors import ConfigError
from memtune.events import OnEvent, Progress, ignore
from memtune.evidence.mechanism.anatomy import Anatomy
from memtune.evidence.mechanism.tracer import Tracer
from memtune.visible import visible

__all__ = ["NOISE", "TraceResult", "Tracing", "trace"]

NOISE = 3.0  # standard deviations of the embeddings, as in ROME
WINDOW = 10  # layers that are restored together, as in ROME
DRAWN = 24  # noises of which those that lower y are valid
STEPS = 10  # windows, where no stride is asked for
SAMPLE = 4096  # rows of the embedding that its standard deviation is taken of
KINDS = ("attention", "mlp")
SHOWN = 18  # characters of the tokens in the name of a group of positions
Ids = tuple[int, ...]
Measured = Callable[[Tensor], Tensor]  # logits (rows, vocabulary) -> y (rows,)


@dataclass(frozen=True)
class Tracing:
    """How it is done. ``stride``: layers from one window to the next, 0 for ten windows; ``noises``: used of those
    that were drawn.
    """

    stride: int = 0
    window: int = WINDOW
    noises: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.stride < 0:
            raise ConfigError(f"stride is {self.stride}", hint="--stride takes a number of layers, 1 or more")

    def centres(self, layers: int) -> range:
        return range(0, layers, self.stride or max(1, round(layers / STEPS)))

    def around(self, centre: int, layers: int) -> range:
        """The window ``[centre - 5, centre + 5)``, where there are so many layers."""
        return range(max(0, centre - self.window // 2), min(layers, centre + (self.window + 1) // 2))


@dataclass(frozen=True)
class TraceResult:
    """Raw numbers; y in nats (a difference of logits, or the log-probability of the answer where there is one alone).

    ``effects``: indirect effects by kind (attention, mlp), window, and group of positions, means over ``used`` noises.
    ``valid``: of ``drawn`` noises those that lower y. If none did, the first ones are used, and nothing is shown by it.
    """

    subject: str
    said: str
    gold: str
    measure: str  # what y is
    clean: float
    corrupted: float  # the mean over the used noises
    total_effect: float
    drawn: int
    valid: int
    used: int
    window: int
    centres: tuple[int, ...]  # layers, the first one is 0
    positions: tuple[str, ...]
    effects: dict[str, tuple[tuple[float, ...], ...]]


def trace(
    backbone: Backbone,
    ids: Ids,
    subject: range,
    said: int,
    gold: int | None = None,
    *,
    how: Tracing = Tracing(),
    on_event: OnEvent = ignore,
) -> TraceResult:
    """Traces what is said behind ``ids`` over the gold token. ``subject``: its places in ``ids``.

    A memory on the model has to be silent. Raises ModelError where layers are not attention and MLP.
    """
    anatomy = Anatomy(backbone)
    on_event(Progress("tracing", 0, len(KINDS) * len(how.centres(len(anatomy.layers)))))
    tracer = Tracer(backbone, ids, subject.start, anatomy)
    against = gold is not None and gold != said

    def y(logits: Tensor) -> Tensor:
        return logits[:, said] - logits[:, gold] if against else logits.log_softmax(-1)[:, said]

    clean = float(y(tracer.run(torch.zeros(1, 0, 0), range(0))))
    noises = _drawn(backbone, anatomy, len(subject), how)
    corrupted = y(tracer.run(noises, subject))
    valid = (corrupted < clean).nonzero().squeeze(1)
    used = (valid if len(valid) else torch.arange(len(noises)))[: how.noises]
    groups = _groups(backbone, ids, subject)
    effects = _effects(tracer, noises[used], subject, groups, how, y, on_event)
    names = backbone.prompts.piece
    return TraceResult(
        subject=backbone.prompts.text(ids[subject.start : subject.stop]).strip(),
        said=names(said),
        gold="" if gold is None else names(gold),
        measure="logit of what is said less that of the gold token" if against else "log-probability of what is said",
        clean=clean,
        corrupted=float(corrupted[used].mean()),
        total_effect=float(corrupted[used].mean()) - clean,
        drawn=len(noises),
        valid=len(valid),
        used=len(used),
        window=how.window,
        centres=tuple(how.centres(len(anatomy.layers))),
        positions=tuple(name for name, _ in groups),
        effects=effects,
    )


def _drawn(backbone: Backbone, anatomy: Anatomy, tokens: int, how: Tracing) -> Tensor:
    """Noises ``(DRAWN, tokens, width of the embedding)``, of a seed of their own, each token with another one."""
    size = backbone.head.out_features
    sample = torch.arange(0, size, max(1, size // SAMPLE), device=backbone.device)
    with torch.inference_mode():
        rows: Tensor = anatomy.embedding(sample[None]).float()
    drawn = torch.Generator().manual_seed(how.seed)
    noise = torch.randn(DRAWN, tokens, rows.shape[-1], generator=drawn)
    return (noise * NOISE * float(rows.std())).to(backbone.device)


def _groups(backbone: Backbone, ids: Ids, subject: range) -> list[tuple[str, range]]:
    """The positions that are restored together, as in Yu et al.: first, middle and last token of the subject, the first
    behind it, further ones, the last one. Before the subject nothing is corrupted.
    """
    last = len(ids) - 1
    groups = [
        ("subject, first", range(subject.start, subject.start + (len(subject) > 1))),
        ("subject, middle", range(subject.start + 1, subject.stop - 1)),
        ("subject, last", range(subject.stop - 1, subject.stop)),
        ("first behind it", range(subject.stop, min(subject.stop + 1, last))),
        ("further", range(subject.stop + 1, last)),
        ("last", range(last, last + 1)),
    ]
    return [(f"{name}: {_shown(backbone, ids[g.start : g.stop])}", g) for name, g in groups if len(g)]


def _shown(backbone: Backbone, ids: Ids) -> str:
    """The tokens as text of one line, in the room that a row of a heat map has for it."""
    text = visible("".join(map(backbone.prompts.piece, ids))).strip()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _effects(
    tracer: Tracer,
    noises: Tensor,
    subject: range,
    groups: Sequence[tuple[str, range]],
    how: Tracing,
    y: Measured,
    on_event: OnEvent,
) -> dict[str, tuple[tuple[float, ...], ...]]:
    """Indirect effects: a pass for each kind and window, whose rows are the noises at each group of positions."""
    places = torch.arange(tracer.first, len(tracer.ids), device=noises.device)
    masks = [(places >= group.start) & (places < group.stop) for _, group in groups]
    where = torch.stack(masks).repeat_interleave(len(noises), 0)
    rows = noises.repeat(len(groups), 1, 1)
    corrupted = y(tracer.run(noises, subject)).repeat(len(groups))
    layers = len(tracer.anatomy.layers)
    centres = how.centres(layers)
    effects: dict[str, tuple[tuple[float, ...], ...]] = {}
    for number, kind in enumerate(KINDS):
        modules: list[nn.Module] = [getattr(parts, kind) for parts in tracer.anatomy.parts]
        given, found = tracer.record(modules), []
        for done, centre in enumerate(centres, 1):
            back = [(modules[layer], given[layer], where) for layer in how.around(centre, layers)]
            change = y(tracer.run(rows, subject, back)) - corrupted
            found.append(tuple(change.view(len(groups), -1).mean(1).tolist()))
            on_event(Progress("tracing", number * len(centres) + done, len(KINDS) * len(centres)))
        effects[kind] = tuple(found)
    return effects
