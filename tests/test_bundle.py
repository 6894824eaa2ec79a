"""A bundle does what any checkpoint does in transformers: pipelines, caches, decoding strategies, a server."""

from __future__ import annotations

import logging
import re
import shutil
import sys
import threading
import warnings

import pytest
import torch
import transformers
from serving import serving
from tiny import FACTS, save_kind

from memtune.config import Config
from memtune.export import export
from memtune.ingest import ingest
from memtune.tune import tune

TRAM, VALVE = FACTS[2], FACTS[1]
UNKNOWN = "What is the capital of France?"


@pytest.fixture(scope="module")
def tokenizer(bundle):
    return transformers.AutoTokenizer.from_pretrained(bundle, padding_side="left")


class Served:
    """A bundle as its user has it, asked as its checkpoint is: in a chat, or by a prompt alone."""

    def __init__(self, load, directory):
        self.directory = directory
        self.model = load(directory, trust_remote_code=True)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(directory, padding_side="left")

    def prompts(self, *questions):
        """Ids and mask, padded on the left."""
        if self.tokenizer.chat_template is None:
            return self.tokenizer(list(questions), padding=True, return_tensors="pt")
        chats = [[{"role": "user", "content": question}] for question in questions]
        return chat(self.tokenizer, chats, padding=True)

    def say(self, *questions, **options):
        """The answers to questions that are asked together, decoded as the options say."""
        inputs = self.prompts(*questions)
        out = self.model.generate(**inputs, **{"do_sample": False, "max_new_tokens": 40} | options)
        texts = self.tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in texts]


@pytest.fixture(scope="module", params=["bundle", "base_bundle"], ids=["chat", "base"])
def served(request, load):
    return Served(load, request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def base(load, base_bundle):
    return Served(load, base_bundle)


def chat(tokenizer, turns, **options):
    return tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True, **options
    )


def test_a_pipeline_takes_a_bundle_for_what_its_backbone_is(model, tokenizer, caplog):
    log = logging.getLogger("transformers")
    log.addHandler(caplog.handler)
    try:
        transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
    finally:
        log.removeHandler(caplog.handler)
    assert "not supported" not in caplog.text


def test_a_pipeline_answers(served):
    pipe = transformers.pipeline("text-generation", model=served.model, tokenizer=served.tokenizer)
    asked = [question for _, question, _ in (TRAM, VALVE)]
    if served.tokenizer.chat_template is not None:
        asked = [[{"role": "user", "content": question}] for question in asked]
    found = pipe(asked, do_sample=False, max_new_tokens=40, batch_size=2, return_full_text=False)
    assert [one[0]["generated_text"].strip() for one in found] == [TRAM[2], VALVE[2]]


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "temperature": 0.7, "top_p": 0.9},
        {"num_beams": 3},
        {"num_beams": 2, "do_sample": True},
        {"prompt_lookup_num_tokens": 3},
        {"cache_implementation": "static"},
        {"use_cache": False},
        {"repetition_penalty": 1.05},
        {"prefill_chunk_size": 8},
    ],
    ids=str,
)
def test_a_fact_is_said_whatever_the_decoding(served, options):
    torch.manual_seed(0)
    assert served.say(TRAM[1], **options) == [TRAM[2]]


@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 2}, {"cache_implementation": "static"}, {"use_cache": False}, {"prefill_chunk_size": 4}],
    ids=str,
)
def test_questions_of_any_length_share_a_padded_batch(served, options):
    facts = (TRAM, VALVE, FACTS[4])
    assert served.say(*(question for _, question, _ in facts), **options) == [answer for *_, answer in facts]


@pytest.mark.parametrize("with_memory", [False, True], ids=["backbone", "bundle"])
def test_another_model_may_assist(served, load, with_memory):
    assistant = load(served.directory, trust_remote_code=True) if with_memory else load(served.directory)
    assert served.say(TRAM[1], assistant_model=assistant) == [TRAM[2]]


