"""The report in a real browser, on a phone's width and on a desk's: it fits, it answers, it asks nobody, nothing fails."""

import pages
import pytest
from browser import PHONE, opened

from vikdf import tracking
from vikdf.report.__main__ import report

Keys = pytest.importorskip("selenium.webdriver.common.keys", reason="selenium is not installed: make setup").Keys
WIDTHS = [PHONE, 1280]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "send", lambda run, store: None)
        arguments = pages.written(folder, seeds=3)
        report(**arguments)
    return arguments["output"]


@pytest.fixture(scope="module")
def window():
    with opened() as browser:  # when it closes: no error in the console, no request to a host
        yield browser


def shown(browser, selector, name="textContent"):
    """This of every element that can be seen, asked for at once."""
    script = "return [...document.querySelectorAll(arguments[0])].filter(each => each.checkVisibility())"
    script += ".map(each => each[arguments[1]])"
    return browser.run(script, selector, name)


def marked(browser, selector, name):
    """The data-`name` of every element that can be seen."""
    return {each[name] for each in shown(browser, selector, "dataset")}


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_nobody_scrolls_the_page_sideways(window, page, width, dark):
    window.show(page, width=width, dark=dark)
    for switch in window.all("#table1 .tools input"):
        switch.click()
    assert window.too_wide() == 0
    window.gather()
    assert (
        window.console == []
        and [url for url in window.requests if not url.startswith(("file:", "data:", "about:"))] == []
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_the_papers_numbers_come_and_go_with_their_switch(window, page, width):
    window.show(page, width=width)
    assert shown(window, ".reported, .reported-rows, .reported-note") == []
    window.one("#show-reported").send_keys(Keys.SPACE)
    assert "15.35" in shown(window, "td.reported")
    assert "Reported, not measured here." in window.one(".reported-note").text
    window.one("#show-reported").send_keys(Keys.SPACE)
    assert shown(window, ".reported, .reported-rows, .reported-note") == []


def test_a_heading_sorts_best_first_and_the_other_way(window, page):
    window.show(page)
    head = window.all("#table1 table")[1].find_elements("css selector", "thead th")[
        4
    ]  # BLEU-1: system data PPL paper BLEU-1
    first = "return document.querySelectorAll('#table1 table')[1].tBodies[0].rows[0].cells[0].textContent"
    head.find_element("css selector", "button").send_keys(Keys.ENTER)
    assert (window.run(first), head.get_attribute("aria-sort")) == ("vikdf", "descending")
    head.find_element("css selector", "button").send_keys(Keys.ENTER)
    assert (window.run(first), head.get_attribute("aria-sort")) == ("llm_zero_shot", "ascending")


def test_the_matrix_is_of_the_chosen_metric_and_ranks_by_it(window, page):
    window.show(page)
    names = (
        "return [...document.querySelectorAll('.matrix tbody th')].map(each => each.childNodes[1].textContent.trim())"
    )
    assert window.run(names)[0] == "vikdf" and window.one(".matrix").get_attribute("data-metric") == "bleu1"
    choose(window, "#chance-metric", "PPL")
    assert window.run(names)[0] == "shuffled"  # lower is better
    window.one("#chance-controls").click()
    assert window.run(names)[0] == "llm_zero_shot" and len(window.run(names)) == 7


def test_the_probe_can_be_chosen_too(window, page):
    window.show(page, width=PHONE)
    choose(window, "#chance-task", "Probe")
    assert window.one(".matrix").get_attribute("data-metric") == "color_accuracy_all_heldout"
    assert len(window.all(".matrix tbody tr")) == 5


def test_the_arrow_keys_move_in_the_matrix_and_tell_the_pair(window, page):
    window.show(page)
    assert len(window.all(".pair[tabindex='0']")) == 1  # one stop of the tab key
    window.run("document.querySelector('.pair[tabindex=\"0\"]').focus()")
    assert window.one("#chance-told").text.startswith("vikdf (full) 70.10 against vikdf (quarter) 69.10: +1.00, p .400")
    window.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)  # over the diagonal
    assert window.one("#chance-told").text.startswith("vikdf (zero) 67.10 against vikdf (eighth)")


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_lies_over_the_matrix_before_a_pair_is_chosen(window, page, width):
    window.show(page, width=width)
    window.run(
        "scrollTo(0, scrollY + document.querySelector('.matrix').getBoundingClientRect().top - innerHeight + 200)"
    )
    below = "return document.querySelector('#chance-told').getBoundingClientRect().top"
    below += " - document.querySelector('.matrix').getBoundingClientRect().bottom"
    assert window.run(below) >= 0
    window.run("document.querySelector('.pair[tabindex=\"0\"]').focus({preventScroll: true})")
    inside = "return document.querySelector('#chance-told').getBoundingClientRect().bottom - innerHeight"
    assert window.run(inside) <= 0  # then it is in sight, whatever is seen of the matrix
    choose(window, "#chance-metric", "PPL")
    assert window.run(below) >= 0


