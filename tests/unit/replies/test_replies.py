"""Replies written in batches are those written one by one, and survive an interruption."""

from dataclasses import replace

import pytest
import torch

from eagle.config import Regenerate
from eagle.errors import InputError
from eagle.replies import replies as replies_module
from eagle.replies.replies import Journal, Prompt, Reply, TransformersBackend, regenerate, sample
from eagle.tokens.tokenizer import load_tokenizer
from eagle.tracking import Progress
from eagle.verifier.verifier import Verifier
from tests import tiny
from tests.tiny import MARKED, make_messages


@pytest.fixture(scope="module")
def tokenizer(tiny_verifier):
    return load_tokenizer(tiny_verifier)


@pytest.fixture(scope="module")
def verifier(tiny_verifier):
    """Of many stop tokens, so that some of its random replies stop early."""
    verifier = Verifier.load(tiny_verifier, torch.float32, torch.device("cpu"))
    verifier.stop_token_ids = [2, *range(100, 140)]
    verifier.model.generation_config.eos_token_id = verifier.stop_token_ids
    return verifier


def settings(**values) -> Regenerate:
    fixed = {"temperature": 0.0, "maximum_new_tokens": 12, "batch_size": 4, "dtype": "float32"}
    return tiny.settings("regenerate", **fixed | values)


def write(folder, conversations, verifier, tokenizer, settings, backend=None):
    backend = backend or TransformersBackend(verifier, tokenizer, settings)
    with Journal(folder, "test") as journal, Progress("test", 1, "replies", 1e9) as progress:
        return regenerate(conversations, backend, tokenizer, MARKED, settings, journal, progress)


def one_by_one(conversations, verifier, tokenizer, maximum_new_tokens: int) -> list[dict]:
    """The plain way: `generate` for each reply."""
    answered = []
    for row in conversations:
        messages = []
        for message in row["messages"]:
            if message["role"] == "user":
                messages.append(message)
                continue
            prompt = tokenizer.apply_chat_template(
                messages, chat_template=MARKED, add_generation_prompt=True, return_tensors="pt",
                return_dict=True,
            )["input_ids"]  # fmt: skip
            generated = verifier.model.generate(
                prompt, max_new_tokens=maximum_new_tokens, do_sample=False
            )
            reply_ids = generated[0, prompt.shape[1] :].tolist()
            complete = reply_ids[-1] in verifier.stop_token_ids
            reply_ids = reply_ids[:-1] if complete else reply_ids
            text = tokenizer.decode(reply_ids, skip_special_tokens=True)
            if not text.strip():
                messages.pop()
                break
            mark = {} if complete else {"finish_reason": "length"}
            messages.append({"role": "assistant", "content": text.strip()} | mark)
        if messages:
            answered.append({"id": row["id"], "messages": messages})
    return answered


def test_a_batch_writes_what_generate_writes_one_by_one(tmp_path, verifier, tokenizer):
    rows = make_messages(11)
    written, counts = write(tmp_path, rows, verifier, tokenizer, settings())
    assert written == one_by_one(rows, verifier, tokenizer, 12)
    replies = sum(m["role"] == "assistant" for row in written for m in row["messages"])
    assert counts["replies"] == replies + counts.get("empty", 0)
    assert 0 < counts["incomplete"] < replies  # some batches outlive some of their rows
    marked = sum("finish_reason" in m for row in written for m in row["messages"])
    assert marked == counts["incomplete"]


def test_a_sampled_reply_depends_on_its_own_seed_alone(tmp_path, verifier, tokenizer):
    rows = make_messages(9)
    sampled = settings(temperature=1.0)
    first, _ = write(tmp_path / "a", rows, verifier, tokenizer, sampled)
    again, _ = write(tmp_path / "b", rows[::-1], verifier, tokenizer, settings(
        temperature=1.0, batch_size=2))  # fmt: skip
    assert first == again[::-1]
    other, _ = write(tmp_path / "c", rows, verifier, tokenizer, settings(temperature=1.0, seed=1))
    greedy, _ = write(tmp_path / "d", rows, verifier, tokenizer, settings())
    assert first != other and first != greedy


def test_tokens_are_drawn_as_often_as_they_are_likely():
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0, -50.0]).expand(20_000, 5)
    uniforms = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    for temperature in (0.5, 1.0, 2.0):
        drawn = sample(logits, uniforms, temperature).bincount(minlength=5) / 20_000
        expected = (logits[0] / temperature).softmax(-1)
        assert torch.allclose(drawn, expected, atol=0.015)
    assert set(sample(logits, uniforms, 0.0).tolist()) == {0}
    edges = sample(logits[:2], torch.tensor([0.0, 1.0]), 1.0)
    assert edges.tolist() == [0, 4]


class Interrupted(Exception):
    pass


