"""The report: what it says for a verdict, and what a real browser makes of it, from a file and without a network."""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_samples import ARMS, HOSTILE, sample_evidence, sample_verdict

from workbench.compare.report import words
from workbench.compare.report.curves import quantity
from workbench.compare.report.drawing import cost_ticks, spread
from workbench.compare.report.page import render

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

SECTIONS = ("arms", "differences", "cost", "learning", "transfer", "items", "forgetting", "gate", "reproduce")
VOID = {"meta", "link", "br", "input"}


class WellFormed(HTMLParser):
    """Reads a page: elements are closed in the order they were opened, ids are unique, tags are counted."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())


@pytest.fixture(scope="module")
def page_text() -> str:
    """The report of the full sample."""
    return render(sample_verdict(), sample_evidence())


# --- the text --------------------------------------------------------------------------------------------------------


def test_the_page_is_well_formed_and_its_ids_are_unique(page_text: str) -> None:
    read = WellFormed(page_text)
    assert len(read.ids) == len(set(read.ids))
    assert read.tags.count("script") == 2  # the items as data, and the page's own script
    assert set(SECTIONS) <= set(read.ids)


def test_the_same_verdict_gives_the_same_bytes(page_text: str) -> None:
    assert render(sample_verdict(), sample_evidence()) == page_text


def test_rendering_changes_neither_the_verdict_nor_the_evidence() -> None:
    verdict, evidence = sample_verdict(), sample_evidence()
    kept = copy.deepcopy((verdict, evidence))
    render(verdict, evidence)
    assert (verdict, evidence) == kept


def test_a_usual_study_stays_below_a_megabyte(page_text: str) -> None:
    assert len(page_text.encode()) < 1_000_000


def test_everything_stands_inside_the_file(page_text: str) -> None:
    assert re.findall(r'(?:src|href)="(?!#|data:,")[^"]*"|url\((?!#)|@import', page_text) == []
    assert "default-src 'none'" in page_text


def test_no_plot_keeps_a_colour_a_font_or_a_date_of_its_own(page_text: str) -> None:
    plots = re.findall(r'<svg class="plot.*?</svg>', page_text, re.DOTALL)
    assert len(plots) == 8 + 3 + 2 + 2 + 2  # forests, costs, losses, the ladder, forgetting; three of them twice
    for plot in plots:
        assert not re.search(r"#[0-9a-f]{6}\b|font-family|<metadata|<style|<date", plot)
        assert "var(--muted)" in plot
        assert re.search(r'role="img" aria-label="[^"]{20,}"', plot)


def test_markup_in_a_name_or_an_item_stays_text(page_text: str) -> None:
    assert HOSTILE not in page_text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page_text
    data = re.search(r'id="item-data">(.*?)</script>', page_text, re.DOTALL)
    assert data is not None and not set("<>&") & set(data[1])
    third = next(item for item in json.loads(data[1])["items"] if item["id"] == "p3-birth")
    assert third["text"] == f"{HOSTILE}<img src=x onerror=alert(2)></script><b>bold</b> \\u202e reversed \\x1b[31m"


def test_a_name_that_looks_like_a_drawing_instruction_is_left_alone() -> None:
    odd = '$x^2$ id="url(#fe00dc'
    verdict = json.loads(json.dumps(sample_verdict()).replace('"lora"', json.dumps(odd)))
    page = render(verdict, {})
    WellFormed(page)
    assert "$x^2$ id=&#34;url(#fe00dc" in page  # in tables
    assert '>$x^2$ id="url(#fe00dc</text>' in page


def test_what_weakens_the_verdict_is_said_at_the_top(page_text: str) -> None:
    head = page_text[: page_text.index("<main>")]
    assert "Confounded" in head and "versions.torch" in head
    assert "Incomplete" in head and "full with seed 2 (failed: exit status 2)" in head
    assert "Suggestive" in head and "with one seed nobody knows" in head
    assert "Every run is in the numbers" not in head


def test_a_sound_verdict_says_so() -> None:
    verdict = sample_verdict(confounded=False, complete=True)
    for one in verdict["contrasts"]:
        one["suggestive"] = False
    head = render(verdict, {}).split("<main>")[0]
    assert "banner" not in head.split("</style>")[1]
    assert "Every run is in the numbers" in head


def test_an_estimate_of_energy_is_said_to_be_one(page_text: str) -> None:
    assert "an estimate from the target&#39;s rated power, not a measurement" in page_text
    measured = sample_verdict()
    for arm in measured["arms"]:
        arm["cost"]["energy_source"] = "nvml_counter"
    page = render(measured, {})
    assert "measured by the GPU&#39;s own counter" in page
    assert "≈ 812 J" in page_text and "≈ 812 J" not in page and "812 J" in page


def test_a_bound_is_shown_as_a_bound(page_text: str) -> None:
    assert "&gt; 10.4 MB" in page_text and "at least 8.32 MB" in page_text
    assert "right-censored" in page_text


@pytest.mark.parametrize(
    ("part", "empty", "sentence"),
    [
        ("arms", [], "There are no arms."),
        ("contrasts", [], "No two arms were held against each other."),
        ("pareto", {}, "quality cannot be held against it"),
        ("transfer", None, "No arm was trained from scratch on a ladder"),
        ("gate", None, "What differs between the arms was not recorded."),
        ("noise_floor", [], "what chance alone does was not measured"),
        ("power", None, "What could be resolved was not worked out"),
        ("reproduce", None, "No run directories are known."),
    ],
)
def test_an_empty_part_leaves_a_sentence(part: str, empty: Any, sentence: str, page_text: str) -> None:
    bare = render(sample_verdict() | {part: empty}, {})
    WellFormed(bare)
    assert sentence in bare and sentence not in page_text


def test_a_verdict_about_nothing_is_still_a_page() -> None:
    page = render({}, {})
    WellFormed(page)
    assert page.count('class="absent"') == 11
    assert "Nothing could be compared." in page


def test_an_arm_may_lack_what_was_not_measured() -> None:
    verdict = sample_verdict()
    for arm in verdict["arms"]:
        for part in ("retention", "cost", "tuning", "tier", "scores"):
            del arm[part]
    page = render(verdict, {})
    WellFormed(page)
    assert page.count("not scored</span>") == 3 * len(ARMS)
    assert "No retention task was scored" in page and "No cost is known" in page


def test_numbers_that_are_not_known_are_dashes() -> None:
    verdict = sample_verdict()
    for arm in verdict["arms"]:
        arm["cost"] = None if arm["name"] == "full" else dict.fromkeys(arm["cost"])
        arm["scores"]["facts"].update(low=None, high=None)
        for kept in arm["retention"].values():
            kept.update(before=None, change=None, low=None, high=None)
    for one in verdict["contrasts"]:
        one.update(difference=None, low=None, high=None, p_adjusted=None, smallest_resolvable=None)
    for one in (*verdict["transfer"]["rungs"], *verdict["transfer"]["arms"]):
        one.update(value=None, low=None, high=None)
    page = render(verdict, {"learning": [{"arm": "lora", "seed": 0, "examples": [1, 2], "loss": [None, None]}]})
    WellFormed(page)
    assert "None" not in page and "nan" not in re.sub(r"<style>.*?</style>|<script>.*?</script>", "", page, flags=re.S)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (words.score(0.9484, "exact_match"), "94.8"),
        (words.difference(-0.0131, "bits_per_byte"), "−0.013"),
        (words.difference(0.0131, "accuracy"), "+1.3"),
        (words.interval(None, None, "accuracy"), ""),
        (words.size(393216), "393 kB"),
        (words.flops(4.92e12), "4.92 TFLOP"),
        (words.flops(999.96e9), "1.00 TFLOP"),
        (words.scaled(1_812_480), "1.81 M"),
        (words.scaled(None, "B"), "–"),
        (words.count(7500), "7,500"),
        (words.seconds(23.12), "23.1 s"),
        (words.seconds(5400), "1.50 h"),
        (words.usd(0.0004), "$0.0004"),
        (words.usd(1234.5), "$1,234.50"),
        (words.probability(0.0001), "< 0.001"),
        (words.significant(99.97), "100"),
        (words.significant(-0.00123), "−0.00123"),
        (words.short("scratch data.fraction=0.1", 15), "scratch da…=0.1"),
        (words.unit("answer_bits_per_byte"), "bits per byte"),
        (words.difference_unit("acc,none"), "points"),
    ],
)
def test_numbers_in_words(said: str, expected: str) -> None:
    assert said == expected


def test_labels_are_moved_apart_and_keep_their_order() -> None:
    assert spread([10.0, 50.0], 12, 100) == [10.0, 50.0]
    assert spread([50.0, 52.0, 10.0], 12, 100) == [50.0, 62.0, 10.0]
    assert spread([98.0, 99.0], 12, 100) == [88.0, 100.0]


@pytest.mark.parametrize(
    ("cost", "low", "high", "is_log", "labels"),
    [
        ("training_flops", 11.6e9, 28.8e9, False, ["15 GFLOP", "25 GFLOP"]),
        ("device_seconds", 24.0, 49.0, False, ["25 s", "35 s", "45 s"]),
        ("device_seconds", 150.0, 900.0, True, ["5 min", "10 min"]),
        ("peak_memory_bytes", 1.9e8, 5.2e8, False, ["200 MB", "300 MB", "400 MB", "500 MB"]),
        ("trainable_parameters", 1.2e4, 3.1e6, True, ["20 k", "200 k", "2 M"]),
    ],
)
def test_ticks_of_a_cost_are_round(cost: str, low: float, high: float, is_log: bool, labels: list[str]) -> None:
    shown = quantity(cost)
    assert [shown.show(tick) for tick in cost_ticks(low, high, 196, shown.show, shown.units, is_log=is_log)] == labels


@pytest.mark.parametrize("cost", ["training_flops", "device_seconds", "trainable_parameters", "usd"])
@pytest.mark.parametrize("ratio", [2.0, 2.5, 3.3, 4.7, 6.1, 8.0, 13.0, 60.0, 900.0, 1e5, 1e8])
def test_an_axis_has_two_to_four_labels_that_keep_apart(cost: str, ratio: float) -> None:
    shown, is_log = quantity(cost), ratio > 6
    for low in (10.3, 14.0, 22.0, 37.0, 49.0, 63.0, 88.0):
        ticks = cost_ticks(low, low * ratio, 196, shown.show, shown.units, is_log=is_log)
        assert 2 <= len(ticks) <= 4, (low, ticks)
        places = [
            math.log(tick / low) / math.log(ratio) if is_log else (tick / low - 1) / (ratio - 1) for tick in ticks
        ]
        halves = [3.3 * len(shown.show(tick)) for tick in ticks]
        for left, right in itertools.pairwise(range(len(ticks))):
            assert 196 * (places[right] - places[left]) - halves[right] - halves[left] > 7, (low, ticks)


def test_what_the_fronts_take_for_equal_is_said(page_text: str) -> None:
    assert "count as no higher up to 5 % above the other" in page_text
    assert "There is no front for" not in page_text


@pytest.mark.parametrize("fronts", [{}, {"training_flops": {"task": "facts", "front": ["lora"], "off": {}}}])
def test_fronts_that_differing_machines_forbid_are_said_to_be_left_out(fronts: dict[str, Any]) -> None:
    page = render(sample_verdict() | {"measured_under": ["machine.gpu", "machine.clocks"], "pareto": fronts}, {})
    said = "There is no front for device time, energy, money and peak memory: they were measured under differing "
    assert f"{said}machine.gpu, machine.clocks" in page


def test_what_follows_from_the_seed_is_put_away(page_text: str) -> None:
    before, inside = page_text.split("What follows from the seed")
    assert "<code>data.order</code>" in inside and "<code>data.order</code>" not in before
    assert "<code>method.name</code>" in before and before.endswith("<details><summary>")


@pytest.mark.parametrize(("length", "is_long"), [(220, False), (221, True)])
def test_a_long_headline_is_set_smaller_and_whole(length: int, is_long: bool) -> None:
    page = render(sample_verdict() | {"sentence": "x" * length}, {})
    assert ('<p class="sentence long">' in page) is is_long
    assert page.count("x" * length) == 1


def test_a_difference_at_the_floor_is_marked(page_text: str) -> None:
    assert page_text.count("both at the floor</span>") == 1
    assert "both at the ceiling" not in page_text


# --- the browser -----------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """A page in a real browser, and what it did that it should not."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def rows(self) -> list[str]:
        """The text of every item that is shown."""
        found: list[str] = self.page.locator("#item-table tbody tr").all_inner_texts()
        return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(page_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report as a file."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page_text, encoding="utf-8")
    return path


def look(browser: Any, report: Path, **settings: Any) -> Seen:
    """Open the file as a person would, listening to everything it does."""
    page = browser.new_page(**({"viewport": {"width": 1200, "height": 900}} | settings))
    seen = Seen(page)
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("console", lambda message: seen.complaints.append(message.text))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("dialog", lambda dialog: (seen.complaints.append(dialog.message), dialog.dismiss()))
    page.goto(report.as_uri())
    return seen


@pytest.fixture
def seen(browser: Any, report: Path) -> Iterator[Seen]:
    """The report on a desktop; at the end it has asked for nothing, complained of nothing and run nothing foreign."""
    opened = look(browser, report)
    yield opened
    assert opened.requests == [report.as_uri()]
    assert opened.complaints == []
    opened.page.close()


def test_every_plot_is_drawn_and_every_section_is_seen(seen: Seen) -> None:
    for section in SECTIONS:
        assert seen.page.locator(f"section#{section}").bounding_box()["height"] > 100, section
    plots = seen.page.locator("svg.plot:not(.narrow)")
    assert plots.count() == 4 + 3 + 2 + 1 + 1
    for at in range(plots.count()):
        box = plots.nth(at).bounding_box()
        assert box["width"] > 300 and box["height"] > 100
        drawn = plots.nth(at).evaluate("e => { const b = e.getBBox(); return [b.width, b.height]; }")
        assert min(drawn) > 50


def test_text_of_a_plot_stays_inside_it(seen: Seen) -> None:
    outside = seen.page.evaluate("""() => [...document.querySelectorAll("svg.plot:not(.narrow)")].flatMap(plot => {
      const frame = plot.getBoundingClientRect();
      return [...plot.querySelectorAll("text")].filter(text => {
        const box = text.getBoundingClientRect();
        return box.left < frame.left - 1 || box.right > frame.right + 1;
      }).map(text => text.textContent);
    })""")
    assert outside == []


def test_hostile_names_are_read_as_they_are(seen: Seen) -> None:
    assert seen.page.locator("section#arms tbody .name", has_text=HOSTILE).count() == 2
    assert seen.page.locator("section#arms script, #item-table img, #item-table b").count() == 0
    seen.page.locator("#filter").fill("onerror")
    assert len(seen.rows()) == 1 and "<img src=x onerror=alert(2)>" in seen.rows()[0]


def test_items_are_paged(seen: Seen) -> None:
    assert len(seen.rows()) == 25
    seen.page.locator("#more").click()
    assert len(seen.rows()) == 50
    assert seen.page.locator("#shown").inner_text() == "50 of 120 items that fit, 120 in all."
    for _ in range(3):
        seen.page.locator("#more").click()
    assert len(seen.rows()) == 120
    assert not seen.page.locator("#more").is_visible()


def expected_ids(arm_a: str, arm_b: str, a: float, b: float) -> set[str]:
    """The items of the first task where the two arms have these values."""
    rows = [row for row in sample_evidence()["items"] if row["task"] == "facts"]
    return {row["id"] for row in rows if (row["answers"][arm_a]["value"], row["answers"][arm_b]["value"]) == (a, b)}


@pytest.mark.parametrize(("kind", "a", "b"), [("a", 1, 0), ("b", 0, 1), ("both", 1, 1), ("neither", 0, 0)])
def test_items_are_chosen_by_what_two_arms_got_right(seen: Seen, kind: str, a: float, b: float) -> None:
    seen.page.locator("#arm-a").select_option("dora")
    seen.page.locator("#arm-b").select_option(HOSTILE)
    seen.page.locator("#kind").select_option(kind)
    while seen.page.locator("#more").is_visible():
        seen.page.locator("#more").click()
    wanted = expected_ids("dora", HOSTILE, a, b)
    assert {row.split("\n")[0] for row in seen.rows()} - {"No item fits."} == wanted


def test_items_are_filtered_by_text_and_sorted_by_a_column(seen: Seen) -> None:
    seen.page.locator("#filter").fill("person 11")
    names = [row.split("\n")[0] for row in seen.rows()]
    assert sorted(names) == sorted(["p11-birth", *(f"p{number}-birth" for number in range(110, 120))])
    header = seen.page.locator("th[data-sort=id]")
    header.locator("button").click()
    ascending = [row.split("\n")[0] for row in seen.rows()]
    assert ascending == ["p11-birth", *(f"p{number}-birth" for number in range(110, 120))]
    assert header.get_attribute("aria-sort") == "ascending"
    header.locator("button").click()
    assert [row.split("\n")[0] for row in seen.rows()] == ascending[::-1]
    assert header.get_attribute("aria-sort") == "descending"
    seen.page.locator("#filter").fill("nothing holds this")
    assert seen.rows() == [] and seen.page.locator("#shown").inner_text() == "No item fits."


def test_items_with_continuous_values_are_sorted_by_their_difference(seen: Seen) -> None:
    seen.page.locator("#task").select_option("heldout")
    assert seen.page.locator("#kind option").all_inner_texts() == ["all items", "A better", "B better"]
    shown = [abs(float(row.split("\t")[-1].replace("−", "-"))) for row in seen.rows()]
    assert shown == sorted(shown, reverse=True) and shown[0] > shown[-1]
    seen.page.locator("#arm-a").select_option("full")
    seen.page.locator("#kind").select_option("a-better")  # lower is better here
    assert all(row.split("\t")[-1].startswith("−") for row in seen.rows())


def test_a_long_text_is_cut_and_opens(seen: Seen) -> None:
    seen.page.locator("#filter").fill("p5-birth")
    assert seen.rows()[0].count("A long one.") < 80
    seen.page.get_by_role("button", name="whole text").click()
    assert seen.rows()[0].count("A long one.") == 80
    assert "truncated" in seen.rows()[0]


def test_a_command_can_be_copied(browser: Any, report: Path) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(report.as_uri())
    page.locator("button.copy").nth(1).click()
    sync_api.expect(page.locator("button.copy").nth(1)).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == sample_verdict()["reproduce"][1]["command"]
    context.close()


OVERPRINTED = """() => [...document.querySelectorAll("svg.plot")].filter(e => e.checkVisibility()).flatMap(plot => {
  const texts = [...plot.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
  return texts.flatMap(([one, a], at) => texts.slice(at + 1).filter(([, b]) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4).map(([other]) => [one, other]));
})"""
"""Pairs of texts in one plot that lie over each other."""


@pytest.mark.parametrize("width", [390, 768])
def test_nothing_overflows_a_narrow_page(browser: Any, report: Path, width: int) -> None:
    opened = look(browser, report, viewport={"width": width, "height": 844})
    for details in opened.page.locator("details").all():
        details.locator("summary").click()
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    plots = opened.page.locator("svg.plot:visible")
    assert plots.count() == 4 + 3 + 2 + 1 + 1
    for at in range(plots.count()):
        assert plots.nth(at).bounding_box()["width"] <= width
    sizes = opened.page.evaluate("""() => [...document.querySelectorAll("svg.plot")].filter(e => e.checkVisibility())
      .flatMap(plot => [...plot.querySelectorAll("text")].map(text => text.getBoundingClientRect().height))""")
    assert min(sizes) > 8  # readable
    covered = opened.page.evaluate(OVERPRINTED)
    assert covered == []
    for at in range(2):  # quality and cost of every arm
        box = opened.page.locator("section#arms .scroll").nth(at)
        wider = box.evaluate("e => e.scrollWidth > e.clientWidth")
        cue = box.locator("caption > span").evaluate("e => getComputedStyle(e, '::after').content")
        assert wider == ("Scroll sideways" in cue)
    assert wider
    opened.page.close()


COLOURS = """() => [getComputedStyle(document.body).backgroundColor,
  getComputedStyle(document.querySelector("svg.plot text")).fill]"""


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.2), 0 to 1."""
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_the_page_and_its_plots_follow_the_colour_scheme(browser: Any, report: Path, scheme: str, dark: bool) -> None:
    opened = look(browser, report, color_scheme=scheme)
    page, text = (luminance(colour) for colour in opened.page.evaluate(COLOURS))
    assert (page < text) is dark
    names = [*(f"arm-{at}" for at in range(8)), "ink", "muted", "accent", "better", "worse", "equivalent",
             "inconclusive", "alarm", "warning"]  # fmt: skip
    for name in names:
        colour = opened.page.evaluate(
            "name => { document.body.style.color = `var(--${name})`; return getComputedStyle(document.body).color; }",
            name,
        )
        light, low = sorted((luminance(colour), page), reverse=True)
        assert (light + 0.05) / (low + 0.05) > 4.5, name  # WCAG AA for text
    opened.page.close()


def test_paper_shows_everything_and_no_controls(seen: Seen) -> None:
    assert not seen.page.locator("details table").first.is_visible()
    seen.page.emulate_media(media="print", color_scheme="dark")
    sync_api.expect(seen.page.locator("details:not([open])")).to_have_count(0)
    for table in seen.page.locator("details table").all():
        assert table.is_visible()
    for control in ("nav", ".controls", "#more", "button.copy"):
        assert not seen.page.locator(control).first.is_visible(), control
    assert seen.page.locator("svg.plot:visible").count() == 4 + 3 + 2 + 1 + 1
    page, text = (luminance(colour) for colour in seen.page.evaluate(COLOURS))
    assert page == 1.0 and text < 0.2
    seen.page.emulate_media(media="screen")
    sync_api.expect(seen.page.locator("details[open]")).to_have_count(0)


def test_a_report_without_evidence_opens_too(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "bare.html"
    path.write_text(render(sample_verdict(transfer=False), {}), encoding="utf-8")
    opened = look(browser, path)
    assert opened.complaints == []
    assert opened.page.locator("section#items .absent").is_visible()
    assert opened.page.locator("button.copy").count() == 3 * len(ARMS) - 2
    opened.page.close()