def test_a_drawing_on_a_phone_is_as_wide_as_its_text_needs_and_the_page_is_not(window, page):
    window.show(page, width=PHONE)
    widths = window.run(
        "return [...document.querySelectorAll('.drawing svg')].map(each => each.getBoundingClientRect().width)"
    )
    assert widths and min(widths) >= 480 and window.too_wide() == 0


def test_a_search_finds_answers_and_stands_out(window, page):
    window.show(page)
    window.one("#find").send_keys("truck 17")
    found = shown(window, ".item")
    assert len(found) == 2 and all("truck 17" in text for text in found)
    assert window.one("#answers-told").text == "2 of 2 items with “truck 17”"
    assert window.run("return CSS.highlights.get('found').size") > 4


def test_items_can_be_chosen_by_task_data_and_system(window, page):
    window.show(page)
    choose(window, "#answers-task", "Image-Chat")
    assert marked(window, ".item", "task") == {"image_chat"}
    assert marked(window, ".item [data-system]", "data") == {"zero"}
    choose(window, "#answers-data", "all")
    assert marked(window, ".item [data-system]", "data") > {"zero", "full"}
    window.one(".choice summary").click()
    window.one("[name=system][value=vikdf]").click()
    assert "vikdf" not in marked(window, ".item [data-system]", "system")


@pytest.mark.parametrize(("width", "step"), [(PHONE, 5), (1280, 12)])
def test_more_items_come_when_asked_for(window, page, width, step):
    window.show(page, width=width)
    assert len(shown(window, ".item")) == step
    window.one("#more").send_keys(Keys.ENTER)
    assert len(shown(window, ".item")) == 2 * step


def test_dark_and_light_can_be_chosen_and_are_kept(window, page):
    window.show(page)
    colour = "return getComputedStyle(document.body).backgroundColor"
    assert window.run(colour) == "rgb(255, 255, 255)"
    window.one("#theme").send_keys(Keys.ENTER)
    assert window.run(colour) == "rgb(20, 23, 28)"
    window.driver.refresh()
    assert window.run(colour) == "rgb(20, 23, 28)"
    window.run("localStorage.clear()")


def test_the_tab_key_reaches_all_that_can_be_chosen(window, page):
    window.show(page)
    missed = window.run(
        "return [...document.querySelectorAll('button, select, input, summary, a[href], .scroll')]"
        ".filter(each => each.checkVisibility() && each.tabIndex < 0).map(each => each.outerHTML.slice(0, 80))"
    )
    assert missed == []


def test_each_heading_of_the_menu_leads_to_its_section(window, page):
    window.show(page)
    lost = window.run(
        "return [...document.querySelectorAll('nav a')].filter(each => !document.querySelector(each.hash)).length"
    )
    assert lost == 0 and len(window.all("nav a")) == 10


def test_print_is_light_without_buttons_and_with_no_table_cut_off(window, page):
    window.show(page, dark=True)
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]  # not every browser prints as if it were light
    window.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": dark})
    assert window.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert shown(window, "nav, .tools, button#theme, #more") == []
    assert set(
        window.run("return [...document.querySelectorAll('.scroll')].map(each => getComputedStyle(each).overflowX)")
    ) == {"visible"}


def choose(browser, selector, text):
    """As a person does with the keyboard."""
    from selenium.webdriver.support.ui import Select

    Select(browser.one(selector)).select_by_visible_text(text)
