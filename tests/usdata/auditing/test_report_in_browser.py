"""The audit's page in a real browser, with clicks and keys: it works without a network, and hostile data runs nothing in it."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.usdata.auditing.planted import Planted, duplicate
from tests.usdata.clips import speckle_frames, write_video
from usdata.auditing import audit
from usdata.building import build
from usdata.recipe import Recipe

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("it needs Debian's chromium, which 'make test' installs", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")

FLAGS = ["--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-component-update", "--disable-sync"]
HOSTILE = (
    "<img src=x onerror=alert(1)>.mp4",
    "</script><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "javascript:alert(1)",
    '" onmouseover="alert(1)" autofocus onfocus="alert(1)" x="',
    "'><svg onload=alert(1)>",
    "{{ 7 * 7 }}${alert(1)}",
    "cov\u202e4pm.exe",
    "\u0645\u0633\u062d \u0627\u0644\u0631\u0626\u0629",
    "a_very/long.name-" * 40,
    "!" + "unbroken" * 70,  # first in the order of names, so that the first sentence begins with it
)
# What a page of a hostile set could do if anything of it ran.
ALARM = "window.ran = []; window.alert = (text) => window.ran.push(String(text)); window.refused = [];"
ALARM += "addEventListener('securitypolicyviolation', (event) => window.refused.push(event.violatedDirective));"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        # Chromium's own sandbox wants rights that a container and root do not have; the pages are ours.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, chromium_sandbox=False, args=FLAGS)
        yield browser
        browser.close()


def planted_set() -> Planted:
    """Thirty clips of every kind of row, with more than ten rows where a filter is wanted, and pictures of 200 x 150 pixels."""
    planted = Planted(clips=30)
    for number, clip in enumerate(planted.videos):
        planted.set_video(number, fps=10.0 + number * 7 % 30, fps_effective=None if number % 5 == 0 else 5.0 + number)
        clip["flags"] = ["frozen"] if number % 3 == 0 else []
    planted.set_video(0, status="failed", reason="moov atom not found", frames_kept=0)
    planted.drop_frames("clinic/v00")
    planted.set_video(3, licence=None)
    planted.videos[7]["flags"] = ["short"]
    planted.set_video(4, review="needed", review_reason="text inside")
    planted.set_video(5, status="excluded", reason="no B-mode", frames_kept=0)
    planted.frames = [row | {"width": 200, "height": 150} for row in planted.frames if row["video_id"] != "clinic/v05"]
    planted.duplicates = [duplicate("clinic/v08", "clinic/v09"), duplicate("clinic/v10", "clinic/v13")]
    return planted


def hostile_set() -> Planted:
    planted = planted_set()
    planted.name = HOSTILE[0]
    names = [f"{number}{text}" for number, text in enumerate(HOSTILE)]
    for number, text in enumerate(HOSTILE, start=6):
        before, after = planted.videos[number]["video_id"], names[number - 6]
        planted.set_video(number, label=text, organ=text, licence=text, codec=text, container=text, manufacturer=text)
        planted.videos[number] |= {"video_id": after, "source": text, "patient_id": text, "group_id": text, "flags": [text]}
        planted.videos[number] |= {"review": "needed", "review_reason": text}
        for row in (*planted.frames, *planted.excluded):
            if row["video_id"] == before:
                row |= {"video_id": after, "source": text} | ({"patient_id": text, "group_id": text} if "patient_id" in row else {})
    for number, text in zip((0, 5), HOSTILE, strict=False):
        planted.videos[number] |= {"path": text, "reason": text}
    planted.duplicates = [duplicate(*sorted(names[:2])), duplicate(*sorted(names[2:4]))]
    return planted


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_of(planted_set().write(tmp_path_factory.mktemp("set")))


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_of(hostile_set().write(tmp_path_factory.mktemp("hostile")))


def report_of(folder: Path) -> Path:
    written = audit(folder).report
    assert written is not None
    return written


Open = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens a report; afterwards nothing may have been asked of a network, complained of, refused by the policy, or run."""
    opened = []

    def open_page(report: Path, **options: Any) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
        context.set_default_timeout(10_000)
        context.add_init_script(ALARM)
        page = context.new_page()
        page.asked, page.said = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("dialog", lambda dialog: (page.said.append(dialog.message), dialog.dismiss()))
        page.goto(report.as_uri())
        opened.append((page, report.as_uri()))
        return page

    yield open_page
    for page, address in opened:
        assert page.said == []
        assert {url.split("#")[0] for url in page.asked if not url.startswith("data:")} == {address}
        if page.evaluate("typeof window.ran") != "undefined":
            assert page.evaluate("window.ran") == []
            assert page.evaluate("window.refused") == []
        page.context.close()


