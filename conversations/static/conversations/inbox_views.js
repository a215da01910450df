// The filters of the inbox, its saved views, and the switch "available". The list itself is inbox.js: it is told what to
// show by the event "ib-choose", and tells what it shows by "ib-chosen".
(function () {
  "use strict";

  const inbox = document.getElementById("inbox");
  if (!inbox) return;
  const panel = inbox.querySelector("#ib-filters");
  const opener = inbox.querySelector("[data-filters-of]");
  const place = inbox.querySelector("[data-views-place]");
  const dialog = inbox.querySelector("[data-views-dialog]");
  const refused = dialog.querySelector(".ib-refused");
  const search = inbox.querySelector("#ib-find");
  const pieces = Array.from(inbox.querySelector("template[data-filters]").content.children); // in the panel while it is open
  const selects = pieces.map((piece) => piece.querySelector("[data-filter]")).filter(Boolean);
  const clear = pieces.find((piece) => piece.matches("[data-clear]"));
  const COUNT_MS = 30000;
  let shown = new URLSearchParams(location.search).get("view") || ""; // the view that the list shows

  function tell(detail) {
    inbox.dispatchEvent(new CustomEvent("ib-choose", { detail }));
  }

  // --- filters -------------------------------------------------------------------------------------------------------
  function isOfTab(option) {
    const of = option.dataset.of;
    return !of || inbox.dataset.tab === "mentions" || (of === "ended") === (inbox.dataset.tab === "ended");
  }

  // The selects show what is chosen, and offer only the statuses that the tab has.
  function showFilters() {
    selects.forEach((select) => {
      Array.from(select.options).forEach((option) => { option.hidden = option.disabled = !isOfTab(option); });
      select.value = inbox.dataset[select.name] || "";
    });
    const count = selects.filter((select) => select.value).length;
    opener.classList.toggle("ib-active", Boolean(count));
    const name = opener.title;
    opener.setAttribute("aria-label", count ? `${name} (${count})` : name);
    clear.disabled = !count;
    const label = inbox.querySelector("select[data-label]");
    if (label) label.value = inbox.dataset.label || "";
    inbox.querySelector("select[data-order]").value = inbox.dataset.order;
  }

  function showPanel(isShown) {
    panel.replaceChildren(...(isShown ? pieces : []));
    panel.hidden = !isShown;
    opener.setAttribute("aria-expanded", String(isShown));
  }

  opener.addEventListener("click", () => {
    showPanel(panel.hidden);
    if (!panel.hidden) selects[0]?.focus();
  });
  panel.addEventListener("change", (event) => tell({ [event.target.name]: event.target.value }));
  clear.addEventListener("click", () => {
    tell(Object.fromEntries(selects.map((select) => [select.name, ""])));
    selects[0]?.focus();
  });

  let choosing = false; // a view was chosen: the choice that is told next is its own

  inbox.addEventListener("ib-chosen", () => {
    if (!choosing) shown = "";
    choosing = false;
    // A status that this tab does not have is chosen no more.
    const status = selects.find((select) => select.name === "status");
    const option = status && Array.from(status.options).find((each) => each.value === inbox.dataset.status);
    if (option && !isOfTab(option)) inbox.dataset.status = "";
    showFilters();
    mark();
  });

  // --- views ---------------------------------------------------------------------------------------------------------
  function mark() {
    place.querySelectorAll("[data-view]").forEach((link) => {
      if (link.dataset.view === shown) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    });
  }

  place.addEventListener("click", (event) => {
    const link = event.target.closest("[data-view]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    const filters = Object.fromEntries(new URLSearchParams(link.dataset.filters));
    delete filters.view;
    const none = Object.fromEntries(["label", ...selects.map((select) => select.name)].map((name) => [name, ""]));
    shown = link.dataset.view;
    choosing = true;
    tell({ tab: "all", order: "newest", ...none, ...filters });
  });

  function show(answer) {
    const focused = place.contains(document.activeElement) ? document.activeElement.dataset.view : "";
    place.innerHTML = answer.html; // our own template
    mark();
    if (focused) place.querySelector(`[data-view="${focused}"]`)?.focus({ preventScroll: true });
  }

  async function ask(url, fields) {
    const answer = await fetch(url, fields === undefined ? { credentials: "same-origin" } : {
      method: "POST",
      body: new URLSearchParams(fields),
      headers: { "X-CSRFToken": inbox.dataset.token },
      credentials: "same-origin",
    });
    if (answer.status === 204) return {};
    const isOurs = answer.headers.get("Content-Type")?.startsWith("application/json");
    if (answer.redirected || !isOurs) throw new Error(interpolate(gettext("The server answered %(status)s. Load the page again."), { status: answer.status }, true));
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.said);
    return told;
  }

  async function change(url, fields) {
    refused.hidden = true;
    try {
      const answer = await ask(url, fields);
      show(answer);
      dialog.querySelector("[data-managed]").innerHTML = answer.managed; // our own template
      return true;
    } catch (error) {
      refused.textContent = error.message;
      refused.hidden = false;
      return false;
    }
  }

  function count() {
    if (document.hidden || !place.querySelector("[data-view]")) return;
    ask(inbox.dataset.views).then(show, () => {});
  }

  inbox.querySelector("[data-save-view]").addEventListener("click", () => {
    refused.hidden = true;
    const client = dialog.querySelector("#ib-view-client");
    if (client) client.value = inbox.dataset.client || "";
    dialog.showModal();
    dialog.querySelector("#ib-view-name").focus();
  });

  dialog.addEventListener("submit", async (event) => {
    const form = event.target;
    if (form.method === "dialog") return;
    event.preventDefault();
    if (form.dataset.rename) {
      await change(form.dataset.rename, new FormData(form));
      return;
    }
    const { tab, order, label = "" } = inbox.dataset;
    const fields = { tab, order, label, q: search.value.trim() };
    selects.forEach((select) => { fields[select.name] = inbox.dataset[select.name] || ""; });
    if (!await change(form.dataset.save, { ...fields, ...Object.fromEntries(new FormData(form)) })) return;
    form.reset();
    dialog.close();
  });

  dialog.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-delete]");
    if (!button) return;
    await change(button.dataset.delete, {});
    (dialog.querySelector("[data-managed] button") || dialog.querySelector("#ib-view-name")).focus();
  });

  // --- available or away ---------------------------------------------------------------------------------------------
  const available = inbox.querySelector("[data-available]");

  const away = inbox.querySelector("dialog[data-away]"); // what becomes of conversations that wait for the user

  function tellAway({ said, question }) {
    away.querySelector("[data-said]").textContent = said || "";
    away.querySelector("[data-question]").textContent = question || "";
    away.querySelector("[data-give-back]").hidden = away.querySelector("[data-keep]").hidden = !question;
    away.querySelector("[data-close]").hidden = Boolean(question);
    away.querySelector(".ib-refused").hidden = true;
    if ((said || question) && !away.open) away.showModal();
  }

  away?.querySelector("[data-give-back]").addEventListener("click", async (event) => {
    const button = event.currentTarget;
    button.disabled = true;
    try {
      tellAway(await ask(button.dataset.giveBack, {}));
      away.querySelector("[data-close]").focus();
    } catch (error) {
      const wrong = away.querySelector(".ib-refused");
      wrong.textContent = error.message;
      wrong.hidden = false;
    }
    button.disabled = false;
  });

  available?.addEventListener("click", async () => {
    const wanted = available.getAttribute("aria-checked") !== "true";
    let left;
    try {
      left = await ask(available.dataset.available, { available: wanted ? "yes" : "no" });
    } catch (error) {
      available.title = error.message;
      return;
    }
    available.setAttribute("aria-checked", String(wanted));
    available.querySelector("[data-name]").textContent = available.dataset.names.split("|")[wanted ? 0 : 1];
    tellAway(left);
  });

  showFilters();
  showPanel(selects.some((select) => select.value));
  mark();
  count();
  setInterval(count, COUNT_MS);
})();
