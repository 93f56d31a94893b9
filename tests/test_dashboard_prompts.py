"""The view of single prompts: what it shows of members, oracles and heads is what the models compute; its process."""

import base64
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from starlette.testclient import TestClient

import ebbtide as eb
from drawings_tools import make_drawings
from ebbtide.dashboard.app import make_app
from ebbtide.dashboard.asking import asker as asking
from ebbtide.dashboard.asking import child, opened
from ebbtide.dashboard.asking.asker import Asker, NoAnswerError
from ebbtide.dashboard.asking.inputs import show
from ebbtide.dashboard.asking.opened import Opened
from ebbtide.dashboard.asking.question import MOST_CHECKPOINTS, Question
from ebbtide.dashboard.asking.routes import routes
from ebbtide.dashboard.places import root_at
from ebbtide.errors import InputError
from ebbtide.evaluation.baselines import least_squares, ridge
from ebbtide.evaluation.bayes import penalty_of
from ebbtide.evaluation.oracles import ORACLES
from ebbtide.keys import Purpose, root
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.signed import DamagedError
from ebbtide.training.wire import pack
from prompts_tools import FEWSHOT, REGRESSION, ask, outputs, softmax, untrained
from tiny import write_run

pytestmark = pytest.mark.usefixtures("quick_compile")
INDEX = 3
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture(scope="module")
def place(tmp_path_factory, quick_compile) -> Path:
    """A root with a run that was trained for a moment."""
    folder = tmp_path_factory.mktemp("root")
    eb.train(FEWSHOT, folder / "few", processes=0)
    return folder


@pytest.fixture(scope="module")
def few(place) -> RunFolder:
    return RunFolder(place / "few")


@pytest.fixture(scope="module")
def server() -> Any:
    """Makes clients of the application over a root; they share one process that answers."""
    asker = Asker()

    def client(folder: Path, own: Asker | None = None) -> TestClient:
        shown = root_at(str(folder))
        app = make_app(shown, port=8642, more=routes(shown, own or asker))
        return TestClient(app, base_url="http://localhost:8642")

    yield client, asker
    asker.close()


def check_probabilities(answer: dict[str, Any], p: np.ndarray) -> None:
    """The labels that an answer lists have the probabilities `p`."""
    labels, given = zip(*answer["top"], strict=True)
    np.testing.assert_allclose(p[list(labels)], given, **CLOSE)


def one_line(text: str) -> bool:
    return bool(text) and len(text.splitlines()) == 1


@pytest.mark.parametrize("evaluator", ["icl", "flip"])
def test_every_member_answers_what_its_model_computes_at_every_checkpoint(few, evaluator):
    found = ask(few, evaluator=evaluator, index=INDEX)
    assert [row["at"] for row in found["checkpoints"]] == [0, 256, 512] and found["members"] == [0, 1]
    for row in found["checkpoints"]:
        for member, answer in zip(found["members"], row["answers"], strict=True):
            p = softmax(outputs(few, evaluator, member, row["at"], 20))[INDEX]
            check_probabilities(answer, p)
            assert answer["top"][0][0] == p.argmax() and answer["right"] == (p.argmax() == found["target"])
            np.testing.assert_allclose(answer["target"], p[found["target"]], **CLOSE)


def test_an_answer_says_whether_its_label_is_of_the_context_or_the_querys_own(few):
    found = ask(few, evaluator="icl", index=INDEX)
    context, own = {slot["label"] for slot in found["slots"][:-1]}, found["own_label"]
    words = {(True, True): "both", (True, False): "context", (False, True): "own", (False, False): "other"}
    kinds = [
        (answer["kind"], words[first in context, first == own])
        for row in found["checkpoints"]
        for answer in row["answers"]
        for first in [answer["top"][0][0]]
    ]
    assert all(given == true for given, true in kinds)


def test_the_attention_is_that_of_the_chosen_member(few):
    run = eb.Run(few.path)
    prompt = eb.prompts_of(run.spec, "icl", 20)
    found = ask(few, evaluator="icl", index=INDEX, member=1)
    assert (found["layers"], found["heads"]) == (1, 2)
    assert found["tokens"][:3] == [[0, "exemplar"], [0, "label"], [1, "exemplar"]] and len(found["tokens"]) == 9
    for row in found["checkpoints"]:
        model, params = run.model(1, row["at"])
        seen = eb.record(model, params, prompt, "blocks.*.attn.hook_pattern")[1]["blocks.0.attn.hook_pattern"]
        np.testing.assert_allclose(row["attention"][0], np.asarray(seen)[INDEX, :, -1], **CLOSE)


