// The channel simulator: shows what is new by itself, posts the forms, and lets the phone report what it does.
(function () {
  "use strict";

  const POLL_MS = 1000;

  const page = document.getElementById("simulator");
  if (!page) return;
  const said = page.querySelector(".cv-said");
  const auto = document.getElementById("sim-auto");
  const shown = new Map(); // section name -> the HTML it was last given
  const reported = new Set(); // what this page has reported by itself
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
    shown.set(name, html);
  }

  async function askOnce() {
    const answer = await fetch(`${page.dataset.news}&seen=${seen}`, {
      headers: { Accept: "application/json" }, credentials: "same-origin",
    });
    if (answer.redirected || answer.status === 403) throw new Error("You are signed out: load the page again.");
    if (answer.status === 204) return;
    if (!answer.ok) throw new Error(`The server answered ${answer.status}; trying again.`);
    const news = await answer.json();
    Object.entries(news.sections).forEach(([name, html]) => showSection(name, html));
    seen = news.seen;
    await actByItself();
  }

  // One at a time: an answer that is overtaken by a newer one must not be shown after it.
  function ask() {
    asking = (asking || Promise.resolve()).then(askOnce);
    return asking.catch((error) => say(error.message, true)).finally(() => { asking = null; });
  }

  setInterval(() => { if (!document.hidden && !asking) ask(); }, POLL_MS);
  document.addEventListener("visibilitychange", () => { if (!document.hidden && !asking) ask(); });

  // --- what is done --------------------------------------------------------------------------------------------------

  async function post(deed, fields) {
    const answer = await fetch(page.dataset.do.replace("DEED", deed), {
      method: "POST",
      body: fields,
      headers: { Accept: "application/json", "X-CSRFToken": page.dataset.token },
      credentials: "same-origin",
    });
    const body = (answer.headers.get("Content-Type") || "").includes("json") ? await answer.json() : {};
    return { ok: answer.ok, said: body.said || `The server answered ${answer.status}: load the page again.` };
  }

  // A provider that echoes what it took does so whatever the phone does; a phone in somebody's hand tells its provider
  // what arrived and was read; a call goes on where it was sent on.
  async function actByItself() {
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

  async function once(key, deed, values) {
    if (reported.has(key)) return;
    reported.add(key);
    const fields = new FormData();
    Object.entries(values).forEach(([name, value]) => fields.set(name, value));
    await post(deed, fields).catch(() => reported.delete(key));
  }

  async function submit(form, button) {
    const fields = new FormData(form, button);
    if (form.dataset.busy) return; // a second click while the first is on its way
    form.dataset.busy = "yes";
    const text = form.querySelector("textarea");
    const typed = text ? text.value : "";
    if (text) text.value = "";
    try {
      const outcome = await post(form.dataset.deed, fields);
      say(outcome.said, !outcome.ok);
      if (!outcome.ok && text && !text.value) text.value = typed;
    } catch (error) {
      say("No answer came. See whether it shows here before you try again.", true);
      if (text && !text.value) text.value = typed;
    } finally {
      delete form.dataset.busy;
    }
    await ask();
  }

  page.addEventListener("submit", (event) => {
    if (!event.target.matches("form[data-deed]")) return;
    event.preventDefault();
    submit(event.target, event.submitter);
  });
  page.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.target.matches(".sim-write textarea")) {
      event.preventDefault();
      event.target.form.requestSubmit();
    }
  });

  page.querySelectorAll(".sim-scroll, .sim-session .cv-list").forEach((box) => { box.scrollTop = box.scrollHeight; });
  ask();
})();
