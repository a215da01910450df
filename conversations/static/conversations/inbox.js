// The inbox: a list that is read again while it is shown, the conversation that is open, and the keyboard.
// The conversation itself is transcript.js.
(function () {
  "use strict";

  const inbox = document.getElementById("inbox");
  if (!inbox) return;
  const rows = inbox.querySelector(".ib-rows");
  const fresh = inbox.querySelector(".ib-fresh");
  const place = inbox.querySelector("[data-pane-place]");
  const sheet = inbox.querySelector("[data-keys]");
  const NOBODY = "00000000-0000-0000-0000-000000000000";
  const LIST_MS = 5000; // where there is no stream of news
  const CALM_MS = 30000; // where there is one
  const PRESENCE_MS = 10000;
  const TYPING_MS = 3000;
  const NEAR = 600; // pixels above the end of the list at which its next page is read

  const FILTERS = ["client", "channel", "status", "team", "priority", "assigned"]; // inbox_views.js shows them

  let transcript = null; // what transcript.js made of the open conversation
  let opening = 0; // the number of the newest opening: an answer that is overtaken is not shown
  let reading = null; // the reading of the list that is under way
  let loadingMore = false;
  let waiting = null; // a list that was read while the user reads further down

  // --- asking the server ---------------------------------------------------------------------------------------------
  async function get(url) {
    const answer = await fetch(url, { credentials: "same-origin" });
    if (answer.redirected || answer.status === 403) throw new Error(gettext("You are signed out. Load the page again."));
    if (answer.status === 404) throw new Error(gettext("This conversation does not exist any more."));
    if (!answer.ok) throw new Error(interpolate(gettext("The server answered %(status)s. Try again."), { status: answer.status }, true));
    return answer;
  }

  function listAddress(after = "") {
    return `${inbox.dataset.list}?${new URLSearchParams({ ...choice(), after })}`;
  }

  function choice() {
    const { tab, order } = inbox.dataset;
    const chosen = ["label", ...FILTERS].filter((name) => inbox.dataset[name]).map((name) => [name, inbox.dataset[name]]);
    return { tab, order, ...Object.fromEntries(chosen) };
  }

  function post(url, fields, page = place.querySelector("[data-transcript]")) {
    return fetch(url, {
      method: "POST",
      body: new URLSearchParams(fields),
      headers: { "X-CSRFToken": page.dataset.token },
      credentials: "same-origin",
      keepalive: true, // also while the page is left
    });
  }

  const drafts = window.convoDrafts(inbox, post);

  function say(sentence) {
    if (transcript) transcript.say(sentence, true);
    else fresh.textContent = sentence, fresh.hidden = false;
  }

  // --- the list ------------------------------------------------------------------------------------------------------
  function links() {
    return Array.from(rows.querySelectorAll(".ib-link"));
  }

  function rowOf(id) {
    return rows.querySelector(`[data-id="${id}"]`);
  }

  function mark() {
    links().forEach((link) => {
      if (link.parentElement.dataset.id === inbox.dataset.open) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    });
    tellTimes(rows);
  }

  function showCounts(counts) {
    Object.entries(counts).forEach(([name, count]) => {
      const shown = inbox.querySelector(`[data-count="${name}"]`);
      if (!shown) return;
      shown.textContent = count;
      shown.hidden = !count;
    });
  }

  function ids(from) {
    return Array.from(from.querySelectorAll("[data-id]"), (each) => each.dataset.id);
  }

  // Show the list. The row that has the focus keeps it.
  function showList(list) {
    const focused = rows.contains(document.activeElement) ? document.activeElement.parentElement.dataset.id : "";
    rows.innerHTML = list.html; // our own template, in which everything people wrote is escaped
    rows.dataset.next = list.next;
    waiting = null;
    fresh.hidden = true;
    mark();
    if (focused) rowOf(focused)?.querySelector(".ib-link").focus({ preventScroll: true });
  }

  // A row that is replaced between the press of a button and its release is never clicked.
  let pressedAt = 0;

  rows.addEventListener("pointerdown", () => { pressedAt = Date.now(); });
  ["pointerup", "pointercancel"].forEach((end) => document.addEventListener(end, () => { pressedAt = 0; }));

  // While the user reads further down, the list stays as it is and says how many are new.
  function offerList(list) {
    showCounts(list.counts);
    if (Date.now() - pressedAt < 2000) return refreshSoon();
    if (rows.scrollTop < 8) return showList(list);
    const parsed = document.createElement("template");
    parsed.innerHTML = list.html;
    const known = new Map(Array.from(rows.querySelectorAll("[data-id]"), (row) => [row.dataset.id, row]));
    let added = 0;
    parsed.content.querySelectorAll("[data-id]").forEach((row) => {
      const old = known.get(row.dataset.id);
      if (!old) added += 1;
      else if (!old.contains(document.activeElement)) old.replaceWith(row.cloneNode(true));
    });
    mark();
    waiting = list;
    fresh.hidden = !added;
    fresh.textContent = interpolate(ngettext("%(count)s new", "%(count)s new", added), { count: added }, true);
  }

  // A list that nobody waits for is read together with those of others (endpoints/repeated.py).
  async function readList(show = offerList, isAwaited = show !== offerList) {
    const asked = listAddress();
    const list = await (await get(isAwaited ? asked : `${asked}&by_itself=1`)).json();
    if (asked === listAddress()) show(list);
  }

  // --- finding -------------------------------------------------------------------------------------------------------
  const search = inbox.querySelector("#ib-find");

  async function find() {
    const query = search.value.trim();
    inbox.classList.toggle("ib-searching", Boolean(query));
    if (!query) return readList(showList).catch((error) => say(error.message));
    try {
      const { html } = await (await get(`${inbox.dataset.find}?${new URLSearchParams({ q: query })}`)).json();
      if (query !== search.value.trim()) return;
      rows.innerHTML = html; // our own template
      rows.dataset.next = "";
      rows.scrollTop = 0;
      waiting = null;
      fresh.hidden = true;
      mark();
    } catch (error) {
      say(error.message);
    }
  }

  search.addEventListener("input", () => {
    clearTimeout(find.timer);
    find.timer = setTimeout(find, 250);
  });
  search.form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(find.timer);
    find().then(() => links()[0]?.focus());
  });
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") links()[0]?.focus();
    else if (event.key !== "Escape") return;
    else if (search.value) {
      search.value = "";
      find();
    } else search.blur();
    event.preventDefault();
  });

  let readAt = 0;
  let tookMs = 0; // the last reading
  let soon = null;

  // A busy server is asked less often, but news may not take longer than two seconds to be seen.
  function refreshSoon() {
    if (soon) return;
    soon = setTimeout(() => {
      soon = null;
      refresh();
    }, Math.max(0, readAt + (tookMs < 50 ? 600 : 1000) - Date.now()));
  }

  let again = false; // something changed while the list was read

  function refresh(isAwaited = false) {
    if (document.hidden || search.value.trim()) return;
    if (reading) {
      again = true;
      return;
    }
    again = false;
    readAt = Date.now();
    reading = readList(offerList, isAwaited).catch(() => {}).finally(() => {
      reading = null;
      tookMs = Date.now() - readAt;
      if (again) refreshSoon();
    });
  }

  async function readMore() {
    if (loadingMore || !rows.dataset.next) return;
    loadingMore = true;
    try {
      const asked = listAddress(rows.dataset.next);
      const more = await (await get(asked)).json();
      if (asked !== listAddress(rows.dataset.next)) return; // the list was read anew meanwhile
      const parsed = document.createElement("template");
      parsed.innerHTML = more.html;
      const known = new Set(ids(rows));
      parsed.content.querySelectorAll("[data-id]").forEach((row) => { if (!known.has(row.dataset.id)) rows.append(row); });
      rows.dataset.next = more.next;
      mark();
    } catch (error) {
      say(error.message);
    } finally {
      loadingMore = false;
    }
  }

  async function choose(changed, words = "") {
    Object.assign(inbox.dataset, changed);
    search.value = words;
    inbox.classList.remove("ib-searching");
    inbox.dispatchEvent(new CustomEvent("ib-chosen", { detail: choice() }));
    const { tab } = inbox.dataset;
    inbox.querySelectorAll("[data-tab]").forEach((link) => {
      if (link.dataset.tab === tab) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    });
    rows.scrollTop = 0;
    history.replaceState(history.state, "", address(inbox.dataset.open));
    if (words) return find();
    return readList(showList).catch((error) => say(error.message));
  }

  inbox.addEventListener("ib-choose", ({ detail: { q = "", ...changed } }) => choose(changed, q));
  if (search.value) find(); // a saved view of words

  // --- times ---------------------------------------------------------------------------------------------------------
  function span(since) {
    const minutes = Math.max(0, Math.floor((Date.now() - since) / 60000));
    return minutes < 1 ? gettext("now") : length(minutes);
  }

  function length(minutes) {
    if (minutes < 60) return interpolate(gettext("%(count)s min"), { count: minutes }, true);
    if (minutes < 60 * 24) return interpolate(gettext("%(count)s h"), { count: Math.floor(minutes / 60) }, true);
    return interpolate(gettext("%(count)s d"), { count: Math.floor(minutes / 1440) }, true);
  }

  function tellTimes(within) {
    within.querySelectorAll("[data-due-at]").forEach(tellDue);
    within.querySelectorAll("time[data-ago], time[data-span], time[data-local]").forEach((each) => {
      const at = new Date(each.dateTime);
      const whole = django.when(at, { dateStyle: "medium", timeStyle: "short" });
      const isOld = Date.now() - at > 6 * 86400000;
      let text = isOld ? django.when(at, { day: "numeric", month: "short" }) : span(at);
      if (each.matches("[data-span]")) text = Date.now() - at < 60000 ? gettext("a moment") : span(at);
      if (each.matches("[data-local]")) text = whole;
      if (each.textContent === text) return; // or the observer below would never rest
      each.title = whole;
      each.textContent = text;
    });
  }

  // A promise: "due in 12 min", "5 min late"; as admin/promise_view.py writes it.
  function tellDue(clock) {
    const at = new Date(clock.dataset.dueAt);
    const isLate = Date.now() > at;
    const minutes = Math.max(1, Math.floor(Math.abs(Date.now() - at) / 60000));
    const text = (isLate ? clock.dataset.late : clock.dataset.soon).replace("{span}", length(minutes));
    const shown = clock.querySelector("time");
    if (shown.textContent === text && clock.title) return;
    clock.title = django.when(at, { dateStyle: "medium", timeStyle: "short" });
    clock.classList.toggle("ib-late", isLate);
    clock.classList.toggle("ib-soon", !isLate && minutes < 60);
    clock.querySelector(".material-symbols-outlined").textContent = isLate ? "alarm" : "timer";
    shown.textContent = text;
  }

  // --- the open conversation -----------------------------------------------------------------------------------------
  function address(id) {
    const path = id ? `${inbox.dataset.page}${id}/` : inbox.dataset.page;
    return `${path}?${new URLSearchParams(choice())}`;
  }

  function mount() {
    const page = place.querySelector("[data-transcript]");
    if (!page) return;
    transcript = window.convoTranscript(page, done, drafts.hold);
    offered = null;
    page.dataset.poll = live.isConnected ? 20000 : 0;
    tellTimes(page);
    noteSeen();
    noteHere();
    showPresent(present);
    new MutationObserver(() => {
      tellTimes(page);
      noteSeen();
    }).observe(page, { childList: true, subtree: true });
  }

  inbox.addEventListener("convo:saved", (event) => { // the person was edited (person.js)
    transcript?.say(event.detail);
    transcript?.ask();
    refresh(true);
  });

  function unmount() {
    drafts.save();
    if (transcript) noteHere(false);
    transcript?.stop();
    transcript = null;
    inbox.classList.remove("ib-with-person");
  }

  // After an action the list has changed as well.
  function done(action) {
    refresh(true);
    if (action !== "reply" && action !== "note") return;
    const text = composer();
    if (!text) return;
    text.defaultValue = text.value = "";
    drafts.forget();
    text.focus();
  }

  // Tell how far the conversation was seen: it is read no further while the window is hidden.
  let seen = {};

  function noteSeen() {
    const id = inbox.dataset.open;
    const position = transcript?.last();
    const mentioned = position && seen.id !== id;
    if (document.hidden || !position || (!mentioned && position <= seen.position)) return;
    seen = { id, position };
    post(place.querySelector("[data-transcript]").dataset.seen, { position }).then(() => refresh(), () => { seen = {}; });
  }

  // --- live news ------------------------------------------------------------------------------------------------------
  const live = window.convoLive;
  live.openConversation = () => inbox.dataset.open || "";

  live.on((news) => {
    if (news.counts) showCounts(news.counts);
    if (news.present) showPresent(news.present);
    const page = place.querySelector("[data-transcript]");
    if (page) page.dataset.poll = live.isConnected ? 20000 : 0;
    const everything = news.hello || news.changed === null;
    if (everything || news.changed?.includes(inbox.dataset.open)) transcript?.ask();
    const isShown = news.changed?.some((id) => inbox.dataset.tab === "all" || inbox.dataset.tab === "ended" || rowOf(id));
    if (everything || isShown || news.counts || news.alerts?.length) refreshSoon();
  });

  let present = {};

  function showPresent(told) {
    present = told;
    const line = place.querySelector(".ib-present");
    if (!line) return;
    const others = present[inbox.dataset.open] || [];
    const typing = others.filter(([, isTyping]) => isTyping).map(([name]) => name);
    const here = others.map(([name]) => name);
    line.textContent = typing.length ? interpolate(ngettext("%(names)s is typing…", "%(names)s are typing…", typing.length), { names: typing.join(", ") }, true)
      : here.length ? interpolate(ngettext("%(names)s is looking at this as well", "%(names)s are looking at this as well", here.length), { names: here.join(", ") }, true) : "";
    line.hidden = !line.textContent;
  }

  let typedAt = 0;

  function noteHere(here = true) {
    const page = place.querySelector("[data-transcript]");
    if (!page || (here && document.hidden)) return;
    const typing = Date.now() - typedAt < TYPING_MS ? "yes" : "no";
    post(page.dataset.presence, { here: here ? "yes" : "no", typing }).catch(() => {});
  }

  setInterval(() => noteHere(), PRESENCE_MS);
  window.addEventListener("pagehide", () => noteHere(false));
  document.addEventListener("visibilitychange", () => noteHere(!document.hidden));
  inbox.addEventListener("input", (event) => {
    if (event.target.id !== "ib-reply" || Date.now() - typedAt < TYPING_MS) return;
    typedAt = Date.now();
    noteHere();
  });

  const told = inbox.querySelector("[data-told-dialog]");

  function showTold() {
    told.querySelectorAll("[data-tell]").forEach((box) => { box.checked = live.wants(box.dataset.tell); });
    told.showModal();
  }

  told.addEventListener("change", async (event) => {
    const box = event.target;
    const wanted = box.checked;
    box.checked = await live.choose(box.dataset.tell, wanted);
    told.querySelector("[data-told-refused]").hidden = box.checked === wanted;
  });

  // --- canned replies after /, colleagues after @ ---------------------------------------------------------------------
  let offered = null; // what the open conversation's composer offers, once it was asked for

  async function offer(text) {
    const list = place.querySelector(".ib-offers");
    const before = text.value.slice(0, text.selectionStart);
    const canned = text.id === "ib-reply" && before.match(/^\/([\p{L}\p{N}_-]*)$/u);
    const mention = text.id === "ib-note" && before.match(/(?:^|\s)@([\p{L}\p{N}_.-]*)$/u);
    if (!canned && !mention) {
      list.hidden = true;
      return;
    }
    if (!offered) offered = get(place.querySelector("[data-transcript]").dataset.choices).then((answer) => answer.json());
    let known;
    try {
      known = await offered;
    } catch (error) {
      offered = null;
      return;
    }
    const word = (canned || mention)[1].toLowerCase();
    const found = canned
      ? known.canned.filter(([shortcut]) => shortcut.toLowerCase().includes(word))
      : known.colleagues.filter((name) => name.toLowerCase().includes(word)).map((name) => [name, ""]);
    list.replaceChildren(...found.slice(0, 8).map(([name, filled], at) => {
      const item = Object.assign(document.createElement("li"), { id: `ib-offer-${at}`, role: "option" });
      item.append(Object.assign(document.createElement("strong"), { textContent: (canned ? "/" : "@") + name }), filled);
      item.dataset.insert = canned ? filled : `${before.slice(0, before.length - word.length)}${name} `;
      item.setAttribute("aria-selected", at === 0);
      return item;
    }));
    if (!found.length) {
      const none = Object.assign(document.createElement("li"), { className: "ib-dim" });
      none.textContent = canned ? gettext("No canned reply begins like this. Managers add them under Canned replies.") : gettext("No colleague of this name.");
      list.replaceChildren(none);
    }
    list.hidden = false;
  }

  function insertOffer(item) {
    const text = composer();
    const rest = text.value.slice(text.selectionStart);
    text.value = item.dataset.insert + rest;
    text.setSelectionRange(item.dataset.insert.length, item.dataset.insert.length);
    place.querySelector(".ib-offers").hidden = true;
    text.dispatchEvent(new Event("input", { bubbles: true }));
    text.focus();
  }

  // Return whether the key was for the offers.
  function keyOfOffers(event) {
    const list = place.querySelector(".ib-offers");
    const items = Array.from(list?.querySelectorAll("[data-insert]") || []);
    if (!list || list.hidden || !items.length) return false;
    const at = items.findIndex((item) => item.getAttribute("aria-selected") === "true");
    if (event.key === "Escape") list.hidden = true;
    else if (event.key === "Enter" || event.key === "Tab") insertOffer(items[at]);
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const next = items[(at + (event.key === "ArrowDown" ? 1 : items.length - 1)) % items.length];
      items.forEach((item) => item.setAttribute("aria-selected", item === next));
    } else return false;
    return true;
  }

  inbox.addEventListener("input", (event) => { if (event.target.matches("[data-composer]")) offer(event.target); });
  inbox.addEventListener("mousedown", (event) => { // before the composer loses the focus
    const item = event.target.closest("[data-insert]");
    if (!item) return;
    event.preventDefault();
    insertOffer(item);
  });

  // Show the form of a reply or of a note.
  function write(kind) {
    const forms = place.querySelector("[data-composers]");
    if (!forms?.querySelector(`[data-write=${kind}]`)) return;
    forms.classList.toggle("ib-noting", kind === "note");
    forms.querySelectorAll("[data-write]").forEach((tab) => tab.setAttribute("aria-selected", tab.dataset.write === kind));
    forms.querySelectorAll("form").forEach((form) => { form.hidden = form.dataset.action !== kind; });
    composer()?.focus();
  }

  // --- what is set by choosing ---------------------------------------------------------------------------------------
  function snoozeUntil(choice) {
    const at = new Date();
    if (choice === "1h") at.setHours(at.getHours() + 1);
    if (choice === "4h") at.setHours(at.getHours() + 4);
    if (choice === "week") at.setDate(at.getDate() + 7);
    if (choice === "tomorrow") at.setDate(at.getDate() + 1);
    if (choice === "monday") at.setDate(at.getDate() + ((8 - at.getDay()) % 7 || 7));
    if (choice === "tomorrow" || choice === "monday") at.setHours(9, 0, 0, 0);
    return at.toISOString();
  }

  inbox.addEventListener("change", (event) => {
    const select = event.target.closest("select[data-submit]");
    if (!select) return;
    const { action } = select.form.dataset;
    const value = select.matches("[data-snooze]") ? snoozeUntil(select.value) : select.value;
    select.querySelectorAll("option").forEach((option) => { option.defaultSelected = option.selected; });
    transcript.run(action, { [select.name]: value });
  });

  async function open(id, { push = true, at = "", focus = true } = {}) {
    const mine = ++opening;
    try {
      await drafts.saved(); // or a conversation that was left a moment ago would show an older one
      const html = await (await get(`${inbox.dataset.pane.replace(NOBODY, id)}${at ? `?at=${at}` : ""}`)).text();
      if (mine !== opening) return;
      unmount();
      place.innerHTML = html; // our own template
      inbox.dataset.open = id;
      if (push) history.pushState({ id }, "", address(id));
      mount();
      mark();
      if (focus && !window.matchMedia("(pointer: coarse)").matches) composer()?.focus();
    } catch (error) {
      if (mine === opening) say(error.message);
    }
  }

  function leave({ push = true } = {}) {
    const id = inbox.dataset.open;
    opening += 1;
    unmount();
    delete inbox.dataset.open;
    place.replaceChildren();
    if (push) history.pushState({}, "", address(""));
    mark();
    if (id) rowOf(id)?.querySelector(".ib-link").focus();
  }

  function composer() {
    return place.querySelector("form:not([hidden]) > [data-composer]");
  }

  function press(selector) {
    const button = place.querySelector(selector);
    if (button) button.click();
    return Boolean(button);
  }

  function showDialog(name) {
    const dialog = place.querySelector(`[data-dialog="${name}"]`);
    if (!dialog) return false;
    dialog.showModal();
    dialog.querySelector("input:not([type=hidden]), textarea")?.focus();
    return true;
  }

  // --- mouse ---------------------------------------------------------------------------------------------------------
  inbox.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return; // a new window
    const target = event.target;
    const link = target.closest(".ib-link, [data-conversation]");
    const tab = target.closest("a[data-tab]");
    const opener = target.closest("[data-dialog-of]");
    if (link) {
      event.preventDefault();
      open(link.dataset.conversation || link.parentElement.dataset.id, { at: link.dataset.at || "" });
    } else if (tab) {
      event.preventDefault();
      choose({ tab: tab.dataset.tab });
    } else if (target.closest("[data-write]")) {
      write(target.closest("[data-write]").dataset.write);
    } else if (target.closest("[data-back]")) {
      event.preventDefault();
      leave();
    } else if (target.closest("[data-label-of]")) {
      inbox.querySelector("select[name=label]").value = target.closest("[data-label-of]").dataset.labelOf;
      choose({ tab: "all", label: target.closest("[data-label-of]").dataset.labelOf });
    } else if (opener) {
      showDialog(opener.dataset.dialogOf);
    } else if (target.closest("[data-person]")) {
      inbox.classList.toggle("ib-with-person");
    } else if (target.closest("[data-told]")) {
      showTold();
    } else if (target.closest("[data-sheet]")) {
      sheet.showModal();
    } else if (target.closest(".ib-fresh") && waiting) {
      rows.scrollTop = 0;
      showList(waiting);
    }
  });
  inbox.querySelector(".ib-tools").addEventListener("change", (event) => choose({ [event.target.name]: event.target.value }));
  rows.addEventListener("scroll", () => {
    if (rows.scrollHeight - rows.scrollTop - rows.clientHeight < NEAR) readMore();
    if (rows.scrollTop < 8 && waiting) showList(waiting);
  });
  window.addEventListener("popstate", () => {
    const id = location.pathname.slice(inbox.dataset.page.length).replace("/", "");
    if (id) open(id, { push: false });
    else leave({ push: false });
  });

  // --- keyboard ------------------------------------------------------------------------------------------------------
  function move(by) {
    const all = links();
    if (!all.length) return;
    const focused = all.indexOf(document.activeElement);
    const current = focused >= 0 ? focused : all.findIndex((link) => link.hasAttribute("aria-current"));
    const next = all[Math.min(Math.max(current + by, 0), all.length - 1)];
    next.focus();
    next.scrollIntoView({ block: "nearest" });
  }

  const KEYS = {
    j: () => move(1),
    k: () => move(-1),
    r: () => write("reply"),
    n: () => write("note"),
    a: () => {
      const chosen = place.querySelector("#ib-assignee");
      if (chosen && !chosen.offsetParent) inbox.classList.add("ib-with-person");
      chosen?.focus();
    },
    t: () => press("[data-key=t]"),
    c: () => showDialog("close"),
    p: () => inbox.classList.toggle("ib-with-person"),
    "/": () => search.focus(),
    "?": () => sheet.showModal(),
  };

  function isTyping(element) {
    return element.matches("input, textarea, select, [contenteditable]") || element.closest("dialog[open]");
  }

  document.addEventListener("keydown", (event) => { // before unfold's own, which finds pages
    if (event.key.toLowerCase() !== "k" || !(event.ctrlKey || event.metaKey) || event.shiftKey || event.altKey) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    search.focus();
    search.select();
  }, true);

  document.addEventListener("keydown", (event) => {
    const at = event.target;
    if (at.matches?.("[data-composer]")) {
      if (keyOfOffers(event)) {
        event.preventDefault();
        return;
      }
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !event.ctrlKey && !event.metaKey) {
        event.preventDefault();
        if (at.value.trim() || at.form.querySelector("input[type=file]")?.files.length) at.form.requestSubmit();
      }
      if (event.key === "Escape") {
        event.preventDefault();
        at.blur();
        (rowOf(inbox.dataset.open)?.querySelector(".ib-link") || rows).focus();
      }
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || !(at instanceof Element) || isTyping(at)) return;
    if (event.key === "Escape") {
      if (inbox.classList.contains("ib-with-person")) inbox.classList.remove("ib-with-person");
      else if (inbox.dataset.open) leave();
      return;
    }
    const key = KEYS[event.key];
    if (!key) return;
    event.preventDefault();
    key();
  });

  // --- begin ---------------------------------------------------------------------------------------------------------
  mount();
  mark();
  setInterval(() => { if (Date.now() - readAt > (live.isConnected ? CALM_MS : 0)) refresh(); }, LIST_MS);
  setInterval(() => { tellTimes(rows); }, 30000);
  document.addEventListener("visibilitychange", () => refresh());
})();
