"""Experts in one stack: who owns which rows, and the projections that all of them share."""

from __future__ import annotations

import pytest
import torch

from memtune.memory.bank import ROWS, Bank, Projections

NAMES = ["a", "등대-1", "", "x" * 300, "🗼"]
EXPERTS = [3, 1, 4, 2, 5]


@pytest.fixture(params=ROWS)
def bank(request):
    return Bank.assigned(NAMES, EXPERTS, hidden=192, rows=request.param)


@pytest.fixture
def head():
    return torch.randn(300, 192, generator=torch.Generator().manual_seed(0))


def projections(head, seed=0, mean=None):
    mean = torch.zeros(head.shape[1]) if mean is None else mean
    return Projections.for_backbone(head, mean, d_key=32, d_value=128, seed=seed)


def fill(bank, seed):
    draw = torch.Generator().manual_seed(seed)
    experts = torch.arange(len(bank.keys))
    bank.put(experts, *(torch.rand(rows.shape, generator=draw) for rows in (bank.keys, bank.values)))
    for name in ("loss", "worst"):
        getattr(bank, name).copy_(torch.rand(getattr(bank, name).shape, generator=draw))
    bank.accepted.fill_(True)


def test_every_fact_owns_one_run_of_its_length_and_no_row_has_two_owners(bank):
    assert [bank.experts_of(i) for i in range(len(NAMES))] == EXPERTS
    rows = [row for i in range(len(NAMES)) for row in range(len(bank.keys))[bank.run(i)]]
    assert rows == list(range(sum(EXPERTS)))


def test_ids_come_back_in_any_script(bank):
    assert [bank.id_of(i) for i in range(len(NAMES))] == NAMES


def test_a_fact_is_found_by_its_id(bank):
    assert bank.numbers_of([*NAMES, "b", "xx"]) == {name: i for i, name in enumerate(NAMES)}


def test_some_facts_are_taken_with_all_that_is_known_of_them(bank):
    fill(bank, 0)
    some = bank.take(torch.tensor([4, 0, 2]))
    assert [some.id_of(i) for i in range(3)] == [NAMES[4], NAMES[0], NAMES[2]]
    for place, number in enumerate([4, 0, 2]):
        for name in ("keys", "values", "scales"):
            assert torch.equal(getattr(some, name)[some.run(place)], getattr(bank, name)[bank.run(number)])
        assert some.loss[place] == bank.loss[number] and some.accepted[place] == bank.accepted[number]


def test_banks_are_joined_end_to_end(bank):
    fill(bank, 0)
    joined = bank.take(torch.tensor([0, 1])).joined(bank.take(torch.tensor([2, 3, 4])))
    assert joined.sizes == bank.sizes
    assert all(torch.equal(joined.state_dict()[name], tensor) for name, tensor in bank.state_dict().items())


def test_a_new_bank_accepts_nothing(bank):
    assert not bank.accepted.any()
    assert torch.isinf(bank.loss).all() and torch.isinf(bank.worst).all()


def test_the_sizes_build_a_bank_that_takes_the_tensors(bank):
    fill(bank, 0)
    other = Bank(bank.sizes)
    other.load_state_dict(bank.state_dict())
    assert other.sizes == bank.sizes
    assert [other.id_of(i) for i in range(len(NAMES))] == NAMES


def test_a_fact_is_put_back_byte_for_byte_and_nothing_else_is_touched(bank):
    source = Bank.assigned(["other", "🗼"], [2, 5], hidden=192, rows=bank.rows)
    fill(source, 0)
    fill(bank, 1)
    before = {name: tensor.clone() for name, tensor in bank.state_dict().items()}
    bank.put_back(torch.tensor([4]), source.take(torch.tensor([1])))
    for name in ("keys", "values", "scales"):
        assert torch.equal(bank.get_buffer(name)[10:], source.get_buffer(name)[2:])
    assert (bank.loss[4], bank.worst[4]) == (source.loss[1], source.worst[1])
    for name, kept in {"keys": 10, "values": 10, "scales": 10, "loss": 4, "worst": 4, "offsets": 6, "ids": 400}.items():
        assert torch.equal(bank.get_buffer(name)[:kept], before[name][:kept])


def test_an_answer_token_takes_at_most_200_bytes():
    bank = Bank.assigned(NAMES, EXPERTS, hidden=576)
    rows = [bank.keys, bank.values, bank.scales]
    assert sum(tensor.nbytes for tensor in rows) <= 200 * sum(EXPERTS)


def test_rows_of_float32_are_kept_as_they_are():
    bank = Bank.assigned(NAMES, EXPERTS, hidden=192, rows="float32")
    keys, values = torch.randn(2, 32), torch.randn(2, 128)
    bank.put(torch.tensor([4, 7]), keys, values)
    assert torch.equal(bank.keys[[4, 7]], keys)
    assert torch.equal(bank.values[[4, 7]] * bank.scales[[4, 7], None], values)


def test_the_projections_depend_on_the_head_the_mean_and_the_seed_alone(head):
    same = projections(head)
    assert same.same_as(projections(head.clone()))
    assert not same.same_as(projections(head, seed=1))
    assert not same.same_as(projections(head + 1e-3 * torch.randn_like(head)))
    assert not same.same_as(projections(head, mean=torch.ones(192)))


def test_the_down_projection_keeps_lengths_and_the_up_projection_has_full_rank(head):
    made = projections(head)
    torch.testing.assert_close(made.down.T @ made.down, torch.eye(32), rtol=0, atol=1e-5)
    assert int(torch.linalg.matrix_rank(made.up)) == 128


def test_a_query_is_the_direction_of_the_centred_state(head):
    mean = torch.arange(192.0)
    made = projections(head, mean=mean)
    states = torch.randn(4, 192, generator=torch.Generator().manual_seed(1))
    queries = made.query(mean + states)
    torch.testing.assert_close(queries.norm(dim=-1), torch.ones(4))
    torch.testing.assert_close(made.query(mean + 3 * states), queries, rtol=0, atol=1e-4)
