"""The studio in a real browser, Debian's Chromium; skipped where there is none."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

import valuepalette as vp
from studios import CHROMIUM, FLAGS, opened, studio
from valuepalette.pilot import Pilot
from valuepalette.studio.opening import open_source

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium on this machine: apt-get install chromium"
)

WAIT = 60_000
"""Milliseconds: the machine may be busy with other tests."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield found
        found.close()


@pytest.fixture(scope="module")
def example() -> Iterator[str]:
    with studio(open_source()) as url:
        yield url


def look(browser: Any, url: str, hash_: str = "", **context: Any) -> Any:
    """A page that has drawn its first palette; whatever it complains of fails the test that closes it."""
    made = browser.new_context(viewport=context.pop("viewport", {"width": 1280, "height": 900}), **context)
    made.set_default_timeout(WAIT)
    page = made.new_page()
    page.complaints = []
    page.on(
        "console",
        lambda said: page.complaints.append(said.text) if said.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("dialog", lambda dialog: page.complaints.append(dialog.message) or dialog.dismiss())
    page.goto(url + "/" + hash_)
    page.wait_for_selector("body[data-status]", timeout=WAIT)
    return page


@pytest.fixture
def page(browser: Any, example: str) -> Iterator[Any]:
    found = look(browser, example)
    yield found
    assert found.complaints == []
    found.context.close()


def row(page: Any, name: str) -> Any:
    return page.locator(".row", has=page.get_by_role("heading", name=name, exact=True))


def weight(page: Any, name: str) -> float:
    said = row(page, name).locator(".weight").inner_text()
    return float(said.removeprefix("λ").replace("−", "-"))


def settle(page: Any, name: str, above: float) -> None:
    """Until a weight has risen."""
    page.wait_for_function(
        """([name, above]) => [...document.querySelectorAll('.row')].some((row) =>
            row.querySelector('h3').textContent === name
            && Number(row.querySelector('.weight').textContent.replace('λ', '').replace('−', '-')) > above)""",
        arg=[name, above],
    )


def status(page: Any, wanted: str) -> None:
    page.wait_for_selector(f"body[data-status={wanted}]")


def drag(page: Any, name: str, share: float) -> None:
    """The thumb of a slider to a share of its track, with the mouse."""
    slider = row(page, name).get_by_role("slider")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    step, steps = float(slider.input_value()), 400
    inner = box["width"] - 22
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 11 + inner * step / steps, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 11 + inner * (step / steps + share) / 2, middle, steps=4)
    page.mouse.move(box["x"] + 11 + inner * share, middle, steps=4)
    page.mouse.up()
    page.wait_for_selector("body[data-ranges=exact]")


def test_it_opens_on_the_model_as_it_is(page: Any):
    assert page.locator("#verdict-title").inner_text() == "The model as it is"
    assert page.locator("#rows .row").count() == 8
    assert page.locator("#pilot").inner_text() == "the packaged example · 60 prompts, 960 answers"
    assert page.locator(".spread").count() == 8
    assert weight(page, "humor") == 0


def test_a_slider_moves_the_weights(page: Any):
    drag(page, "humor", 0.7)
    settle(page, "humor", 0.3)
    assert page.locator("#verdict-title").inner_text() == "It can be had"
    assert re.fullmatch(r"0\.\d+ nats", page.locator("#kl-now").inner_text())
    entry = row(page, "humor").get_by_role("textbox").input_value()
    pilot = vp.example_pilot()
    solution = vp.solve(pilot, {"humor": entry})
    assert weight(page, "humor") == pytest.approx(solution.weights["humor"], abs=6e-4)
    level = row(page, "humor").locator(".level").inner_text()
    assert float(level.split("±")[0].replace("−", "-")) == pytest.approx(solution.levels["humor"], abs=6e-3)


def test_a_range_is_what_the_others_leave(page: Any):
    page.wait_for_selector("body[data-ranges=exact]")
    room = row(page, "positiveness").locator(".track-room")
    before = room.bounding_box()["width"]
    drag(page, "humor", 0.9)
    settle(page, "humor", 0.5)
    page.wait_for_selector("body[data-ranges=exact]")
    page.wait_for_timeout(300)  # its movement on the screen
    assert room.bounding_box()["width"] < 0.95 * before
    said = [float(part.replace("−", "-")) for part in room.get_attribute("title").split(" to ")]
    entry = row(page, "humor").get_by_role("textbox").input_value()
    exact = vp.reach(vp.example_pilot(), {"humor": entry}, "positiveness")
    assert said == pytest.approx([exact.low, exact.high], abs=6e-3)


