"""The fit finds, token by token, a value row that makes the head say the target; checked by brute force in float64."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from memtune.memory import fit
from memtune.memory.fit import MOST_ROWS, fit_values, rows_together, token_losses
from memtune.memory.readout import Readout

VOCABULARY, HIDDEN, D_VALUE = 90, 40, 24
GOAL = 1e-3
REACHED = GOAL * 1.05  # float32 against float64


class Problem:
    """Random states, targets, head and projection."""

    def __init__(self, seed=0, tokens=50, bias=False, **readout):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.hidden = torch.randn(tokens, HIDDEN) * 3
            self.targets = torch.randint(VOCABULARY, (tokens,))
            self.up = torch.randn(HIDDEN, D_VALUE) / 5
            self.head = nn.Linear(HIDDEN, VOCABULARY, bias=bias).requires_grad_(False)
            self.head.weight.normal_()
            if bias:
                self.head.bias.normal_(std=5)
            self.readout = Readout(self.head, dtype=self.head.weight.dtype, **readout)
            self.low = self.readout.rows(self.up)

    def fit(self, goal=GOAL, **options):
        return fit_values(self.hidden, self.targets, self.readout, self.low, goal, **options)

    def losses(self, values):
        """Cross-entropy by its definition."""
        states = self.hidden.double() + values.double() @ self.up.double().T
        logits = states @ self.head.weight.double().T
        if self.head.bias is not None:
            logits += self.head.bias.double()
        logits *= self.readout.scale
        if self.readout.cap is not None:
            logits = self.readout.cap * torch.tanh(logits / self.readout.cap)
        chances = (logits - logits.amax(1, keepdim=True)).exp()
        chances /= chances.sum(1, keepdim=True)
        return -chances[torch.arange(len(states)), self.targets].log()


@pytest.fixture(params=range(4))
def problem(request):
    return Problem(request.param)


@pytest.mark.parametrize("goal", [0.5, 1e-2, 1e-3, 1e-5])
def test_every_token_reaches_the_goal(problem, goal):
    assert float(problem.losses(problem.fit(goal)).max()) <= goal * 1.05


def test_it_reaches_what_a_known_solution_reaches(problem):
    """Along the longest row behind the projection no other grows as fast: far enough along it is a solution."""
    low = problem.head.weight @ problem.up
    problem.targets[:] = int(low.norm(dim=1).argmax())
    assert float(problem.losses(low[problem.targets] * 30).max()) <= GOAL
    assert float(problem.losses(problem.fit()).max()) <= REACHED


def test_the_bias_of_the_head_is_reckoned_with():
    problem = Problem(bias=True)
    assert float(problem.losses(problem.fit()).max()) <= REACHED


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "readout", [{"scale": 0.0625}, {"scale": 4.0}, {"cap": 30.0}, {"scale": 0.5, "cap": 40.0}], ids=str
)
def test_scale_and_cap_of_the_logits_are_reckoned_with(bias, readout):
    problem = Problem(bias=bias, **readout)
    problem.hidden /= 3 * problem.readout.scale  # logits as models have them: below the cap
    assert float(problem.losses(problem.fit()).max()) <= REACHED
    losses = token_losses(problem.hidden, problem.targets, problem.readout)
    expected = problem.losses(torch.zeros(len(losses), D_VALUE))
    torch.testing.assert_close(losses.double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bias", [False, True])
def test_a_bfloat16_head_is_fitted_as_it_speaks(bias):
    """Its logits are rounded to eight bits, so the loss can only be had roughly; half a nat would be a miss."""
    problem = Problem(bias=bias)
    problem.readout = replace(problem.readout, head=problem.head.bfloat16(), dtype=torch.bfloat16)
    values = problem.fit()
    assert values.dtype == torch.float32
    reached = problem.hidden + values @ problem.up.T
    assert float(token_losses(reached, problem.targets, problem.readout).max()) < 0.1


def test_a_token_that_the_model_says_already_gets_no_value(problem):
    problem.targets[:] = int(problem.head.weight.norm(dim=1).argmax())
    problem.hidden = problem.head.weight[problem.targets] * 50
    assert not problem.fit().any()


def test_a_token_does_not_depend_on_its_neighbours(problem):
    together = problem.fit()
    for i in (0, 7):
        alone = fit_values(problem.hidden[[i]], problem.targets[[i]], problem.readout, problem.low, GOAL)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-4)


def test_more_tokens_than_are_held_at_once_are_all_fitted():
    problem = Problem(tokens=2 * MOST_ROWS + 3)
    assert float(problem.losses(problem.fit()).max()) <= REACHED


@pytest.mark.parametrize("vocabulary", [100, 32_000, 49_152, 151_936, 262_144])
def test_fewer_tokens_are_held_at_once_where_the_vocabulary_is_large(vocabulary):
    rows = rows_together(vocabulary)
    assert fit.FEWEST_ROWS <= rows <= MOST_ROWS
    assert rows == fit.FEWEST_ROWS or rows * vocabulary * 4 <= fit.LOGITS


def test_a_token_that_no_value_can_say_stays_finite_and_hinders_no_other(problem):
    """Its head row is the average of all others: whatever lifts it lifts another one more."""
    problem.head.weight[0] = problem.head.weight[1:].mean(0)
    problem.targets[0] = 0
    values = problem.fit()
    losses, impossible = problem.losses(values), problem.targets == 0
    assert torch.isfinite(values).all()
    assert float(losses[impossible].min()) > GOAL
    assert float(losses[~impossible].max()) <= REACHED


def test_no_token_at_all_is_no_problem():
    problem = Problem(tokens=0)
    assert problem.fit().shape == (0, D_VALUE)
    assert token_losses(problem.hidden, problem.targets, problem.readout).shape == (0,)


@pytest.mark.parametrize("tokens", [1, MOST_ROWS, MOST_ROWS + 1])
def test_token_losses_are_the_cross_entropy(tokens):
    problem = Problem(tokens=tokens, bias=True)
    losses = token_losses(problem.hidden, problem.targets, problem.readout)
    expected = problem.losses(torch.zeros(tokens, D_VALUE))
    torch.testing.assert_close(losses.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("goal", [1e-2, 1e-5])
def test_the_kernels_fit_reaches_the_same_goal_without_keeping_logits(problem, goal, monkeypatch):
    """On a CPU the package's plain path stands in for its kernels; what is proved is how the fit calls it."""
    memtune_kernels = pytest.importorskip("memtune_kernels")
    monkeypatch.setattr(fit, "kernels_for", lambda _tensor: memtune_kernels)
    monkeypatch.setattr(fit, "_fit_rows", None)
    assert float(problem.losses(problem.fit(goal)).max()) <= goal * 1.05


