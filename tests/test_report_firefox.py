"""The report in Firefox, from a file without a network: charts, data, the policy of the pages. Chromium has the long tests."""

from __future__ import annotations

import time

from tests.support.firefox import Firefox, firefox

KERNEL = "kernels/sm_100-bwd_d256_causal.html"
# All charts of the page are drawn.
DRAWN = """return new Promise((done) => { const look = () => {
  const charts = [...document.querySelectorAll("[data-chart]")];
  charts.every((each) => each.querySelector("canvas")) ? done(charts.length) : setTimeout(look, 20); }; look(); })"""
COMPARED = """const box = document.querySelector('select[aria-label="Compare with"]');
  box.selectedIndex = box.options.length - 1; box.dispatchEvent(new Event("change"));
  return new Promise((done) => { const look = () => {
    const rows = document.querySelectorAll("#newest .result tbody tr").length;
    rows ? done(rows) : setTimeout(look, 20); }; look(); })"""
INLINE = """const script = document.createElement("script"); script.textContent = "window.ran = true";
  document.body.append(script); return window.ran === true"""


def test_firefox_draws_the_charts_reads_the_data_and_obeys_the_policy(real_report, tmp_path):
    with firefox(tmp_path) as browser:
        for name, charts in (("index.html", 1), (KERNEL, 1), ("route.html", 0), ("reading.html", 0)):
            browser.opens(f"{real_report.as_uri()}/{name}")
            assert browser.value(DRAWN) == charts, name
        browser.opens(f"{real_report.as_uri()}/index.html")
        assert browser.value(DRAWN) == 1
        assert browser.value(COMPARED) > 0
        assert browser.complaints() == []
        assert browser.value(INLINE) is False
        assert refused(browser), "else nothing was looked at"


def refused(browser: Firefox) -> bool:
    """Whether Firefox complains of an inline script; its console hears of it a moment later."""
    deadline = time.monotonic() + 10
    while not (heard := any("inline script" in each for each in browser.complaints())):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return heard
