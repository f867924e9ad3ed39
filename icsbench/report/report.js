"use strict";
(() => {
  const claims = [...document.querySelectorAll("#claims tbody[id]")];
  const form = document.getElementById("filters");
  const count = document.getElementById("count");
  const choices = [...form.querySelectorAll("select")];

  const filter = () => {
    for (const claim of claims) {
      claim.hidden = !choices.every(({ name, value }) => !value || claim.dataset[name].split("|").includes(value));
    }
    count.textContent = `${claims.filter((claim) => !claim.hidden).length} of ${claims.length} claims`;
  };

  const details = () => [...document.querySelectorAll("#claims details")];

  // A link into something that is folded or filtered away shows it.
  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.hidden) {
      form.reset();
      filter();
    }
    const fold = target.matches("tbody") ? target.querySelector("details") : target.closest("details");
    if (fold) fold.open = true;
    target.scrollIntoView();
  };

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const fold of closed) fold.open = true;
  });
  addEventListener("afterprint", () => {
    for (const fold of closed) fold.open = false;
  });
  addEventListener("hashchange", reveal);

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  form.elements.all?.addEventListener("click", ({ target }) => {
    const open = target.getAttribute("aria-pressed") !== "true";
    target.setAttribute("aria-pressed", String(open));
    for (const fold of details()) fold.open = open;
  });
  filter();
  reveal();
})();