def test_a_streamer_hears_the_answer_as_it_is_made(served):
    streamer = transformers.TextIteratorStreamer(served.tokenizer, skip_prompt=True, skip_special_tokens=True)
    options = {"do_sample": False, "max_new_tokens": 40, "streamer": streamer}
    thread = threading.Thread(target=served.model.generate, kwargs=dict(served.prompts(TRAM[1])) | options)
    thread.start()
    pieces = list(streamer)
    thread.join()
    assert "".join(pieces).strip() == TRAM[2] and len(pieces) > 2


def test_a_conversation_goes_on_from_its_cache(model, tokenizer):
    turns, cache, answers = [], transformers.DynamicCache(), []
    for question in (TRAM[1], UNKNOWN, VALVE[1]):
        turns.append({"role": "user", "content": question})
        inputs = chat(tokenizer, turns)
        out = model.generate(**inputs, past_key_values=cache, do_sample=False, max_new_tokens=40)
        text = tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        turns.append({"role": "assistant", "content": text})
        answers.append(text)
    assert [answers[0], answers[2]] == [TRAM[2], VALVE[2]]


@pytest.mark.parametrize("whole", [True, False], ids=["whole prompt", "new ids"])
def test_without_a_template_every_call_that_goes_on_asks_the_last_paragraph_of_its_prompt(base, whole):
    cache, ids = transformers.DynamicCache(), torch.empty(1, 0, dtype=torch.long)
    for question, answer in ((TRAM[1], TRAM[2]), ("\n\n" + VALVE[1], VALVE[2]), ("\n\n" + TRAM[1], TRAM[2])):
        ids = torch.cat([ids, base.tokenizer(question, return_tensors="pt")["input_ids"]], 1)
        new = ids if whole else ids[:, cache.get_seq_length() :]
        out = base.model.generate(
            new, attention_mask=torch.ones_like(ids), past_key_values=cache, do_sample=False, max_new_tokens=40
        )
        said = out[:, new.shape[1] :]
        assert base.tokenizer.decode(said[0], skip_special_tokens=True).strip() == answer
        ids = torch.cat([ids, said], 1)


@torch.inference_mode()
def test_without_a_template_a_pass_over_prompt_and_answer_takes_both_for_the_prompt(base, load):
    """Where the answer begins, its ids do not show: the page says so."""
    out = base.model.generate(**base.prompts(TRAM[1]), do_sample=False, max_new_tokens=40)
    assert base.model(out).logits[:, :-1].equal(load(base.directory)(out).logits[:, :-1])


def test_layers_of_a_sliding_window_take_a_static_cache(load, facts_file, tmp_path):
    """There generate() makes a mask of each kind of layer, and none of them shows the padding."""
    sizes = {"hidden_size": 192, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
    windows = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2}
    heads = {"num_key_value_heads": 2, "head_dim": 48, "initializer_range": 0.1}
    config = Config(model=save_kind(tmp_path / "gemma", "gemma3_text", None, **sizes, **windows, **heads))
    ingest(facts_file, tmp_path / "project", config)
    assert tune(tmp_path / "project", config).met
    assert export(tmp_path / "project", tmp_path / "gemma-bundle").met
    served = Served(load, tmp_path / "gemma-bundle")
    questions, answers = [question for _, question, _ in FACTS], [answer for *_, answer in FACTS]
    assert served.say(TRAM[1], cache_implementation="static") == [TRAM[2]]
    assert served.say(*questions, cache_implementation="static") == answers


def test_a_cache_that_is_quantised_gives_the_same_answers(load, tokenizer):
    """Runs where optimum-quanto is installed."""
    pytest.importorskip("optimum.quanto")
    model = load(trust_remote_code=True)
    small = {"backend": "quanto", "nbits": 4, "q_group_size": 16, "residual_length": 8}
    for fact in (TRAM, VALVE):
        inputs = chat(tokenizer, [{"role": "user", "content": fact[1]}])
        cache = {"cache_implementation": "quantized", "cache_config": small}
        out = model.generate(**inputs, do_sample=False, max_new_tokens=40, **cache)
        assert tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True) == fact[2]


