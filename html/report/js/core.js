// What all scripts of the report share: data files, the state in the address, figures in words, elements.
// No text is ever read as markup: elements are made here, and words are put into them with textContent.
"use strict";

const fa4 = (() => {
  const root = document.documentElement.dataset.root || "";
  const data = new Map();

  // Data files are scripts, since a page from a file may not fetch: each calls `put` once with its own name.
  function entry(name) {
    if (!data.has(name)) {
      const found = {};
      found.promise = new Promise((resolve, reject) => { found.resolve = resolve; found.reject = reject; });
      data.set(name, found);
    }
    return data.get(name);
  }

  function put(name, value) { entry(name).resolve(value); }

  function load(name) {
    const found = entry(name);
    if (!found.asked) {
      found.asked = true;
      const script = document.createElement("script");
      script.src = root + name.split("/").map(encodeURIComponent).join("/");
      script.onerror = () => found.reject(new Error(`${name} is missing`));
      document.head.append(script);
    }
    return found.promise;
  }

  // The state of a page's choices stands in its address, so that a link shows what was seen.
  const isState = () => location.hash.includes("=");
  const state = new URLSearchParams(isState() ? location.hash.slice(1) : "");

  function remember(key, value) {
    if ((state.get(key) ?? "") === value) return;
    if (value) state.set(key, value); else state.delete(key);
    history.replaceState(null, "", `#${state}`);
  }

  const changes = [];
  window.addEventListener("hashchange", () => {
    if (!isState()) return;
    for (const key of [...state.keys()]) state.delete(key);
    for (const [key, value] of new URLSearchParams(location.hash.slice(1))) state.set(key, value);
    changes.forEach((change) => change());
  });

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  // Only addresses of the report itself and of public pages become links.
  function link(href, text, attributes = {}) {
    const outside = /^https:\/\//.test(href);
    const inside = /^[\w.-]+(\/[^:]*)?(#.*)?$/.test(href) && !href.includes(":");
    if (!outside && !inside) return make("span", {}, text);
    const [path, anchor] = href.split("#");
    const target = root + path.split("/").map(encodeURIComponent).join("/");
    return make("a", { href: outside ? href : target + (anchor ? `#${anchor}` : ""), ...attributes }, text);
  }

  function option(value, text, chosen) { return make("option", { value, selected: value === chosen }, text); }

  const short = (version) => (version.startsWith("4.0.0b") ? version.slice(5) : version);
  const SPACE = "\u00a0";
  const SIZES = ["B", "KiB", "MiB", "GiB", "TiB"];

  function seconds(value, digits = 3) {
    const [scale, unit] = value >= 1 ? [1, "s"] : value >= 1e-3 ? [1e3, "ms"] : [1e6, "µs"];
    return Number((value * scale).toPrecision(digits)) + SPACE + unit;
  }

  function bytes(value) {
    const step = Math.min(Math.floor(Math.log2(value) / 10), SIZES.length - 1);
    return Number((value / 2 ** (10 * step)).toPrecision(4)) + SPACE + SIZES[step];
  }

  // `digits` of seconds: an axis needs more of them than a reader.
  function figure(value, unit, digits = 3) {
    if (value === null || value === undefined) return "–";
    if (unit === "seconds" && value) return seconds(value, digits);
    if (unit === "bytes" && value >= 2 ** 20) return bytes(value);
    const places = Number.isInteger(value) || value >= 100 ? 0 : value >= 1 ? 2 : 3;
    return value.toLocaleString("en-US", { maximumFractionDigits: places });
  }

  function percent(before, after) {
    if (!before) return "new";
    const change = (after / before - 1) * 100;
    return `${change < 0 ? "−" : "+"}${Math.abs(change).toFixed(1)}${SPACE}%`;
  }

  // The values of a curve at every release, from its runs.
  function unrolled(runs, count) {
    const values = new Array(count).fill(null);
    runs.forEach(([at, value], index) => {
      const end = index + 1 < runs.length ? runs[index + 1][0] : count;
      values.fill(value, at, end);
    });
    return values;
  }

  // A curve comes with all its values, or with runs of equal ones.
  const valuesOf = (curve, count) => curve.values || unrolled(curve.runs, count);

  return { root, put, load, state, remember, changes, make, link, option, short, figure, percent, unrolled, valuesOf };
})();