def test_the_slots_are_those_of_the_prompt(few):
    prompt = jax.tree.map(np.asarray, eb.prompts_of(eb.Run(few.path).spec, "icl", 20))
    found = ask(few, evaluator="icl", index=INDEX)
    slots = found["slots"]
    assert [slot["class"] for slot in slots] == prompt.classes[:, INDEX].tolist()
    assert [slot["label"] for slot in slots] == [*prompt.labels[:, INDEX].tolist(), None]
    assert [slot["same"] for slot in slots] == (prompt.classes[:, INDEX] == prompt.classes[-1, INDEX]).tolist()
    assert {slot["tag"] for slot in slots} == {"bursty", "distractor", "query"}
    shown = np.asarray([slot["input"]["coordinates"] for slot in slots])
    np.testing.assert_allclose(shown, prompt.exemplars[:, INDEX], rtol=1e-4, atol=1e-6)


def test_the_oracles_answer_as_they_are_scripted(few):
    prompt = eb.prompts_of(eb.Run(few.path).spec, "flip", 20)
    found = ask(few, evaluator="flip", index=INDEX)
    assert [one["name"] for one in found["oracles"]] == list(ORACLES)
    for i, one in enumerate(found["oracles"]):
        p = softmax(np.asarray(ORACLES[one["name"]](prompt, 66, root(0, Purpose.ORACLE, i))))[INDEX]
        check_probabilities(one, p)
        assert one["top"][0][0] == p.argmax()


def test_the_summary_counts_as_the_evaluation_did(few):
    found = ask(few, "summary", evaluator="iwl")
    assert (found["used"], found["members"], found["all"]) == (20, [0, 1], 2)
    measured = few.metrics()
    for row in found["checkpoints"]:
        place = measured["sequences"].tolist().index(row["at"])
        np.testing.assert_allclose(row["shares"]["right"], measured["iwl/accuracy"][:, place], **CLOSE)
        np.testing.assert_allclose(row["shares"]["IWL"], row["shares"]["right"], atol=1e-6)  # on iwl IWL is right


def test_an_oracle_that_cannot_decide_agrees_by_half_with_either_label(few):
    """Two labels in context, neither the query's own: CIWL predicts any of them."""
    found = ask(few, "summary", evaluator="icl")
    prompt = jax.tree.map(np.asarray, eb.prompts_of(eb.Run(few.path).spec, "icl", 20))
    for row in found["checkpoints"]:
        for member in range(2):
            first = outputs(few, "icl", member, row["at"], 20).argmax(-1)
            inside = (prompt.labels == first).any(0)
            sure = (prompt.labels == prompt.own_label).any(0)
            share = np.where(sure, first == prompt.own_label, inside / 2).mean()
            np.testing.assert_allclose(row["shares"]["CIWL"][member], share, atol=1e-3)


def test_members_with_classes_of_their_own_answer_their_own_prompts(tmp_path):
    run = untrained(tmp_path / "run", replace(FEWSHOT, members=3, seeds=eb.Seeds(world=5)))
    found = ask(run, evaluator="icl", index=INDEX, member=1)
    assert (found["members"], found["elsewhere"]) == ([1], 2)
    others = ask(run, "others", evaluator="icl", index=INDEX, member=1)
    assert others["members"] == [0, 2]
    for i, member in enumerate(others["members"]):
        prompt = eb.prompts_of(eb.Run(run.path).spec, "icl", 20, member)
        assert others["asked"][i]["target"] == int(prompt.target[INDEX])
        p = softmax(outputs(run, "icl", member, 0, 20))[INDEX]
        answer = others["checkpoints"][0]["answers"][i]
        check_probabilities(answer, p)
    assert sorted(ask(run, "summary", evaluator="icl", member=1)["members"]) == [0, 1, 2]


