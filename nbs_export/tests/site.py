"""Opens the site that `cargo nbs site` makes in a browser. Needs Chromium and the package playwright:

    python nbs_export/tests/site.py [FOLDER]
"""

import pathlib
import shutil
import sys

from playwright.sync_api import sync_playwright

FOLDER = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "target/site").resolve()
CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
failures = []


def expect(condition, text):
    if not condition:
        failures.append(text)
        print("FAILED:", text)


def address(page):
    return (FOLDER / page).as_uri()


def open_all(browser):
    """Every page in both widths and both colours: no message in the console, nothing beyond the edge, all pictures there."""
    names = sorted(path.name for path in FOLDER.glob("*.html"))
    expect(len(names) > 30, f"only {len(names)} pages in {FOLDER}")
    for width, colours in ((1280, "light"), (360, "dark")):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=colours)
        page = context.new_page()
        messages, requests = [], []
        page.on("console", lambda message: messages.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        for name in names:
            page.goto(address(name))
            # Pictures are loaded when they come into view.
            page.eval_on_selector_all("img", "all => all.forEach(one => one.loading = 'eager')")
            page.wait_for_function("[...document.images].every(one => one.complete)")
            broken = page.eval_on_selector_all("img", "all => all.filter(one => one.naturalWidth === 0).map(one => one.src)")
            expect(not broken, f"{name}: pictures are not there: {broken[:3]}")
            without = page.eval_on_selector_all("img", "all => all.filter(one => !one.alt).map(one => one.src)")
            sizes = page.eval_on_selector_all("img", "all => all.filter(one => !one.width || !one.getAttribute('height')).length")
            expect(sizes == 0, f"{name}: {sizes} pictures whose place is not kept free")
            expect(not without, f"{name}: pictures without a description: {without[:3]}")
            wide = page.evaluate("document.documentElement.scrollWidth")
            expect(wide <= width, f"{name}: {wide} pixels wide on a screen of {width}")
            expect(not page.query_selector(".broken-math"), f"{name}: a formula could not be read")
        expect(not messages, f"the console says at {width} pixels: {messages[:3]}")
        elsewhere = [url for url in requests if not url.startswith(("file:", "data:"))]
        expect(not elsewhere, f"loaded from elsewhere: {elsewhere[:3]}")
        context.close()
    return len(names)


def search(page):
    page.goto(address("index.html"))
    page.fill("#query", "log-sum-exp")
    page.wait_for_selector("#found a")
    found = page.inner_text("#found")
    expect("log-sum-exp" in found.lower(), f"the search finds {found[:80]!r}")
    page.click("#found a")
    page.wait_for_load_state()
    expect("index.html" not in page.url, "what was found does not open")
    page.goto(address("index.html"))
    page.fill("#query", "log-sum-exp")
    page.wait_for_selector("#found a")
    page.keyboard.press("ArrowDown")
    expect(page.evaluate("document.activeElement.closest('#found') !== null"), "an arrow does not lead to what was found")
    page.keyboard.press("Enter")
    page.wait_for_function("!location.href.includes('index.html')")
    page.fill("#query", "FRECHET distance")
    page.wait_for_function("document.getElementById('found').innerText.includes('Fréchet')")
    page.fill("#query", "zzzqqq")
    page.wait_for_function("document.getElementById('found').innerText.includes('Nothing')")


def fold(page):
    page.goto(address("05_tensor.html"))
    answer = page.locator("main details", has_text="An answer").first
    code = answer.locator("code").first
    expect(not code.is_visible(), "an answer is not folded")
    answer.locator("summary").first.click()
    expect(code.is_visible(), "an answer does not unfold")


def colours(page):
    page.goto(address("index.html"))
    background = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")
    first = background()
    page.click("#theme")
    expect(background() != first, "the button changes no colours")
    page.reload()
    expect(background() != first, "the choice of colours is forgotten")


def copy(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(address("16_samplers.html"))
    code = page.locator(".cell > .code").first
    code.hover()
    code.get_by_role("button", name="Copy").click()
    code.get_by_role("button", name="Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    expect(copied.strip() == code.locator("code").inner_text().strip(), f"copied was {copied[:80]!r}")


def contents(page):
    page.goto(address("16_samplers.html"))
    link = page.locator(".sections a").nth(2)
    link.click()
    page.wait_for_function("document.querySelectorAll('.sections .here').length === 1")
    expect("here" in link.get_attribute("class"), "the section that is read is not marked")


def movement(page):
    """A picture that moves can be stopped, and does not begin where the reader's system asks for calm."""
    picture = page.locator(".moving img").first
    for motion, button in (("no-preference", "Stop"), ("reduce", "Play")):
        page.emulate_media(reduced_motion=motion)
        page.goto(address("03_meanshift.html"))
        before = picture.get_attribute("src")
        still = picture.get_attribute("data-still")
        expect((before == still) == (motion == "reduce"), f"with motion {motion} the picture is {before}")
        picture.hover()
        page.locator(".moving button").first.click()
        expect(picture.get_attribute("src") != before, f"the button {button} does nothing")


def mathematics(page):
    """The font is there, and sums are larger than letters, which needs its table."""
    page.goto(address("06_training.html"))
    page.evaluate("document.fonts.ready")
    expect(page.evaluate("[...document.fonts].some(one => one.family.includes('minai math') && one.status === 'loaded')"),
           "the font for mathematics is not loaded")
    sums = page.locator("math[display=block] mo", has_text="∑")
    heights = [box["height"] for box in map(lambda one: one.bounding_box(), sums.all()) if box]
    expect(heights and max(heights) > 22, f"sums are {heights} pixels high")


def keyboard(page):
    page.goto(address("16_samplers.html"))
    page.keyboard.press("Tab")
    expect(page.evaluate("document.activeElement.className") == "skip", "the first Tab does not lead to the content")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    expect(page.evaluate("document.activeElement.id") == "query", "/ does not lead to the search")


def main():
    if CHROMIUM is None:
        sys.exit("no Chromium: `apt-get install chromium` brings one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        pages = open_all(browser)
        page = browser.new_page()
        for test in (search, fold, colours, copy, contents, movement, mathematics, keyboard):
            test(page)
        browser.close()
    if failures:
        sys.exit(f"{len(failures)} failures")
    print(f"{pages} pages are as they should be")


if __name__ == "__main__":
    main()
