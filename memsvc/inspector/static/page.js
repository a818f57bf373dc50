// What every page does: the theme's switch, keys, and loading a bookmark beside what is looked at.
(function () {
  "use strict";
  const root = document.documentElement;
  const dark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;

  function announceTheme() {
    const button = document.getElementById("theme");
    if (button) button.setAttribute("aria-pressed", String(dark()));
    document.dispatchEvent(new CustomEvent("theme"));
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("#theme");
    if (!button) return;
    root.dataset.theme = dark() ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
    announceTheme();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", announceTheme);
  document.addEventListener("DOMContentLoaded", announceTheme);

  // "/" goes to the search box, "?" to the keys; not while somebody types.
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select");
    if (event.key === "Escape" && typing) return typing.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const search = document.getElementById("q");
    if (event.key === "/" && search) {
      event.preventDefault();
      search.focus();
      search.select();
    }
    const tab = { t: "timeline", g: "graph", w: "why", l: "live" }[event.key];
    const link = tab && document.querySelector(`nav.tabs a[data-tab="${tab}"]`);
    if (link) link.click();
  });

  // Cards of a recall light up their threads.
  const light = (event, on) => {
    const card = event.target.closest("[data-block]");
    const loom = document.querySelector(".loom");
    if (!card || !loom) return;
    loom.classList.toggle("lit", on);
    for (const one of loom.querySelectorAll(`[data-of="${card.dataset.block}"]`)) one.classList.toggle("on", on);
  };
  for (const [name, on] of [["mouseover", true], ["mouseout", false], ["focusin", true], ["focusout", false]])
    document.addEventListener(name, (event) => light(event, on));

  window.inspector = {
    color: (name) => getComputedStyle(root).getPropertyValue(name).trim(),
    chains: () => Array.from({ length: 12 }, (_, at) => getComputedStyle(root).getPropertyValue(`--chain-${at}`).trim()),
    count: (value) => value.toLocaleString("en-US"),
    calm: () => matchMedia("(prefers-reduced-motion: reduce)").matches,
    openBookmark(session, index) {
      const panel = document.getElementById("detail");
      if (!panel || !window.htmx) return;
      htmx.ajax("GET", `${session}/bookmarks/${index}`, { target: "#detail", select: "#bookmark", swap: "innerHTML" });
    },
  };
})();