def test_a_prediction_of_a_function_stands_beside_least_squares_and_ridge(tmp_path):
    run = untrained(tmp_path / "run", REGRESSION, at=(0, 512))
    found = ask(run, evaluator="prior", index=INDEX)
    prompt = jax.tree.map(np.asarray, eb.prompts_of(REGRESSION, "prior", 20))
    x, y = prompt.inputs.astype(np.float64), prompt.responses.astype(np.float64)
    noise = REGRESSION.task.noise[int(prompt.latent["level"][INDEX])]  # pyright: ignore
    theirs = {one["name"]: one["value"] for one in found["predictors"]}
    expected = {"least squares": least_squares(x, y)[-1], "ridge": ridge(x, y, penalty_of(noise, 3**-0.5))[-1]}
    assert theirs.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(theirs[name], values[INDEX], rtol=1e-4)
    assert found["kind"] == "number" and found["target"] == pytest.approx(y[-1, INDEX], rel=1e-4)
    for row in found["checkpoints"]:
        for member, answer in enumerate(row["answers"]):
            value = outputs(run, "prior", member, row["at"], 20)[INDEX, 0]
            np.testing.assert_allclose(answer["value"], value, **CLOSE)
            np.testing.assert_allclose(answer["error"], (value - y[-1, INDEX]) ** 2, rtol=1e-3, atol=1e-5)
    summary = ask(run, "summary", evaluator="prior")
    mean = ((outputs(run, "prior", 1, 512, 20)[:, 0] - y[-1]) ** 2).mean()
    np.testing.assert_allclose(summary["checkpoints"][1]["shares"]["error"][1], mean, rtol=1e-3)


STATES = eb.Transformer(layers=1, width=8, heads=2, pairing="states")
JOINT = eb.Transformer(layers=1, width=8, heads=2, pairing="joint")
OTHERS: dict[str, dict[str, Any]] = {
    "classification": {"task": eb.Classification(context=4), "source": eb.Mixtures(dim=2, classes=3), "model": JOINT},
    "dynamics": {"task": eb.Dynamics(context=5), "source": eb.Functions(dim=2), "model": STATES},
    "signs": {
        "task": eb.PatternPairs(context=6),
        "source": eb.Patterns(relevant=4, irrelevant=2, pairs=4),
        "model": eb.OneLayer(units=6),
    },
    "cells": {
        "task": eb.Parsing(context=12),
        "source": eb.Words(types=2, depth=4),
        "model": eb.Recurrent(layers=1, width=8, pairing="states"),
    },
}
KINDS = {
    "classification": "label",
    "dynamics": "vector",
    "signs": "sign",
    "cells": "cells",
}


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[] if one in ("dynamics", "signs") else pytest.mark.thorough) for one in OTHERS]
)
def test_prompts_of_other_tasks_are_shown_with_what_the_model_computes(tmp_path, name):
    spec = replace(REGRESSION, **OTHERS[name], evaluators=("train",))
    run = untrained(tmp_path / "run", spec)
    found = ask(run, index=INDEX)
    assert found["kind"] == KINDS[name] and len(found["slots"]) == spec.task.context + 1
    true = outputs(run, "train", 1, 0, 20)[INDEX]
    answer = found["checkpoints"][0]["answers"][1]
    match KINDS[name]:
        case "label":
            assert answer["top"][0][0] == true.argmax()
            np.testing.assert_allclose(answer["top"][0][1], softmax(true).max(), **CLOSE)
        case "vector":
            np.testing.assert_allclose(answer["value"], true, **CLOSE)
        case "sign":
            np.testing.assert_allclose(answer["score"], true[0], **CLOSE)
        case "cells":
            assert [value for value, _ in answer["cells"]] == true.reshape(5, -1).argmax(-1).tolist()
    assert ("attention" in found["checkpoints"][0]) == isinstance(spec.model, eb.Transformer)
    assert any("no attention heads" in note for note in found["notes"]) != isinstance(spec.model, eb.Transformer)
    shares = ask(run, "summary")["checkpoints"][0]["shares"]
    assert [*shares] == (["error"] if KINDS[name] == "vector" else ["right"])


@pytest.mark.parametrize("features", ["pixels", "pca64"])
def test_characters_are_shown_as_drawings_also_where_the_model_sees_components(tmp_path, features):
    source = eb.Glyphs(classes=40, exemplars=2, holdout_classes=8, holdout_exemplars=1, features=features)
    run = untrained(tmp_path / "run", replace(FEWSHOT, source=source, evaluators=("icl",), members=1))
    images = source.images()
    for slot in ask(run, index=INDEX)["slots"]:
        drawn = np.frombuffer(base64.b64decode(slot["input"]["drawing"]), np.uint8)
        assert (drawn == images[slot["class"], slot["exemplar"]].ravel()).all() and slot["input"]["side"] == 28


