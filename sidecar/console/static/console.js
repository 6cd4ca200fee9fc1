// Keeps what became of a message up to date. Without scripts the page reloads instead.
"use strict";

(() => {
  const state = document.getElementById("state");
  if (!state) {
    return;
  }
  let shown = null;

  async function refresh() {
    if (!document.hidden) {
      try {
        const answer = await fetch(state.dataset.from, { credentials: "same-origin", cache: "no-store" });
        if (answer.ok) {
          const text = await answer.text();
          // Every value in it was escaped where the fragment was made; unchanged, it is left alone.
          if (shown !== null && text !== shown) {
            state.innerHTML = text;
          }
          shown = text;
        }
      } catch {
        // The console is away for a moment; the next round asks again.
      }
    }
    setTimeout(refresh, 1500);
  }

  refresh();
})();
