"""A real headless Chromium on a page from disk, and what can be wrong with a page as a reader sees it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium; skips the test with a message where there is none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium here: `make services` installs it, if root")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class Opened:
    """A page that is open, and what it asked for or complained about: `requests` beyond itself, `complaints`."""

    def __init__(self, browser: Browser, path: Path, width: int = 1280, dark: bool = False) -> None:
        scheme = "dark" if dark else "light"
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        own = path.as_uri()
        self.page.on("request", lambda request: self.requests.append(request.url) if request.url != own else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.goto(own)

    def unfold(self) -> None:
        """Open every fold."""
        self.page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true })")
        self.page.wait_for_timeout(200)  # what opening them sets off

    def faults(self) -> list[str]:
        """What overlaps, is cut off or sticks out, as sentences; [] for a page that is laid out well."""
        found: list[str] = self.page.evaluate(_FAULTS)
        return found


_FAULTS = """() => {
  const found = [], shown = (node) => node.getClientRects().length > 0;
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1.5
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2.5;
  if (document.documentElement.scrollWidth > innerWidth) found.push(`page is ${document.documentElement.scrollWidth} wide`);
  const blocks = [...document.querySelectorAll('header, .tiles, .sheet, footer')].filter(shown);
  for (let i = 1; i < blocks.length; i++)
    if (meet(blocks[i - 1].getBoundingClientRect(), blocks[i].getBoundingClientRect()))
      found.push(`${blocks[i].id} lies on what is above`);
  for (const node of document.querySelectorAll('main *')) {
    if (!shown(node) || node.closest('svg, .scroll, caption')) continue;
    const box = node.getBoundingClientRect();
    if (box.right > innerWidth + 1 || box.left < -1)
      found.push(`${node.tagName}.${node.className} sticks out: ${node.textContent.slice(0, 40)}`);
  }
  for (const svg of [...document.querySelectorAll('svg')].filter(shown)) {
    const frame = svg.getBoundingClientRect(), name = (svg.querySelector('title') || svg).textContent.slice(0, 40);
    const words = [...svg.querySelectorAll('text')].map((node) => [node.textContent, node.getBoundingClientRect()]);
    words.forEach(([text, box], i) => {
      const level = box.left < frame.left - 1.5 || box.right > frame.right + 1.5;
      if (level || box.top < frame.top - 3 || box.bottom > frame.bottom + 3)
        found.push(`${name}: "${text}" is cut off`);
      for (const [other, area] of words.slice(i + 1))
        if (meet(box, area)) found.push(`${name}: "${text}" and "${other}" overlap`);
    });
  }
  return found;
}"""
