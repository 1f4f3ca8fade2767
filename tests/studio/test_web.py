"""``composer web`` in headless Chromium: one server and one browser for all of them."""

import io
import json
import re
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")

from composer import Sampler, load_backend  # noqa: E402
from composer_plugins import CFG, Anagram  # noqa: E402
from composer_studio.remembered import read_memory  # noqa: E402
from composer_studio.web.limits import Limits  # noqa: E402
from composer_studio.web.served import Served  # noqa: E402
from composer_studio.web.server import Address, application, server  # noqa: E402
from composer_studio.written import table_of  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("chromium is missing: apt-get install chromium", allow_module_level=True)

SOON = 60_000
"""Milliseconds to wait for what takes a second, on a machine that has much to do."""
sync_api.expect.set_options(timeout=SOON)


@pytest.fixture(scope="module")
def url():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with server(Address(port=port), Served(), Limits(megabytes=1)) as running:
        thread = threading.Thread(target=running.run)
        thread.start()
        end = time.monotonic() + 30
        while not running.started and time.monotonic() < end:
            time.sleep(0.05)
        assert running.started
        yield f"http://127.0.0.1:{port}"
        running.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def asked():
    """The addresses that the browser asked for."""
    return []


@pytest.fixture(scope="module")
def page(browser, url, asked):
    opened = browser.new_page(viewport={"width": 1280, "height": 1400})
    opened.set_default_timeout(SOON)
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(url)
    opened.wait_for_selector("#make:enabled")
    return opened


def preset(page, name, plugin):
    page.locator("#preset").get_by_label(name, exact=True).check()
    page.wait_for_selector(f"#plugin-{plugin}")
    sync_api.expect(page.locator("#mode").get_by_label("Form")).to_be_checked()


def write(page, text):
    """Write a recipe as text."""
    if not page.locator("#mode").get_by_label("Recipe").is_checked():
        page.locator("#mode").get_by_label("Recipe").check()
        sync_api.expect(page.locator("#recipe textarea")).to_have_value(re.compile("backend"))
    page.locator("#recipe textarea").fill(text)


def steps(page, count):
    page.locator("#wanted input[type=number][aria-label*='Steps']").fill(str(count))
    page.keyboard.press("Tab")


def make(page, end="Done"):
    if end == "Done":  # which the last run may have said
        page.evaluate("document.querySelector('#status .bar + span').textContent = ''")
    page.click("#make")
    sync_api.expect(page.locator("#status")).to_contain_text(end)


def said(page):
    """What the page says in its corner, which is then closed."""
    toast = page.locator(".toast-body").last
    toast.wait_for()
    words = toast.inner_text()
    for close in page.locator(".toast-close").all():
        close.click()
    sync_api.expect(page.locator(".toast-body")).to_have_count(0)
    return words


def download(page, button, place):
    with page.expect_download() as got:
        page.click(button)
    file = place / got.value.suggested_filename
    got.value.save_as(file)
    return file


def paint(page, canvas):
    """A dab in the middle."""
    box = canvas.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 8, middle[1], steps=3)
    page.mouse.up()
    page.wait_for_timeout(500)


@contextmanager
def changing(page):
    """What is done makes another picture."""
    source = page.locator("#picture img").get_attribute("src")
    yield
    page.wait_for_function("s => document.querySelector('#picture img').src != s", arg=source)


def displayed(page):
    source = page.locator("#picture img").get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(page.request.get(source).body())).convert("L"))


