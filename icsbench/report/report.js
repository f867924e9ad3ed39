"use strict";
(() => {
  const claims = [...document.querySelectorAll("tbody[data-verdict]")];
  const form = document.getElementById("filters");
  const { paper, verdict, all } = form.elements;
  const count = document.getElementById("count");

  const filter = () => {
    let shown = 0;
    for (const claim of claims) {
      const visible =
        (!paper.value || claim.dataset.papers.split("|").includes(paper.value)) &&
        (!verdict.value || claim.dataset.verdict === verdict.value);
      claim.hidden = !visible;
      shown += visible;
    }
    count.textContent = `${shown} of ${claims.length} claims`;
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
  all.addEventListener("click", () => {
    const open = all.getAttribute("aria-pressed") !== "true";
    all.setAttribute("aria-pressed", String(open));
    for (const fold of details()) fold.open = open;
  });
  filter();
  reveal();
})();
