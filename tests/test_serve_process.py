"""A server in a process of its own: killed while it takes items, and in a browser."""

import contextlib
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys
import threading
import time

import httpx2
import numpy as np
import pytest
from tiny_service import COLOURS, NASTY, png

from modal_aware_jax.serve.live_index import LiveIndex

HERE = pathlib.Path(__file__).parent


@contextlib.contextmanager
def server(path):
    """A process that serves the index at a path, and its address."""
    process = subprocess.Popen(
        [sys.executable, HERE / "tiny_service.py", path],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        yield process, re.search(r"http://\S+", line)[0]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class Clients:
    """Eight clients that add and remove items of their own until the server is gone.

    Attributes:
      known: ids that are there for all that was acknowledged.
      unsure: those that were asked for and not answered.
    """

    def __init__(self, address, known, seed):
        self.address, self.known, self.seed = address, set(known), seed
        self.unsure, self.acknowledged = set(), 0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.ask, args=(i,)) for i in range(8)]
        for thread in self.threads:
            thread.start()

    def ask(self, number):
        rng = random.Random(100 * self.seed + number)
        with httpx2.Client(base_url=self.address, timeout=60) as client:
            for i in range(10_000):
                with self.lock:
                    own = sorted(n for n in self.known if n[:2] == f"{number}:")
                adds = rng.random() < 0.7 or not own
                name = f"{number}:{self.seed}:{i}" if adds else rng.choice(own)
                with self.lock:
                    self.unsure.add(name)
                try:
                    answer = self.change(client, name, adds, rng)
                except httpx2.TransportError:
                    return  # killed: whether it was done is not known
                assert answer.status_code == (201 if adds else 200), answer.text
                with self.lock:
                    self.unsure.discard(name)
                    (self.known.add if adds else self.known.discard)(name)
                    self.acknowledged += 1

    def change(self, client, name, adds, rng):
        if not adds:
            return client.delete("/items", params={"id": name})
        return client.post(
            "/items",
            data={"text": "kite", "id": name},
            files={"image": ("a.png", png(COLOURS[rng.choice(list(COLOURS))]))},
        )


@pytest.mark.slow
def test_killed_while_it_takes_items_it_lost_none_it_acknowledged(tmp_path):
    path, rng = tmp_path / "forty.index", random.Random(0)
    known = {f"folder/{i:02}.png" for i in range(40)} - {"folder/06.png"} | {NASTY}
    for seed in range(5):
        with server(path) as (process, address):
            clients = Clients(address, known, seed)
            while clients.acknowledged < 30:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.5))
            process.kill()
            for thread in clients.threads:
                thread.join()
        index = LiveIndex(path)
        there = set(index.ids.tolist())
        index.close()
        assert there - clients.unsure == clients.known - clients.unsure
        assert len(clients.unsure) <= 8
        known = there


@pytest.mark.slow
def test_stopped_by_a_signal_it_saves(tmp_path):
    path = tmp_path / "forty.index"
    with server(path) as (process, address):
        httpx2.post(f"{address}items", json={"text": "sea", "id": "one"})
        process.terminate()
        assert process.wait(60) == 0
        assert "the index is saved" in process.stdout.read()
    index = LiveIndex(path)
    assert index.holds("one")
    index.close()


# In a real browser


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium here")
    with api.sync_playwright() as playwright:
        options = {"executable_path": program, "args": ["--no-sandbox"]}
        with playwright.chromium.launch(**options) as browser:
            yield browser


@contextlib.contextmanager
def page_of(browser, address, width=1280, height=900, **options):
    """A page that may not complain, neither in the console nor by a failed request."""
    viewport = {"width": width, "height": height}
    with browser.new_context(viewport=viewport, **options) as context:
        page, wrong = context.new_page(), []
        page.set_default_timeout(60_000)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(request.url))
        page.goto(address)
        page.wait_for_selector("#results li")
        yield page
        assert wrong == []


def captions(page):
    return page.locator("#results .caption").all_text_contents()


def told(page, text):
    page.wait_for_function(
        "text => document.querySelector('#message').textContent.includes(text)",
        arg=text,
    )