def test_a_slider_that_comes_back_rests(page: Any):
    slider = row(page, "humor").get_by_role("slider")
    box = slider.bounding_box()
    left, middle = box["x"] + 11 + (box["width"] - 22) * float(slider.input_value()) / 400, box["y"] + 17
    page.wait_for_selector("body[data-ranges=exact]")
    page.mouse.move(left, middle)
    page.mouse.down()
    page.mouse.move(left + 120, middle, steps=3)
    page.mouse.move(left, middle, steps=3)
    assert page.evaluate("document.body.dataset.ranges") == "moving"
    page.mouse.up()
    page.wait_for_selector("body[data-ranges=exact]")
    assert row(page, "humor").get_by_role("textbox").input_value() == "keep"


def test_a_movement_is_asked_once_and_remembered_once_it_rests(page: Any):
    page.wait_for_selector("body[data-ranges=exact]")
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.url) if "/api/solve" in request.url else None)
    before = page.evaluate("history.length")
    row(page, "humor").get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("body[data-ranges=exact]")
    assert len(asked) == 1
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("([n]) => history.length > n", arg=[before + 1])
    page.wait_for_selector("body[data-ranges=exact]")
    assert page.evaluate("history.length") == before + 2
    entry = row(page, "humor").get_by_role("textbox")
    there = entry.input_value()
    entry.fill("0.3")
    entry.press("Enter")
    page.get_by_role("button", name="Start over").click()
    page.wait_for_function("document.querySelector('.row input[type=text]').value === ''")
    page.go_back()
    sync_api.expect(entry).to_have_value("0.3")
    page.go_back()
    sync_api.expect(entry).to_have_value(there)


def test_edits_of_two_rows_are_two_steps_back(page: Any):
    for name, text in (("humor", "0.1"), ("positiveness", "keep")):
        entry = row(page, name).get_by_role("textbox")
        entry.fill(text)
        entry.press("Enter")
    page.wait_for_selector("body[data-ranges=exact]")
    page.go_back()
    sync_api.expect(row(page, "positiveness").get_by_role("textbox")).to_have_value("")
    sync_api.expect(row(page, "humor").get_by_role("textbox")).to_have_value("0.1")
    page.go_back()
    sync_api.expect(row(page, "humor").get_by_role("textbox")).to_have_value("")


def test_a_slider_rests_where_the_server_says(page: Any):
    """The level of a share that is rounded, whether its reply comes while it is held or later."""
    page.get_by_text("share of reach", exact=True).click()
    slider = row(page, "humor").get_by_role("slider")
    box = slider.bounding_box()
    page.mouse.move(box["x"] + 11 + (box["width"] - 22) * float(slider.input_value()) / 400, box["y"] + 17)
    page.mouse.down()
    page.mouse.move(box["x"] + 11 + (box["width"] - 22) * 0.743, box["y"] + 17, steps=3)
    settle(page, "humor", 0.3)
    page.wait_for_timeout(300)
    page.mouse.up()
    page.wait_for_selector("body[data-ranges=exact]")
    there = slider.input_value()
    said = slider.get_attribute("aria-valuetext")
    page.reload()
    settle(page, "humor", 0.3)
    assert slider.input_value() == there
    assert slider.get_attribute("aria-valuetext") == said


def test_what_is_refused_leaves_no_figures(page: Any):
    entry = row(page, "humor").get_by_role("textbox")
    entry.fill("0.3")
    entry.press("Enter")
    page.wait_for_selector("body[data-ranges=exact]")
    entry.fill("nonsense")
    entry.press("Enter")
    status(page, "REFUSED")
    assert page.locator("#verdict-title").inner_text() == "It cannot be read"
    for part in (".row .level", ".row .weight", ".row .reach"):
        assert set(page.locator(part).all_inner_texts()) == {""}
    assert set(page.locator("#right .chance").all_text_contents()) == {"–"}
    assert set(page.locator(".spread .level").all_text_contents()) == {"–"}
    assert page.locator("#radar .dot[visibility=visible]").count() == 0
    assert page.locator(".track-room:visible").count() == 0
    page.complaints.clear()  # of the reply 422, which is meant


