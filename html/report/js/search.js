// The search in the head of every page: kernels, calls, releases, events, threads by number.
"use strict";

(() => {
  const { make, link } = fa4;
  const MOST = 12;

  function start(nav) {
    const input = make("input", { type: "search", placeholder: "Search: b36, bwd d256, #2729", "aria-label": "Search kernels, calls, releases, threads", autocomplete: "off" });
    const found = make("ul", { class: "found", hidden: true });
    const said = make("p", { class: "vh", role: "status" });
    const box = make("div", { class: "search", role: "search" }, input, found, said);
    nav.before(box);
    let entries = [];
    const refresh = () => show(input.value, entries, found, said);
    input.addEventListener("focus", async () => { entries = await fa4.load("data/search.js"); refresh(); });
    input.addEventListener("input", refresh);
    box.addEventListener("keydown", (event) => move(event, input, found));
    document.addEventListener("click", (event) => { if (!box.contains(event.target)) found.hidden = true; });
  }

  function show(text, entries, found, said) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const hits = words.length ? matching(words, entries) : [];
    found.replaceChildren(...hits.slice(0, MOST).map(([title, , page]) => make("li", {}, link(page, title))));
    found.hidden = !words.length;
    if (words.length && !hits.length) found.replaceChildren(make("li", { class: "same" }, "nothing found"));
    said.textContent = words.length ? `${hits.length} found` : "";
  }

  // Every word must occur; what begins with the first stands first.
  function matching(words, entries) {
    const hits = entries.filter(([title, more]) => {
      const whole = `${title} ${more}`.toLowerCase();
      return words.every((word) => whole.includes(word));
    });
    const rank = ([title]) => (title.toLowerCase().startsWith(words[0]) ? 0 : 1);
    return hits.map((hit, at) => [rank(hit), at, hit]).sort((one, other) => one[0] - other[0] || one[1] - other[1]).map((each) => each[2]);
  }

  function move(event, input, found) {
    const links = [...found.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    if (event.key === "Escape") { found.hidden = true; input.focus(); }
    if (event.key === "Enter" && document.activeElement === input && links.length) { links[0].click(); }
    if (event.key === "ArrowDown" && links.length) { event.preventDefault(); links[Math.min(at + 1, links.length - 1)].focus(); }
    if (event.key === "ArrowUp" && links.length) { event.preventDefault(); if (at > 0) links[at - 1].focus(); else input.focus(); }
  }

  document.querySelectorAll("header nav").forEach(start);
})();
