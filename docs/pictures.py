"""The pictures of the report that README shows. In: results/report.html. Out: docs/report.png, docs/report_phone.png.

Run: python -m docs.pictures results/report.html      (chromium and chromedriver are needed, as for the tests)
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, "tests")  # the one helper that drives a browser

from browser import PHONE, opened  # noqa: E402

HERE = Path(__file__).parent
WIDE, HIGH = 1280, 2480  # as far as the matrix of pairs
SCREEN = 844  # of a phone
STEADY = "document.documentElement.style.scrollBehavior = 'auto'; document.querySelector(arguments[0]).scrollIntoView()"
FOCUS = "document.querySelectorAll('.pair')[arguments[0]].focus({preventScroll: true})"
PROBE = "const s = document.querySelector('#answers-task'); s.value = 'probe'; s.dispatchEvent(new Event('change'))"


def taken(browser, aside: Path) -> Image.Image:
    browser.photograph(aside, whole=False)
    return Image.open(aside).convert("RGB")


def kept(picture: Image.Image, scale: float, path: Path) -> None:
    small = picture.resize((int(picture.width * scale), int(picture.height * scale)), Image.LANCZOS)
    small.quantize(128).save(path, optimize=True)


def pictures(page: Path) -> None:
    with opened() as browser, tempfile.TemporaryDirectory() as folder:
        aside = Path(folder) / "taken.png"
        browser.show(page, width=WIDE, height=HIGH)
        browser.run(FOCUS, 7)
        kept(taken(browser, aside), 0.8, HERE / "report.png")
        screens = []
        for section, script, dark in (("#glance", "", False), ("#chance", FOCUS, False), ("#answers", PROBE, True)):
            browser.show(page, width=PHONE, height=SCREEN, dark=dark)
            browser.run(STEADY, section)
            browser.run(script, 3)
            screens.append(taken(browser, aside))
        width, height = screens[0].size
        row = Image.new("RGB", (width * 3 + 80, height), "#ffffff")
        for place, screen in enumerate(screens):
            row.paste(screen, (place * (width + 40), 0))
        kept(row, 0.5, HERE / "report_phone.png")


if __name__ == "__main__":
    pictures(Path(sys.argv[1]))