def test_a_6_that_is_a_9_is_made_by_clicks(page, tmp_path, studio):
    preset(page, "Anagram", "anagram")
    page.locator("#seeds textarea, #seeds input").fill("0:2")
    steps(page, 40)
    page.evaluate("""() => {
        window.seen = new Set()
        const look = () => {
            const image = document.querySelector('#picture img')
            if (image) window.seen.add(image.src)
        }
        new MutationObserver(look).observe(document.querySelector('#picture'),
            {subtree: true, childList: true, attributes: true})
    }""")
    make(page)
    assert page.evaluate("window.seen.size") > 2  # x_0 of steps, as fast as the browser draws

    sampler = Sampler(
        load_backend("mnist"),
        [Anagram({"identity": 6, "rotate_180": 9}), CFG(4.0)],
        num_inference_steps=40,
    )
    expected = sampler.sample(seeds=[0, 1])
    with changing(page):
        page.locator("#gallery button.thumbnail-item").nth(1).click()
    upright = displayed(page)
    file = download(page, "#png", tmp_path)
    assert file.name == "0001.png"
    with Image.open(file) as saved:
        small = saved.convert("L").resize((28, 28), Image.Resampling.NEAREST)
    assert abs(np.asarray(small, int) - np.asarray(expected.images[1], int)).max() <= 1
    replayed = studio("replay", file)
    assert replayed.exit_code == 0, replayed.output
    assert "the same picture" in replayed.output

    with changing(page):
        page.locator("#turn input[type=number]").fill("1")
        page.locator("#turn input[type=number]").press("Enter")
    assert (displayed(page) == upright[::-1, ::-1]).all()
    with Image.open(download(page, "#gif", tmp_path)) as film:
        assert film.format == "GIF"
        assert film.n_frames > 10


def test_a_dropped_picture_brings_its_recipe(page, tmp_path):
    sampler = Sampler(load_backend("mnist-ddpm"), [CFG(2.5)], num_inference_steps=7)
    (file, other) = sampler.sample(3, seeds=[8, 9]).save(tmp_path)
    page.locator("#open input[type=file]").set_input_files(other)
    sync_api.expect(page.locator("#seeds textarea, #seeds input")).to_have_value("9")
    sync_api.expect(page.locator("#backend input")).to_have_value("mnist-ddpm")
    sync_api.expect(page.locator("#plugin-cfg input[type=number]").first).to_have_value("2.5")
    sync_api.expect(page.locator("#plugin-anagram")).to_have_count(0)
    said(page)
    make(page)
    made = download(page, "#png", tmp_path / "made")
    again, before = table_of(read_memory(made).recipe), table_of(read_memory(other).recipe)
    assert again[0] | {"max_rows": 0} == before[0] | {"max_rows": 0, "seeds": 9}
    assert read_memory(file).seed == 8


def test_a_mask_is_painted_and_a_bad_one_explained(page, tmp_path):
    preset(page, "Inpaint", "inpaint")
    page.wait_for_selector("#plugin-inpaint canvas")
    page.locator("#seeds textarea, #seeds input").fill("0")
    make(page, "No pictures")
    assert "inpaint: the mask is empty. Paint over the part of the picture" in said(page)

    paint(page, page.locator("#plugin-inpaint canvas").last)
    make(page)
    _, pictures = table_of(read_memory(download(page, "#png", tmp_path)).recipe)
    mask = np.asarray(pictures["inpaint-mask.png"])
    side = mask.shape[0] // 2
    assert (mask[side, side], mask[0, 0]) == (255, 0)

    Image.new("RGB", (28, 28), "red").save(tmp_path / "mask.png")
    page.locator("#plugin-inpaint").get_by_text("A mask from a file").click()
    page.locator("#plugin-inpaint .mask input[type=file]").set_input_files(tmp_path / "mask.png")
    page.wait_for_selector("#plugin-inpaint .mask img")
    make(page, "No pictures")
    assert "mask must be grey, got a picture in colours" in said(page)


def test_stop_stops_and_the_page_goes_on(page):
    preset(page, "Anagram", "anagram")
    page.locator("#seeds textarea, #seeds input").fill("0:8")
    steps(page, 200)
    page.click("#make")
    sync_api.expect(page.locator("#status")).to_contain_text("of 200")
    page.click("#stop")
    sync_api.expect(page.locator("#status")).to_contain_text("Stopped.")
    sync_api.expect(page.locator("#make")).to_be_enabled()
    sync_api.expect(page.locator("#stop")).to_be_disabled()
    preset(page, "Hybrid", "hybrid")
    page.locator("#seeds textarea, #seeds input").fill("2, 9")
    make(page)
    sync_api.expect(page.locator("#gallery button.thumbnail-item")).to_have_count(2)


