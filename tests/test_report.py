"""The report of a run: what the page says, that texts in it stay texts, and what it says of what is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import test_study
from fakes import FakeEngine, FakeReward, goats, variety
from pages import Node, parsed
from valuepalette.attainment import Evaluation
from valuepalette.cli import main
from valuepalette.collecting import Line
from valuepalette.engines import Candidate, Prompt, Sampling
from valuepalette.evaluation import evaluate
from valuepalette.pilot import Pilot
from valuepalette.report import gather_report, render_report, write_report
from valuepalette.report.answering import SHOWN, _drawn, side_by_side
from valuepalette.report.content import Answer, Answers, Method, PaletteReport, Report, Spread
from valuepalette.report.content import Candidate as Shown
from valuepalette.report.figures import _distribution
from valuepalette.report.page import LARGEST
from valuepalette.report.spelling import visible
from valuepalette.report.wording import sure_of_method
from valuepalette.solution import Solution
from valuepalette.study import Study

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

FORBIDDEN = {
    "script",
    "iframe",
    "object",
    "embed",
    "link",
    "base",
    "form",
    "input",
    "img",
    "image",
    "foreignobject",
}


def finished(folder: Path, text: str = test_study.TEXT) -> Study:
    """Sampled, scored, and its first palette evaluated."""
    found = test_study.study(test_study.write(folder, text))
    found.sample(quiet=True)
    found.score(quiet=True)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two palettes: one evaluated, one that cannot be had."""
    found = finished(tmp_path_factory.mktemp("run"))
    found.evaluate("funny")
    found.solve("impossible")
    return found


@pytest.fixture(scope="module")
def report(run: Study) -> Report:
    return gather_report(run.settings.path)


@pytest.fixture(scope="module")
def html(report: Report) -> str:
    return render_report(report)


@pytest.fixture(scope="module")
def page(html: str) -> Node:
    return parsed(html)


def section(page: Node, heading: str) -> Node:
    """The section under a heading of the second level."""
    return next(one for one in page.all("section") if next(one.all("h2")).words == heading)


def table(part: Node, caption: str) -> Node:
    return next(one for one in part.all("table") if caption in one.one("caption").words)


def numbers(node: Node) -> list[float]:
    """The exact numbers of a part of the page."""
    return [float(one.attributes["value"]) for one in node.all("data")]


