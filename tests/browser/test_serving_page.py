"""The page of `pipeline serve` in Chromium: it draws, shows rows as they come, cancels, and runs nobody's text."""

import os
from pathlib import Path

import pytest

from pipeline.sampling.pick import Sampling
from pipeline.serving.limits import Limits
from pipeline.serving.wish import Reader
from tests.support.browser import MISSING, Browser
from tests.support.serving import Server, Shades, eventually

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(MISSING), reason=f"the page is not looked at: no {' and no '.join(MISSING)} here"),
]
HOSTILE = "<img src=x onerror=\"document.title='ran'\"><script>document.title='ran'</script> {{7*7}} \u202eevil"
FRESH = Limits(turn=0, preview_rows=1, grace=600, rate=10_000)
PENS = Sampling(cfg_scale=3.0, top_k=0)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium")) as one:
        one.size(1280, 900)
        yield one


@pytest.fixture
def server():
    with Server(Shades(slots=2, grid=16), FRESH, reader=Reader(None, 300, PENS)) as one:
        yield one


@pytest.fixture
def page(browser, server):
    browser.console(), browser.requested()
    browser.open(server.url)
    browser.until("document.getElementById('cfg_scale').value === '3'")
    yield browser
    assert browser.console() == []
    outside = [url for url in browser.requested() if not url.startswith((server.url, "data:"))]
    assert outside == []
    browser.open("about:blank")


def keep(browser, name):
    """Leave a screenshot where SCREENSHOTS names a folder."""
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder, name).write_bytes(browser.screenshot())


def state(number):
    return f"document.querySelectorAll('.card')[{number}].querySelector('.state').textContent"


def test_a_prompt_draws_a_picture_row_by_row(page, server):
    assert page.run("return document.getElementById('model').textContent") == "shades of grey, no model"
    page.type("#prompt", "a red fox")
    server.engine.step_seconds = 0.002
    page.click("#draw")
    page.until("document.querySelector('.card img').src.startsWith('data:image/png')")
    seen = page.run("return document.querySelector('.card .state').textContent")
    assert seen.startswith(("row ", "done"))
    page.until(f"{state(0)} === 'done'")
    page.until("document.querySelector('.card img').complete")
    assert page.run("return document.querySelector('.card img').naturalWidth") == 128
    assert page.run("return new URL(document.querySelector('.card img').src).pathname").startswith("/pictures/1-")
    assert page.run("return document.querySelector('.card img').alt") == "a red fox"
    assert page.run("return document.querySelector('.card .cancel').hidden")


def test_previews_show_more_and_more_rows(page, server):
    server.engine.step_seconds = 0.003
    page.run(
        "window.rows = []; new MutationObserver(() => {"
        " const at = document.querySelector('.card .state'); if (at) window.rows.push(at.textContent); })"
        ".observe(document.getElementById('pictures'), {subtree: true, childList: true, characterData: true})"
    )
    page.type("#prompt", "rows")
    page.click("#draw")
    page.until(f"document.querySelector('.card') && {state(0)} === 'done'")
    rows = [int(said.split()[1]) for said in page.run("return window.rows") if said.startswith("row ")]
    assert rows == sorted(rows)
    assert len({*rows}) >= 3


def test_cancel_takes_a_picture_out_of_its_slot(page, server):
    server.engine.gate.clear()
    page.type("#prompt", "never")
    page.click("#draw")
    page.until(f"document.querySelector('.card') && {state(0)} === 'drawing'")
    page.click(".card .cancel")
    page.until(f"{state(0)} === 'cancelled'")
    server.engine.gate.set()
    eventually(lambda: server.engine.drawn == {})
    page.until("document.querySelector('.card .again').offsetParent !== null")
    page.click(".card .again")
    assert page.run("return document.getElementById('prompt').value") == "never"


def test_a_hostile_prompt_is_text(page, server):
    page.run("document.getElementById('prompt').value = arguments[0]", HOSTILE)
    page.click("#draw")
    page.until(f"document.querySelector('.card') && {state(0)} === 'done'")
    assert page.run("return document.querySelector('.card .text').textContent") == HOSTILE
    assert page.run("return document.title") == "Tessera: draw pictures"
    assert page.run("return document.querySelectorAll('.card script, .card .text *').length") == 0


def test_enter_draws_and_a_refusal_is_said(page, server):
    page.type("#prompt", "from the keyboard")
    page.keys("\ue007")
    page.until(f"document.querySelector('.card') && {state(0)} === 'done'")
    page.run("const to = document.getElementById('prompt'); to.maxLength = 9999; to.value = 'x'.repeat(301)")
    page.click("#draw")
    page.until("document.getElementById('said').textContent.includes('prompt has 301 characters, wanted 300 at most')")
    assert [line for line in page.console() if "400 (Bad Request)" not in line] == []


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off(page, server, width):
    page.size(width, 900)
    server.engine.step_seconds = 0.0
    page.run("document.querySelector('details').open = true; document.getElementById('count').value = '4'")
    page.run("document.getElementById('prompt').value = arguments[0]", "a red fox in the snow, " * 6 + "x" * 80)
    page.click("#draw")
    page.until("document.querySelectorAll('.card.done').length === 4")
    server.engine.step_seconds = 0.02
    page.run("document.getElementById('prompt').value = 'a lighthouse at dusk'")
    page.click("#draw")
    page.until(f"document.querySelectorAll('.card').length === 8 && {state(7)} === 'done'")
    page.until("[...document.querySelectorAll('.card.drawing img')].filter(e => e.src).length === 2")
    keep(page, f"serve-{width}.png")
    assert page.run("return document.documentElement.scrollWidth") <= width
    over = "filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"
    assert page.run(f"return [...document.querySelectorAll('main *')].{over}") == 0
    unnamed = "filter(e => !e.labels.length).map(e => e.id)"
    assert page.run(f"return [...document.querySelectorAll('input, select, textarea')].{unnamed}") == []
    page.size(1280, 900)


def test_a_model_of_classes_asks_for_a_number(browser):
    with Server(Shades(classes=10), FRESH, reader=Reader(10, 300, PENS)) as server:
        browser.open(server.url)
        browser.until("document.getElementById('class').offsetParent !== null")
        assert browser.run("return document.getElementById('prompt').offsetParent") is None
        browser.run("document.getElementById('class').value = '7'")
        browser.click("#draw")
        browser.until(f"document.querySelector('.card') && {state(0)} === 'done'")
        assert browser.run("return document.querySelector('.card .text').textContent") == "class 7"
        browser.open("about:blank")


def test_dark_mode(tmp_path, server):
    with Browser(tmp_path, dark=True) as browser:
        browser.size(1280, 900)
        browser.open(server.url)
        browser.until("document.getElementById('cfg_scale').value === '3'")
        keep(browser, "serve-dark.png")
        assert browser.run("return matchMedia('(prefers-color-scheme: dark)').matches")
        assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(21, 25, 26)"
