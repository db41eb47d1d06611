"""A headless Chromium, and demo.html in it."""

import base64
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from torch import Tensor

from warm import PATIENCE

PIXELS = """() => Array.from(document.querySelectorAll('#paper canvas'), canvas => {
  const data = canvas.getContext('2d').getImageData(0, 0, 140, 140).data;
  return Array.from({length: 784}, (_, p) =>
    data[4 * (140 * (5 * Math.floor(p / 28) + 2) + 5 * (p % 28) + 2) + 3]);
})"""  # opacity where the middles of the 28 by 28 pixels are
FRAMES = f"""const [text, milliseconds, done] = arguments, look = {PIXELS};
document.getElementById('digits').value = text;
document.getElementById('form').requestSubmit();
const frames = [look()], start = performance.now();
requestAnimationFrame(function next(now) {{
  frames.push(look());
  if (now - start < milliseconds) requestAnimationFrame(next); else done(frames);
}})"""  # kept in the page: a driver that is slow to ask would miss them
SHOWN = """const s = window.cvae.shown;
return {...s, noise: s.noise.map(e => [...e]), means: s.means.map(m => [...m])}"""


class Page:
    """The page as a reader has it: keys, clicks, and what is to be seen."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def type(self, text: str) -> None:
        """Type into the box in place of what is there, and press Enter."""
        box = self.driver.find_element(By.ID, "digits")
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(Keys.DELETE, text, Keys.ENTER)

    def click(self, selector: str) -> None:
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def set(self, name: str, value: float) -> None:
        """Move a slider."""
        self.driver.execute_script(
            "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
            "e.dispatchEvent(new Event('input'))",
            name,
            value,
        )

    @property
    def message(self) -> str:
        return self.driver.find_element(By.ID, "message").text

    @property
    def shown(self) -> dict[str, Any]:
        shown: dict[str, Any] = self.driver.execute_script(SHOWN)
        return shown

    def pictures(self) -> Tensor:
        """What stands on the canvases, (N, 1, 28, 28) in [0, 1]."""
        pixels = torch.tensor(self.driver.execute_script(f"return ({PIXELS})()"))
        return pixels.reshape(-1, 1, 28, 28) / 255

    def frames(self, text: str, milliseconds: int) -> Tensor:
        """What stands there at once and in each frame after a text is sent, (F, N, 1, 28, 28)."""
        frames = torch.tensor(self.driver.execute_async_script(FRAMES, text, milliseconds))
        return frames.reshape(len(frames), -1, 1, 28, 28) / 255

    def first_paint(self) -> float:
        """Milliseconds from opening the page to the first frame with something on it."""
        script = (
            "return performance.getEntriesByName('first-contentful-paint').map(e => e.startTime)"
        )
        return float(until(lambda: self.driver.execute_script(script), "no frame")[0])

    def complaints(self) -> list[Any]:
        """What the console holds."""
        return list(self.driver.get_log("browser"))

    def requests(self) -> list[str]:
        """Addresses that were asked for, but for the page's own."""
        script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
        return list(self.driver.execute_script(script))

    def screenshot(self, path: Path, width: int, height: int) -> None:
        """A picture of the page at a width."""
        self.resize(width, height)
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        path.write_bytes(base64.b64decode(taken["data"]))

    def resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def until(answer: Callable[[], Any], otherwise: str) -> Any:
    """The first answer that is not empty."""
    end = time.monotonic() + PATIENCE
    while not (found := answer()):
        assert time.monotonic() < end, otherwise
        time.sleep(0.01)
    return found


@contextmanager
def opened(path: Path, *flags: str) -> Iterator[Page]:
    """The page from the disk in a browser of its own, without a network, once it has drawn.

    Skips the test where there is no Chromium, unless CVAE_BROWSER=required.
    """
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        said = "NOT TESTED IN A BROWSER: install chromium and chromium-driver (Debian's names)"
        (pytest.fail if os.environ.get("CVAE_BROWSER") == "required" else pytest.skip)(said)
    options = Options()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    common = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    nowhere = "--host-resolver-rules=MAP * ~NOTFOUND"
    for flag in (*common, nowhere, "--window-size=1100,800", *flags):
        options.add_argument(flag)
    chrome = Chrome(options=options, service=Service(driver))
    try:
        chrome.get(path.resolve().as_uri())
        drawn = "return Boolean(window.cvae && window.cvae.shown)"
        until(lambda: chrome.execute_script(drawn), "nothing was drawn")
        yield Page(chrome)
    finally:
        chrome.quit()