def check_sound(page: Node) -> None:
    """What holds for every page, whatever is in it."""
    nodes = list(page.all())
    for node in nodes:
        assert node.tag not in FORBIDDEN
        for name, entry in node.attributes.items():
            assert not name.startswith("on"), (node.tag, name)
            assert name not in ("style", "src", "srcset", "srcdoc", "action", "xlink:href"), (node.tag, name)
            if name == "href":
                assert entry.startswith("#")
    (style,) = page.all("style")
    assert not re.search(r"url\(|@import|expression|http", style.text)
    digest = base64.b64encode(hashlib.sha256(style.text.encode()).digest()).decode()
    (policy,) = [n for n in page.all("meta") if n.attributes.get("http-equiv") == "Content-Security-Policy"]
    assert policy.attributes["content"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    ids = [node.attributes["id"] for node in nodes if "id" in node.attributes]
    assert len(set(ids)) == len(ids)
    for node in nodes:
        named = node.attributes.get("aria-labelledby", "").split()
        if node.tag in ("a", "use"):
            named.append(node.attributes["href"][1:])
        named += re.findall(r"url\(#(.*?)\)", node.attributes.get("clip-path", ""))
        assert set(named) <= set(ids)
    levels = [int(node.tag[1]) for node in page.all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(then <= before + 1 for before, then in pairwise(levels))
    for one in page.all("table"):
        assert one.one("caption").words
        for head in one.all("th"):
            assert head.attributes["scope"] in ("col", "row", "rowgroup")
            assert head.words
        spans = [
            sum(int(cell.attributes.get("colspan", "1")) for cell in row.all("th", "td"))
            for row in one.all("tr")
        ]
        grouped = any("rowspan" in cell.attributes for cell in one.all("th"))
        assert len(set(spans)) == 1 or grouped
    for figure in page.all("figure"):
        svg = figure.one("svg")
        assert svg.attributes["role"] == "img"
        assert svg.one("title").words
        assert svg.one("desc").words
        assert figure.one("figcaption").words
    assert page.one("html").attributes["lang"] == "en"


def test_the_page_is_sound(page: Node, html: str) -> None:
    assert html.startswith("<!doctype html>")
    check_sound(page)
    assert len(html.encode()) < LARGEST
    assert [one.words for one in page.all("h2")] == [
        "In short",
        "funny",
        "impossible",
        "Values",
        "The run",
        "How to repeat it",
    ]


def test_nothing_is_fetched(html: str) -> None:
    assert "http:" not in html
    assert "https:" not in html
    assert "data:" not in html.replace("<data", "")


def test_asked_against_got_is_the_evaluation(run: Study, page: Node) -> None:
    judged = Evaluation.load(run.folder / "evaluation" / "decoding" / "funny.json")
    got = table(section(page, "funny"), "Intervals hold")
    rows = {next(row.all("th")).words: row for row in got.all("tr") if list(row.all("td"))}
    assert sorted(rows) == sorted(judged)
    for name, row in judged.items():
        cells = list(rows[name].all("td"))
        gain = [row.gain, row.gain - 1.959964 * row.gain_se, row.gain + 1.959964 * row.gain_se]
        assert numbers(cells[3]) == pytest.approx(gain, rel=1e-5)
        level = [row.level, row.level - 1.959964 * row.se, row.level + 1.959964 * row.se]
        assert numbers(cells[4]) == pytest.approx(level, rel=1e-5)
        assert numbers(cells[5]) == [row.base]
        assert numbers(cells[6])[0] == row.win_rate
        assert (row.verdict.name.lower() if row.verdict else "") in cells[1].words
    assert numbers(list(rows["goats"].all("td"))[2]) == pytest.approx([judged["goats"].to_gain])
    groups = [row.words for row in got.all("tr") if "group" in row.attributes.get("class", "")]
    assert groups == ["Second opinions: measured, never optimised", "Nothing was asked of these"]


def test_the_page_and_the_json_have_the_same_numbers(report: Report, page: Node) -> None:
    told = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert told["valuepalette"] == "report"
    known = set(every_number(told))
    shown = numbers(page)
    assert len(shown) > 200
    assert set(shown) <= known
    # And what there is of a palette is all on the page.
    funny = told["palettes"][0]
    for row in funny["methods"][0]["got"]:
        assert {row["gain"], row["gain_low"], row["gain_high"], row["level"], row["base"]} <= set(shown)
    for row in funny["promises"]:
        assert {row["level"], row["weight"], row["base"]} <= set(shown)
    for row in funny["prices"]:
        assert {row["step"], row["kl"]} <= set(shown)
    for answer in funny["methods"][0]["answers"]["shown"]:
        assert set(answer["changes"]) <= set(shown)
        assert {one["chance"] for one in answer["candidates"]} <= set(shown)


def every_number(entry: Any) -> Iterator[float]:
    if isinstance(entry, Mapping):
        for one in entry.values():
            yield from every_number(one)
    elif isinstance(entry, list):
        for one in entry:
            yield from every_number(one)
    elif isinstance(entry, int | float):
        yield float(entry)


def test_a_verdict_comes_with_its_proof(run: Study, report: Report, page: Node) -> None:
    solution = Solution.load(run.folder / "solutions" / "impossible.json")
    proof = solution.certificate
    assert proof is not None
    told = section(page, "impossible")
    (verdict,) = told.of("verdict")
    assert "It cannot be had" in verdict.words
    assert str(proof) in verdict.words
    assert numbers(verdict) == [proof.gap, proof.se]
    assert "What cannot be had has no price." in told.words
    assert not list(told.all("figure"))
    # A level of what cannot be had is none.
    assert all(math.isnan(row.level) and math.isnan(row.weight) for row in report.palettes[1].promises)
    (verdict,) = section(page, "funny").of("verdict")
    assert "stays closest to the model" in verdict.words
    assert "goats reach 50%, variety keep" in verdict.words


def test_answers_are_those_of_the_run(run: Study, page: Node) -> None:
    answers = Pilot.read(run.folder / "answers" / "decoding" / "funny.parquet")
    said, prompts = answers.responses or [], answers.texts()
    drawn, first = np.asarray(answers.table["drawn"]), np.asarray(answers.table["candidate"]) == 0
    after = {str(prompts[row]): said[row] for row in np.flatnonzero(drawn)}
    before = {str(prompts[row]): said[row] for row in np.flatnonzero(first)}
    shown = section(page, "funny").of("answer")
    assert len(shown) == min(SHOWN, sum(after[key] != before[key] for key in after))
    for one in shown:
        prompt = one.one("h4").text
        was, now = one.all("blockquote")
        assert was.text.removesuffix("…") == before[prompt]
        assert now.text.removesuffix("…") == after[prompt]
        assert before[prompt] != after[prompt]
        rows = list(one.one("tbody").all("tr"))
        assert len(rows) == 4
        chances = [numbers(row)[0] for row in rows]
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) == pytest.approx(1)
    assert {"worse", "better"} <= {one.of("badge")[0].words.split()[-1] for one in shown}


def test_better_and_worse_are_by_the_weights(run: Study, report: Report) -> None:
    solution = Solution.load(run.folder / "solutions" / "funny.json")
    found = report.palettes[0].methods[0].answers
    assert found is not None
    assert found.names[:2] == ("goats", "variety")
    assert found.names[2:] == ("shortness",)
    for one in found.shown:
        step = [after - before for after, before in zip(one.after.values, one.before.values, strict=True)]
        assert one.changes == pytest.approx(step)
        assert one.moved == pytest.approx(float(solution.weights.array[:2] @ step[:2]))
        assert one.better == (one.moved >= 0)
    assert found.better + found.worse + found.same == found.prompts == 20


def test_losses_are_drawn_in_their_share() -> None:
    order = list(range(100))[::-1]
    assert len(_drawn(order, {g: g % 4 != 0 for g in order})) == SHOWN
    assert sum(g % 4 == 0 for g in _drawn(order, {g: g % 4 != 0 for g in order})) == 3
    # One of a hundred is there all the same, and where all are losses no gain is invented.
    assert 50 in _drawn(order, {g: g != 50 for g in order})
    assert _drawn(order, dict.fromkeys(order, False)) == order[:SHOWN]
    assert _drawn(order, dict.fromkeys(order, True)) == order[:SHOWN]
    assert _drawn([], {}) == []


def test_the_figures_are_there(page: Node) -> None:
    captions = [one.words for one in section(page, "funny").all("figcaption")]
    assert [one.partition(":")[0].partition(" on ")[0] for one in captions] == [
        "Asked and got",
        "Promised and got",
        "goats",
        "variety",
        "shortness",
    ]


def test_prompts_that_weigh_more_do_so_in_the_figure() -> None:
    values, weights = np.array([0.0, 1.0, 2.0]), np.array([0.7, 0.2, 0.1])
    spread = Spread("humor", math.nan, (0.4, 0.4), ((), ()), (values, values), (weights, weights))
    drawn = _distribution(spread).findobj(match=lambda one: hasattr(one, "get_text"))
    means = [float(found) for text in drawn for found in re.findall(r"mean ([\d.]+)", text.get_text())]
    assert len(means) >= 2
    assert means == pytest.approx([0.4] * len(means), abs=0.005)


def test_the_same_run_gives_the_same_page(run: Study, html: str) -> None:
    _, path = write_report(run.folder)
    assert path == run.folder / "report.html"
    assert path.read_text(encoding="utf-8") == html
    _, again = write_report(run.settings.path)
    assert again.read_text(encoding="utf-8") == html


def test_the_run_can_be_repeated(run: Study, report: Report, page: Node) -> None:
    assert report.commands[:3] == tuple(
        f"valuepalette {step} {run.settings.path}" for step in ("sample", "score", "solve")
    )
    told = section(page, "How to repeat it")
    assert test_study.TEXT.strip() in told.text
    facts = {
        one.one("dt").words: one.one("dd").words for one in section(page, "The run").of("long")[0].all("div")
    }
    assert facts["model"] == "fake"
    assert facts["seed"] == "5"
    assert facts["max new tokens"] == "12"
    files = {one.name: one for one in report.files}
    pilot = files["pilot/part-*.parquet"]
    assert pilot.files == 4
    solution = run.folder / "solutions" / "funny.json"
    assert files["solutions/funny.json"].sha256 == hashlib.sha256(solution.read_bytes()).hexdigest()
    assert "report.html" not in files


def test_values_are_told_as_measured(run: Study, report: Report) -> None:
    pilot = run.pilot()
    row = next(row for row in report.values if row.name == "shortness")
    assert row.check
    assert row.definition == "the fake value shortness"
    assert row.base == pytest.approx(pilot.array[:, pilot.values.index("shortness")].mean())
    best = [pilot.array[pilot.prompt_index == g, 0].max() for g in range(pilot.prompts)]
    assert report.values[0].high == pytest.approx(np.mean(best))


# What is missing


def missing(report: Report) -> str:
    return "\n".join(f"{one.what} {one.command}" for one in report.all_missing)


def rendered(report: Report) -> Node:
    page = parsed(render_report(report))
    check_sound(page)
    names = {palette.name for palette in report.palettes}
    for one in report.all_missing:
        palette, _, what = one.what.partition(": ")
        assert (what if palette in names else one.what) in page.words
        assert one.command in page.words
    return page


def test_a_run_that_is_not_begun(tmp_path: Path) -> None:
    path = test_study.write(tmp_path)
    report = gather_report(path)
    assert f"The pilot is not sampled to its end. valuepalette sample {path}" in missing(report)
    assert f"It is not solved yet. valuepalette solve {path} --palette funny" in missing(report)
    page = rendered(report)
    assert "goats reach 50%" in section(page, "funny").words


def test_a_run_that_is_sampled(tmp_path: Path) -> None:
    study = test_study.study(test_study.write(tmp_path))
    study.sample(quiet=True)
    report = gather_report(study.folder)
    assert "The pilot is not scored by goats, variety, shortness, length. valuepalette score" in missing(
        report
    )
    assert "Nothing is measured yet." in rendered(report).words


def test_a_run_that_has_a_pilot_and_solutions(tmp_path: Path) -> None:
    study = finished(tmp_path)
    study.solve("funny")
    report = gather_report(study.folder)
    command = f"valuepalette evaluate {study.settings.path} --palette funny"
    assert f"What was asked is not compared with what was got yet. {command}" in missing(report)
    told = section(rendered(report), "funny")
    assert "What funny promises" in told.words
    assert "The price of each value" in told.words


def test_a_run_that_holds_nothing_out(tmp_path: Path) -> None:
    study = finished(tmp_path, test_study.TEXT.replace("held_out = 0.4\n", ""))
    study.solve("funny")
    report = gather_report(study.folder)
    assert "No prompts are held out" in missing(report)
    assert "not compared" not in missing(report)
    assert report.held_out is None
    rendered(report)


def test_a_palette_on_the_boundary(tmp_path: Path) -> None:
    study = finished(
        tmp_path, test_study.TEXT.replace('goats = "reach 50%"\nvariety = "keep"', 'goats = "reach 100%"')
    )
    study.evaluate("funny")
    report = gather_report(study.folder, ["funny"])
    assert report.palettes[0].status == "BOUNDARY"
    told = section(rendered(report), "funny")
    assert "It can just be had" in told.words
    assert "No finite weights do it" in told.words
    assert "there is no price" in told.words


def test_a_palette_for_training_asks_for_a_model(tmp_path: Path) -> None:
    study = finished(tmp_path, test_study.TEXT.replace("candidates = 4", 'candidates = "limit"'))
    study.solve("funny")
    report = gather_report(study.folder, ["funny"])
    command = f"valuepalette finetune {study.settings.path} --palette funny"
    assert f"no model is trained for it yet. {command}" in missing(report)
    told = section(rendered(report), "funny")
    assert "Prices are those of a decoder, and this is solved for training." in told.words


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("candidates = 4", 'mode = "joint"'),
        ("candidates = 4", 'weighting = "rows"'),
        ('goats = "reach 50%"', 'goats = "max"'),
        ('goats = "reach 50%"', 'goats = ["+0.1", "P(< 1) <= 0.6"]'),
        (
            'variety = "keep"\n',
            'variety = "keep"\n[palettes.funny.cohorts."audience=children"]\ngoats = "+0.2"\n',
        ),
        ('goats = "reach 50%"\nvariety = "keep"', 'goats = "free"'),
    ],
    ids=["joint", "rows", "max", "tail", "cohort", "free"],
)
@pytest.mark.filterwarnings("ignore:the solution is in joint mode")
def test_every_kind_of_palette_is_told(tmp_path: Path, old: str, new: str) -> None:
    study = finished(tmp_path, test_study.TEXT.replace(old, new))
    judged = study.evaluate("funny")
    report = gather_report(study.folder, ["funny"])
    assert not report.all_missing
    told = section(rendered(report), "funny")
    assert {head.words for head in told.all("th")} >= set(judged)