def test_a_head_with_a_bias_is_none_for_the_kernels(monkeypatch):
    problem = Problem(bias=True)
    expected = problem.fit()
    monkeypatch.setattr(fit, "kernels_for", lambda _tensor: pytest.fail("the kernels read no bias"))
    assert torch.equal(problem.fit(), expected)


class Heard:
    """Keeps what a fit tells: ``rounds``, each ``(steps done, tokens, losses)``."""

    def __init__(self):
        self.rounds = []

    def __call__(self, done, tokens, losses):
        self.rounds.append((done, tokens.clone(), losses.clone()))

    def last_of(self, tokens):
        """The last loss that was told of each token."""
        last = torch.full((tokens,), float("nan"))
        for _, numbers, losses in self.rounds:
            last[numbers] = losses
        return last


@pytest.mark.parametrize("readout", [{}, {"cap": 30.0}], ids=str)
@pytest.mark.parametrize("streamed", [False, True])
def test_it_tells_the_loss_of_every_token_before_each_step(readout, streamed, monkeypatch):
    problem, heard = Problem(tokens=MOST_ROWS + 20, **readout), Heard()
    problem.hidden /= 3 if readout else 1
    if streamed:
        monkeypatch.setattr(fit, "kernels_for", lambda _tensor: pytest.importorskip("memtune_kernels"))
    values = problem.fit(told=heard)
    first = [(tokens, losses) for done, tokens, losses in heard.rounds if done == 0]
    assert torch.cat([tokens for tokens, _ in first]).tolist() == list(range(MOST_ROWS + 20))
    expected = problem.losses(torch.zeros_like(values))
    torch.testing.assert_close(torch.cat([losses for _, losses in first]).double(), expected, rtol=1e-3, atol=1e-4)
    expected = problem.losses(values)
    torch.testing.assert_close(heard.last_of(len(values)).double(), expected, rtol=2e-2, atol=1e-6)


def test_whoever_listens_changes_no_bit(problem):
    assert torch.equal(problem.fit(told=Heard()), problem.fit())


def test_it_takes_no_more_steps_than_it_may(problem):
    heard = Heard()
    values = problem.fit(steps=2, told=heard)
    assert [done for done, _, _ in heard.rounds] == [0, 1, 2]
    assert not problem.fit(steps=0).any()
    assert float(problem.losses(values).max()) > GOAL


def test_with_every_step_more_tokens_are_said(problem):
    said = [(problem.losses(problem.fit(steps=steps)) < math.log(2)) for steps in range(8)]
    for fewer, more in pairwise(said):
        assert not (fewer & ~more).any()
    assert said[-1].all() and not said[0].all()