def test_omniglot_as_features_is_drawn_where_the_drawings_are_at_hand(tmp_path, monkeypatch):
    """In the order of the classes that the features are read in; else its coordinates are shown."""
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path))
    drawings, draw = make_drawings(12), np.random.default_rng(0)
    np.savez(tmp_path / "omniglot_features_pca64.npz", features=draw.normal(size=(12, 20, 64)).astype(np.float32))
    source = eb.Omniglot(classes=8, holdout_classes=4)
    values, places = draw.normal(size=(2, 64)), np.asarray([[3, 1], [9, 19]])
    assert [*show(source, values, places)[0]] == ["coordinates", "of"]
    (tmp_path / "omniglot.npz").write_bytes(drawings.to_npz())
    order = source.order(12)
    for (c, e), one in zip(places, show(source, values, places), strict=True):
        drawn = np.frombuffer(base64.b64decode(one["drawing"]), np.uint8)
        assert (drawn == drawings.pixels(28)[order[c], e].ravel()).all()


def test_a_damaged_checkpoint_is_one_line_and_the_others_are_answered(few, tmp_path):
    shutil.copytree(few.path, tmp_path / "run")
    state = sorted((tmp_path / "run/checkpoints").iterdir())[1] / "state.safetensors"
    data = bytearray(state.read_bytes())
    data[-1] ^= 1
    state.write_bytes(data)
    opened._stored._kept.clear()  # a checkpoint that was read is not read again
    for what in ("prompt", "summary"):
        rows = ask(RunFolder(tmp_path / "run"), what, evaluator="icl")["checkpoints"]
        assert [("problem" in row) for row in rows] == [False, True, False]
        assert one_line(rows[1]["problem"]) and "differs from the manifest" in rows[1]["problem"]


def test_a_state_larger_than_its_spec_can_have_is_not_read(few):
    one = Opened(str(few.path))
    large = one.manifests[0]
    large = replace(large, state=replace(large.state, size=2**34))
    with pytest.raises(DamagedError, match="this spec needs at most") as caught:
        one.params(large)
    assert one_line(str(caught.value))


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ({"evaluator": "nothing"}, "on|evaluator"),
        ({"index": 20}, "index"),
        ({"member": 2}, "member"),
        ({"at": 5}, "at"),
    ],
)
def test_what_a_run_does_not_have_is_refused_in_one_line(few, words, field):
    with pytest.raises(InputError, match=f"^{field} = ") as caught:
        ask(few, **{"evaluator": "icl", **words})
    assert one_line(str(caught.value))


def test_a_spec_that_this_machine_cannot_answer_is_refused_in_one_line(tmp_path, monkeypatch):
    run = untrained(tmp_path / "run", FEWSHOT)
    monkeypatch.setattr("ebbtide.training.limits.physical_memory", lambda: 1000)
    opened._check.cache_clear()
    with pytest.raises(InputError, match="this machine has 1,000") as caught:
        ask(run, evaluator="icl")
    assert one_line(str(caught.value))


def test_checkpoints_are_answered_in_blocks_that_do_not_depend_on_the_one_asked_for():
    starts = opened._starts([1] * 200, 10)
    assert starts == [0, MOST_CHECKPOINTS, 2 * MOST_CHECKPOINTS, 3 * MOST_CHECKPOINTS]
    assert opened._starts([2**30, 1, 2**28, 5], 10) == [0, 1, 2, 3]
    assert opened._starts([1, 1, 1], 10**9) == [0, 1, 2]


def test_a_diverged_member_is_told_as_such(tmp_path):
    run = untrained(tmp_path / "run", FEWSHOT)
    one = Opened(str(run.path))
    params = jax.tree.map(lambda leaf: np.stack([leaf[0], np.full_like(leaf[1], np.nan)]), one.params(one.manifests[0]))
    from ebbtide.dashboard.asking.fewshot import describe_answer
    from ebbtide.dashboard.asking.outputs import compile_single, some_prompts

    prompts = one.of("icl", 0)
    found = compile_single(one.spec.model)(params, some_prompts(prompts.prompt, 0, 1))
    answers = [describe_answer(prompts, 0, row) for row in np.asarray(found.outputs)]
    assert answers[1] == {"diverged": True} and "top" in answers[0]