def test_what_belongs_to_an_earlier_palette_is_named_and_left_out(tmp_path: Path) -> None:
    study = finished(tmp_path)
    study.evaluate("funny")
    path = test_study.write(tmp_path, test_study.TEXT.replace("reach 50%", "reach 30%"))
    report = gather_report(path, ["funny"])
    assert "The palette was solved as it was before (goats reach 50%, now reach 30%)." in missing(report)
    assert report.palettes[0].methods[0].got
    test_study.study(path).solve("funny")
    report = gather_report(path, ["funny"])
    assert "as it was before" not in missing(report)
    assert "It was evaluated with an earlier solution, which is left out. valuepalette evaluate" in missing(
        report
    )
    assert not report.palettes[0].methods[0].got
    assert report.palettes[0].methods[0].answers is None
    test_study.study(path).evaluate("funny")
    assert not gather_report(path, ["funny"]).all_missing
    path = test_study.write(
        tmp_path, test_study.TEXT.replace("reach 50%", "reach 30%").replace("s = 4", "s = 2")
    )
    assert "solved for k = 4, and the study says 2 now" in missing(gather_report(path, ["funny"]))


def test_answers_without_their_evaluation(tmp_path: Path) -> None:
    study = finished(tmp_path)
    study.decode("funny")
    found = gather_report(study.folder, ["funny"])
    assert "not compared" in missing(found)
    assert found.palettes[0].methods[0].answers is not None
    test_study.study(test_study.write(tmp_path, test_study.TEXT.replace("reach 50%", "reach 40%"))).solve(
        "funny"
    )
    found = gather_report(study.folder, ["funny"])
    assert "The answers are of an earlier solution, and left out." in missing(found)
    assert found.palettes[0].methods[0].answers is None