def test_shares_of_reach_are_written_as_such(page: Any):
    page.get_by_text("share of reach", exact=True).click()
    drag(page, "humor", 0.7)
    settle(page, "humor", 0.3)
    entry = row(page, "humor").get_by_role("textbox").input_value()
    share = re.fullmatch(r"reach (\d+)%", entry)
    assert share
    sync_api.expect(row(page, "humor").locator(".reach")).to_have_text(f"{share[1]} % of reach")


def test_what_cannot_be_had_is_proved_and_the_nearest_can_be(page: Any):
    for name in ("humor", "positiveness"):
        row(page, name).get_by_role("textbox").fill("reach 85%")
        row(page, name).get_by_role("textbox").press("Enter")
    status(page, "INFEASIBLE")
    assert page.locator("#verdict-title").inner_text() == "It cannot be had"
    proof = page.locator("#verdict-text").inner_text()
    with pytest.raises(vp.Infeasible) as caught:
        vp.solve(vp.example_pilot(), {"humor": "reach 85%", "positiveness": "reach 85%"})
    assert proof == str(caught.value)
    assert row(page, "humor").locator(".weight").inner_text() == ""
    for method in ("Interpolate", "Greedy", "Nearest"):
        assert page.get_by_role("button", name=method).is_visible()
    page.get_by_role("button", name="Nearest").click()
    page.wait_for_selector("body[data-status=OPTIMAL], body[data-status=BOUNDARY]")
    assert "The nearest levels" in page.locator("#adjusted").inner_text()
    assert float(row(page, "humor").get_by_role("textbox").input_value()) > 0
    page.go_back()
    status(page, "INFEASIBLE")
    assert row(page, "humor").get_by_role("textbox").input_value() == "reach 85%"
    page.go_forward()
    page.wait_for_selector("body[data-status=OPTIMAL], body[data-status=BOUNDARY]")


def test_an_adjustment_that_comes_too_late_changes_nothing(page: Any):
    held = list[Any]()
    page.route("**/api/adjust", lambda route: held.append(route))
    for name in ("humor", "positiveness"):
        row(page, name).get_by_role("textbox").fill("reach 85%")
        row(page, name).get_by_role("textbox").press("Enter")
    status(page, "INFEASIBLE")
    page.get_by_role("button", name="Interpolate").click()
    entry = row(page, "positiveness").get_by_role("textbox")
    entry.fill("keep")
    entry.press("Enter")
    status(page, "OPTIMAL")
    with page.expect_response("**/api/adjust"):
        held[0].continue_()
    page.wait_for_timeout(200)
    assert entry.input_value() == "keep"
    assert row(page, "humor").get_by_role("textbox").input_value() == "reach 85%"
    assert not page.locator("#adjusted").is_visible()


def test_an_entry_that_cannot_be_read_is_named_where_it_stands(page: Any):
    entry = row(page, "humor").get_by_role("textbox")
    entry.fill("more!")
    entry.press("Enter")
    status(page, "REFUSED")
    assert "an entry is a number" in row(page, "humor").get_by_role("alert").inner_text()
    assert entry.get_attribute("aria-invalid") == "true"
    entry.fill("P(< -2) <= x0.5, keep")
    entry.press("Enter")
    status(page, "OPTIMAL")
    assert row(page, "humor").get_by_role("alert").count() == 0
    assert "P(humor < -2)" in row(page, "humor").locator(".tails").inner_text()
    page.complaints.clear()  # of the reply 422, which is meant


def test_max_comes_with_its_budget(page: Any):
    row(page, "humor").get_by_role("combobox").select_option("max")
    settle(page, "humor", 0.5)
    page.locator("#kl").fill("0.2")
    page.locator("#kl").press("Enter")
    page.wait_for_function("() => document.getElementById('kl-now').textContent === '0.200 nats'")


