"""A report in a real browser, offline: its sliders are moved and nothing complains.

A test copy of the report gets a probe: a script in every frame that moves the controls and tells
the page what changed. The browser prints the page as it then stands.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from eeg.beta_vae import BetaVAE
from eeg.interactive import explorer_blocks, label_explorer, latent_explorer
from eeg.scan import SCAN
from eeg.simulate import simulate_cohort
from neuro.data import as_signal
from neuro.report import Block, StageReport, build_report, write_section

FLAGS = [
    "--headless",
    "--dump-dom",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
    "--window-size=1300,1000",
]
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND"
EVIL = '<script>parent.postMessage({evil: 1}, "*")</script>'

# In the page: what the frames tell, and errors, end up in the printed title.
LISTENER = """<script>
const told = [];
const tell = (one) => {
  told.push(one);
  document.documentElement.dataset.told = JSON.stringify(told);
};
window.addEventListener("message", (event) => tell(event.data));
window.addEventListener("error", (event) => tell({ error: event.message }));
</script>"""

# In a frame, before the figure's own script.
WATCH = """<script>
window.addEventListener("error", (event) => parent.postMessage({ error: event.message }, "*"));
</script>"""

# In a frame, after it.
PROBE = """<script>
(() => {
  const get = (id) => document.getElementById(id);
  const paths = () => Object.fromEntries(["now", "difference", "reference", "band"].map((name) =>
    [name, document.querySelector(`path.${name}`).getAttribute("d")]));
  const see = () => ({ ...paths(), readout: get("readout").textContent, sensor: get("sensor").value,
    time: get("time").value, fills: [...document.querySelectorAll("circle.sensor")].map((dot) =>
      dot.getAttribute("fill")).join(), sliders: [...document.querySelectorAll(".control input")]
      .map((slider) => Number(slider.value)), pressed: document.querySelectorAll(
      '[aria-pressed="true"]').length });
  const move = (element, value, kind = "input") => {
    element.value = value;
    element.dispatchEvent(new Event(kind, { bubbles: true }));
  };
  const seen = { start: see() };
  const steps = get("latent-0")
    ? { moved: () => move(get("latent-0"), 8), other: () => move(get("latent-1"), 1) }
    : { moved: () => get("label-0-1").click(), other: () => get("label-1-0").click() };
  Object.assign(steps, {
    sensor: () => move(get("sensor"), (Number(get("sensor").value) + 1) % 4, "change"),
    time: () => move(get("time"), 3),
    largest: () => get("largest").click(),
    reset: () => get("reset").click(),
  });
  for (const [name, step] of Object.entries(steps)) { step(); seen[name] = see(); }
  seen.names = [...document.querySelectorAll(".control label span")].map((one) => one.textContent);
  seen.focusable = [...document.querySelectorAll("input, select, button")].every((one) =>
    one.tabIndex === 0 && (one.labels === null || one.labels.length || one.textContent));
  const tell = (left) => {  // a busy machine lays out late
    seen.fits = document.documentElement.scrollWidth <= window.innerWidth;
    if (seen.fits || left === 0) parent.postMessage(seen, "*");
    else setTimeout(tell, 50, left - 1);
  };
  window.addEventListener("load", () => tell(40));
})();
</script>"""


@pytest.fixture(scope="module")
def browse(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[list[Any], list[str]]]:
    """Open a page offline; return what it told, and the lines of its console."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is installed")
    folder = tmp_path_factory.mktemp("browser")

    def open_page(html: str) -> tuple[list[Any], list[str]]:
        page = folder / "page.html"
        page.write_text(html, encoding="utf-8")
        command = [program, *FLAGS, OFFLINE, f"--user-data-dir={folder / 'profile'}", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-2000:]
        told = re.search(r'<html[^>]*\sdata-told="([^"]*)"', done.stdout)
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return json.loads(unescape(told.group(1))) if told else [], console

    return open_page


def probed(html: str) -> str:
    """Add listener and probe to a copy of a report."""
    html = html.replace("<head>", f"<head>{LISTENER}", 1)
    start, end = escape("</head><body>", quote=True), escape("</body></html>", quote=True)
    assert html.count(start) == html.count(end) >= 1
    html = html.replace(start, start + escape(WATCH, quote=True))
    return html.replace(end, escape(PROBE, quote=True) + end)


