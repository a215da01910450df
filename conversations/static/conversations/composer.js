// The composer's further parts: the question before a takeover, the preview, and files that are pasted or dropped.
(function () {
  "use strict";

  const inbox = document.getElementById("inbox");
  if (!inbox) return;
  const PREVIEW_MS = 300; // after the last key

  // --- a reply takes the conversation over: some clients want to be asked -------------------------------------------------
  function asks() {
    return Boolean(inbox.querySelector("[data-asks-takeover]"));
  }

  inbox.addEventListener("submit", (event) => { // before transcript.js posts it
    const form = event.target;
    if (form.dataset.action !== "reply" || !form.elements.takes_over || !asks() || form.elements.takes_over.value) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    form.querySelector("[data-takeover-dialog]").showModal();
  }, true);

  function takeOver(button) {
    const form = button.closest("form");
    button.closest("dialog").close();
    form.elements.takes_over.value = "yes";
    form.requestSubmit();
    form.elements.takes_over.value = ""; // the next reply is asked about anew, if the assistant has it then
  }

  // --- the preview -----------------------------------------------------------------------------------------------------
  const newest = new WeakMap(); // place -> number of its newest question

  async function showPreview(form) {
    const place = form.querySelector("[data-preview-place]");
    const page = form.closest("[data-transcript]");
    if (!place || place.hidden || !page) return;
    const number = (newest.get(place) || 0) + 1;
    newest.set(place, number);
    const fields = new URLSearchParams({ text: form.elements.text.value, choices: form.elements.choices?.value || "" });
    if (place.dataset.previewPlace === "proposal") fields.set("proposal", "yes");
    try {
      const answer = await fetch(page.dataset.preview, {
        method: "POST",
        body: fields,
        headers: { "X-CSRFToken": page.dataset.token },
        credentials: "same-origin",
      });
      if (!answer.ok || newest.get(place) !== number) return;
      place.innerHTML = await answer.text(); // our own template, in which everything people wrote is escaped
    } catch (error) {
      place.replaceChildren();
    }
  }

  function togglePreview(button) {
    const form = button.closest("form");
    const place = form.querySelector("[data-preview-place]");
    place.hidden = !place.hidden;
    button.setAttribute("aria-expanded", String(!place.hidden));
    if (place.hidden) place.replaceChildren();
    else showPreview(form);
  }

  inbox.addEventListener("input", (event) => {
    const form = event.target.closest("form");
    if (!form?.querySelector("[data-preview-place]:not([hidden])")) return;
    clearTimeout(showPreview.timer);
    showPreview.timer = setTimeout(() => showPreview(form), PREVIEW_MS);
  });
  inbox.addEventListener("reset", (event) => {
    const place = event.target.querySelector("[data-preview-place]");
    if (!place) return;
    place.hidden = true;
    place.replaceChildren();
    event.target.querySelector("[data-preview-button]")?.setAttribute("aria-expanded", "false");
  });

  inbox.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.matches("[data-preview-button]")) togglePreview(button);
    if (button?.matches("[data-takes-over]")) takeOver(button);
    if (button?.matches("[data-edit-no-more]")) button.closest("details").open = false;
  });

  // --- files that are pasted or dropped --------------------------------------------------------------------------------
  function composerOf(target) {
    return target.closest?.("[data-composers]");
  }

  function attach(composer, files) {
    const input = composer.querySelector('form[data-action="reply"] input[type=file]');
    if (!input || !files.length) return false;
    const all = new DataTransfer();
    [...input.files, ...files].forEach((file) => all.items.add(file));
    input.files = all.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    return true;
  }

  inbox.addEventListener("paste", (event) => {
    const composer = composerOf(event.target);
    if (composer && event.target.id === "ib-reply" && attach(composer, event.clipboardData.files)) event.preventDefault();
  });
  ["dragover", "dragleave", "drop"].forEach((kind) => inbox.addEventListener(kind, (event) => {
    const composer = composerOf(event.target);
    if (!composer || !event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    composer.classList.toggle("ib-dropping", kind === "dragover");
    if (kind === "drop") attach(composer, event.dataTransfer.files);
  }));
})();
