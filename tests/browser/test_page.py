"""Test the page of `semcut explore` in Chromium, with an index of scanned digits and its network."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from semcut.connector import Connector
from semcut.connector.data.sources import ImageSet
from semcut.connector.explore.service import ExploreService
from semcut.connector.models.checkpoint import Checkpoint
from semcut.indexes import FaissIndex, IndexConfig
from tests.connector.conftest import architecture, cache, digits, digits_test, model, stored
from tests.connector.explore.conftest import connector, serve, service
from tests.indexes.generate import classified

__all__ = ["architecture", "cache", "connector", "digits", "digits_test", "model", "serve", "service", "stored"]

pytestmark = pytest.mark.browser
TIMEOUT = 20_000  # milliseconds


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert path is not None, "no Chromium here: make test-browser installs one"
    with sync_playwright() as playwright:
        # Root, which runs tests in containers, cannot use the sandbox of Chromium.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def address(serve: Callable[[ExploreService], str], service: ExploreService) -> str:
    return serve(service)


class PageLog:
    """The errors of a page, and the hosts that the page has sent requests to."""

    def __init__(self, page: Page) -> None:
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("request", lambda request: self.hosts.add(urlparse(request.url).netloc or urlparse(request.url).scheme))


@pytest.fixture
def log(page: Page) -> PageLog:
    return page.log  # type: ignore[attr-defined,no-any-return]


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Give a page, which must not report errors unless the test is about errors."""
    settings = getattr(request, "param", {})
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **settings)
    page = context.new_page()
    page.set_default_timeout(TIMEOUT)
    log = PageLog(page)
    page.log = log  # type: ignore[attr-defined]
    yield page
    context.close()
    if not request.node.get_closest_marker("complains"):
        assert log.errors == []


def wait_until_idle(page: Page) -> None:
    """Wait until the page has all responses."""
    page.wait_for_selector("body[data-busy=false]")


def open_page(page: Page, address: str, state: str = "") -> None:
    page.goto(f"{address}/{state}")
    wait_until_idle(page)


def ids(page: Page, place: str = "#hits") -> list[int]:
    return [int(card.get_attribute("data-id") or -1) for card in page.query_selector_all(f"{place} [data-id]")]


def found(connector: Connector, record: int, **settings: object) -> list[int]:
    result = connector.index.search(connector.index.get([record]), **settings)  # type: ignore[arg-type]
    return result.ids[0][result.ids[0] >= 0].tolist()


def share(page: Page) -> float:
    shown = re.search(r"\(([\d.]+) %\)", page.inner_text("#status"))
    assert shown, page.inner_text("#status")
    return float(shown[1])


def test_it_starts_with_a_record_and_loads_nothing_from_other_servers(page: Page, address: str, log: PageLog) -> None:
    open_page(page, address)
    assert len(ids(page)) == 12
    expect(page.locator("#facts")).to_contain_text("1,442 records")
    expect(page.locator("#status")).to_contain_text("12 found")
    page.wait_for_function("[...document.querySelectorAll('#hits img')].every(one => one.complete && one.naturalWidth)")
    page.click("#tab-partitions")
    wait_until_idle(page)
    page.goto(f"{address}/docs")
    page.wait_for_selector(".opblock")
    assert log.hosts <= {urlparse(address).netloc, "data", "blob"}


def test_a_click_on_a_result_makes_it_the_query(page: Page, address: str, connector: Connector) -> None:
    open_page(page, address, "#id=10")
    assert ids(page) == found(connector, 10, k=12)
    chosen = ids(page)[4]
    page.click(f"#hits [data-id='{chosen}']")
    expect(page.locator("#query-id")).to_have_text(f"Record {chosen}")
    wait_until_idle(page)
    assert ids(page) == found(connector, chosen, k=12)
    page.go_back()
    expect(page.locator("#query-id")).to_have_text("Record 10")
    wait_until_idle(page)
    assert ids(page) == found(connector, 10, k=12)
    page.reload()
    wait_until_idle(page)
    assert ids(page) == found(connector, 10, k=12)