def test_a_run_whose_study_is_elsewhere(run: Study, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "moved")
    report = gather_report(tmp_path / "moved")
    assert "neither in the run's folder nor beside it" in missing(report)
    assert [one.name for one in report.palettes] == ["funny", "impossible"]
    assert report.study == ""
    assert report.palettes[0].methods[0].got == gather_report(run.folder).palettes[0].methods[0].got
    # A study beside it that fills another folder is not its own, nor is one that is broken.
    test_study.write(tmp_path, test_study.TEXT.replace("seed = 5", 'seed = 5\nfolder = "other"'))
    assert gather_report(tmp_path / "moved").study == ""
    (tmp_path / "study.toml").write_text("[nonsense]")
    assert gather_report(tmp_path / "moved").study == ""


def test_a_trained_model_stands_beside_the_decoder(tmp_path: Path) -> None:
    study = finished(tmp_path)
    study.evaluate("funny")
    solution = study.solve("funny")
    folder = study.folder / "models" / "distilling" / "funny"
    folder.mkdir(parents=True)
    solution.save(folder / "solution.json")
    assert "evaluate" in missing(gather_report(study.folder, ["funny"]))
    # What a model that was trained would say: of each prompt the last answers first.
    out = study.held_out()
    answers = out.select(np.arange(out.rows)[::-1])
    table = answers.table.set_column(
        answers.table.column_names.index("candidate"),
        "candidate",
        [3 - np.asarray(answers.table["candidate"])],
    )
    answers = Pilot.read(table, values=out.values, columns=out.columns, metadata=out.metadata)
    answers.write(study.folder / "answers" / "distilling" / "funny.parquet")
    evaluate(answers, solution, out, checks=["shortness"]).save(
        study.folder / "evaluation" / "distilling" / "funny.json"
    )
    report = gather_report(study.folder, ["funny"])
    assert [one.name for one in report.palettes[0].methods] == ["decoding", "distilling"]
    told = section(rendered(report), "funny")
    heads = [one.words for one in told.all("h3")]
    assert "What was got by distilling" in heads
    assert any(head.endswith("answers, before and after by distilling") for head in heads)
    found = report.palettes[0].methods[1].answers
    assert found is not None
    said = out.responses or []
    prompts = out.texts()
    rows = {(str(prompts[row]), int(out.table["candidate"][row].as_py())): row for row in range(out.rows)}
    for one in found.shown:
        assert one.before.text == said[rows[one.prompt, 0]]
        assert one.after.text == said[rows[one.prompt, 3]]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="source must be a study's file or a run folder"):
        gather_report(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such study"):
        gather_report(tmp_path / "study.toml")
    with pytest.raises(ValueError, match="palette must be one of funny, impossible, got 'sad'"):
        gather_report(test_study.write(tmp_path), ["sad"])


# Hostile texts

HOSTILE = [
    "<script>alert(1)</script>",
    "</style><style>*{display:none}</style>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "<!-- <a href=javascript:alert(1)>go</a> -->",
    "&lt;b&gt; &amp; &#60;i&#62; &nbsp;",
    "{{ 7 * 7 }} {% raw %} {# no #}",
    "</blockquote></article></main></body></html>",
    "]]><svg onload=alert(1)>",
    "\u202egnp.exe\u202c \u2066hidden\u2069",
    "\x1b[31mred\x07\x08\x7f\x85",
    "url(http://evil.example/x) @import 'http://evil.example/y'; expression(alert(1))",
    "tag \U000e0041\U000e0042 space\u200bless \ufeff",
    "z" + "\u0301" * 300,
    "a" * 100_000,
    "<" * 30_000,
    "goat " * 9 + "<meta http-equiv=refresh content='0;url=http://evil.example'>",
    "# Heading\n\n[link](http://evil.example)\n\n\t\r\n  <plaintext>",
    "مرحبا 笑い 👩‍👩‍👧 $x^2$ \\alpha $\\frac{1}{0}$",
]
NAMES = ["<script>alert(1)</script>", "' onload='alert(2)", "$x^2$ & \u202ereversed", "</title><b>bold</b>"]
STUDY = """
[model]
id = "fake"
system_prompt = "</dd><script>alert(3)</script>"
max_new_tokens = 12

[prompts]
path = "prompts.jsonl"
held_out = 0.5

[pilot]
candidates = 4

[values]
{values}
length = "fake"

[palettes.wild]
{asked}

[run]
seed = 1
"""


class HostileEngine(FakeEngine):
    """Says what nobody wants in a page."""

    def sample(
        self, prompts: Sequence[Prompt], k: int, *, sampling: Sampling, seed: int, logprobs: bool = False
    ) -> list[list[Candidate]]:
        drawn = super().sample(prompts, k, sampling=sampling, seed=seed, logprobs=logprobs)
        return [
            [
                replace(one, text=f"{HOSTILE[(7 * g + j) % len(HOSTILE)]} goat {one.text}")
                for j, one in enumerate(candidates)
            ]
            for g, candidates in enumerate(drawn)
        ]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, str]:
    folder = tmp_path_factory.mktemp("hostile")
    quoted = [json.dumps(name, ensure_ascii=True) for name in NAMES]
    text = STUDY.format(
        values="\n".join(f'{name} = "fake"' for name in quoted),
        asked="\n".join(f'{name} = "{["reach 30%", "keep"][i % 2]}"' for i, name in enumerate(quoted)),
    )
    rows = [{"prompt": f"{HOSTILE[i % len(HOSTILE)]} {i}"} for i in range(40)]
    path = test_study.write(folder, text, rows)
    rules = [goats, variety, lambda said: math.sin(len(said)), lambda said: math.cos(len(said))]

    def opener(name: str, i: int) -> Line:
        return lambda: FakeReward(name, rules[i])

    rewards = {name: opener(name, i) for i, name in enumerate(NAMES)}
    study = test_study.study(path, HostileEngine, rewards)
    study.sample(quiet=True)
    study.score(quiet=True)
    study.evaluate("wild")
    report = gather_report(path)
    return report, render_report(report)


