// The channel simulator: polls for news, posts the forms, and reports deliveries as a phone does.
(function () {
  "use strict";

  const POLL_MS = 1000;

  const page = document.getElementById("simulator");
  if (!page) return;
  const said = page.querySelector(".cv-said");
  const auto = document.getElementById("sim-auto");
  const shown = new Map(); // section name -> the HTML it was last given
  const reported = new Set(); // what this page has reported already
  let seen = "";
  let asking = null; // the poll under way

  function say(sentence, failed) {
    said.textContent = sentence;
    said.classList.toggle("cv-failed", Boolean(failed));
    said.hidden = false;
    clearTimeout(say.timer);
    say.timer = setTimeout(() => { said.hidden = true; }, failed ? 10000 : 3000);
  }

  // --- what is shown -------------------------------------------------------------------------------------------------

  function scroller(section) {
    return section.querySelector(".cv-list, .sim-exchanges") || section;
  }

  function atBottom(box) {
    return box.scrollHeight - box.scrollTop - box.clientHeight < 80;
  }

  function showSection(name, html) {
    if (shown.get(name) === html) return;
    const section = page.querySelector(`[data-section="${name}"]`);
    const fresh = document.createElement("div");
    fresh.innerHTML = html; // our own templates, in which everything people wrote is escaped
    section.querySelectorAll("details[data-key]").forEach((old) => {
      const same = fresh.querySelector(`details[data-key="${old.dataset.key}"]`);
      if (same) same.open = old.open;
    });
    const stick = name !== "wire" && atBottom(scroller(section));
    const top = scroller(section).scrollTop;
    section.replaceChildren(...fresh.childNodes);
    scroller(section).scrollTop = stick ? scroller(section).scrollHeight : top;
    section.dataset.stick = stick ? "yes" : "";
    shown.set(name, html);
  }

  // A picture that has just loaded makes its section longer.
  page.addEventListener("load", (event) => {
    const section = event.target.closest("[data-section]");
    if (section && section.dataset.stick) scroller(section).scrollTop = scroller(section).scrollHeight;
  }, true);

  async function askOnce() {
    const answer = await fetch(`${page.dataset.news}&seen=${seen}`, {
      headers: { Accept: "application/json" }, credentials: "same-origin",
    });
    if (answer.redirected || answer.status === 403) throw new Error(gettext("You are signed out. Load the page again."));
    if (answer.status === 204) return;
    if (!answer.ok) throw new Error(interpolate(gettext("The server answered %(status)s. The page tries again."), { status: answer.status }, true));
    const news = await answer.json();
    Object.entries(news.sections).forEach(([name, html]) => showSection(name, html));
    seen = news.seen;
    await actAutomatically();
  }

  // One at a time: an answer that is overtaken by a newer one must not be shown after it.
  function ask() {
    asking = (asking || Promise.resolve()).then(askOnce);
    return asking.catch((error) => say(error.message, true)).finally(() => { asking = null; });
  }

  setInterval(() => { if (!document.hidden && !asking) ask(); }, POLL_MS);
  document.addEventListener("visibilitychange", () => { if (!document.hidden && !asking) ask(); });

  // --- what is done --------------------------------------------------------------------------------------------------

  async function post(action, fields) {
    const answer = await fetch(page.dataset.do.replace("ACTION", action), {
      method: "POST",
      body: fields,
      headers: { Accept: "application/json", "X-CSRFToken": page.dataset.token },
      credentials: "same-origin",
    });
    const body = (answer.headers.get("Content-Type") || "").includes("json") ? await answer.json() : {};
    return { ok: answer.ok, said: body.said || interpolate(gettext("The server answered %(status)s. Load the page again."), { status: answer.status }, true) };
  }

  // A provider that echoes messages always does so. A phone reports what was delivered and read if the box is ticked. A
  // call continues at the address to which Convo redirected it.
  async function actAutomatically() {
    for (const line of page.querySelectorAll(".sim-in[data-can]")) {
      const told = line.dataset.reported.split(" ");
      if (told.includes("failed") || told.includes("read")) continue;
      const can = line.dataset.can.split(" ");
      const tells = auto && auto.checked ? ["sent", "delivered", "read"] : line.dataset.echoes ? ["sent"] : [];
      for (const status of tells.filter((one) => can.includes(one) && !told.includes(one))) {
        await once(`${line.dataset.message} ${status}`, "report", { message: line.dataset.message, status });
      }
    }
    const call = page.querySelector("[data-goes-on]");
    if (call && Number(call.dataset.goesOn)) {
      await new Promise((wake) => setTimeout(wake, Number(call.dataset.wait) * 1000));
      await once(`call ${call.dataset.goesOn}`, "go-on", { exchange: call.dataset.goesOn });
    }
  }

  async function once(key, action, values) {
    if (reported.has(key)) return;
    reported.add(key);
    const fields = new FormData();
    Object.entries(values).forEach(([name, value]) => fields.set(name, value));
    await post(action, fields).catch(() => reported.delete(key));
  }

  async function submit(form, button) {
    const fields = new FormData(form, button);
    if (form.dataset.busy) return; // a second click while the first is on its way
    form.dataset.busy = "yes";
    const text = form.querySelector("textarea");
    const typed = text ? text.value : "";
    const file = form.querySelector("input[type=file]");
    if (text) text.value = "";
    try {
      const outcome = await post(form.dataset.action, fields);
      say(outcome.said, !outcome.ok);
      if (!outcome.ok && text && !text.value) text.value = typed;
      if (outcome.ok && file) { file.value = ""; showChosen(file); }
    } catch (error) {
      say(gettext("There was no answer. Check whether the message appears here before you try again."), true);
      if (text && !text.value) text.value = typed;
    } finally {
      delete form.dataset.busy;
    }
    await ask();
  }

  // A file needs no words beside it.
  function showChosen(input) {
    const chosen = input.files[0];
    input.parentElement.querySelector("output").textContent = chosen ? chosen.name : "";
    input.form.querySelector("textarea").required = !chosen;
  }

  // In the capture phase: the back office's own script would look for a text field that this form has not.
  page.addEventListener("change", (event) => {
    if (!event.target.matches("input[type=file]")) return;
    event.stopPropagation();
    showChosen(event.target);
  }, true);
  page.addEventListener("submit", (event) => {
    if (!event.target.matches("form[data-action]")) return;
    event.preventDefault();
    submit(event.target, event.submitter);
  });
  page.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.target.matches(".sim-write textarea")) {
      event.preventDefault();
      event.target.form.requestSubmit();
    }
  });

  page.querySelectorAll(".sim-scroll, .sim-conversation .cv-list").forEach((box) => {
    box.scrollTop = box.scrollHeight;
    box.closest("[data-section]").dataset.stick = "yes";
  });
  ask();
})();