@pytest.mark.slow
def test_the_page_in_a_browser(browser, tmp_path):
    (tmp_path / "red.png").write_bytes(png(COLOURS["red"]))
    with server(tmp_path / "forty.index") as (_, address):
        with page_of(browser, address) as page:
            told(page, "Some of the collection: 30 items")
            page.get_by_label("Words").fill("dog zebra")
            page.get_by_role("button", name="Search").click()
            told(page, "Not known to the model: zebra")
            assert captions(page)[0].startswith("dog number")
            # A picture that is chosen, then without it again.
            page.set_input_files("#image", tmp_path / "red.png")
            page.get_by_label("Words").fill("")
            page.get_by_role("button", name="Search").click()
            told(page, "for the picture")
            labels = page.locator("#results .labels").all_text_contents()
            assert labels[:14] == ["red"] * 14
            page.screenshot(path=tmp_path / "picture.png", full_page=True)
            page.get_by_role("button", name="Without picture").click()
            # More like this, and the way back.
            page.get_by_role("button", name="More like this").nth(3).click()
            told(page, "items like")
            page.go_back()
            told(page, "“dog zebra”")
            # A picture that is dropped searches at once.
            drop = page.evaluate_handle(
                """bytes => { const all = new DataTransfer();
                all.items.add(new File([new Uint8Array(bytes)], "red.png",
                {type: "image/png"})); return all; }""",
                list(png(COLOURS["green"])),
            )
            page.get_by_label("Words").fill("kite")
            page.dispatch_event("#drop", "drop", {"dataTransfer": drop})
            told(page, "for the picture and “kite”")
            assert captions(page)[0] == "kite number 7"
            # It becomes an item, which is found and removed.
            page.get_by_text("Add an item").click()
            page.get_by_label("Labels").fill("toy")
            page.get_by_label("Id (").fill("<b>mine</b>")
            page.get_by_role("button", name="Add", exact=True).click()
            told(page, "<b>mine</b> is added.")
            assert page.locator("#results b").count() == 0
            page.wait_for_selector("text=41 items")
            first = page.locator("#results li").first
            first.get_by_role("button", name="Remove").click()
            first.get_by_role("button", name="Really").click()
            told(page, "<b>mine</b> is removed.")
            page.wait_for_selector("text=40 items")
            # What an item holds stays text.
            page.goto(f"{address}#like=folder/14.png")
            told(page, "items like folder/14.png")
            page.wait_for_function(
                "() => document.querySelector('#results img').naturalWidth > 0"
            )
            assert page.locator("#results img[onerror]").count() == 0
            page.screenshot(path=tmp_path / "like.png", full_page=True)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_on_a_phone(browser, tmp_path, scheme):
    options = {"has_touch": True, "color_scheme": scheme}
    with server(tmp_path / "forty.index") as (_, address):
        with page_of(browser, address, 360, 740, **options) as page:
            page.get_by_label("Words").fill("cat")
            page.get_by_role("button", name="Search").tap()
            told(page, "“cat”")
            wide = "document.documentElement.scrollWidth"
            assert page.evaluate(wide) == 360
            heights = page.eval_on_selector_all(
                "#search button, #search .button",
                "all => all.map(b => b.getBoundingClientRect().height).filter(h => h)",
            )
            assert min(heights) >= 44
            page.screenshot(path=tmp_path / f"phone_{scheme}.png")


@pytest.mark.slow
def test_the_page_by_keyboard_alone(browser, tmp_path):
    with server(tmp_path / "forty.index") as (_, address):
        with page_of(browser, address) as page:

            def focused():
                return page.evaluate(
                    "[document.activeElement.id, document.activeElement.textContent]"
                )

            def tab_to(test, most=20):
                for _ in range(most):
                    page.keyboard.press("Tab")
                    if test(focused()):
                        return
                raise AssertionError(f"not reached; at {focused()}")

            tab_to(lambda at: at[0] == "text")
            page.keyboard.type("sea")
            page.keyboard.press("Enter")
            told(page, "“sea”")
            tab_to(lambda at: at[0] == "image")
            outline = "getComputedStyle(document.querySelector('.button')).outlineStyle"
            assert page.evaluate(outline) == "solid"
            tab_to(lambda at: at[1] == "Search")
            tab_to(lambda at: at[1] == "More like this")
            page.keyboard.press("Enter")
            told(page, "items like")
            tab_to(lambda at: at[1] == "Remove")
            page.keyboard.press("Space")
            assert focused()[1] == "Really?"
            page.keyboard.press("Space")
            told(page, "is removed.")
            assert focused()[1] == "More like this"
            names = page.eval_on_selector_all(
                "#results button", "all => all.map(b => b.getAttribute('aria-label'))"
            )
            assert len(names) == len(set(names)) or NASTY in json.dumps(names)
            assert np.all([": " in name for name in names])


@pytest.mark.slow
def test_the_page_asks_for_the_token(browser, tmp_path):
    """Served by hand, as the tiny server has none."""
    token = "correct horse battery"
    program = (
        "import pathlib, sys\n"
        "from tiny_service import service\n"
        "from modal_aware_jax.serve.run import open_socket, serve\n"
        "with open_socket('127.0.0.1', 0) as listening:\n"
        "    serve(service(pathlib.Path(sys.argv[1])), listening, sys.argv[2])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "forty.index", token],
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE,
    )
    try:
        address = re.search(r"http://\S+", process.stdout.readline())[0]
        with browser.new_context() as context:
            page = context.new_page()
            page.set_default_timeout(60_000)
            page.goto(address)
            page.get_by_label("Token").fill("wrong")
            page.get_by_role("button", name="Enter").click()
            page.wait_for_selector("text=The token is not this one.")
            page.get_by_label("Token").fill(token)
            page.keyboard.press("Enter")
            page.wait_for_selector("#results li")
            page.reload()
            page.wait_for_selector("#results li")
            assert page.get_by_label("Token").is_hidden()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