def test_hostile_texts_stay_texts(hostile: tuple[Report, str]) -> None:
    report, html = hostile
    page = parsed(html)
    check_sound(page)
    assert len(html.encode()) < LARGEST
    found = report.palettes[0].methods[0].answers
    assert found is not None
    assert len(found.shown) == SHOWN
    for one, told in zip(page.of("answer"), found.shown, strict=True):
        was, now = (quote.text.removesuffix("…") for quote in one.all("blockquote"))
        for shown, candidate in ((was, told.before), (now, told.after)):
            start = shown.partition(" … (")[0]
            assert visible(candidate.text).startswith(start)
            assert len(start) >= min(len(visible(candidate.text)), 300)
    # Only what is in the template and in figures is an element.
    texts = page.words
    assert "<script>alert(1)</script>" in texts
    assert "</dd><script>alert(3)</script>" in texts


def test_hostile_names_stay_names(hostile: tuple[Report, str]) -> None:
    report, html = hostile
    page = parsed(html)
    heads = {head.words for head in page.all("th")}
    for name in NAMES:
        assert visible(name) in heads
        assert any(visible(name) in svg.text for svg in page.all("svg"))
    assert report.palettes[0].asked[NAMES[0]] == "reach 30%"


def test_nothing_is_hidden(hostile: tuple[Report, str]) -> None:
    _, html = hostile
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f]", html
    )
    assert "‹U+202E›" in html


