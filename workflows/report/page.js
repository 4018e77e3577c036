"use strict";
// Filters and pages over the rollouts, and the theme button. Without this script all rollouts are listed.
(() => {
  const theme = document.getElementById("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  const filters = document.getElementById("filters");
  if (!filters) return;
  const size = 20;
  const items = [...document.querySelectorAll(".rollout")];
  const pager = document.getElementById("pager");
  const [earlier, later] = pager.querySelectorAll("button");
  let page = 0;

  function show() {
    const wanted = [...filters.elements].filter((field) => field.value);
    const matching = items.filter((item) => wanted.every((field) => item.dataset[field.name] === field.value));
    const pages = Math.max(1, Math.ceil(matching.length / size));
    page = Math.min(Math.max(page, 0), pages - 1);
    const visible = new Set(matching.slice(page * size, (page + 1) * size));
    items.forEach((item) => { item.hidden = !visible.has(item); });
    pager.querySelector("span").textContent = `page ${page + 1} of ${pages}, ${matching.length} rollouts`;
    earlier.disabled = page === 0;
    later.disabled = page === pages - 1;
  }

  filters.addEventListener("change", () => { page = 0; show(); });
  pager.addEventListener("click", (event) => {
    if (event.target.dataset.by) { page += Number(event.target.dataset.by); show(); }
  });
  filters.hidden = pager.hidden = false;
  show();
})();
