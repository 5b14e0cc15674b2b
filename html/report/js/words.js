// Heads of tables that the page "Reading" explains lead there, and say what they mean when pointed at.
"use strict";

(async () => {
  const heads = [...document.querySelectorAll("th[scope=col]")].filter((head) => !head.querySelector("a"));
  if (!heads.length || document.title.startsWith("How to read")) return;
  const words = new Map((await fa4.load("data/words.js")).map(([word, page, meaning]) => [word, [page, meaning]]));
  for (const head of heads) {
    const text = head.textContent;
    // "sm_100, cu13", "cu12 (torch on CUDA 12)", "d64 causal": the whole head, its first part, its first word.
    const found = [text, text.split(",")[0], text.split(" ")[0].replace(/,$/, "")].map((each) => words.get(each)).find(Boolean);
    if (found) head.replaceChildren(fa4.link(found[0], text, { class: "term", title: found[1] }));
  }
})();