def column(page: Any, table: str, name: str) -> list[str]:
    """The texts of a table's column as they stand, of the rows that are shown."""
    return page.evaluate(
        """([table, name]) => {
            const found = document.querySelector(`[aria-label="${table}"] table`);
            const heads = [...found.tHead.rows[0].cells].map((cell) => cell.textContent);
            const rows = [...found.tBodies[0].rows].filter((row) => row.offsetHeight);
            return rows.map((row) => row.cells[heads.indexOf(name)].textContent);
        }""",
        [table, name],
    )


def test_opened_it_asks_nothing_of_a_network(open_page: Open, report: Path) -> None:
    page = open_page(report)
    assert page.title() == "planted: audit"
    assert page.evaluate("[...document.images].filter((image) => image.src && !image.naturalWidth).length") == 0


class Listener(BaseHTTPRequestHandler):
    """Takes down who asks."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_its_policy_refuses_what_foreign_markup_would_ask_or_run(browser: Any, report: Path, tmp_path: Path) -> None:
    # Markup that escaping is there to keep out, put in on purpose: the second line of defence has to hold by itself.
    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        foreign = (
            f"<img src='{address}/picture'><img src=x onerror='alert(1)'><script>alert(2)</script><script src='{address}/script'></script>"
            f"<link rel=stylesheet href='{address}/style'><iframe src='{address}/frame'></iframe><svg onload='alert(3)'></svg>"
        )
        html = report.read_text(encoding="utf-8")
        without_policy = re.sub("<meta http-equiv[^>]*>", "", html)
        assert without_policy != html
        ran = {}
        for name, text in (("with", html), ("without", without_policy)):
            Listener.asked.clear()
            path = tmp_path / f"{name}.html"
            path.write_text(text.replace("</main>", foreign + "</main>"), encoding="utf-8")
            context = browser.new_context()
            context.add_init_script(ALARM)
            page = context.new_page()
            page.goto(path.as_uri())
            ran[name] = (sorted(page.evaluate("window.ran")), sorted(set(Listener.asked)))
            context.close()
        server.shutdown()
    assert ran["with"] == ([], [])
    # So the test can fail.
    assert ran["without"] == (["1", "2", "3"], ["/frame", "/picture", "/script", "/style"])


def test_the_first_screen_says_what_it_is_and_shows_the_worst_findings(open_page: Open, report: Path) -> None:
    page = open_page(report)
    assert page.evaluate("scrollY") == 0
    for selector in ("h1", ".summary p:nth-of-type(4)", ".tiles", ".finding:nth-child(1)", ".finding:nth-child(3)", "nav a[href='#clips']"):
        box = page.locator(selector).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 800, selector
    assert page.locator(".finding .level").all_inner_texts() == sorted(
        page.locator(".finding .level").all_inner_texts(), key=["error", "warning", "note"].index
    )


def test_findings_are_shown_by_level(open_page: Open, report: Path) -> None:
    page = open_page(report)
    levels = page.locator(".finding .level").all_inner_texts()
    assert {"error", "warning", "note"} == set(levels)
    for level in ("error", "warning", "note"):
        button = page.get_by_role("button", name=f"{levels.count(level)} {level}")
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        assert page.locator(".finding .level:visible").all_inner_texts() == [level] * levels.count(level)
    page.get_by_role("button", name=f"all {len(levels)}").click()
    assert page.locator(".finding:visible").count() == len(levels)


def test_a_click_on_a_head_sorts_and_empty_cells_stay_last(open_page: Open, report: Path) -> None:
    page = open_page(report)
    truth = [clip["fps"] for clip in planted_set().videos]
    table = page.get_by_role("region", name="Clips", exact=True)
    head = table.get_by_role("columnheader", name="Hz", exact=True)
    assert head.get_attribute("aria-sort") == "none"
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(text) for text in column(page, "Clips", "Hz")] == sorted(truth)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(text) for text in column(page, "Clips", "Hz")] == sorted(truth, reverse=True)
    effective = table.get_by_role("columnheader", name="effective Hz")
    for down in (False, True):
        effective.get_by_role("button").click()
        shown = column(page, "Clips", "effective Hz")
        known = [clip["fps_effective"] for clip in planted_set().videos if clip["fps_effective"] is not None]
        assert [float(text) for text in shown[: len(known)]] == sorted(known, reverse=down)
        assert shown[len(known) :] == ["–"] * (30 - len(known))
    assert head.get_attribute("aria-sort") == "none"
    table.get_by_role("columnheader", name="status").get_by_role("button").press("Enter")
    assert column(page, "Clips", "status") == ["excluded", "failed"] + ["ok"] * 28
    totals = page.get_by_role("region", name="Counts by source and label")
    totals.get_by_role("columnheader", name="clips").get_by_role("button").click()
    assert totals.locator("tr").last.inner_text().startswith("all")


def test_a_filter_leaves_the_rows_that_hold_every_word(open_page: Open, report: Path) -> None:
    page = open_page(report)
    box = page.locator(".filter", has=page.locator("xpath=following-sibling::*[1][@aria-label='Clips']"))
    box.get_by_label("Filter").fill("Malignant FROZEN")
    expected = [clip["video_id"] for clip in planted_set().videos if clip["label"] == "malignant" and "frozen" in clip["flags"]]
    assert expected
    assert column(page, "Clips", "clip") == expected
    assert box.inner_text().endswith(f"{len(expected)} of 30 rows")
    box.get_by_label("Filter").fill("")
    assert len(column(page, "Clips", "clip")) == 30


def test_a_picture_opens_larger_arrows_go_on_and_escape_gives_the_focus_back(open_page: Open, report: Path) -> None:
    page = open_page(report)
    small = page.locator(".sheet button").nth(1)
    before = small.locator("img").bounding_box()
    small.click()
    dialog = page.get_by_role("dialog")
    large = dialog.locator("img").bounding_box()
    assert large["width"] * large["height"] > 4 * before["width"] * before["height"]
    assert dialog.locator("img").evaluate("(image) => [image.naturalWidth, image.naturalHeight]") == [200, 150]
    # Pictures stand by clip and frame; clip v00 failed, and of v01 this is the second.
    assert dialog.locator(".facts").inner_text() == "frame 1 · benign · group clinic/p0"
    assert dialog.locator("#picture-clip").inner_text() == "clinic/v01"
    assert dialog.locator(".place").inner_text().startswith("2 of ")
    page.keyboard.press("ArrowRight")
    assert dialog.locator(".place").inner_text().startswith("3 of ")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    number = int(dialog.locator(".place").inner_text().split(" of ")[1])
    assert dialog.locator(".place").inner_text() == f"{number} of {number}"
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert small.evaluate("(button) => button === document.activeElement")
    page.keyboard.press("Enter")
    assert dialog.is_visible()
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible()
    assert small.evaluate("(button) => button === document.activeElement")


def test_dark_and_light_follow_the_system_until_the_button_is_used(open_page: Open, report: Path) -> None:
    light, dark = "rgb(245, 247, 249)", "rgb(16, 21, 27)"
    ground = "getComputedStyle(document.body).backgroundColor"
    page = open_page(report, color_scheme="dark")
    assert page.evaluate(ground) == dark
    page.get_by_role("button", name="Switch to light").click()
    assert page.evaluate(ground) == light
    page.reload()
    assert page.evaluate(ground) == light
    page.get_by_role("button", name="Switch to dark").click()
    assert page.evaluate(ground) == dark
    page = open_page(report)
    assert page.evaluate(ground) == light
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(ground) == dark
    assert page.get_by_role("button", name="Switch to light").is_visible()


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_width_scrolls_sideways_however_long_the_names(open_page: Open, report: Path, hostile_report: Path, width: int) -> None:
    for path in (report, hostile_report):
        page = open_page(path, viewport={"width": width, "height": 844})
        page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        # The contents stay in reach wherever the page is scrolled to.
        page.evaluate("document.getElementById('clips').scrollIntoView()")
        box = page.locator("nav").bounding_box()
        assert 0 <= box["y"] < 60


def test_the_keyboard_alone_reaches_everything_and_shows_where_it_is(open_page: Open, report: Path) -> None:
    page = open_page(report, reduced_motion="reduce")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    assert page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    page.reload()
    stops = "a, button, summary, input, [tabindex='0']"
    wanted = page.evaluate(
        "(stops) => [...document.querySelectorAll(stops)].filter((one) => one.offsetParent || one.closest('nav')).length", stops
    )
    reached, unseen = set(), []
    for _ in range(wanted + 20):
        page.keyboard.press("Tab")
        place, seen = page.evaluate(
            """() => {
                const one = document.activeElement;
                const box = one.getBoundingClientRect();
                const style = getComputedStyle(one);
                const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
                const place = [...document.querySelectorAll("*")].indexOf(one);
                return [place, one === document.body || (outlined && box.bottom > 0 && box.top < innerHeight)];
            }"""
        )
        reached.add(place)
        if not seen:
            unseen.append(place)
    assert unseen == []
    assert len(reached) >= wanted
    page.reload()
    page.locator(".chips button").nth(1).focus()
    page.keyboard.press("Space")
    assert {*page.locator(".finding .level:visible").all_inner_texts()} == {"error"}


def test_hostile_data_is_shown_and_runs_nothing(open_page: Open, hostile_report: Path) -> None:
    page = open_page(hostile_report)
    assert page.title() == f"{HOSTILE[0]}: audit"
    assert page.locator("h1").inner_text() == HOSTILE[0]
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    text = " ".join(page.locator("body").inner_text().split())
    for name in HOSTILE[:7]:
        assert name in text
    assert "cov[U+202E]4pm.exe" in text
    assert "\u202e" not in page.content()
    labels = set(column(page, "Counts by source and label", "label"))
    assert {HOSTILE[0], HOSTILE[1], HOSTILE[8]} <= labels
    for number in (0, 3, 7):
        page.locator(".sheet button").nth(number).click()
        page.keyboard.press("ArrowRight")
        assert page.get_by_role("dialog").locator("#picture-clip").inner_text() != ""
        page.keyboard.press("Escape")
    for head in page.locator("thead th button").all():
        head.click()
    for box in page.locator(".filter input").all():
        box.fill("<img src=x onerror=alert(1)>")
    page.mouse.move(400, 400)
    assert page.locator("img:not([src^='data:'])").count() == 0
    page.wait_for_timeout(50)


def test_a_file_with_a_hostile_name_is_built_audited_and_inert(open_page: Open, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_video(raw / "clip.mkv", speckle_frames(6), codec="ffv1")
    whole = write_video(raw / f"<b onclick=alert(1)>{HOSTILE[0]}", speckle_frames(6, seed=1)).read_bytes()
    (raw / HOSTILE[0]).write_bytes(whole[: len(whole) // 2])
    source = {"name": "ward", "layout": "files", "sampling": {"rule": "all"}}
    build(Recipe.model_validate({"name": HOSTILE[0], "sources": [source]}), raw=raw, out=tmp_path / "set", workers=1)
    page = open_page(report_of(tmp_path / "set"))
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    assert page.locator(".finding", has_text="could not be read").locator("li", has_text=HOSTILE[0]).count() == 1
    page.locator(".sheet button").first.click()
    page.keyboard.press("Escape")


def test_without_its_script_the_page_is_whole(open_page: Open, report: Path) -> None:
    with_script = open_page(report)
    texts = with_script.locator(".finding .message").all_inner_texts()
    page = open_page(report, java_script_enabled=False)
    assert page.locator(".finding .message:visible").all_inner_texts() == texts
    assert page.locator(".scripted:visible").count() == 0
    assert page.locator("button:visible").count() == 0
    assert page.locator("dialog").is_visible() is False
    for details in page.locator(".finding details").all():
        if not details.locator("li").first.is_visible():
            details.locator("summary").click()
        assert details.locator("li").first.is_visible()
    assert page.locator("[aria-label='Clips'] tbody tr:visible").count() == 30
    assert page.locator(".sheet img").first.is_visible()
    page.locator("nav a[href='#licences']").click()
    assert page.url.endswith("#licences")


def test_on_paper_everything_is_open_light_and_without_buttons(open_page: Open, report: Path) -> None:
    page = open_page(report, color_scheme="dark")
    page.locator(".chips .error").click()
    page.locator(".filter input").last.fill("nothing like it")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav, .chips, .filter, dialog").locator("visible=true").count() == 0
    assert page.locator(".finding:visible").count() == page.locator(".finding").count()
    assert page.locator("[aria-label='Clips'] tbody tr:visible").count() == 30
    rows = page.evaluate("[...document.querySelectorAll('details li')].map((row) => row.getBoundingClientRect().height)")
    assert rows
    assert min(rows) > 0
    closed = page.locator("details:not([open])").count()
    assert closed
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() == closed
    paper = page.pdf(prefer_css_page_size=True)
    assert paper.startswith(b"%PDF")
    assert paper.count(b"/Type /Page\n") > 3
