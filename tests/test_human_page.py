"""The rating page in a real browser: filled in, closed halfway, reopened, finished, exported; and Table 2 of three such files."""

import csv
import json
import time
from pathlib import Path

import pytest
from browser import PHONE, opened
from ratings import DIALOGUES, HOSTILE, photograph, responses, returned, study, wanted

from vikdf.human.table import table
from vikdf.means import cell


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def key(folder):
    return study(folder)


@pytest.fixture(scope="module")
def browser(folder):
    """One for the short tests; each opens its page anew and with nothing kept."""
    with opened(downloads=folder / "short") as one:
        yield one


def page(folder: Path, rater: int) -> Path:
    return folder / "human" / "sheets" / f"rater-{rater}.html"


def rate_by_keys(browser, key: dict, rater: int, first: int = 1, last: int = 4) -> None:
    """Digits rate line after line; Enter on Next, which has the focus then, turns the page."""
    for (number, _, _), value in wanted(key, rater).items():
        if first <= number <= last:
            assert browser.one("h2").text == f"Dialogue {number} of 4"
            browser.press(str(value))
            if browser.run("return document.activeElement.id") == "next":
                browser.press("\ue007")


def rate_by_clicks(browser, key: dict, rater: int) -> None:
    for number, letter, criterion in (pending := wanted(key, rater)):
        if browser.one("h2").text != f"Dialogue {number} of 4":
            browser.one("#next").click()
        spot = f"{number}-{letter}-{criterion}"
        browser.one(f'input[name="{spot}"][value="{pending[number, letter, criterion]}"]').click()


def downloaded(folder: Path, pattern: str) -> Path:
    for _ in range(100):
        if found := [path for path in folder.glob(pattern) if path.stat().st_size]:
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"no {pattern} came into {folder}: {list(folder.iterdir())}")


@pytest.fixture(scope="module")
def filled(folder, key):
    """The files of three raters; the first closes the browser halfway and goes on in another one, with its profile."""
    saved = folder / "saved"
    with opened(profile=folder / "profile") as first:
        first.show(page(folder, 1))
        rate_by_keys(first, key, 1, last=2)
        halfway = first.one("#progress").text
    with opened(profile=folder / "profile", downloads=saved) as second:
        second.show(page(folder, 1))
        reopened = second.one("#progress").text, second.one("h2").text
        rate_by_keys(second, key, 1, first=3)
        second.one("#save").click()
        second.one("#csv").click()
        for rater in (2, 3):
            second.show(page(folder, rater), width=PHONE, height=844)
            rate_by_clicks(second, key, rater)
            second.one("#save").click()
        paths = [downloaded(saved, f"ratings-{rater}-????????.json") for rater in (1, 2, 3)]
        sheet = downloaded(saved, "ratings-1-????????.csv")
    return {"halfway": halfway, "reopened": reopened, "json": paths, "csv": sheet}


def test_a_page_closed_halfway_goes_on_where_it_was(filled):
    assert filled["halfway"] == "12 of 24 ratings"
    assert filled["reopened"] == ("12 of 24 ratings", "Dialogue 3 of 4")


def test_the_saved_file_holds_what_was_pressed(filled, key):
    assert [json.loads(path.read_text()) for path in filled["json"]] == [returned(key, rater) for rater in (1, 2, 3)]


def test_the_csv_says_what_the_json_says(filled):
    told = json.loads(filled["json"][0].read_text())
    with open(filled["csv"], newline="") as stream:
        rows = list(csv.DictReader(stream))
    fixed = {"sheet": told["sheet"], "rater": told["rater"]}
    assert rows == [{name: str(value) for name, value in (fixed | row).items()} for row in told["ratings"]]


def test_the_table_of_three_filled_pages_equals_a_calculation_by_hand(filled, folder):
    """Means and Fleiss' kappa of tests/ratings.py's numbers, worked out on paper."""
    files = [filled["csv"], *filled["json"][1:]]
    table(key=folder / "human" / "key.json", returned=files, without=[], output=folder / "table2.csv")
    with open(folder / "table2.csv", newline="") as stream:
        rows = {row["system"]: row for row in csv.DictReader(stream)}
    by_hand = {
        "vikdf": {"relevance": 50 / 12, "informativeness": 2, "fluency": 40 / 12, "kappa": 646 / 862}
        | {"kappa_relevance": 23 / 47, "kappa_informativeness": None, "kappa_fluency": 5 / 8},
        "llm_lora": {"relevance": 21 / 12, "informativeness": 2, "fluency": 56 / 12, "kappa_informativeness": -0.2},
    }
    found = {system: {name: rows[system][name] for name in told} for system, told in by_hand.items()}
    assert found == {
        system: {name: str(cell(float(value))) if value is not None else "" for name, value in told.items()}
        for system, told in by_hand.items()
    }