def test_an_uploaded_image_is_a_query(page: Page, address: str, connector: Connector, digits_test: ImageSet) -> None:
    open_page(page, address, "#id=10")
    for file in digits_test.files[:2]:
        page.set_input_files("#upload", file)
        expect(page.locator("#query-file")).to_contain_text(Path(file).name)
        wait_until_idle(page)
        assert ids(page) == [hit.id for hit in connector.search([file], k=12)[0]]
        expect(page.locator("#query-picture img")).to_be_visible()


def test_moving_the_cutoff_changes_what_is_scanned(page: Page, address: str, connector: Connector) -> None:
    open_page(page, address, "#id=10")
    shares = []
    for cutoff in ("0", "0.3", "0.9"):
        page.fill("#cutoff", cutoff)
        wait_until_idle(page)
        shares.append(share(page))
        result = connector.index.search(connector.index.get([10]), k=12, cutoff=float(cutoff))
        assert shares[-1] == pytest.approx(100 * result.codes[0] / len(connector.index), abs=0.06)
        kept = page.locator("#partitions-of-query [data-kept=true]").count()
        assert kept == result.partitions[0] or page.locator("#partitions-all").is_visible()
    assert shares[0] > shares[1] > shares[2] > 0
    expect(page.locator("#partitions-of-query li").first).to_contain_text("scanned")
    expect(page.locator("#partitions-of-query li").last).to_contain_text("pruned")


def test_places_are_filled_and_marked_unless_only_relevant_records_are_wanted(
    page: Page, address: str, connector: Connector
) -> None:
    settings = {"k": 12, "cutoff": 0.99}
    relevant = found(connector, 700, fill=False, **settings)
    open_page(page, address, f"#id=700&{'&'.join(f'{name}={value}' for name, value in settings.items())}")
    assert ids(page) == found(connector, 700, **settings)
    assert len(page.query_selector_all("#hits [data-filled=true]")) == 12 - len(relevant) > 0
    expect(page.locator("#hits")).to_contain_text("not relevant")
    expect(page.locator("#status")).to_contain_text(f"{len(relevant)} relevant, {12 - len(relevant)} filled")
    page.check("#only")
    expect(page.locator("#hits [data-filled=true]")).to_have_count(0)
    assert ids(page) == relevant
    page.uncheck("#only")
    page.locator("#cutoff").evaluate("one => { one.value = one.min; one.dispatchEvent(new Event('input')); }")
    expect(page.locator("#cutoff-value")).to_have_text("none")
    page.select_option("#ranking", "relevance")
    expect(page.locator("#hits [data-filled=true]")).to_have_count(0)
    wait_until_idle(page)
    assert ids(page) == found(connector, 700, k=12, cutoff=None, ranking="relevance")
    assert "cutoff=none" in page.url


def test_brute_force_is_shown_next_to_the_search_and_agrees(page: Page, address: str, connector: Connector) -> None:
    open_page(page, address, "#id=10&shortlist=all&compare=1")
    assert ids(page) == ids(page, "#brute") == found(connector, 10, k=12, shortlist=None)
    expect(page.locator("#comparison")).to_contain_text("Same records in the same order")
    assert page.locator("[data-mark]").count() == 0


def test_records_that_a_shortlist_missed_are_marked(page: Page, address: str, connector: Connector) -> None:
    record = next(
        one for one in range(0, 1400, 20) if found(connector, one, k=10, shortlist=10) != found(connector, one, k=10)
    )
    open_page(page, address, f"#id={record}&k=10&shortlist=10&compare=1")
    found_by, best = ids(page), ids(page, "#brute")
    missed = page.locator("#brute [data-mark=missed]")
    assert sorted(int(one.get_attribute("data-id") or -1) for one in missed.all()) == sorted(set(best) - set(found_by))
    expect(missed.first).to_contain_text("missed by the search")
    extra = page.locator("#hits [data-mark=extra]")
    assert {int(one.get_attribute("data-id") or -1) for one in extra.all()} == set(found_by) - set(best)
    expect(page.locator("#comparison")).to_contain_text("differ")


