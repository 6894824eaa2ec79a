"""The ids of each sequence, however a model is given them: as rows behind a cache, or packed into one row."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import DynamicCache

from memtune.memory.calls import Call
from memtune.memory.sequences import follow, remember

PAGE, STRIDE = 4, 8


def spans(seen):
    return [(span.ids, span.length, span.row, span.start) for span in seen.spans]


class TestRows:
    def cache(self, length):
        cache = DynamicCache()
        cache.update(torch.zeros(2, 1, length, 1), torch.zeros(2, 1, length, 1), 0)
        return cache

    def test_a_first_chunk_is_all_there_is(self):
        seen = follow(torch.tensor([[5, 6, 7], [8, 9, 4]]), {}, chat=True)
        assert spans(seen) == [([5, 6, 7], 3, 0, 0), ([8, 9, 4], 3, 1, 0)]
        assert seen.prompt_end == 3

    def test_padding_matches_no_token(self):
        mask = torch.tensor([[0, 1, 1]])
        assert follow(torch.tensor([[0, 6, 7]]), {"attention_mask": mask}, chat=True).spans[0].ids == [-1, 6, 7]

    def test_a_cache_remembers_what_stood_before(self):
        cache = self.cache(3)
        first = follow(torch.tensor([[5, 6, 7], [8, 9, 4]]), {}, chat=True)
        remember(first, {"past_key_values": cache})
        seen = follow(torch.tensor([[1], [2]]), {"past_key_values": cache}, chat=True)
        assert spans(seen) == [([5, 6, 7, 1], 1, 0, 0), ([8, 9, 4, 2], 1, 1, 0)]
        assert seen.spans[0].prompt_end == 3

    def test_a_cache_that_was_cut_has_forgotten_the_rest(self):
        cache = self.cache(2)
        remember(follow(torch.tensor([[5, 6, 7], [8, 9, 4]]), {}, chat=True), {"past_key_values": cache})
        seen = follow(torch.tensor([[1], [2]]), {"past_key_values": cache}, chat=True)
        assert [span.ids for span in seen.spans] == [[5, 6, 1], [8, 9, 2]]

    def test_the_call_of_generate_says_where_its_prompt_ends_whatever_the_cache_was_given_first(self):
        cache, call = self.cache(2), Call(self, prompt_end=5)
        remember(follow(torch.tensor([[5, 6], [8, 9]]), {}, False, call), {"past_key_values": cache})
        seen = follow(torch.tensor([[7, 1], [4, 2]]), {"past_key_values": cache}, False, call)
        assert [span.prompt_end for span in seen.spans] == [5, 5]

    @pytest.mark.parametrize("mask", [torch.ones(1, 1, 3, 9), {"full_attention": torch.ones(1, 1, 3, 9)}, {}, None])
    def test_where_the_mask_shows_no_padding_that_of_the_call_does(self, mask):
        call = Call(self, prompt_end=3, mask=torch.tensor([[0, 1, 1]]))
        ids, entries = torch.tensor([[0, 6, 7]]), {"attention_mask": mask}
        assert follow(ids, entries, False, call).spans[0].ids == [-1, 6, 7]
        assert follow(ids, entries, False).spans[0].ids == [0, 6, 7]

    def test_before_a_strangers_cache_nothing_is_known(self):
        seen = follow(torch.tensor([[1], [2]]), {"past_key_values": self.cache(2)}, chat=True)
        assert [span.ids for span in seen.spans] == [[-1, -1, 1], [-1, -1, 2]]


class PagedCache:
    """As much of transformers' paged cache as is looked at: blocks of PAGE slots, STRIDE apart."""

    def __init__(self):
        self.cache_allocators = {"full_attention": SimpleNamespace(block_physical_stride=STRIDE, tokens_per_page=PAGE)}
        self.copied = []

    def perform_cache_copy(self, blocks):
        self.copied.append(blocks)


def packed(cache, *requests, reads=True):
    """The keywords of one pass; of each request its slots so far and how many of them are new."""
    new = [0]
    held = [0]
    for slots, count in requests:
        new.append(new[-1] + count)
        held.append(held[-1] + len(slots))
    written = [slot for slots, count in requests for slot in slots[-count:]]
    read = [slot for slots, _ in requests for slot in slots] if reads else []
    return {
        "cache": cache,
        "cu_seq_lens_q": torch.tensor(new),
        "cu_seq_lens_k": {"sliding_attention": torch.tensor([0]), "full_attention": torch.tensor(held)},
        "write_index": [torch.tensor([0]), torch.tensor(written)],
        "read_index": [torch.tensor([]), torch.tensor(read, dtype=torch.long)],
    }


class TestPacked:
    def test_a_first_pass_reads_nothing_back(self):
        keywords = packed(PagedCache(), ([8, 9, 10], 3), ([16, 17], 2), reads=False)
        assert spans(follow(torch.tensor([[1, 2, 3, 4, 5]]), keywords, chat=True)) == [
            ([1, 2, 3], 3, 0, 0),
            ([4, 5], 2, 0, 3),
        ]

    def test_each_request_goes_on_from_its_own_slots(self):
        cache = PagedCache()
        follow(torch.tensor([[1, 2, 3, 4, 5]]), packed(cache, ([8, 9, 10], 3), ([16, 17], 2), reads=False), chat=True)
        seen = follow(torch.tensor([[6, 7, 8]]), packed(cache, ([16, 17, 18], 1), ([8, 9, 10, 11, 24], 2)), chat=True)
        assert spans(seen) == [([4, 5, 6], 1, 0, 0), ([1, 2, 3, 7, 8], 2, 0, 1)]

    def test_a_slot_that_is_handed_on_has_the_id_of_its_new_owner(self):
        cache = PagedCache()
        follow(torch.tensor([[1, 2]]), packed(cache, ([8, 9], 2), reads=False), chat=True)
        follow(torch.tensor([[7]]), packed(cache, ([8], 1)), chat=True)
        assert follow(torch.tensor([[3]]), packed(cache, ([8, 9], 1)), chat=True).spans[0].ids == [7, 3]

    def test_a_block_that_is_copied_takes_its_ids_along(self):
        cache = PagedCache()
        follow(torch.tensor([[1, 2, 3]]), packed(cache, ([8, 9, 10], 3), reads=False), chat=True)
        cache.perform_cache_copy({"full_attention": ([1], [5])})
        seen = follow(torch.tensor([[4]]), packed(cache, ([40, 41, 42, 43], 1)), chat=True)
        assert seen.spans[0].ids == [1, 2, 3, 4]
        assert cache.copied == [{"full_attention": ([1], [5])}]

    def test_places_that_fill_a_graph_are_no_request(self):
        keywords = packed(PagedCache(), ([8, 9], 2), reads=False)
        keywords["cu_seq_lens_q"] = torch.tensor([0, 2, 2, 2])
        assert len(follow(torch.tensor([[1, 2, 0, 0]]), keywords, chat=True).spans) == 1

    def test_what_cannot_be_followed_is_refused(self):
        keywords = packed(PagedCache(), ([8, 9], 2), reads=False)
        with pytest.raises(NotImplementedError, match="chat template"):
            follow(torch.tensor([[1, 2]]), keywords, chat=False)
        with pytest.raises(NotImplementedError, match="max_blocks_per_request=0"):
            follow(torch.tensor([[1, 2]]), keywords | {"block_table": torch.zeros(1, 1)}, chat=True)
