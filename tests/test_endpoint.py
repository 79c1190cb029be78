"""A model behind an endpoint, asked over a real one (transformers serve): nothing is lost, paid twice, told or invented."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from served import Proxy, command_serving, serving
from test_finetune import dialogues, untracked  # noqa: F401 - fixtures

from vikdf import endpoints, files, generate, schemas
from vikdf.baselines import endpoint
from vikdf.baselines.parts import asking
from vikdf.model.backbone import LLM
from vikdf.model.respond import Responder
from vikdf.systems import Places

KEY = "sk-a-key-that-must-stand-nowhere"
DECODING = {"beams": 2, "no_repeat_ngram": 3, "max_new_tokens": 6}
ENTRY = {"kind": "endpoint", "tuned": False, "fractions": ["zero"], "instruction": "", "temperature": 0.0}
ENTRY |= {"length_as": "max_tokens", "parallel": 4, "requests_per_minute": 60000, "timeout": 20, "retries": 4}
ENTRY |= {"price": {"input": 1.0, "output": 2.0}, "cost_cap": 1.0}
TALKS = [["hello there"], ["the kettle", "what colour is it ?"], ["yes", "no", "a tree"], ["hello there"], ["a vase"]]
ONCE = 4  # of these dialogues one comes twice


@pytest.fixture(scope="module")
def server(backbones):
    with serving(backbones["llm"]) as url:
        yield url, str(backbones["llm"])


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in endpoints.PLACES.values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(endpoints.KEY, KEY)


@pytest.fixture
def system(server, tmp_path):
    """Any number of systems on one folder of answers, each as a new process would make it."""

    def made(url=server[0], **changed):
        entry = ENTRY | {"url": url, "model": server[1]} | changed
        return endpoint.answerer(entry, None, Places(tmp_path, answers=tmp_path / "answers"))

    return made


def ask(system, talks=TALKS, **changed):
    return system.generate(talks, **(DECODING | changed))


def says(text, status=200, **message):
    """What an endpoint says in the form of the interface; a message without content where `text` is None."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text} | message}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    made = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return lambda body: (status, json.dumps(made).encode())


def test_the_answers_are_those_of_the_same_model_asked_directly(system, server):
    plain = Responder(LLM.load(server[1])).generate(TALKS, beams=1, no_repeat_ngram=0, max_new_tokens=6)
    assert ask(system()) == [text.strip() for text in plain]


def test_an_instruction_changes_what_is_asked_and_answered(system):
    assert ask(system()) != ask(system(instruction="what colour"))


def test_equal_dialogues_are_asked_once_and_a_second_run_makes_no_request(system, server):
    with Proxy(server[0]) as proxy:
        first = ask(system(proxy.url))
        assert proxy.asked == ONCE
        assert ask(system(proxy.url)) == first and proxy.asked == ONCE
        ask(system(proxy.url), max_new_tokens=7)  # another question
        assert proxy.asked == 2 * ONCE


def test_two_processes_that_ask_the_same_pay_once(system, server):
    with Proxy(server[0]) as proxy, ThreadPoolExecutor(2) as both:
        one, other = both.map(lambda made: ask(made), [system(proxy.url), system(proxy.url)])
        assert one == other and proxy.asked == ONCE


def test_the_user_speaks_first_and_last_and_the_instruction_is_the_system_s():
    assert endpoint.messages(["a", "b"], "do") == [
        {"role": "system", "content": "do"},
        {"role": "user", "content": ""},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "b"},
    ]
    assert endpoint.messages(["a"], "") == [{"role": "user", "content": "a"}]


def test_what_is_sent_is_the_entry_s_and_nothing_else(system):
    with Proxy("", says=says("yes")) as proxy:
        ask(system(proxy.url, model="m"), [["a"]])
        ask(system(proxy.url, model="m", temperature=None, length_as="max_completion_tokens"), [["a"]])
        plain, new = (json.loads(body) for body in proxy.bodies)
    asked = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
    assert plain == asked | {"temperature": 0.0, "max_tokens": 6} and new == asked | {"max_completion_tokens": 6}


def test_another_address_or_model_is_another_system(system, server, tmp_path):
    with Proxy(server[0]) as proxy:
        ask(system()), ask(system(proxy.url))
    assert len(list((tmp_path / "answers").glob("*/about.json"))) == 2


def test_a_server_that_fails_every_third_request_loses_nothing(system, server):
    talks = [[f"the kettle {number}"] for number in range(12)]
    with Proxy(server[0], fails=lambda number: number % 3 == 2) as proxy:
        assert ask(system(proxy.url), talks) == ask(system(), talks)
        assert proxy.failed >= 5 and proxy.asked == 12 + proxy.failed