# Size


def test_a_large_run_fits(report: Report) -> None:
    """Forty palettes, each with twelve answers of four thousand quotation marks: that would be a hundred megabytes."""
    one = Shown(0, '"' * 4000, False, 0.1, (1.0, 2.0), first=True)
    answer = Answer("?" * 4000, one, one, 0.5, True, (0.25, 0.5), (one,) * 64)
    answers = Answers(("goats", "variety"), (answer,) * SHOWN, 0, 12, 12, 0, 0)
    funny = report.palettes[0]
    method = replace(funny.methods[0], evaluation=None, spreads=(), answers=answers)
    many = tuple(replace(funny, name=f"p{i}", methods=(method,), solution=None) for i in range(40))
    html = render_report(replace(report, palettes=many))
    assert len(html.encode()) < LARGEST
    page = parsed(html)
    check_sound(page)
    assert "There is more to this run than fits a page of one megabyte" in page.words
    told = [one for one in page.all("section") if "palette" in one.attributes.get("class", "")]
    left = 40 - len(told)
    assert left == 0 or f"Left out: p{len(told)}" in page.words


def test_a_report_needs_its_extra(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valuepalette.report.page.find_spec", lambda name: None)
    with pytest.raises(
        ModuleNotFoundError, match=r'a report needs jinja2: pip install "valuepalette\[report\]"'
    ):
        render_report(report)


# The command


def test_the_command(run: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "deep" / "page.html"
    assert main(["report", str(run.folder), "--palette", "impossible", "--out", str(path)]) == 0
    assert capsys.readouterr().out == f"written to {path}\n"
    assert [one.words for one in parsed(path.read_text()).all("h2")][1:-3] == ["impossible"]
    assert (
        main(["report", str(run.settings.path), "--palette", "impossible", "--out", str(path), "--json"]) == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == str(path)
    assert told["palettes"] == gather_report(run.folder, ["impossible"]).to_dict()["palettes"]
    assert main(["report", str(tmp_path)]) == 1
    assert "source must be a study's file or a run folder" in capsys.readouterr().err


def test_an_address_keeps_its_password(tmp_path: Path) -> None:
    text = test_study.TEXT.replace('id = "fake"', 'id = "fake"\nbase_url = "https://me:secret@host/v1"')
    report = gather_report(test_study.write(tmp_path, text))
    assert "secret" not in json.dumps(report.to_dict())
    assert "https://…@host/v1" in report.study


def test_a_second_opinion_that_nothing_is_compared_with_is_not_called_unharmed(report: Report) -> None:
    method = report.palettes[0].methods[0]
    checks = [replace(row, kind="check", gain=0.1, gain_high=0.2) for row in method.got[:2]]
    told = "\n".join(sure_of_method(replace(method, got=tuple(checks))))
    assert "None of them fell beyond chance." in told
    checks[1] = replace(checks[1], gain=math.nan, gain_low=math.nan, gain_high=math.nan)
    told = "\n".join(sure_of_method(replace(method, got=tuple(checks))))
    assert "None of them" not in told
    assert f"Whether these fell is not known: {checks[1].name}." in told


def test_no_texts_no_answers() -> None:
    pilot = Pilot.from_arrays({"humor": [0.0, 1.0]}, prompt_id=[0, 0])
    assert side_by_side(pilot, Solution.from_weights(pilot, {"humor": 1.0})) is None
    empty = Method("decoding")
    assert empty.count("MET") == 0
    assert PaletteReport("x", {}).status is None