def test_changes_of_k_shortlist_and_ranking_take_effect_at_once(page: Page, address: str, connector: Connector) -> None:
    open_page(page, address, "#id=33")
    page.fill("#k", "5")
    wait_until_idle(page)
    assert ids(page) == found(connector, 33, k=5)
    page.select_option("#ranking", "fused")
    wait_until_idle(page)
    assert ids(page) == found(connector, 33, k=5, ranking="fused")
    page.check("#shortlist-all")
    wait_until_idle(page)
    assert ids(page) == found(connector, 33, k=5, ranking="fused", shortlist=None)
    page.uncheck("#shortlist-all")
    page.fill("#shortlist", "8")
    page.fill("#k", "20")
    wait_until_idle(page)
    assert len(ids(page)) == 20  # the shortlist has been raised


def test_partitions_and_their_least_certain_records(page: Page, address: str, connector: Connector) -> None:
    open_page(page, address, "#view=partitions")
    assert page.locator("#partitions button[data-partition]").count() == 10
    page.click("#partitions button[data-partition='8']")
    wait_until_idle(page)
    page.check("#ambiguous")
    expect(page.locator("#partition-status")).to_contain_text("least certain first")
    wait_until_idle(page)
    shown = connector.index.get(ids(page, "#members")).probabilities
    assert set(shown.argmax(axis=1)) == {8}
    assert (shown.max(axis=1)[1:] >= shown.max(axis=1)[:-1]).all()
    first = ids(page, "#members")[0]
    page.click(f"#members [data-id='{first}']")
    expect(page.locator("#query-id")).to_have_text(f"Record {first}")


def test_the_page_is_usable_with_a_keyboard(page: Page, address: str, connector: Connector) -> None:
    open_page(page, address, "#id=10")
    page.focus("#hits [data-id]")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    chosen = found(connector, 10, k=12)[2]
    expect(page.locator("#query-id")).to_have_text(f"Record {chosen}")
    page.focus("#tab-search")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#view-partitions")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    page.focus("#id-field")
    page.keyboard.press("Control+A")
    page.keyboard.type("77")
    page.keyboard.press("Enter")
    expect(page.locator("#query-id")).to_have_text("Record 77")