def test_a_server_that_dies_halfway_loses_nothing(system, server, tmp_path):
    talks = [[f"the vase {number}"] for number in range(10)]
    with Proxy(server[0], dies_after=5) as proxy:
        with pytest.raises(ValueError, match=r"5 of 10 answers .* are kept in .*: the same command goes on from there"):
            ask(system(proxy.url, retries=0), talks)
        before, proxy.dies_after = proxy.asked, None
        assert ask(system(proxy.url), talks) == ask(system(), talks)
        assert proxy.asked == before + 5


def test_a_kept_answer_that_is_damaged_is_asked_for_again_and_no_other(system, tmp_path, capfd):
    with Proxy("", says=says("yes")) as proxy:
        ask(system(proxy.url, model="m"))
        path = sorted((tmp_path / "answers").glob("*/*/*.json"))[1]
        path.write_text(path.read_text().replace("yes", "yet"))
        assert ask(system(proxy.url, model="m")) == ["yes"] * len(TALKS)
        assert proxy.asked == ONCE + 1 and f"{path} is damaged: it is asked for again" in capfd.readouterr().err


def test_a_damaged_answer_was_paid_for_and_counts_against_the_cap_with_the_most_that_it_can_have_cost(system, tmp_path):
    talks = [["number 0"], ["number 1"]]
    most = (asking.bound(endpoint.messages(talks[0], "")) + 2 * 6) / 1e6
    cost = (10 + 2 * 5) / 1e6
    with Proxy("", says=says("yes")) as proxy:
        ask(system(proxy.url), talks[:1])
        [path] = (tmp_path / "answers").glob("*/*/*.json")
        path.write_text(path.read_text().replace("yes", "yet"))
        with pytest.raises(ValueError, match="might pass the cap"):
            ask(system(proxy.url, cost_cap=1.5 * most), talks[:1])
        assert proxy.asked == 1 and path.with_suffix(".damaged").exists() and not path.exists()
        assert ask(system(proxy.url, cost_cap=2.5 * most), talks[:1]) == ["yes"]
        with pytest.raises(ValueError, match="might pass the cap"):  # it still counts when it is there again
            ask(system(proxy.url, cost_cap=2 * most + cost / 2), talks)
        assert ask(system(proxy.url, cost_cap=2 * most + 2 * cost), talks) == ["yes"] * 2 and proxy.asked == 3


def test_the_cap_stops_before_it_is_passed_and_a_higher_one_goes_on(system, tmp_path):
    talks = [[f"number {number}"] for number in range(8)]
    with Proxy("", says=says("yes")) as proxy:
        most = (asking.bound(endpoint.messages(talks[0], "")) + 2 * 6) / 1e6
        cost = (10 + 2 * 5) / 1e6
        cap = most + 3.5 * cost  # a fourth one is sent while three cost so little, a fifth might pass it
        with pytest.raises(ValueError, match=r"might pass the cap .* 4 of 8 answers .* raise cost_cap"):
            ask(system(proxy.url, cost_cap=cap), talks)
        assert proxy.asked == 4
        with pytest.raises(ValueError, match="0 of 4 answers"):  # what was spent before counts
            ask(system(proxy.url, cost_cap=cap), talks)
        assert ask(system(proxy.url), talks) == ["yes"] * 8 and proxy.asked == 8