def test_a_recipe_as_text_is_made_and_its_faults_have_lines(page):
    write(page, 'backend = "mnist"\nseeds = [1]\nsteps = 2\n[plugins.cfg]\nscael = 3\n')
    make(page, "No pictures")
    assert "The recipe:5: plugins.cfg has no option 'scael'. Did you mean scale?" in said(page)
    write(page, 'backend = "<img src=x>"\n')
    make(page, "No pictures")
    assert "<img src=x>" in said(page)  # as text
    write(page, 'backend = "mnist"\n[plugins.sdedit]\nimage = "/etc/hostname"\nstrength = 0.5\n')
    make(page, "No pictures")
    assert "the picture '/etc/hostname' must lie in the recipe's folder" in said(page)
    write(page, 'backend = "mnist"\ncondition = 4\nseeds = [5]\nsteps = 2\n')
    make(page)
    sync_api.expect(page.locator("#gallery img")).to_have_attribute("alt", "5")
    page.locator("#mode").get_by_label("Form").check()
    sync_api.expect(page.locator("#seeds textarea, #seeds input")).to_have_value("5")


def test_a_phone_shows_all_of_it(page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for button in ("#make", "#stop"):
        box = page.locator(button).bounding_box()
        assert 0 <= box["y"] <= 844 - box["height"]
        assert 0 <= box["x"] <= 390 - box["width"]


def test_the_browser_asked_nobody_else(url, asked):
    own = (url, "data:", "blob:")
    assert len(asked) > 20
    assert [address for address in asked if not address.startswith(own)] == []


def get(address, headers=(), data=None):
    """(status, headers, text) of an answer."""
    request = urllib.request.Request(address, data, dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


@pytest.mark.parametrize("path", ["/etc/hostname", "pyproject.toml", "../pyproject.toml"])
def test_files_of_the_server_are_not_given(url, path):
    status, _, text = get(f"{url}/gradio_api/file={path}")
    assert status in (403, 404)
    assert "hatchling" not in text


def test_a_forged_upload_is_no_way_to_a_file(url):
    config = json.loads(get(f"{url}/config")[2])
    (number,) = [d["id"] for d in config["dependencies"] if d["api_name"] == "open"]
    forged = {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}
    body = {"data": [forged], "fn_index": number, "session_hash": "forged"}
    headers = {"content-type": "application/json"}
    status, _, _ = get(f"{url}/gradio_api/queue/join", headers, json.dumps(body).encode())
    assert status == 200
    text = get(f"{url}/gradio_api/queue/data?session_hash=forged")[2]
    assert '"success":false' in text
    assert Path("/etc/hostname").read_text().strip() not in text.replace("/etc/hostname", "")


def test_only_this_machines_names_are_answered(url):
    assert get(url, {"host": "evil.example"})[0] == 400
    status, headers, _ = get(url)
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]


def test_a_large_upload_is_turned_away(url):
    edge = "x"
    body = (
        f'--{edge}\r\ncontent-disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        .encode() + bytes(2**20 + 1) + f"\r\n--{edge}--\r\n".encode()
    )  # fmt: skip
    headers = {"content-type": f"multipart/form-data; boundary={edge}"}
    assert get(f"{url}/gradio_api/upload", headers, body)[0] == 413


def test_without_the_password_there_is_only_the_door(tmp_path):
    from starlette.testclient import TestClient

    address = Address("0.0.0.0", users=(("ann", "secret"),))
    client = TestClient(application(address, Served(["nouns"]), Limits(), tmp_path))
    assert client.get("/config").status_code == 401
    assert client.post("/gradio_api/queue/join", json={}).status_code == 401
    wrong = client.post("/login", data={"username": "ann", "password": "wrong"})
    assert wrong.status_code == 400
    right = client.post("/login", data={"username": "ann", "password": "secret"})
    assert right.status_code == 200
    assert client.get("/config").status_code == 200