@pytest.mark.parametrize("page", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
def test_it_fits_a_narrow_screen_in_dark_and_light(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 360, "height": 700})
    for state in ("#id=10&compare=1", "#view=partitions", "#view=partitions&partition=3"):
        open_page(page, address, state)
        page.reload()
        wait_until_idle(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    colours = page.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    text, ground = (sum(map(float, re.findall(r"[\d.]+", colour)[:3])) for colour in colours)
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (text > ground) == dark


@pytest.mark.complains
def test_errors_are_shown_as_text(page: Page, address: str, tmp_path: Path) -> None:
    open_page(page, address, "#id=10")
    page.fill("#id-field", "999999")
    page.press("#id-field", "Enter")
    expect(page.locator("#alert")).to_contain_text("id 999999 is not in the index")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    page.set_input_files("#upload", tmp_path / "broken.png")
    expect(page.locator("#alert")).to_contain_text("cannot be searched with")
    page.fill("#id-field", "12")
    page.press("#id-field", "Enter")
    expect(page.locator("#alert")).to_be_empty()
    page.route("**/search", lambda route: route.abort())
    page.fill("#cutoff", "0.5")
    expect(page.locator("#alert")).not_to_be_empty()
    assert "object" not in page.inner_text("#alert").lower()


def test_an_empty_index_is_announced(page: Page, serve: Callable[[ExploreService], str]) -> None:
    index = FaissIndex.create(None, IndexConfig(classes=2, bits=32, dim=2))
    open_page(page, serve(ExploreService(index, ["a", "b"], None)))
    expect(page.locator("#empty")).to_be_visible()


def test_a_record_is_found_by_its_key_and_shown_with_it(page: Page, serve: Callable[[ExploreService], str]) -> None:
    config = IndexConfig(classes=4, bits=32, dim=16, string_ids=True)
    keys = ["a/b%2F c&d.jpg", "<b>7</b>", "7", "x" * 300]
    index = FaissIndex.create(None, config)
    index.add(replace(classified(np.random.default_rng(0), config, len(keys)), ids=keys))
    open_page(page, serve(ExploreService(index, None, None)))
    for key in keys:
        page.fill("#id-field", key)
        page.click("#id-go")
        expect(page.locator("#query-id")).to_have_text(f"Record {key}")
        wait_until_idle(page)
        assert f"id={index.get([key]).ids[0]}" in page.url
        assert page.input_value("#id-field") == key
    assert page.query_selector("#query-id b") is None
    assert {card.get_attribute("title") for card in page.query_selector_all("#hits [data-id]")} == {
        f"record {key}" for key in keys
    }


def test_without_a_network_there_is_no_upload(
    page: Page, serve: Callable[[ExploreService], str], connector: Connector, model: Checkpoint
) -> None:
    open_page(page, serve(ExploreService(connector.index, None, None)), "#id=3")
    expect(page.locator("#drop")).to_be_hidden()
    expect(page.locator("#no-images")).to_be_visible()
    expect(page.locator("#query-classes")).to_contain_text("class ")


@pytest.fixture(scope="module")
def attributed(
    model: Checkpoint, digits: ImageSet, serve: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The address of an index of 20 digits with attributes, one of which is written as an element."""
    place = tmp_path_factory.mktemp("attributed") / "index"
    names = ["<img src=x onerror=alert(1)>", *("ab"[number % 2] for number in range(1, 20))]
    with Connector.create(place, model.path, attributes={"price": "float", "camera": "category"}) as made:
        made.add_files(digits.files[:20], attributes={"price": [n / 2 for n in range(20)], "camera": names})
    return serve(ExploreService(FaissIndex.open(place), digits.classes, None))


def test_a_filter_limits_the_records_and_attributes_are_shown_as_text(page: Page, attributed: str) -> None:
    open_page(page, attributed, "#id=0&cutoff=none")
    expect(page.locator("#where-help")).to_contain_text("price (float), camera (category)")
    expect(page.locator("#query-attributes")).to_contain_text("<img src=x onerror=alert(1)>")
    page.fill("#where", "price < 2 and camera != 'b'")
    page.press("#where", "Enter")
    wait_until_idle(page)
    assert sorted(ids(page)) == [0, 2]
    expect(page.locator("#hits [data-id='0']")).to_contain_text("<img src=x onerror=alert(1)>")
    expect(page.locator("#hits [data-id='2']")).to_contain_text("price 1")
    assert page.query_selector_all("[onerror]") == []
    page.reload()
    wait_until_idle(page)
    assert page.input_value("#where") == "price < 2 and camera != 'b'"
    assert sorted(ids(page)) == [0, 2]


@pytest.mark.complains
def test_the_error_of_a_filter_stands_beside_it(page: Page, attributed: str) -> None:
    open_page(page, attributed, "#id=0&where=price+%3C")
    expect(page.locator("#where-error")).to_contain_text("where, at character 8: expected a number")
    expect(page.locator("#alert")).to_have_text("")
    page.fill("#where", "")
    page.press("#where", "Enter")
    wait_until_idle(page)
    expect(page.locator("#where-error")).to_have_text("")
    assert len(ids(page)) == 12


def test_an_index_without_attributes_has_no_filter(page: Page, address: str) -> None:
    open_page(page, address, "#where=price+%3C+2")
    expect(page.locator("#where-field")).to_be_hidden()
    assert len(ids(page)) == 12