def test_what_a_stranger_wrote_is_shown_as_text(browser, folder, key):
    browser.show(page(folder, 1))
    assert browser.run("return document.title") == "Rating sheet 1"
    assert browser.run("return document.querySelectorAll('#dialogue script, #dialogue img').length") == 0
    assert HOSTILE in browser.run("return document.querySelector('.turns').textContent")


def test_an_empty_answer_is_told_from_one_that_was_not_shown(browser, folder, key):
    browser.show(page(folder, 1))
    texts = []
    for _ in range(4):
        texts += [each.text for each in browser.all(".text")]
        browser.run("document.getElementById('next').click()")
    assert texts.count("(an empty text)") == 2


@pytest.mark.parametrize("width", [320, PHONE, 1280])
def test_nobody_scrolls_sideways_and_every_choice_is_as_large_as_a_finger(browser, folder, key, width):
    browser.show(page(folder, 1), width=width)
    assert browser.too_wide() == 0
    sizes = browser.run(
        "return [...document.querySelectorAll('.scale label')].map(e => [e.offsetWidth, e.offsetHeight])"
    )
    assert len(sizes) == 2 * 3 * 5 and min(min(size) for size in sizes) >= 44


@pytest.mark.parametrize("size", [(PHONE, 844), (PHONE, 500), (1280, 900)])
def test_the_line_that_is_rated_by_keys_is_in_sight(browser, folder, key, size):
    browser.show(page(folder, 3), *size)
    covers = (
        "const [a, b] = [...document.querySelectorAll('header, #said')].map(e => e.getBoundingClientRect().bottom);"
    )
    for value in ["4"] * 5 + ["\ue003"] * 5:
        browser.press(value)
        seen = "const it = document.activeElement.closest('fieldset').getBoundingClientRect();"
        top, bottom, covered = browser.run(
            f"{covers}{seen} return [it.top, it.bottom, getComputedStyle(said).position == 'sticky' ? b : a]"
        )
        assert covered <= top + 1 and bottom <= size[1]
    browser.run("localStorage.clear()")


def test_backspace_goes_back_a_line_and_the_new_rating_counts(browser, folder, key):
    browser.show(page(folder, 2))
    browser.press("5", "4", "\ue003", "2")
    assert browser.run("return [...document.querySelectorAll('input:checked')].map(e => e.value)") == ["5", "2"]
    browser.run("localStorage.clear()")


def test_a_key_held_down_rates_one_line(browser, folder, key):
    browser.show(page(folder, 2))
    pressed = {"type": "keyDown", "key": "5", "text": "5", "code": "Digit5", "windowsVirtualKeyCode": 53}
    for again in (False, True, True, True):
        browser.driver.execute_cdp_cmd("Input.dispatchKeyEvent", pressed | {"autoRepeat": again})
    assert browser.one("#progress").text == "1 of 24 ratings"
    browser.run("localStorage.clear()")


def test_of_a_long_dialogue_the_last_turn_is_in_sight_and_keys_reach_the_others(browser, tmp_path):
    study(tmp_path, responses(tmp_path, context=[f"turn {number}" for number in range(60)]))
    browser.show(page(tmp_path, 1))
    last, box, reached = browser.run(
        "const it = document.getElementById('said');"
        "return [it.querySelector('li:last-child').getBoundingClientRect().bottom, it.getBoundingClientRect().bottom, it.tabIndex]"
    )
    assert last <= box and reached == 0


@pytest.mark.parametrize("width", [320, 1280])
def test_a_picture_is_shown_with_its_dialogue_and_grows_when_it_is_pressed(browser, tmp_path, width):
    study(tmp_path, pictures=photograph(tmp_path / "pictures", DIALOGUES))
    browser.show(page(tmp_path, 1), width=width)
    size = "const it = document.querySelector('.picture img'); return [it.naturalWidth, it.offsetWidth]"
    natural, small = browser.run(size)
    browser.one(".picture").click()
    assert natural == 320 and browser.run(size)[1] > 2 * small and browser.too_wide() == 0


def test_the_dialogue_that_is_shown_is_told_to_a_screen_reader(browser, folder, key):
    browser.show(page(folder, 1))
    browser.run("at('next').click()")
    told = "return [...document.querySelectorAll('#jumps button')].map(e => e.getAttribute('aria-current'))"
    assert browser.run(told) == ["false", "true", "false", "false"]


