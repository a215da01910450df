// A conversation: loads older messages while the user scrolls up, polls for new ones, and posts the forms.
//
// window.convoTranscript(page, whenDone, beforeReply) brings an element to life (templates/admin/transcript/transcript.html
// and the inbox's). `whenDone(action)` is called after a form was carried out; a reply is posted once the promise that
// `beforeReply()` returns is settled. It returns { ask, say, run, stop, last }.
window.convoTranscript = function (page, whenDone, beforeReply) {
  "use strict";

  const POLL_MS = 2000;
  const NEAR = 80; // pixels from an edge that count as being there
  const RUN_MS = 10 * 60 * 1000; // messages of one sender within this time stand together

  const box = page.querySelector(".cv-scroll");
  const list = page.querySelector(".cv-list");
  const olderNote = page.querySelector(".cv-older");
  const emptyNote = page.querySelector(".cv-empty");
  const jump = page.querySelector(".cv-jump");
  const said = page.querySelector(".cv-said");

  let last = Number(page.dataset.last);
  let more = page.dataset.more === "yes";
  let seen = "";
  let asking = null; // the poll under way
  let loadingOlder = false;
  let lookedFor = Number(page.dataset.at || 0); // the position in the address, until the user scrolls
  const shown = new Map(); // position or section name -> the HTML it was last given

  // --- small helpers -------------------------------------------------------------------------------------------------

  function parse(html) {
    const template = document.createElement("template");
    template.innerHTML = html.trim(); // our own template, in which everything people wrote is escaped
    return template.content.firstElementChild;
  }

  function atBottom() {
    return box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
  }

  function toBottom() {
    box.scrollTop = box.scrollHeight;
    jump.hidden = true;
  }

  function say(sentence, failed) {
    said.textContent = sentence;
    said.classList.toggle("cv-failed", Boolean(failed));
    said.hidden = false;
    clearTimeout(say.timer);
    say.timer = setTimeout(() => { said.hidden = true; }, failed ? 12000 : 4000);
  }

  // Return whether the user is typing there, or has typed something that is not saved.
  function inUse(element) {
    const active = document.activeElement;
    if (element.contains(active) && active.matches("input, textarea, select")) return true;
    const chosen = Array.from(element.querySelectorAll("form[data-person] option"));
    if (chosen.some((option) => option.selected !== option.defaultSelected)) return true;
    return Array.from(element.querySelectorAll("input:not([type=hidden]), textarea"))
      .some((field) => field.value !== field.defaultValue);
  }

  // Keep the folds that are open.
  function keepFolds(from, to) {
    from.querySelectorAll("details[data-key]").forEach((old) => {
      const same = to.querySelector(`details[data-key="${old.dataset.key}"]`);
      if (same) same.open = old.open;
    });
    const text = from.querySelector(".cv-text.cv-open");
    if (text) unfold(to.querySelector("[data-unfold]"));
  }

  function unfold(button) {
    if (!button) return;
    button.closest(".cv-entry").querySelector(".cv-text").classList.add("cv-open");
    button.remove();
  }

  // --- messages and the sections beside them ---------------------------------------------------------------------------

  function bubbleAt(position) {
    return list.querySelector(`[data-position="${position}"]`);
  }

  function show([position, html]) {
    if (shown.get(position) === html) return;
    const fresh = parse(html);
    const old = bubbleAt(position);
    if (!old) {
      if (position <= last && list.firstElementChild) return; // an older message that is not loaded yet
      list.append(fresh);
    } else if (inUse(old)) {
      return;
    } else {
      keepFolds(old, fresh);
      old.replaceWith(fresh);
    }
    shown.set(position, html);
  }

  // Put a separator before the first message of each day, and name a sender once for a run of messages.
  function arrange() {
    placeNotes();
    let before = null;
    list.querySelectorAll(".cv-entry").forEach((entry) => {
      const at = new Date(entry.dataset.at);
      const day = dayOf(at);
      const time = entry.querySelector(".cv-meta time"); // the day stands above
      if (time) time.textContent = django.when(at, { hour: "2-digit", minute: "2-digit" });
      const line = entry.previousElementSibling?.matches(".cv-day") ? entry.previousElementSibling : null;
      const begins = !before || before.day !== day;
      if (line && (!begins || line.dataset.day !== day)) line.remove();
      if (begins && !(line && line.dataset.day === day)) entry.before(dayLine(at, day));
      const goes = !begins && before.who === entry.dataset.who && at - before.at < RUN_MS && !entry.matches(".cv-aside");
      entry.classList.toggle("cv-same", goes);
      before = { day, at, who: entry.dataset.who };
    });
  }

  // Put the private notes between the messages, by their time. Those before the oldest message shown wait for it.
  function placeNotes() {
    const kept = page.querySelector('[data-section="notes"]');
    if (!kept) return;
    list.querySelectorAll(".cv-private").forEach((old) => old.remove());
    const entries = Array.from(list.querySelectorAll("[data-position]"));
    kept.querySelectorAll(".cv-private").forEach((note) => {
      const next = entries.find((entry) => new Date(entry.dataset.at) > new Date(note.dataset.at));
      if (next && next === entries[0] && more) return;
      if (next) next.before(note.cloneNode(true));
      else list.append(note.cloneNode(true));
    });
  }

  // The day in the person's time zone, such as 2026-11-30.
  function dayOf(at) {
    return new Intl.DateTimeFormat("en-CA", { timeZone: django.zone }).format(at);
  }

  function dayLine(at, day) {
    const line = document.createElement("p");
    line.className = "cv-day";
    line.dataset.day = day;
    const today = dayOf(new Date());
    const days = Math.round((Date.parse(today) - Date.parse(day)) / 86400000);
    const year = day.slice(0, 4) === today.slice(0, 4) ? {} : { year: "numeric" };
    line.textContent = days === 0 ? gettext("Today") : days === 1 ? gettext("Yesterday")
      : django.when(at, { weekday: "long", day: "numeric", month: "long", ...year });
    return line;
  }

  const STOPS = "a[href], button, summary, textarea, select, input:not([type=hidden])";

  function showSection(name, html) {
    if (shown.get(name) === html) return;
    const section = page.querySelector(`[data-section="${name}"]`);
    if (!section || inUse(section)) return;
    const fresh = document.createElement("div");
    fresh.innerHTML = html;
    keepFolds(section, fresh);
    const focused = section.contains(document.activeElement) ? document.activeElement : null;
    const at = Array.from(section.querySelectorAll(STOPS)).indexOf(focused);
    section.replaceChildren(...fresh.childNodes);
    if (focused) { // move the focus to the same control, or to the one in its place
      const stops = section.querySelectorAll(STOPS);
      (section.querySelector(`[data-focus="${focused.dataset.focus}"]`) || stops[Math.min(Math.max(at, 0), stops.length - 1)])?.focus();
    }
    shown.set(name, html);
  }

  function showNews(news) {
    const stick = atBottom() && !lookedFor;
    const before = last;
    news.bubbles.forEach((bubble) => {
      show(bubble);
      last = Math.max(last, bubble[0]);
    });
    Object.entries(news.sections).forEach(([name, html]) => showSection(name, html));
    arrange();
    emptyNote.hidden = Boolean(list.firstElementChild);
    if (stick) toBottom();
    else if (last > before) jump.hidden = false;
    showLookedFor();
  }

  // The message that the address names stays in the middle until the user scrolls.
  function showLookedFor() {
    const bubble = lookedFor && bubbleAt(lookedFor);
    if (!bubble) return;
    bubble.classList.add("cv-found");
    bubble.scrollIntoView({ block: "center" });
  }

  // --- asking the server ---------------------------------------------------------------------------------------------

  async function get(url) {
    const answer = await fetch(url, { headers: { Accept: "application/json" }, credentials: "same-origin" });
    if (answer.redirected || answer.status === 403) throw new Error(gettext("You are signed out. Load the page again."));
    if (answer.status === 204) return null;
    if (!answer.ok) throw new Error(interpolate(gettext("The server answered %(status)s. The page tries again."), { status: answer.status }, true));
    return answer.json();
  }

  async function askOnce() {
    let behind = true;
    while (behind) {
      const news = await get(`${page.dataset.news}?after=${last}&seen=${seen}`);
      if (!news) return;
      showNews(news);
      seen = news.seen;
      behind = news.behind;
    }
  }

  // One at a time: an answer that is overtaken by a newer one must not be shown after it.
  let askedAt = 0;

  function ask() {
    askedAt = Date.now();
    asking = (asking || Promise.resolve()).then(askOnce);
    return asking.catch((error) => say(error.message, true)).finally(() => { asking = null; });
  }

  const whenSeen = () => { if (!document.hidden && !asking) ask(); };
  // Where live news tells of changes (page.dataset.poll, in ms), it asks less often by itself.
  const clock = setInterval(() => { if (Date.now() - askedAt > Number(page.dataset.poll || 0)) whenSeen(); }, POLL_MS);
  document.addEventListener("visibilitychange", whenSeen);

  async function loadOlder() {
    if (loadingOlder || !more) return;
    loadingOlder = true;
    try {
      const oldest = list.querySelector("[data-position]");
      const first = oldest ? Number(oldest.dataset.position) : last + 1;
      const older = await get(`${page.dataset.older}?before=${first}`);
      const height = box.scrollHeight;
      const top = box.scrollTop;
      const fresh = older.bubbles.map(([position, html]) => {
        shown.set(position, html);
        return parse(html);
      });
      list.prepend(...fresh);
      arrange();
      more = older.more;
      olderNote.hidden = !more;
      box.scrollTop = top + box.scrollHeight - height; // keep what the user is reading in place
    } catch (error) {
      say(error.message, true);
    } finally {
      loadingOlder = false;
    }
    if (more && box.scrollTop < NEAR) loadOlder();
  }

  box.addEventListener("scroll", () => {
    if (box.scrollTop < NEAR * 4) loadOlder();
    if (atBottom()) jump.hidden = true;
  });
  jump.addEventListener("click", toBottom);

  // --- what staff do -------------------------------------------------------------------------------------------------

  // What was typed while `sent` was on its way.
  function typedSince(now, sent) {
    return now.startsWith(sent) ? now.slice(sent.length).trimStart() : now;
  }

  async function post(form, button) {
    const action = button?.dataset.action || form.dataset.action;
    const question = button?.dataset.question || form.dataset.question;
    if (question && !window.confirm(question)) return;
    const fields = new FormData(form);
    if (form.dataset.busy) return; // a second click while the first is on its way
    const mark = form.dataset.busy = String(Math.random());
    const isOver = () => { if (form.dataset.busy === mark) delete form.dataset.busy; };
    const sent = Array.from(form.querySelectorAll("textarea"), (text) => [text, text.value]);
    try {
      if (action === "reply") await beforeReply?.();
      const answer = await fetch(page.dataset.do.replace("ACTION", action), {
        method: "POST",
        body: fields,
        headers: { Accept: "application/json", "X-CSRFToken": page.dataset.token },
        credentials: "same-origin",
      });
      const body = (answer.headers.get("Content-Type") || "").includes("json") ? await answer.json() : {};
      say(body.said || interpolate(gettext("The server answered %(status)s. Load the page again."), { status: answer.status }, true), !answer.ok);
      if (answer.ok) {
        const typed = sent.map(([text, before]) => [text, typedSince(text.value, before)]).filter(([, words]) => words);
        form.reset();
        const active = document.activeElement;
        if (action === "reply" || action === "note") toBottom();
        else if (form.contains(active) && active.matches("input, textarea")) active.blur();
        form.closest("dialog")?.close();
        const fold = form.closest("details[data-edit]");
        if (fold) fold.open = false;
        (body.bubbles || []).forEach(show);
        whenDone?.(action);
        typed.forEach(([text, words]) => {
          text.value = words;
          text.dispatchEvent(new Event("input", { bubbles: true }));
        });
        isOver(); // what was typed meanwhile may be sent at once
        await ask();
      }
    } catch (error) {
      // The action may have been run all the same: perhaps only the answer was lost.
      say(gettext("There was no answer. Check whether it appears here before you try again. Your text is kept."), true);
    } finally {
      isOver();
    }
  }

  function openDialog(button) {
    const entry = button.closest(".cv-entry");
    const text = entry.querySelector(".cv-text").textContent;
    const dialog = page.querySelector(`[data-dialog="${button.dataset.open}"]`);
    const form = dialog.querySelector("form");
    form.reset();
    form.elements.position.value = entry.dataset.position;
    if (form.elements.text) form.elements.text.value = text;
    const quoted = dialog.querySelector(".cv-quoted");
    if (quoted) quoted.textContent = text;
    dialog.showModal();
  }

  // Remove the quoted text from the page: it may have been redacted.
  page.querySelectorAll("dialog").forEach((dialog) => dialog.addEventListener("close", () => {
    dialog.querySelector("form")?.reset();
    dialog.querySelectorAll(".cv-quoted").forEach((quoted) => { quoted.textContent = ""; });
  }));

  page.addEventListener("submit", (event) => {
    if (!event.target.matches("form[data-action]")) return;
    event.preventDefault();
    post(event.target, event.submitter);
  });
  page.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.matches("[data-unfold]")) unfold(button);
    if (button.matches("[data-open]")) openDialog(button);
    if (button.matches("[data-close]")) button.closest("dialog").close();
  });
  function showChosen(input) {
    const names = Array.from(input.files, (file) => file.name);
    input.parentElement.querySelector("output").textContent = names.length > 1 ? interpolate(ngettext("%(count)s file", "%(count)s files", names.length), { count: names.length }, true) : names.join("");
  }
  // In the capture phase: the back office's own script would look for a text field that this form has not.
  page.addEventListener("change", (event) => {
    if (!event.target.matches("input[type=file]")) return;
    event.stopPropagation();
    showChosen(event.target);
  }, true);
  page.addEventListener("reset", (event) => setTimeout(() => {
    event.target.querySelectorAll("input[type=file]").forEach(showChosen);
    event.target.querySelectorAll("details.cv-offer").forEach((offer) => { offer.open = false; });
  }));
  page.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.matches("textarea")) {
      event.target.form.requestSubmit();
    }
  });

  // Carry out an action that needs no fields but these.
  function run(action, fields = {}) {
    const form = document.createElement("form");
    form.dataset.action = action;
    Object.entries(fields).forEach(([name, value]) => {
      form.append(Object.assign(document.createElement("input"), { type: "hidden", name, value }));
    });
    return post(form);
  }

  function stop() {
    clearInterval(clock);
    document.removeEventListener("visibilitychange", whenSeen);
  }

  emptyNote.hidden = Boolean(list.firstElementChild);
  arrange();
  toBottom();
  showLookedFor();
  ["wheel", "touchmove", "keydown", "pointerdown"].forEach((kind) => box.addEventListener(kind, () => { lookedFor = 0; }));
  if (box.scrollTop < NEAR * 4) loadOlder(); // a tall window has room for more
  return { ask, say, run, stop, last: () => last };
};

if (document.getElementById("transcript")) window.convoTranscript(document.getElementById("transcript"));
