"use strict";
(() => {
  const search = document.getElementById("search");
  if (!search) return;
  const PAGE = 24; // cards at once: a long gallery stays quick
  const byId = (name) => document.getElementById(name);
  const shown = byId("shown");
  const more = byId("more");
  const changed = byId("changed");
  const choices = ["source", "flag", "reason"].map(byId).filter(Boolean);
  const plain = (text) => text.normalize("NFKC").toLowerCase().replace(/\s+/g, " ");
  const cards = [...document.querySelectorAll(".card")].map((card) => ({
    card,
    text: plain(card.textContent),
    source: [card.dataset.source],
    flag: JSON.parse(card.dataset.flags),
    reason: JSON.parse(card.dataset.reasons),
    changed: "changed" in card.dataset,
  }));
  let limit = PAGE;

  function filter() {
    // Every word has to occur somewhere in the card.
    const words = plain(search.value).split(" ").filter(Boolean);
    let count = 0;
    for (const one of cards) {
      const fits =
        choices.every((choice) => !choice.value || one[choice.id].includes(choice.value)) &&
        (!changed?.checked || one.changed) &&
        words.every((word) => one.text.includes(word));
      count += fits;
      one.card.hidden = !fits || count > limit;
    }
    shown.textContent = `${Math.min(count, limit)} of ${cards.length} shown`;
    more.hidden = count <= limit;
    more.textContent = `Show ${Math.min(PAGE, count - limit)} more of ${count - limit}`;
  }

  function afresh() {
    limit = PAGE;
    filter();
  }

  search.addEventListener("input", afresh);
  for (const control of [...choices, changed]) control?.addEventListener("change", afresh);
  more.addEventListener("click", () => {
    limit += PAGE;
    filter();
  });

  // A flag or reason in a table shows its pictures.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-filter]");
    if (!link) return;
    search.value = "";
    if (changed) changed.checked = false;
    for (const choice of choices) choice.value = choice.id === link.dataset.filter ? link.dataset.value : "";
    afresh();
  });

  // Boxes light up while a name of theirs is pointed at or has the focus; a click keeps them lit.
  const numbers = (element) => (element.dataset.boxes ?? element.dataset.box).split(" ");
  const named = (event) => event.target.closest?.(".card [data-boxes], .card .spot");

  function light(card, wanted) {
    card.classList.toggle("lit", wanted.length > 0);
    for (const element of card.querySelectorAll("[data-box], [data-boxes]")) {
      element.classList.toggle("on", numbers(element).some((number) => wanted.includes(number)));
    }
  }

  const kept = (card) => card.dataset.kept?.split(" ") ?? [];

  function keep(card, wanted) {
    if (!wanted.length || card.dataset.kept === wanted.join(" ")) delete card.dataset.kept;
    else card.dataset.kept = wanted.join(" ");
    for (const element of card.querySelectorAll("[aria-pressed]")) {
      element.setAttribute("aria-pressed", String(element.dataset.boxes === card.dataset.kept));
    }
    light(card, kept(card));
  }

  for (const [type, lit] of [["pointerover", true], ["pointerout", false], ["focusin", true], ["focusout", false]]) {
    document.addEventListener(type, (event) => {
      const element = named(event);
      if (!element) return;
      const card = element.closest(".card");
      light(card, lit ? numbers(element) : kept(card));
    });
  }
  document.addEventListener("click", (event) => {
    const element = named(event);
    if (element) keep(element.closest(".card"), numbers(element));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") for (const card of document.querySelectorAll(".card[data-kept]")) keep(card, []);
    const element = named(event);
    if (!element || (event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    keep(element.closest(".card"), numbers(element));
  });

  filter(); // browsers keep what was typed across a reload
})();
