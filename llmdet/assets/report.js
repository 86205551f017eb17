"use strict";
(() => {
  const search = document.getElementById("search");
  if (!search) return;
  const source = document.getElementById("source");
  const shown = document.getElementById("shown");
  const plain = (text) => text.normalize("NFKC").toLowerCase().replace(/\s+/g, " ");
  const cards = [...document.querySelectorAll(".card")].map((card) => ({ card, text: plain(card.textContent) }));

  function filter() {
    // Every word has to occur somewhere in the card.
    const words = plain(search.value).split(" ").filter(Boolean);
    let count = 0;
    for (const { card, text } of cards) {
      const fits = (!source.value || card.dataset.source === source.value) && words.every((word) => text.includes(word));
      card.hidden = !fits;
      count += fits;
    }
    shown.textContent = `${count} of ${cards.length} shown`;
  }

  search.addEventListener("input", filter);
  source.addEventListener("change", filter);
  filter(); // browsers keep what was typed across a reload
})();