def report_of(blocks: list[Block], folder: Path) -> str:
    write_section(folder / "section", "Latents", blocks)
    stage = StageReport(name="vae", use="eeg-beta-vae", status="run", reason="first time")
    stage.folders = {"": folder / "section"}
    path = build_report(folder / "report.html", title="a run", stages=[stage])
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def cohort() -> xr.Dataset:
    return simulate_cohort(6, 4, channels=("Fz", "Cz", "Pz", "Oz"), sfreq=64.0, truth=False)


@pytest.fixture(scope="module")
def encoder(cohort: xr.Dataset) -> BetaVAE:
    found = BetaVAE(n_latents=3, beta=1e-3, max_epochs=5).fit(as_signal(cohort))
    found.kl_, found.kept_ = np.array([3.0, 2.0, 1.0]), np.ones(3, dtype=bool)
    return found


def test_a_broken_page_is_noticed(browse: Any) -> None:
    """The two ways in which the tests below would hear of an error."""
    page = f"<html><head>{LISTENER}</head><body><script>none.such</script></body></html>"
    told, console = browse(page)
    assert told == [{"error": "Uncaught ReferenceError: none is not defined"}]
    assert any("none is not defined" in line for line in console)


def test_dragging_a_latent_redraws_the_erp(browse: Any, encoder: BetaVAE, tmp_path: Path) -> None:
    names = {0: "depressed", 1: EVIL}
    html = report_of(explorer_blocks(encoder, names), tmp_path)
    (seen,), console = browse(probed(html))
    assert console == []
    start, moved, other = seen["start"], seen["moved"], seen["other"]
    assert start["now"] == start["reference"]
    assert moved["now"] != start["now"]
    assert moved["difference"] != start["difference"]
    assert moved["reference"] == start["reference"]
    assert moved["fills"] != start["fills"]
    assert moved["readout"].startswith("latent 0: depressed at +2.0 · ")
    # One at a time: the first slider has gone back.
    assert (moved["sliders"], other["sliders"]) == ([8, 4, 4], [4, 1, 4])
    assert other["now"] not in (start["now"], moved["now"])
    assert seen["sensor"]["sensor"] != other["sensor"]
    assert seen["sensor"]["reference"] != other["reference"]
    assert seen["time"]["time"] == "3"
    assert seen["time"]["fills"] != seen["sensor"]["fills"]
    assert seen["largest"]["time"] != "3"
    assert seen["reset"]["sliders"] == [4, 4, 4]
    assert seen["reset"]["now"] == seen["reset"]["reference"]
    assert seen["names"] == ["latent 0: depressed", f"latent 1: {EVIL}", "latent 2"]
    assert seen["focusable"]
    assert seen["fits"]


def test_the_curve_drawn_is_the_curve_decoded(
    browse: Any, encoder: BetaVAE, tmp_path: Path
) -> None:
    """From the path's coordinates back to uV."""
    html = report_of([latent_explorer(encoder, sensors=["Pz", "Cz", "Fz", "Oz"])], tmp_path)
    (seen,), _ = browse(probed(html))
    name = ["Pz", "Cz", "Fz", "Oz"][int(seen["moved"]["sensor"])]
    all_waves = encoder.traverse(values=np.linspace(-2, 2, 9)).sel(channel=name).values
    low, high = min(all_waves.min(), 0), max(all_waves.max(), 0)
    low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)
    drawn = np.array(re.findall(r"[ML][\d.]+ ([\d.]+)", seen["moved"]["now"]), dtype=float)
    found = low + (240 - drawn) / (240 - 22) * (high - low)
    assert np.allclose(found, all_waves[0, 8], atol=0.01 * (high - low))


def test_choosing_labels_redraws_the_erp(
    browse: Any, encoder: BetaVAE, cohort: xr.Dataset, tmp_path: Path
) -> None:
    labels = {"depressed": cohort["depressed"].values, EVIL: cohort["old"].values}
    scan = SCAN(encoder, max_epochs=2, operators=False).fit(cohort, labels)
    (seen,), console = browse(probed(report_of([label_explorer(scan)], tmp_path)))
    assert console == []
    start, moved, other = seen["start"], seen["moved"], seen["other"]
    assert (start["pressed"], moved["pressed"], other["pressed"]) == (0, 1, 2)
    assert start["now"] == start["reference"]
    assert len({start["now"], moved["now"], other["now"]}) == 3
    assert len({start["band"], moved["band"], other["band"]}) == 3
    assert other["readout"].startswith(f"depressed yes, {EVIL} no · ")
    assert seen["reset"]["pressed"] == 0
    assert seen["reset"]["now"] == seen["reset"]["reference"]
    assert seen["focusable"]