def test_a_prompt_is_picked_and_its_answers_weighed(page: Any):
    page.locator("#find").fill("flamingo")
    page.wait_for_function("() => document.getElementById('prompt').value === '3'")
    number = 3
    row(page, "humor").get_by_role("textbox").fill("reach 60%")
    row(page, "humor").get_by_role("textbox").press("Enter")
    settle(page, "humor", 0.3)
    page.wait_for_function("() => document.querySelector('#right .chance').textContent !== '–'")
    pilot = vp.example_pilot()
    solution = vp.solve(pilot, {"humor": "reach 60%"})
    rows = np.flatnonzero(pilot.prompt_index == number)
    chance = solution.probabilities(solution.features_of(pilot)[0][rows])
    shown = page.locator("#right .said p").all_inner_texts()
    responses = pilot.responses
    assert responses is not None
    best = responses[rows[chance.argmax()]]
    assert " ".join(shown[0].split()) == " ".join(best.split())
    top = float(page.locator("#right .chance").first.inner_text().rstrip("% "))
    assert top == pytest.approx(100 * chance.max(), abs=0.6)
    assert set(page.locator("#left .chance").all_inner_texts()) == {"6.3 %"}
    page.get_by_role("button", name="Keep this palette to compare").click()
    page.wait_for_function("() => document.querySelector('#left .chance').textContent !== '6.3 %'")
    assert (
        page.locator("#left .chance").first.inner_text() == page.locator("#right .chance").first.inner_text()
    )


def test_chances_of_one_prompt_are_not_shown_for_another(page: Any):
    page.wait_for_function("() => /%/.test(document.querySelector('#right .chance')?.textContent)")
    row(page, "humor").get_by_role("textbox").fill("more!")
    row(page, "humor").get_by_role("textbox").press("Enter")
    status(page, "REFUSED")
    before = page.locator("#asked-prompt").inner_text()
    page.get_by_role("button", name="Next prompt").click()
    page.wait_for_function("(was) => document.getElementById('asked-prompt').innerText !== was", arg=before)
    assert "%" not in "".join(page.locator("#right .chance").all_inner_texts())
    page.complaints.clear()  # of the reply 422, which is meant


def test_an_export_solves_to_the_same_weights(page: Any):
    page.get_by_role("radio", name="8", exact=False).first.check(force=True)
    for name, entry in (("humor", "reach 40%"), ("harmlessness", "keep, P(< -0.2) <= x0.8")):
        row(page, name).get_by_role("textbox").fill(entry)
        row(page, name).get_by_role("textbox").press("Enter")
    settle(page, "humor", 0.2)
    page.wait_for_timeout(500)
    page.get_by_role("button", name="Export").click()
    page.wait_for_function(
        "() => document.getElementById('export-text').textContent.includes('[palettes.studio]')"
    )
    table = tomllib.loads(page.locator("#export-text").inner_text())
    assert table["solve"]["candidates"] == 8
    solution = vp.solve(vp.example_pilot(), table["palettes"]["studio"], 8)
    assert weight(page, "humor") == pytest.approx(solution.weights["humor"], abs=6e-4)
    page.get_by_role("tab", name="Gateway").click()
    assert "/v1/chat/completions" in page.locator("#export-text").inner_text()
    page.get_by_role("tab", name="TRL").click()
    assert "top_k 50" in page.locator("#export-text").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("#export-dialog").is_visible()


def test_k_is_chosen_and_says_what_it_can_have(page: Any):
    row(page, "humor").get_by_role("textbox").fill("1.2")
    row(page, "humor").get_by_role("textbox").press("Enter")
    settle(page, "humor", 0.3)
    page.wait_for_selector("#plan tbody tr")
    page.wait_for_function("() => !document.getElementById('plan').classList.contains('is-stale')")
    lines = [line.split("\t") for line in page.locator("#plan tbody").inner_text().splitlines()]
    assert lines[0][:2] == ["2", "no"]
    assert lines[-1][:2] == ["16", "yes"]
    page.locator("#k-choices label", has_text="2no").click()
    status(page, "INFEASIBLE")
    assert "k = 2" in page.locator("#verdict-text").inner_text()