def test_a_file_that_the_page_cannot_load_is_a_sentence(browser, folder, key):
    browser.show(page(folder, 1))
    for name, text in {"a.json": "sheet,rater", "b.json": "null", "c.json": "{"}.items():
        (folder / name).write_text(text)
        browser.one("#load").send_keys(str(folder / name))
        assert waited(browser, "#warning", f"{name} could not be loaded: it is not what Save ratings gave")


def test_a_saved_file_goes_on_in_another_browser_and_that_of_another_sheet_does_not(browser, folder, key):
    browser.show(page(folder, 2))
    some = returned(key, 2)
    some["ratings"][-1]["fluency"] = None
    (folder / "some.json").write_text(json.dumps(some))
    (folder / "other.json").write_text(json.dumps(returned(key, 3)))
    browser.one("#load").send_keys(str(folder / "other.json"))
    assert waited(browser, "#warning", "other.json could not be loaded: it belongs to another sheet")
    assert browser.one("#progress").text == "0 of 24 ratings"
    browser.one("#load").send_keys(str(folder / "some.json"))
    assert waited(browser, "#progress", "23 of 24 ratings")
    browser.run("localStorage.clear()")


def test_a_loaded_file_that_rates_otherwise_asks_before_it_replaces(browser, folder, key):
    from selenium.webdriver.support.expected_conditions import alert_is_present
    from selenium.webdriver.support.wait import WebDriverWait

    browser.show(page(folder, 2))
    line, rating = "1-A-relevance", "return ratings['1-A-relevance']"
    some = returned(key, 2)
    (folder / "whole.json").write_text(json.dumps(some))
    other = 1 + mine(some) % 5
    browser.run(f"ratings['{line}'] = arguments[0]; remember()", other)
    for answer, expected in (("dismiss", other), ("accept", mine(some))):
        browser.one("#load").send_keys(str(folder / "whole.json"))
        alert = WebDriverWait(browser.driver, 5).until(alert_is_present())
        assert "whole.json rates 1 lines otherwise" in alert.text
        getattr(alert, answer)()
        time.sleep(0.2)
        assert browser.run(rating) == expected
    browser.run("localStorage.clear()")


def mine(told: dict) -> int:
    return next(row["relevance"] for row in told["ratings"] if (row["dialogue"], row["answer"]) == (1, "A"))


def waited(browser, selector: str, text: str) -> bool:
    for _ in range(50):
        if browser.one(selector).text == text:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    "kept", ["no JSON", "null", "[1]", '{"1-A-relevance": 6, "9-A-fluency": 3, "1-A-fluency": "5"}']
)
def test_what_is_no_rating_of_this_sheet_is_not_taken_from_what_the_browser_kept(browser, folder, key, kept):
    browser.show(page(folder, 3))
    browser.run("localStorage.setItem(`ratings-${sheet.digest}`, arguments[0])", kept)
    browser.driver.refresh()
    assert browser.one("#progress").text == "0 of 24 ratings"
    browser.run("localStorage.clear()")


def test_a_browser_that_keeps_nothing_is_told_of_at_the_first_rating(browser, folder, key):
    script = {"source": "Storage.prototype.setItem = () => { throw new Error('no room') }"}
    added = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
    browser.show(page(folder, 1))
    browser.press("3")
    assert "does not keep your ratings" in browser.one("#warning").text
    browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    browser.run("unsaved = false")


def test_a_script_that_got_into_the_page_would_not_run(browser, folder, key):
    """The page's policy names its own script by its digest: a hole in the escaping alone would not be enough."""
    text = page(folder, 1).read_text().replace("</body>", "<script>document.title = 'taken'</script></body>")
    (folder / "harmed.html").write_text(text)
    browser.show(folder / "harmed.html")
    assert browser.run("return document.title") == "Rating sheet 1"
    browser.gather()
    told = [line for line in browser.console if "Content Security Policy" in line]
    assert len(told) == len(browser.console) == 1
    browser.console.clear()  # that one was wanted


def test_a_sheet_as_large_as_the_papers_opens_at_once_and_counts_all(browser, tmp_path):
    paths = responses(tmp_path, [f"d{number:03}" for number in range(100)], ["a", "b", "c", "d"])
    study(tmp_path, paths, dialogues=100, raters=1)
    browser.show(page(tmp_path, 1))
    assert browser.one("#progress").text == "0 of 1200 ratings"