def test_the_server_answers_as_the_models_and_again_without_a_process(server, place, few):
    client, asker = server
    asked = client(place)
    words = {"name": "few", "evaluator": "icl", "index": INDEX}
    first = asked.get("/api/prompt", params=words)
    assert first.status_code == 200 and asker.pid is not None
    ours = ask(few, evaluator="icl", index=INDEX)
    assert first.json()["slots"] == ours["slots"] and first.json()["members"] == ours["members"]
    for theirs, row in zip(first.json()["checkpoints"], ours["checkpoints"], strict=True):
        for a, b in zip(theirs["answers"], row["answers"], strict=True):
            np.testing.assert_allclose(a["target"], b["target"], **CLOSE)
    asker.close()
    assert asked.get("/api/prompt", params=words).content == first.content and asker.pid is None
    tag = first.headers["etag"]
    assert asked.get("/api/prompt", params=words, headers={"if-none-match": tag}).status_code == 304


def test_a_process_that_was_killed_is_started_again_at_the_next_question(server, place):
    client, asker = server
    asked = client(place)
    words = {"name": "few", "evaluator": "icl", "index": INDEX, "member": 1}
    assert asked.get("/api/prompt", params=words).status_code == 200
    before = asker.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    assert asked.get("/api/prompt", params=words | {"index": 4}).status_code == 200
    assert asker.pid not in (None, before)


def test_what_cannot_be_is_refused_without_a_process(place, server):
    own = Asker()
    asked = server[0](place, own)
    good = {"name": "few", "evaluator": "icl"}
    write_run(place / "done", {"icl": [[0.5]]}, [[0.0]])
    for path in ("/api/prompt", "/api/prompts/others"):
        for bad in ({"index": "20"}, {"member": "2"}, {"evaluator": "nothing"}, {"index": "-1"}, {"at": "x"}):
            answer = asked.get(path, params=good | bad)
            assert answer.status_code == 400 and one_line(answer.json()["error"])
    for name in ("../few", "/etc", "none", "few/..", ".", "few\0", "a" * 5000, "few/checkpoints/000000000000"):
        for path in ("/api/prompt", "/api/prompts/about", "/api/prompts/summary"):
            answer = asked.get(path, params=good | {"name": name})
            assert answer.status_code in (400, 404) and one_line(answer.json()["error"])
    assert own.pid is None


def test_what_can_be_asked_is_told_without_a_process(place, server):
    own = Asker()
    about = server[0](place, own).get("/api/prompts/about", params={"name": "few"}).json()
    assert about["checkpoints"] == [0, 256, 512] and about["prompts"] == 20 and about["members"] == 2
    assert [one["name"] for one in about["evaluators"]] == ["icl", "iwl", "flip"]
    assert (about["layers"], about["heads"], about["kind"], about["problem"]) == (1, 2, "fewshot", "")
    assert own.pid is None


def test_the_server_loads_no_jax_for_this_view():
    code = "import sys, ebbtide.dashboard.asking.routes; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def question(few: RunFolder) -> Question:
    return Question(what="prompt", folder=str(few.path), evaluator="icl")


def test_an_answer_that_takes_too_long_ends_the_process_and_is_one_line(few):
    asker = Asker(limit=0.01)  # Python alone takes longer to start
    with pytest.raises(NoAnswerError, match=r"no answer within 0\.01 seconds") as caught:
        asker.ask(question(few))
    assert one_line(str(caught.value)) and asker.pid is None


def test_questions_do_not_pile_up(few, monkeypatch):
    monkeypatch.setattr(asking, "MOST_WAITING", 0)
    with pytest.raises(NoAnswerError, match="too many questions"):
        Asker().ask(question(few))


def test_the_process_ends_where_nothing_is_asked():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as questions, os.fdopen(writing, "wb") as answers:
        child.serve(questions, answers, 0.01)  # returns


def test_an_unreadable_folder_is_one_line(tmp_path):
    for folder in (tmp_path / "none", tmp_path):
        message = msgspec.to_builtins(Question(what="prompt", folder=str(folder), evaluator="icl"))
        reply = child.reply(message)
        assert [*reply] == ["error"] and one_line(reply["error"]) and pack(reply)


PARENT = """
import os, sys, time
from ebbtide.dashboard.asking.asker import Asker
from ebbtide.dashboard.asking.asker import Child
asker = Asker()
print(Child(asker._words).process.pid, flush=True)
time.sleep(3600)
"""


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="looks at /proc")
def test_the_process_ends_when_its_parent_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(2000):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except FileNotFoundError:
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("the process went on")