def test_no_file_and_no_error_holds_the_key(system, server, tmp_path):
    ask(system())
    echo = lambda body: (400, json.dumps({"error": {"message": f"not with {KEY}"}}).encode())  # noqa: E731
    wrong = lambda body: (401, json.dumps({"error": {"message": f"{KEY[:9]} is wrong"}}).encode())  # noqa: E731
    with Proxy("", says=echo) as one, Proxy("", says=wrong) as other:
        with pytest.raises(ValueError, match=r"400 .*not with \*\*\*") as told:
            ask(system(one.url))
        with pytest.raises(ValueError, match="does not take the key; see OPENAI_API_KEY") as refused:
            ask(system(other.url))
        assert one.heads[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(told.value) and KEY[:9] not in str(refused.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize("message", [{}, {"refusal": "I cannot"}], ids=["empty", "refused"])
def test_an_empty_or_refused_answer_is_an_answer_of_no_words(system, message):
    with Proxy("", says=says(None, **message)) as proxy:
        assert ask(system(proxy.url)) == [""] * len(TALKS)
        ask(system(proxy.url))
        assert proxy.asked == ONCE


def test_what_a_filter_refuses_is_an_answer_of_no_words(system):
    filtered = lambda body: (400, b'{"error": {"message": "no", "code": "content_filter"}}')  # noqa: E731
    with Proxy("", says=filtered) as proxy:
        assert ask(system(proxy.url)) == [""] * len(TALKS)


NONE = [b"<html>login</html>", b'{"choices": []}', b"[1]", b'{"choices": ["red"]}', b'{"choices": [{"message": null}]}']
NONE += [b'{"choices": [{"message": {"content": ["red"]}, "finish_reason": "stop"}]}', b'{"choices": 3', b"null"]


@pytest.mark.parametrize("body", NONE)
def test_what_is_no_completion_is_no_answer(system, body, tmp_path):
    with Proxy("", says=lambda _: (200, body)) as proxy, pytest.raises(ValueError, match="did not answer"):
        ask(system(proxy.url))
    assert not list((tmp_path / "answers").glob("*/*/*.json"))


def test_half_a_character_becomes_a_question_mark(system):
    with Proxy("", says=says("red \ud83d ")) as proxy:
        assert ask(system(proxy.url), [["a"]]) == ["red ?"]


def test_requests_and_their_tries_are_spaced_evenly(monkeypatch):
    sent, now = [], [100.0]
    monkeypatch.setattr(asking.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(asking.time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    pace = asking.Pace(120)
    for _ in range(4):
        pace.wait()
        sent.append(now[0])
    assert sent == [100.0, 100.5, 101.0, 101.5]


def test_every_try_is_paced(system, server, monkeypatch):
    paced = []
    monkeypatch.setattr(asking.Pace, "wait", lambda self, request: paced.append(request))
    with Proxy(server[0], fails=lambda number: number == 1) as proxy:
        ask(system(proxy.url))
        assert len(paced) == proxy.asked == ONCE + 1


def test_the_stage_writes_answers_without_nll_and_is_free_when_repeated(server, dialogues, backbones, tmp_path):  # noqa: F811
    with Proxy(server[0]) as proxy:
        entry = ENTRY | {"url": proxy.url, "model": server[1]}
        for output in ("one", "two"):
            answered(output, entry, dialogues, backbones, tmp_path)
            shutil.rmtree(tmp_path / "state/generate")
        assert proxy.asked == len({tuple(row["context"]) for row in schemas_of(tmp_path / "one.parquet")})
    rows = schemas_of(tmp_path / "one.parquet")
    assert {(row["nll"], row["tokens"], len(row["cloze"])) for row in rows} == {(None, None, 0)}
    assert {row["tuned_params"] for row in rows} == {0} and len(rows) == 21 and any(row["hypothesis"] for row in rows)
    assert files.sha256(tmp_path / "one.parquet") == files.sha256(tmp_path / "two.parquet")


@pytest.mark.parametrize("changed", [{}, {"requests_per_minute": 4}], ids=["busy", "waiting"])
def test_a_signal_stops_it_before_the_next_request_and_nothing_is_lost(dialogues, backbones, tmp_path, changed):  # noqa: F811
    say, heard = says("yes"), []

    def stops(body):
        if len(proxy.bodies) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            heard.append(time.monotonic())
        return say(body)

    with Proxy("", says=stops) as proxy:
        entry = ENTRY | {"url": proxy.url, "model": "m", "parallel": 2}
        about = dialogues, backbones, tmp_path
        with pytest.raises(InterruptedError, match="stopped by SIGTERM; [1-4] of 7 answers .* goes on from there"):
            answered("made", entry | changed, *about)
        assert time.monotonic() - heard[0] < 5 and proxy.asked <= 4
        kept = [files.read_json(path)["answer"] for path in (tmp_path / "state/answers").glob("*/*/*.json")]
        assert kept == ["yes"] * proxy.asked and not list(tmp_path.rglob("*.part"))
        answered("made", entry, *about)
        assert proxy.asked == len({tuple(row["context"]) for row in schemas_of(tmp_path / "made.parquet")})


def answered(output, entry, dialogues, backbones, tmp_path):  # noqa: F811
    tables = [dialogues / f"{task}.parquet" for task in ("reddit", "image_chat", "probe")]
    where = {"dialogues": tables, "backbones": backbones["llm"].parent, "state_root": tmp_path / "state"}
    how = {"decoding": DECODING, "batch": 3, "precision": "float32", "tuned": [], "pretrained": [], "shards": []}
    what = {"system": "chatgpt", "fraction": "zero", "seed": 1, "entry": entry}
    generate.generate(output=tmp_path / f"{output}.parquet", **where, **how, **what)


def schemas_of(path):
    return schemas.read(path, schemas.RESPONSES).to_pylist()


def test_the_environment_goes_before_the_entry(monkeypatch):
    entry = ENTRY | {"url": "https://one.example/v1/", "model": "a"}
    assert endpoints.settled(entry, {})["url"] == "https://one.example/v1"
    found = endpoints.settled(entry, {"OPENAI_BASE_URL": "http://other:8000/v1", "OPENAI_MODEL": "b"})
    assert (found["url"], found["model"]) == ("http://other:8000/v1", "b")


@pytest.mark.parametrize(
    "url", ["https://me:secret@host/v1", "https://host/v1?key=secret", "host/secret", "http://h:x/secret"]
)
def test_an_address_with_a_secret_or_without_a_host_is_refused_unprinted(url):
    with pytest.raises(ValueError, match="the endpoint's address") as told:
        endpoints.settled(ENTRY | {"url": url, "model": "a"}, {})
    assert "secret" not in str(told.value)


def test_what_cannot_be_asked_is_left_out_and_says_why():
    other = {"kind": "llm_zero_shot", "llm": "llm"}
    entries = {"chatgpt": ENTRY | {"url": None, "model": "a"}, "alone": other}
    assert endpoints.usable(entries, {}) == (
        {"alone": other},
        {"chatgpt": "not set in the environment: OPENAI_BASE_URL, OPENAI_API_KEY"},
    )
    there = {"OPENAI_BASE_URL": "http://here/v1", "OPENAI_API_KEY": KEY}
    found, left_out = endpoints.usable(entries, there)
    assert left_out == {} and found["chatgpt"]["url"] == "http://here/v1" and KEY not in json.dumps(found)


def test_a_key_that_cannot_be_sent_is_refused_unprinted_and_a_line_end_behind_it_is_none_of_it(system, monkeypatch):
    for key in (f"{KEY}\nx", f"{KEY} x", f"{KEY}é", " "):
        monkeypatch.setenv(endpoints.KEY, key)
        with pytest.raises(ValueError, match="OPENAI_API_KEY holds what no key has") as told:
            system()
        assert "sk-" not in str(told.value)
    monkeypatch.setenv(endpoints.KEY, f"{KEY}\r\n")
    with Proxy("", says=says("yes")) as proxy:
        assert ask(system(proxy.url), [["a"]]) == ["yes"] and proxy.heads[0]["Authorization"] == f"Bearer {KEY}"


def test_without_a_key_nothing_is_asked(system, monkeypatch):
    monkeypatch.delenv(endpoints.KEY)
    with pytest.raises(ValueError, match="not set in the environment: OPENAI_API_KEY"):
        system()


def test_an_endpoint_is_not_tuned():
    with pytest.raises(ValueError, match="tuned: false"):
        endpoint.learner(ENTRY, None, None, {}, 1)


def command(url, model, tables, output):
    """The stage as a run calls it."""
    entry = json.dumps(ENTRY | {"url": url, "model": model, "parallel": 1})
    asked = ["--system", "chatgpt", "--fraction", "zero", "--seed", "1", "--entry", entry, "--batch", "3"]
    asked += ["--decoding", json.dumps(DECODING), "--precision", "float32", "--tuned", "--pretrained", "--shards"]
    asked += ["--dialogues", *(str(tables / f"{task}.parquet") for task in ("reddit", "image_chat", "probe"))]
    asked += ["--backbones", "none", "--output", str(output), "--state-root", "state"]
    return [sys.executable, "-m", "vikdf.generate", *asked]


@pytest.mark.long
def test_a_run_that_is_killed_asks_the_command_s_server_only_for_the_rest(dialogues, backbones, tmp_path):  # noqa: F811
    again, here = threading.Event(), os.environ | {"PYTHONPATH": str(files.__file__).rpartition("/vikdf/")[0]}
    with (
        command_serving(backbones["llm"], tmp_path / "serve.log") as url,
        Proxy(url, fails=lambda number: number == 4 and not again.wait()) as proxy,  # the fifth waits
    ):
        asked = command(proxy.url, str(backbones["llm"]), dialogues, tmp_path / "made.parquet")
        process = subprocess.Popen(asked, cwd=tmp_path, env=here)
        while proxy.asked < 5:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        again.set()
        subprocess.run(asked, cwd=tmp_path, env=here, check=True)
        rows = schemas_of(tmp_path / "made.parquet")
        assert proxy.asked == 1 + len({tuple(row["context"]) for row in rows})  # one never came to an answer
        shutil.rmtree(tmp_path / "state/generate")
        subprocess.run(asked, cwd=tmp_path, env=here, check=True)
        assert proxy.asked == 1 + len({tuple(row["context"]) for row in rows})
