// The reply that the user is writing, kept on the server while they write.
//
// window.convoDrafts(inbox, post) returns {save, hold, forget, saved}. Drafts reach the server one after the other, and a
// reply only after the draft of it: a draft that came later would stand in the composer again, although it was sent.
window.convoDrafts = function (inbox, post) {
  "use strict";

  const PAUSE_MS = 600; // after the last key
  const LONGEST_MS = 5000; // a reply waits no longer for the answer to its draft
  let timer = null;
  let pending = null; // {page, text}: written and not yet posted
  let saved = Promise.resolve(); // once every draft that was posted is answered

  function save() {
    clearTimeout(timer);
    if (!pending) return;
    const { page, text } = pending;
    pending = null;
    const late = () => new Promise((resolve) => { setTimeout(resolve, LONGEST_MS); });
    saved = saved.then(() => Promise.race([post(page.dataset.draft, { text }, page), late()])).catch(() => {});
  }

  // The page is left: nothing that comes later would be posted.
  function saveAtOnce() {
    if (pending) post(pending.page.dataset.draft, { text: pending.text }, pending.page).catch(() => {});
    pending = null;
  }

  inbox.addEventListener("input", (event) => {
    if (event.target.id !== "ib-reply") return;
    pending = { page: event.target.closest("[data-transcript]"), text: event.target.value };
    clearTimeout(timer);
    timer = setTimeout(save, PAUSE_MS);
  });
  window.addEventListener("pagehide", saveAtOnce);

  return {
    save,
    hold: () => { // a reply is being sent; if it fails, its text is saved when the page is left
      clearTimeout(timer);
      return saved;
    },
    forget: () => { // what was sent is a draft no more
      clearTimeout(timer);
      pending = null;
    },
    saved: () => saved,
  };
};