def test_a_forward_compiled_once_serves_every_question(load, tokenizer):
    """What the memory does depends on the ids, which no compiled graph can: it stays outside the graph."""
    graphs = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    model = load(trust_remote_code=True)
    model.forward = torch.compile(model.forward, backend=backend)
    after = []
    for fact in (TRAM, VALVE, TRAM):
        inputs = chat(tokenizer, [{"role": "user", "content": fact[1]}])
        out = model.generate(**inputs, do_sample=False, max_new_tokens=40, cache_implementation="static")
        assert tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True) == fact[2]
        after.append(len(graphs))
    assert after[0] > 0 and after[1] == after[2]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles C++")
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
def test_a_forward_compiled_by_inductor_gives_the_same_answer(load, tokenizer):
    model = load(trust_remote_code=True)
    model.forward = torch.compile(model.forward)
    inputs = chat(tokenizer, [{"role": "user", "content": TRAM[1]}])
    out = model.generate(**inputs, do_sample=False, max_new_tokens=40, cache_implementation="static")
    assert tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True) == TRAM[2]


class TestContinuousBatching:
    """Many requests in one row of ids: no answer may come from another request than its own."""

    @pytest.fixture(autouse=True)
    def _own_warnings(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # transformers' own, of what it will call differently
            yield

    @pytest.fixture
    def answers(self, load, tokenizer):
        def ask(questions, *, sequences=1, **batching):
            model = load(trust_remote_code=True)
            wanted = transformers.GenerationConfig(
                max_new_tokens=24, do_sample=sequences > 1, num_return_sequences=sequences,
                eos_token_id=model.generation_config.eos_token_id, pad_token_id=0,
            )  # fmt: skip
            inputs = [chat(tokenizer, [{"role": "user", "content": q}])["input_ids"][0].tolist() for q in questions]
            small = transformers.ContinuousBatchingConfig(**{"num_blocks": 64, "page_size": 16} | batching)
            out = model.generate_batch(inputs=inputs, generation_config=wanted, continuous_batching_config=small)
            alone = model.generate(torch.tensor(inputs[-1])[None], max_new_tokens=24, do_sample=False)
            self.alone = tokenizer.decode(alone[0, len(inputs[-1]) :], skip_special_tokens=True)
            order = sorted(out, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
            return [tokenizer.decode(out[name].generated_tokens, skip_special_tokens=True) for name in order]

        return ask

    @pytest.mark.parametrize("room", [48, 512])
    def test_every_request_gets_its_own_answer(self, answers, room):
        """In little room, some requests are read while others are answered; pages are handed on between them."""
        asked = [fact for fact in FACTS if len(fact[2]) < 30] * 3
        found = answers([fact[1] for fact in asked] + [UNKNOWN], max_batch_tokens=room)
        assert found == [fact[2] for fact in asked] + [self.alone]

    def test_copies_of_a_request_go_on_from_its_prompt(self, answers):
        found = answers([TRAM[1], VALVE[1]], sequences=3, max_batch_tokens=256)
        assert found == [TRAM[2][: len(found[0])]] * 3 + [VALVE[2]] * 3


@pytest.fixture
def server(bundle, tmp_path):
    """``transformers serve`` with the bundle, as a user starts it; its address."""
    for name in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(name)
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(bundle), "--trust-remote-code"]
    modules = str(tmp_path / "modules")
    with serving(lambda port: [*command, "--port", str(port)], tmp_path / "log", HF_MODULES_CACHE=modules) as started:
        yield started.address


def test_a_server_answers_an_openai_client(server, bundle):
    import openai

    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none")
    for _, question, answer in (TRAM, VALVE):
        chat = [{"role": "user", "content": question}]
        found = client.chat.completions.create(model=str(bundle), messages=chat, max_tokens=40, temperature=0)
        assert found.choices[0].message.content == answer
    pieces = client.chat.completions.create(
        model=str(bundle), messages=[{"role": "user", "content": TRAM[1]}], max_tokens=40, temperature=0, stream=True
    )
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == TRAM[2]