def test_a_cohorts_share_of_reach_is_that_of_the_chosen_k(browser: Any):
    rows = np.arange(480)
    pilot = Pilot.from_arrays(
        {"humor": np.random.default_rng(0).normal(size=480)},
        prompt_id=rows // 8,
        columns={"audience": np.where(rows < 240, "children", "adults")},
    )
    name = "humor @ audience=children"
    free = vp.Palette({}, cohorts={"audience=children": {"humor": "free"}})
    with studio(opened(pilot)) as url:
        key = quote('c.["audience=children","humor"]')
        found = look(browser, url, f"#k=8&{key}=0.3")
        for k in (8, 2):
            found.locator(f"#k-choices input[value='{k}']").check(force=True)
            end = vp.reach(pilot, free, name, k)
            share = f"{100 * (0.3 - end.base) / (end.high - end.base):.0f} % of reach"
            found.wait_for_function(
                "(said) => document.querySelector('.is-cohort .reach').textContent === said", arg=share
            )
        assert found.complaints == []
        found.context.close()


def test_an_address_is_a_palette(browser: Any, example: str):
    found = look(
        browser,
        example,
        "#k=8&v.humor=reach+50%25&v.harmlessness=keep&prompt=5&v.nobody=keep&k=x&kl=-3&c.%5B=1",
    )
    assert row(found, "humor").get_by_role("textbox").input_value() == "reach 50%"
    assert row(found, "humor").get_by_role("textbox").count() == 1
    solution = vp.solve(vp.example_pilot(), {"humor": "reach 50%", "harmlessness": "keep"}, 8)
    assert weight(found, "humor") == pytest.approx(solution.weights["humor"], abs=6e-4)
    found.wait_for_function("() => document.getElementById('prompt').value === '5'")
    assert found.complaints == []
    found.context.close()