class Stopping:
    """A backend that is interrupted after some replies, and counts the replies it writes."""

    def __init__(self, backend, after: int):
        self.backend, self.after, self.context = backend, after, backend.context
        self.written = 0

    def replies(self, prompts, done):
        for answer in self.backend.replies(prompts, done):
            if self.written == self.after:
                raise Interrupted
            self.written += 1
            yield answer


@pytest.mark.parametrize("after", [0, 3, 7])
def test_an_interrupted_run_goes_on_and_ends_in_the_same_text(
    tmp_path, monkeypatch, verifier, tokenizer, after
):
    monkeypatch.setattr(replies_module, "WINDOW", 6)
    rows, sampled = make_messages(10), settings(temperature=1.0, batch_size=3)
    whole, counts = write(tmp_path / "whole", rows, verifier, tokenizer, sampled)
    backend = Stopping(TransformersBackend(verifier, tokenizer, sampled), after)
    with pytest.raises(Interrupted):
        write(tmp_path / "cut", rows, verifier, tokenizer, sampled, backend)
    (file,) = (tmp_path / "cut").iterdir()
    with file.open("a") as journal:
        journal.write('0123456789abcdef [9, 1, {"text": "torn of')  # as a crash leaves it
    backend = Stopping(TransformersBackend(verifier, tokenizer, sampled), 10**9)
    resumed, resumed_counts = write(tmp_path / "cut", rows, verifier, tokenizer, sampled, backend)
    assert resumed == whole
    assert backend.written == counts["replies"] - after
    assert resumed_counts == counts | {"kept": after}


def test_damaged_lines_of_the_journal_are_counted_and_their_replies_written_anew(tmp_path, capsys):
    replies = [Reply(f"reply {number}", 3, True) for number in range(20)]
    with Journal(tmp_path, "test") as journal:
        for row, reply in enumerate(replies):
            journal.add(Prompt(row, 1, [5], 6, 0), reply)
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join(lines))
    for number, position in enumerate(range(0, len(lines[0]), len(lines[0]) // 7)):
        line = bytearray(lines[number])
        line[position] ^= 4  # one bit; in the text too, where the line stays JSON
        lines[number] = bytes(line)
    lines[10] = lines[10][:-30] + b"\n"
    lines[19] = lines[19].rstrip()
    journal.path.write_bytes(b"".join(lines))
    damaged = sorted(set(range(number + 1)) | {10, 19})
    again = Journal(tmp_path, "test")
    assert again.replies == {
        (row, 1): reply for row, reply in enumerate(replies) if row not in damaged
    }
    assert f"{len(damaged)} of 20 lines are cut off or damaged" in capsys.readouterr().err
    assert Journal(tmp_path, "test").replies == again.replies  # the file holds whole lines only
    assert capsys.readouterr().err == ""


def test_a_conversation_longer_than_the_context_ends_before_it(tmp_path, verifier, tokenizer):
    long = {"role": "user", "content": "why " * 300}
    short, answer = {"role": "user", "content": "why"}, {"role": "assistant", "content": ""}
    rows = [
        {"id": 0, "messages": [long, answer]},
        {"id": 1, "messages": [short, answer, long, answer]},
    ]
    written, counts = write(tmp_path, rows, verifier, tokenizer, settings())
    assert [(row["id"], len(row["messages"])) for row in written] == [(1, 2)]
    assert (counts["longer_than_context"], counts["left_out"]) == (2, 1)
    backend = TransformersBackend(verifier, tokenizer, settings())
    backend.context = 60  # the prompt of `nearly` and a few tokens more
    nearly = {"id": 2, "messages": [{"role": "user", "content": "mat " * 10}, answer]}
    _, counts = write(tmp_path / "b", [nearly], verifier, tokenizer, settings(), backend)
    (line,) = next((tmp_path / "b").iterdir()).read_text().splitlines()
    assert counts["replies"] == 1
    assert '"tokens": 12' not in line


def test_a_reply_that_is_empty_ends_its_conversation(tmp_path, tiny_verifier, tokenizer):
    verifier = Verifier.load(tiny_verifier, torch.float32, torch.device("cpu"))
    rows = make_messages(3)
    backend = TransformersBackend(verifier, tokenizer, settings())
    first = {}

    class Spy:
        context = backend.context

        def replies(self, prompts, done):
            for prompt, reply in backend.replies(prompts, done):
                first.setdefault(prompt.row, reply)
                yield prompt, replace(reply, text="") if prompt.row == 1 else reply

    written, counts = write(tmp_path, rows, verifier, tokenizer, settings(), Spy())
    assert [row["id"] for row in written] == [rows[0]["id"], rows[2]["id"]]
    assert counts["empty"] == counts["left_out"] == 1


def test_a_batch_too_large_for_the_device_says_so(tmp_path, monkeypatch, verifier, tokenizer):
    def full(*_arguments):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(TransformersBackend, "_generate", full)
    with pytest.raises(InputError, match="regenerate.batch_size = 4: 3 prompts .* lower it"):
        write(tmp_path, make_messages(3), verifier, tokenizer, settings())
