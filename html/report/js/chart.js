// The large charts: pickers, lines over the dates of the releases, numbered events, a readout, zoom. uPlot draws.
"use strict";

(() => {
  const { make, link, option, short, figure } = fa4;
  const DAY = 86400;
  const HEIGHT = 290;
  const STEPPED = uPlot.paths.stepped({ align: 1 });
  const MEASURED_BY_A_CLOCK = ["seconds", "TFLOP/s", "times"];
  // How dates are written, by the distance of two: uPlot's own has the month first, which not everybody reads so.
  const DATES = [
    [3600 * 24 * 365, "{YYYY}", null, null, null, null, null, null, 1],
    [3600 * 24 * 28, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
    [3600 * 24, "{D} {MMM}", "\n{YYYY}", null, null, null, null, null, 1],
    [3600, "{HH}:{mm}", "\n{D} {MMM}", null, "\n{D} {MMM}", null, null, null, 1],
  ];
  const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  class Chart {
    constructor(box, releases, catalog) {
      this.box = box;
      this.releases = releases;
      this.catalog = catalog;
      this.times = releases.dates.map((date) => Date.parse(`${date}T00:00:00Z`) / 1000);
      // Two releases of one day stand an hour apart, so that both can be pointed at.
      for (let at = 1; at < this.times.length; at++) {
        if (this.times[at] <= this.times[at - 1]) this.times[at] = this.times[at - 1] + 3600;
      }
      this.parts();
    }

    parts() {
      this.bar = make("div", { class: "bar" });
      this.area = make("div", {
        class: "area", role: "slider", tabindex: "0", "aria-label": "Release", "aria-valuemin": "1",
        "aria-valuemax": String(this.times.length), "aria-valuenow": "1",
      });
      this.tip = make("div", { class: "tip", hidden: true });
      this.marks = make("ol", { class: "marks", "aria-label": "Numbered events" });
      this.list = make("ol", { class: "told" });
      const help = "Point at the chart, or focus it and use the arrow keys. Drag to zoom, double-click for all.";
      this.help = make("p", { class: "note" }, help);
      // The numbers are links, and a slider may hold none: they lie over it.
      const over = make("div", { class: "over" }, this.area, this.marks);
      this.box.append(this.bar, over, this.help, ...(this.box.dataset.list ? [this.list] : []));
      this.area.addEventListener("keydown", (event) => this.key(event));
      this.area.addEventListener("blur", () => { this.tip.hidden = true; });
      new ResizeObserver(() => this.resize()).observe(this.area);
    }

    async show(data) {
      this.plot = await fa4.load(data);
      for (const metric of this.plot.metrics) metric.curves ??= this.plot.metrics.find((each) => each.name === metric.of).curves;
      this.controls();
      this.draw();
    }

    // Pickers

    controls() {
      const metrics = this.plot.metrics;
      const wanted = fa4.state.get("m") || this.plot.first;
      this.metric = metrics.find((metric) => metric.name === wanted) || metrics[0];
      if (!this.metric) return;
      this.choose();
      const picker = make("select", { "aria-label": "Metric" },
        ...metrics.map((metric) => option(metric.name, this.titleOf(metric), this.metric.name)));
      picker.addEventListener("change", () => { fa4.remember("m", picker.value); fa4.remember("f", ""); this.controls(); this.draw(); });
      const label = make("label", {}, "Metric ", picker);
      this.curves = make("div", { class: "curves", role: "group", "aria-label": "Lines" });
      this.metric.curves.forEach((curve) => this.curves.append(this.toggle(curve)));
      const all = make("button", { type: "button" }, "All releases");
      all.addEventListener("click", () => this.zoom(null));
      // The pickers are made anew: whoever changed one with the keyboard stays on it.
      const focused = this.bar.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : "";
      this.bar.replaceChildren(...this.subjects(), label, this.curves, all);
      if (focused) this.bar.querySelector(`select[aria-label="${focused}"]`)?.focus();
    }

    titleOf(metric) {
      return metric.unit === metric.title || metric.title.includes(metric.unit) ? metric.title : `${metric.title}, ${metric.unit}`;
    }

    choose() {
      const wanted = (fa4.state.get("f") || "").split(",").filter(Boolean);
      const names = this.metric.curves.map((curve) => curve.name);
      const known = wanted.filter((name) => names.includes(name));
      // FA2 takes twice as long: beside it a change of some percent cannot be seen.
      const usual = names.filter((name) => name !== "fa2");
      this.shown = new Set(known.length ? known : usual.length ? usual : names);
    }

    toggle(curve) {
      const button = make("button", { type: "button", class: `line-${curve.colour}`, "aria-pressed": String(this.shown.has(curve.name)) }, curve.title);
      button.addEventListener("click", () => {
        if (this.shown.has(curve.name) && this.shown.size > 1) this.shown.delete(curve.name); else this.shown.add(curve.name);
        button.setAttribute("aria-pressed", String(this.shown.has(curve.name)));
        fa4.remember("f", [...this.shown].join(","));
        this.draw();
      });
      return button;
    }

    subjects() {
      if (!this.catalog) return [];
      const picker = make("select", { "aria-label": "Kernel or call" });
      for (const [group, entries] of this.catalog) {
        picker.append(make("optgroup", { label: group }, ...entries.map(([title, data]) => option(data, title, this.data))));
      }
      picker.addEventListener("change", () => { fa4.remember("k", picker.value); fa4.remember("f", ""); this.from(picker.value); });
      return [make("label", {}, "Kernel or call ", picker), this.page()];
    }

    page() { return link(this.plot.page, "its page"); }

    from(data) { this.data = data; return this.show(data); }

    // Drawing

    draw() {
      if (this.drawn) this.drawn.destroy();
      this.visible = this.metric.curves.filter((curve) => this.shown.has(curve.name));
      this.values = this.visible.map((curve) => this.valuesOf(curve));
      const place = this.range();
      const options = {
        width: this.width(), height: HEIGHT,
        padding: [28, 12, 0, 0],
        legend: { show: false },
        cursor: { y: false, drag: { x: true, y: false, setScale: true }, points: { size: 9 }, focus: { prox: -1 } },
        scales: { x: { time: true, range: (u, low, high) => this.wide(low, high) }, y: { range: (u, low, high) => this.span(low, high) } },
        axes: [this.axis({ values: DATES }), this.axis({ size: 78, values: (u, ticks) => ticks.map((tick) => figure(tick, this.metric.unit, 4)) })],
        series: [{}, ...this.visible.map((curve) => this.line(curve))],
        hooks: { draw: [() => this.place()], setCursor: [(u) => this.hover(u)], setScale: [(u, key) => key === "x" && this.zoomed(u)] },
        tzDate: (stamp) => uPlot.tzDate(new Date(stamp * 1e3), "Etc/UTC"),
      };
      this.drawn = new uPlot(options, [this.times, ...this.values], this.area);
      this.drawn.over.append(this.tip);
      this.number();
      if (place) this.drawn.setScale("x", place);
      this.describe();
      this.tell();
    }

    // TFLOP/s are the operations of a call over its seconds.
    valuesOf(curve) {
      const values = fa4.valuesOf(curve, this.times.length), { operations } = this.metric;
      return operations ? values.map((value) => (value ? operations / value / 1e12 : null)) : values;
    }

    width() { return Math.max(this.area.clientWidth, 260); }

    resize() {
      if (this.drawn && this.drawn.width !== this.width()) this.drawn.setSize({ width: this.width(), height: HEIGHT });
    }

    axis(more) {
      const line = colourOf("--line");
      return { stroke: colourOf("--dim"), grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "12px system-ui, sans-serif", ...more };
    }

    line(curve) {
      const stroke = colourOf(`--c${curve.colour}`);
      const stepped = !MEASURED_BY_A_CLOCK.includes(this.metric.unit);
      return {
        label: curve.title, stroke, width: 2, dash: curve.colour === 1 ? [6, 4] : undefined,
        paths: stepped ? STEPPED : undefined, points: { show: true, size: 6, fill: stroke }, spanGaps: false,
      };
    }

    wide(low, high) {
      const all = low <= this.times[0] && high >= this.times[this.times.length - 1];
      return all ? [this.times[0] - 4 * DAY, this.times[this.times.length - 1] + 4 * DAY] : [low, high];
    }

    // At least a tenth of the largest value is seen, so that a change of 0.1 % does not fill the chart.
    span(low, high) {
      if (low === null || high === null) return [0, 1];
      if (low < high / 2) return [0, high * 1.05 || 1];
      const room = Math.max(0.1 * high - (high - low), 0.1 * (high - low)) / 2;
      return [Math.max(0, low - room), high + room || 1];
    }

    // Zoom

    range() {
      const [first, last] = (fa4.state.get("z") || "").split("..");
      const from = this.indexOf(first), to = this.indexOf(last);
      return from >= 0 && to > from ? { min: this.times[from] - DAY, max: this.times[to] + DAY } : null;
    }

    indexOf(name) { return this.releases.versions.findIndex((version) => short(version) === name || version === name); }

    zoomed(u) {
      const { min, max } = u.scales.x;
      const inside = this.times.map((time, at) => at).filter((at) => this.times[at] >= min && this.times[at] <= max);
      const all = inside.length === this.times.length || inside.length < 2;
      const names = inside.map((at) => short(this.releases.versions[at]));
      fa4.remember("z", all ? "" : `${names[0]}..${names[names.length - 1]}`);
    }

    zoom(place) {
      fa4.remember("z", "");
      this.drawn.setScale("x", place || { min: this.times[0], max: this.times[this.times.length - 1] });
    }

    // Events

    numbers() {
      const names = new Set(this.visible.map((curve) => curve.name));
      const metric = this.metric.name.split("@")[0].split(",")[0];
      const clock = ["seconds", "tflops", "against", "behind"].includes(metric);
      const wanted = clock ? "seconds" : metric;
      // Of a call under several flavours a metric names its own.
      const series = clock && this.metric.name.includes(", ") ? this.metric.name.slice(this.metric.name.indexOf(", ") + 2) : "";
      const events = this.plot.events.map((event) => ({
        ...event,
        rows: event.rows
          .filter((row) => (clock ? !series || row.title === series : names.has(row.curve)))
          .map((row) => ({ ...row, moved: row.moved.filter(([name]) => name === wanted || name === "state") }))
          .filter((row) => row.moved.length),
      })).filter((event) => event.rows.length);
      // A figure that is not judged has no events of its own: those of the kernel say when it was made anew.
      return events.length || clock ? events : this.plot.events.filter((event) => event.rows.some((row) => names.has(row.curve)));
    }

    number() {
      this.told = this.numbers();
      this.marks.replaceChildren(...this.told.map((event) => {
        const effects = new Set(event.rows.flatMap((row) => row.moved.map((moved) => moved[3])));
        const css = effects.size > 1 ? "mixed" : [...effects][0] || "same";
        const words = `${event.number}: ${short(this.releases.versions[event.at])}`;
        const mark = link(event.rows[0].page, String(event.number), { class: css, title: words, "aria-label": `Event ${words}` });
        return make("li", {}, mark);
      }));
      this.place();
    }

    // Numbers that would cover each other stand in rows.
    place() {
      if (!this.drawn || !this.told) return;
      const ends = [];
      const edge = this.drawn.bbox.left / devicePixelRatio;
      this.told.forEach((event, index) => {
        const left = this.drawn.valToPos(this.times[event.at], "x");
        const item = this.marks.children[index];
        if (!item) return;
        let row = ends.findIndex((end) => left - end > 22);
        if (row < 0) row = ends.length;
        ends[row] = left;
        item.hidden = left < 0 || left > this.drawn.over.clientWidth;
        item.style.left = `${edge + left}px`;
        item.style.top = `${4 + 20 * row}px`;
      });
    }

    tell() {
      if (!this.box.dataset.list) return;
      const rows = this.told.slice().reverse().flatMap((event) => event.rows.map((row) => this.sentence(event, row)));
      this.list.replaceChildren(...(rows.length ? rows : [make("li", {}, "No release made this better or worse.")]));
    }

    sentence(event, row) {
      const release = this.releases.versions[event.at];
      const texts = row.moved.map((moved) => this.change(moved));
      const css = row.moved[0][3];
      const causes = [row.causes.join(", "), row.why].filter(Boolean).join(": ");
      return make("li", { class: "event" }, make("b", {}, `${event.number} `), link(`releases/${release}.html`, short(release)),
        ` ${this.releases.dates[event.at]}, ${row.title}: `, link(row.page, texts.join("; "), { class: css }), causes ? `. ${causes}` : "",
        ...row.threads.flatMap(([name, url]) => [". ", link(url, name)]));
    }

    // With the metric's name where it is another than the one that is shown.
    change([name, before, after, , text]) {
      if (text) return text;
      const metric = this.plot.metrics.find((each) => each.name === name);
      const own = !metric || metric === this.metric;
      const unit = own ? this.eventUnit() : metric.unit;
      return `${own ? "" : `${metric.title} `}${figure(before, unit)} → ${figure(after, unit)} (${fa4.percent(before, after)})`;
    }

    eventUnit() { return MEASURED_BY_A_CLOCK.includes(this.metric.unit) ? "seconds" : this.metric.unit; }

    // Readout

    hover(u) {
      const at = u.cursor.idx;
      if (at === null || at === undefined || u.cursor.left < 0) { this.tip.hidden = true; return; }
      this.read(at);
    }

    compilerOf(at) {
      const known = Object.entries(this.releases.compilers).filter(([flavour]) => this.shown.has(flavour));
      const chosen = known.length ? known : Object.entries(this.releases.compilers);
      return [...new Set(chosen.map(([, versions]) => versions[at]).filter(Boolean))].join(" and ") || "not recorded";
    }

    words(at) {
      return this.visible.map((curve, index) => [curve, figure(this.values[index][at], this.metric.unit)]);
    }

    read(at) {
      const version = this.releases.versions[at];
      const event = this.told.find((each) => each.at === at);
      this.tip.replaceChildren(
        make("b", {}, `${short(version)} · ${this.releases.dates[at]}`),
        ...this.words(at).map(([curve, text]) => make("div", { class: `line-${curve.colour}` }, `${curve.title}: ${text}`)),
        make("div", {}, `compiler ${this.compilerOf(at)}`), event ? make("div", {}, `event ${event.number}`) : null);
      this.tip.hidden = false;
      const left = this.drawn.valToPos(this.times[at], "x");
      const room = this.drawn.over.clientWidth;
      this.tip.style.left = `${Math.max(0, left < room / 2 ? left + 12 : left - 12 - this.tip.offsetWidth)}px`;
      this.tip.style.top = "8px";
      this.area.setAttribute("aria-valuenow", String(at + 1));
      const told = this.words(at).map(([curve, text]) => `${curve.title} ${text}`).join(", ");
      this.area.setAttribute("aria-valuetext", `${short(version)}, ${this.releases.dates[at]}: ${told}, compiler ${this.compilerOf(at)}`);
      this.at = at;
    }

    describe() {
      this.area.setAttribute("aria-label", `Release on the chart of ${this.titleOf(this.metric)} of ${this.plot.title}`);
      this.box.dataset.ready = this.metric.name;
      if (!this.area.hasAttribute("aria-valuetext")) this.area.setAttribute("aria-valuetext", short(this.releases.versions[0]));
    }

    key(event) {
      const last = this.times.length - 1;
      const from = this.at ?? last + 1;
      const target = { ArrowLeft: from - 1, ArrowRight: from + 1, ArrowDown: from - 1, ArrowUp: from + 1, Home: 0, End: last }[event.key];
      if (event.key === "Escape") this.tip.hidden = true;
      if (target === undefined || event.target !== this.area) return;
      event.preventDefault();
      const at = Math.min(Math.max(target, 0), last);
      this.drawn.setCursor({ left: this.drawn.valToPos(this.times[at], "x"), top: 10 }, false);
      this.read(at);
    }
  }

  async function start(box) {
    try {
      const [releases, catalog] = await Promise.all([
        fa4.load("data/releases.js"), box.dataset.picker ? fa4.load("data/catalog.js") : null]);
      const known = (data) => catalog && catalog.some(([, entries]) => entries.some((entry) => entry[1] === data));
      const chart = new Chart(box, releases, catalog);
      const wanted = () => (known(fa4.state.get("k")) ? fa4.state.get("k") : box.dataset.chart);
      await chart.from(wanted());
      fa4.changes.push(() => chart.from(wanted()));
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart.draw());
    } catch (error) {
      box.append(make("p", { class: "note" }, `The chart cannot be drawn: ${error.message}. The tables hold the same figures.`));
    }
  }

  document.querySelectorAll("[data-chart]").forEach(start);
})();