def test_a_cohorts_entry_is_not_overwritten_as_it_is_typed(browser: Any):
    """Its ends come from the server, after a while."""
    rng = np.random.default_rng(1)
    who = np.repeat(["old", "young"], 48)
    values = {"humor": rng.normal(size=96), "care": rng.normal(size=96)}
    pilot = Pilot.from_arrays(values, prompt_id=np.arange(96) // 6, columns={"who": who})
    with studio(opened(pilot)) as url:
        found = look(browser, url)
        held = list[Any]()
        found.route("**/api/cohort*", lambda route: held.append(route))
        found.locator("#add-cohort button").click()
        entry = found.locator(".row.is-cohort").get_by_role("textbox")
        entry.fill("0.2")
        found.wait_for_timeout(100)
        held[0].continue_()
        found.wait_for_timeout(500)
        assert entry.input_value() == "0.2"
        entry.press("Enter")
        sync_api.expect(found.locator(".row.is-cohort .level")).not_to_be_empty()
        assert entry.input_value() == "0.2"
        found.context.close()


@pytest.mark.parametrize(
    "hash_",
    [
        "#%",
        "#v.humor=%00",
        "#kept=%7B%7D",
        "#kept=%7B%22entries%22%3A1%7D",
        "#k=99&prompt=1e9&beside=named%3Ax",
        "#c.%5B1%2C2%5D=keep",
    ],
)
def test_an_address_of_nonsense_does_no_harm(browser: Any, example: str, hash_: str):
    found = look(browser, example, hash_)
    assert found.locator("#failure").is_hidden()
    found.context.close()


HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def test_hostile_strings_stay_text(browser: Any):
    rng = np.random.default_rng(0)
    names = [HOSTILE, "__proto__", "constructor", "a=b&c=d#e", "'\"`${1}"]
    texts = [HOSTILE + str(i) for i in range(8) for _ in range(4)]
    pilot = Pilot.from_arrays(
        {name: rng.normal(size=32) for name in names},
        prompts=texts,
        responses=[f"javascript:alert(3) </p>{HOSTILE}" for _ in texts],
        columns={"audience": np.repeat([HOSTILE, "plain"], 16)},
    )
    with studio(opened(pilot)) as url:
        found = look(browser, url)
        for name in names:
            entry = row(found, name).get_by_role("textbox")
            entry.fill("+0.05")
            entry.press("Enter")
        found.wait_for_function(
            "() => [...document.querySelectorAll('.row .weight')].every((w) => w.textContent !== 'λ 0.000')"
        )
        found.locator("#add-cohort button").click()
        found.wait_for_selector(".row.is-cohort")
        found.wait_for_timeout(1500)
        assert [found.locator("#rows h3").nth(i).inner_text() for i in range(5)] == names
        assert HOSTILE in found.locator("#right .said p").first.inner_text()
        assert HOSTILE in found.locator("#asked-prompt").inner_text()
        assert found.locator("main img, main script, dialog script").count() == 0
        found.reload()
        found.wait_for_selector("body[data-status=OPTIMAL]")
        assert row(found, "__proto__").get_by_role("textbox").input_value() == "+0.05"
        assert found.evaluate("({}).entries") is None
        assert found.complaints == []
        found.context.close()


def test_all_of_it_by_keyboard(page: Any):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")  # units
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "range"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    for _ in range(6):
        page.keyboard.press("PageUp")
    settle(page, "humor", 0.1)
    said = page.evaluate("document.activeElement.getAttribute('aria-valuetext')")
    assert re.fullmatch(r"−?[\d.]+, \d+ % of reach", said)
    page.keyboard.press("End")
    settle(page, "humor", 5)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SELECT"
    page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type(">= 50")
    page.keyboard.press("Enter")
    status(page, "INFEASIBLE")
    live = page.locator("[aria-live=polite]", has=page.locator("#verdict-title"))
    assert live.inner_text().strip()


def test_every_control_has_a_name(page: Any):
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('input, select, button, [role=tab]')].filter((e) =>
            !e.closest('[hidden]') && !e.getAttribute('aria-label') && !e.getAttribute('aria-labelledby')
            && !(e.labels && e.labels.length) && !e.textContent.trim()).map((e) => e.outerHTML)"""
    )
    assert nameless == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_narrow_screen(browser: Any, example: str, scheme: str):
    hash_ = "#k=8&v.humor=reach+85%25&v.positiveness=reach+85%25&v.length=%3C%3D+keep%2C+P(%3E+30)+%3C%3D+0.1"
    found = look(browser, example, hash_, viewport={"width": 360, "height": 720}, color_scheme=scheme)
    status(found, "INFEASIBLE")
    found.wait_for_selector("#plan tbody tr")
    assert found.evaluate("document.documentElement.scrollWidth") <= 360
    for name in ("Interpolate", "Greedy", "Nearest"):
        assert found.get_by_role("button", name=name).is_visible()
    ink, paper = found.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert contrast(ink, paper) > 10
    for selector, least in ((".base-said", 4.5), ("#verdict-text", 7), (".primary", 4.5), (".reach", 4.5)):
        front, back = found.evaluate(BEHIND, selector)
        assert contrast(front, back) >= least, selector
    found.get_by_role("button", name="Greedy").click()
    found.wait_for_selector("body[data-status=OPTIMAL], body[data-status=BOUNDARY]")
    assert found.evaluate("document.documentElement.scrollWidth") <= 360
    found.context.close()


def test_replies_that_are_out_of_date_are_dropped(browser: Any, example: str):
    found = look(browser, example)
    told = found.evaluate(
        """async () => {
            const { newest } = await import('/static/js/server.js');
            const sent = [], shown = [];
            const asks = newest((x) => { sent.push(x); return new Promise((done) => setTimeout(() => done(x), 40)); },
                                (x) => shown.push(x), () => {});
            for (let x = 1; x <= 9; x++) asks.push(x);
            await new Promise((done) => setTimeout(done, 150));
            asks.push(10);
            asks.forget();
            await new Promise((done) => setTimeout(done, 120));
            return { sent, shown };
        }"""
    )
    assert told == {"sent": [1, 9, 10], "shown": [1, 9]}
    found.context.close()


BEHIND = """(selector) => {
    const front = document.querySelector(selector);
    let behind = front;
    while (/, 0\\)$|transparent/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
    return [getComputedStyle(front).color, getComputedStyle(behind).backgroundColor];
}"""


def contrast(one: str, other: str) -> float:
    """WCAG's ratio of two colours as the browser tells them."""

    def light(colour: str) -> float:
        parts = [float(part) / 255 for part in re.findall(r"[\d.]+", colour)[:3]]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    bright, dark = sorted([light(one), light(other)], reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_contrast_is_the_standards():
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert json.loads(json.dumps(contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)"))) == pytest.approx(
        4.48, abs=0.01
    )
