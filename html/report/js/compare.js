// Any two releases against each other. Whether a figure is better or worse was decided by `fa4-asv report`, for each pair
// of records that differ; here it is only looked up.
"use strict";

(() => {
  const { make, link, option, short, figure, percent } = fa4;
  const TIMES = 6, FIGURES = 10;
  const LITTLE = { "spill (stack frame)": 64, "local loads": 16, "local stores": 16, "spilled accesses inside loops": 16 };

  class Comparison {
    constructor(section, releases) {
      this.section = section;
      this.releases = releases;
      this.usual = section.querySelector("[data-usual]");
      this.heading = section.querySelector("h2");
      this.first = [...this.heading.childNodes].map((node) => node.cloneNode(true));
      this.result = make("div", { class: "result", "aria-live": "polite" });
      this.before = this.picker("Compare with", section.dataset.before);
      this.after = this.picker("Release", section.dataset.after);
      const bar = make("div", { class: "bar" }, this.after.label, this.before.label);
      this.heading.after(bar);
      this.section.append(this.result);
      fa4.changes.push(() => this.fromState());
      this.fromState();
    }

    picker(name, chosen) {
      const versions = this.releases.versions.slice(-this.releases.compared).reverse();
      const select = make("select", { "aria-label": name }, ...versions.map((version) => option(version, short(version), chosen)));
      select.addEventListener("change", () => this.picked());
      return { select, label: make("label", {}, `${name} `, select) };
    }

    fromState() {
      const known = (name) => this.releases.versions.find((version) => short(version) === name || version === name);
      this.before.select.value = known(fa4.state.get("b")) || this.section.dataset.before;
      this.after.select.value = known(fa4.state.get("a")) || this.section.dataset.after;
      this.show();
    }

    picked() {
      const usual = this.isUsual();
      fa4.remember("a", usual ? "" : short(this.after.select.value));
      fa4.remember("b", usual ? "" : short(this.before.select.value));
      this.show();
    }

    isUsual() {
      return this.before.select.value === this.section.dataset.before && this.after.select.value === this.section.dataset.after;
    }

    async show() {
      const usual = this.isUsual();
      this.usual.hidden = !usual;
      if (usual) { this.heading.replaceChildren(...this.first.map((node) => node.cloneNode(true))); this.result.replaceChildren(); return; }
      const data = await fa4.load(this.section.dataset.compare);
      const sides = [this.before.select.value, this.after.select.value];
      const places = sides.map((version) => data.versions.indexOf(version));
      this.tell(data, sides, places);
    }

    tell(data, sides, places) {
      const [before, after] = sides.map(short);
      const rows = [...data.clocks.flatMap((clock) => timed(clock, places)), ...data.flavours.flatMap((flavour) => exact(data, flavour, places))];
      rows.sort((one, other) => other.weight - one.weight);
      const verdict = overall(rows);
      this.heading.replaceChildren(link(`releases/${sides[1]}.html`, sides[1]), ` against ${sides[0]}: `, make("strong", { class: verdict.css }, verdict.text));
      const list = make("ul", {}, ...this.sentences(data, rows, places).map((parts) => make("li", {}, ...parts)));
      this.result.replaceChildren(list, ...(rows.length ? this.table(rows, before, after) : []));
    }

    sentences(data, rows, places) {
      const lines = data.clocks.map((clock) => clockSentence(clock, rows, places)).filter(Boolean).map((text) => [text]);
      for (const flavour of data.flavours) lines.push([flavourSentence(flavour, rows, places)]);
      return [...lines, this.why(data, places)].filter((parts) => parts.length);
    }

    // The cause in one sentence: the compilers, and the releases between the two that changed most.
    why(data, places) {
      const [low, high] = [...places].sort((one, other) => one - other);
      const steps = data.steps.filter(([at]) => at > low && at <= high).sort((one, other) => other[6] - one[6]);
      const seen = new Set(), parts = [];
      for (const [at, flavour, arch, causes, packages, page] of steps) {
        const key = `${at} ${causes}`;
        if (seen.has(key) || seen.size === 4) continue;
        seen.add(key);
        parts.push(parts.length ? "; " : "", link(page, `${short(data.versions[at])} on ${arch}, ${flavour}`), ` (${[causes, packages].filter(Boolean).join(": ")})`);
      }
      return parts.length ? ["Why: most changed in ", ...parts, "."] : [];
    }

    table(rows, before, after) {
      const body = make("tbody");
      const filter = make("input", { type: "search", "aria-label": "Only kernels and calls with these words", placeholder: "such as bwd d256 sm_100" });
      const all = make("button", { type: "button" }, `All ${rows.length}`);
      const fill = () => {
        const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
        const wanted = rows.filter((row) => words.every((word) => `${row.name} ${row.where} ${row.flavour} ${row.title}`.toLowerCase().includes(word)));
        const some = [...wanted.filter((row) => row.title === "time").slice(0, TIMES), ...wanted.filter((row) => row.title !== "time").slice(0, FIGURES)];
        body.replaceChildren(...(all.hidden || words.length ? wanted : some).map(line));
      };
      filter.addEventListener("input", fill);
      all.addEventListener("click", () => { all.hidden = true; fill(); });
      fill();
      const head = ["kernel or call", "where", "flavour", "figure", before, after, "change"];
      const table = make("table", { class: "wide" }, make("caption", {}, `${rows.length} figures better or worse, the largest change first`),
        make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))), body);
      const scroll = make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": `${after} against ${before}` }, table);
      const few = rows.length <= TIMES + FIGURES;
      all.hidden = few;
      return [...(few ? [] : [make("div", { class: "bar" }, make("label", {}, "Only ", filter), all)]), scroll];
    }
  }

  function overall(rows) {
    const worse = rows.some((row) => row.sign > 0), better = rows.some((row) => row.sign < 0);
    if (worse && better) return { text: "mixed", css: "mixed" };
    return worse ? { text: "worse", css: "worse" } : better ? { text: "better", css: "better" } : { text: "no relevant change", css: "same" };
  }

  function line(row) {
    const css = row.sign > 0 ? "worse" : "better";
    return make("tr", {}, make("th", { scope: "row" }, link(row.page, row.name)), make("td", {}, row.where), make("td", {}, row.flavour),
      make("td", {}, row.title), make("td", {}, row.before), make("td", {}, row.after), make("td", { class: css }, row.change));
  }

  // Rows of exact figures of one flavour

  function exact(data, flavour, places) {
    const rows = [];
    const [low, high] = [...places].sort((one, other) => one - other);
    const turned = places[0] > places[1];
    for (const [arch, name, page, runs, kinds, pairs] of flavour.cases) {
      const classes = fa4.unrolled(runs, data.versions.length);
      const [old, now] = [classes[low], classes[high]];
      if (old === null || now === null || old === now) continue;
      // Of two kinds the pair stands once; the rule says the opposite when the sides are swapped.
      const swapped = (old > now) !== turned;
      const pair = pairs.find(([one, other]) => one === Math.min(old, now) && other === Math.max(old, now));
      if (!pair) continue;
      const figures = turned ? [kinds[now], kinds[old]] : [kinds[old], kinds[now]];
      for (const told of pair.slice(2)) rows.push(exactRow(data, { arch, name, page, flavour }, told, swapped, figures));
    }
    return rows;
  }

  function exactRow(data, place, told, swapped, [base, head]) {
    const row = { name: place.name, page: place.page, where: place.arch, flavour: place.flavour.title, kind: place.flavour.name };
    if (typeof told === "string") {
      const words = told.slice(1).split(" → ");
      if (swapped) words.reverse();
      return { ...row, title: "state", before: words[0], after: words[1] ?? "", change: "", sign: (told[0] === "+") !== swapped ? 1 : -1, weight: 1e6 };
    }
    const at = Math.abs(told) - 1;
    const [title, unit] = data.metrics[at];
    const [was, is] = [base[at] ?? 0, head[at] ?? 0];
    const pad = LITTLE[title] ?? 0;
    const weight = (Math.max(was, is) + pad) / Math.max(Math.min(was, is) + pad, 1e-9);
    return { ...row, title, before: figure(was, unit), after: figure(is, unit), change: percent(was, is), sign: (told > 0) !== swapped ? 1 : -1, weight: Math.min(weight, 1e5) };
  }

  function flavourSentence(flavour, rows, places) {
    if (places.some((at) => at < 0 || !flavour.has[at])) return `${flavour.title}: not recorded for both.`;
    const own = rows.filter((row) => row.kind === flavour.name);
    const count = (sign) => {
      const found = own.filter((row) => row.sign === sign);
      return `${found.length} figures of ${new Set(found.map((row) => row.where + row.name)).size} cases`;
    };
    if (!own.length) return `${flavour.title}: no figure is better or worse.`;
    return `${flavour.title}: better ${count(-1)}, worse ${count(1)}.`;
  }

  // Rows of timed calls

  function timed(clock, places) {
    const [low, high] = [...places].sort((one, other) => one - other);
    const turned = places[0] > places[1];
    const pair = clock.pairs.find(([before, after]) => before === low && after === high);
    if (!pair) return [];
    return pair[3].map(([told, ratio]) => {
      const [name, page] = clock.calls[Math.abs(told) - 1];
      const sign = (told > 0) !== turned ? 1 : -1;
      const value = typeof ratio === "number" ? (turned ? 1 / ratio : ratio) : null;
      const change = value ? percent(1, value) : String(ratio);
      return { name, page, where: clock.machine, flavour: clock.title, kind: clock.machine, title: "time", before: "", after: "", change, sign, weight: value ? 1e7 * Math.max(value, 1 / value) : 1e9 };
    });
  }

  function clockSentence(clock, rows, places) {
    const [low, high] = [...places].sort((one, other) => one - other);
    const pair = clock.pairs.find(([before, after]) => before === low && after === high);
    if (!pair) return "";
    const own = rows.filter((row) => row.kind === clock.machine);
    const count = (sign) => own.filter((row) => row.sign === sign).length;
    return `Time on ${clock.machine}, ${clock.title}: ${count(-1)} of ${pair[2]} calls faster, ${count(1)} slower.`;
  }

  const section = document.querySelector("[data-compare]");
  if (section) fa4.load("data/releases.js").then((releases) => new Comparison(section, releases));
})();
