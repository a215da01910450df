/* The copilot's panel: one tag, <script src="/static/copilot/copilot.js" defer></script>, on any page of the same site.
   Its markup comes from /copilot/panel for whoever is signed in, and lives in a shadow root, apart from the page's styles. */
(async () => {
    "use strict";
    const script = document.currentScript;
    if (document.querySelector("convo-copilot")) return;
    const answer = await fetch("/copilot/panel", { credentials: "same-origin" });
    if (!answer.ok) return;
    const host = document.createElement("convo-copilot");
    const root = host.attachShadow({ mode: "open" });
    root.innerHTML = await answer.text(); // our own template; messages are inserted later, as text or as HTML that the server cleaned
    const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: new URL("copilot.css", script.src).href });
    const styled = new Promise((done) => { style.onload = style.onerror = done; });
    root.prepend(style);
    host.hidden = true;
    document.body.append(host);
    await styled;
    host.hidden = false;

    const $ = (selector, within = root) => within.querySelector(selector);
    const panel = $(".panel"), opener = $(".open"), box = $(".messages"), list = $(".list"), area = $("textarea"), role = $(".role");
    const words = JSON.parse($("#copilot-words").textContent); // of the person's language; empty for English
    const gettext = (text) => words[text] ?? text;
    const fill = (text, values) => text.replace(/%\((\w+)\)s/g, (whole, name) => values[name]);
    const { token, user } = panel.dataset, most = Number(panel.dataset.characters);
    const wait = (ms) => new Promise((done) => setTimeout(done, ms));
    const kept = (store, name) => ({
        get value() { try { return store.getItem(`copilot.${user}.${name}`); } catch { return null; } },
        set value(text) { try { text ? store.setItem(`copilot.${user}.${name}`, text) : store.removeItem(`copilot.${user}.${name}`); } catch { /* not kept */ } },
    });
    const draft = kept(localStorage, "draft"), current = kept(sessionStorage, "session"), opened = kept(sessionStorage, "open");
    let session = null; // as the API shows it, or null for a new one
    let view = 0; // increases when another conversation is shown; answers for an earlier value are ignored
    let reading = null; // the stream being read: { stop(), turn }
    let loaded = false, earliest = null, watching = 0;
    let known = 0; // the newest message that is shown

    // --- talking to the server ---------------------------------------------------------------------------------------
    // The API speaks English. What it refuses is said here in the person's language.
    const REFUSALS = {
        busy: gettext("A reply is being written. Wait for it, or stop it."),
        ended: gettext("This conversation has ended. Start a new one."),
        no_assistant: gettext("This assistant no longer exists. Start a new conversation."),
        nothing_to_retry: gettext("The last reply is complete. It cannot be tried again."),
        message_too_long: gettext("A message has at most %(characters)s characters."),
        too_many_streams: gettext("Too many replies are being written for you, or this page is open in too many windows. Wait, or close one."),
        rate_limited: gettext("You have sent too many messages within a minute. Go on in %(seconds)s seconds."),
        not_found: gettext("This does not exist any more. Load the page again."),
        unavailable: gettext("This is not possible right now. Try again in a minute."),
    };
    const isEnglish = !Object.keys(words).length;
    const refusal = ({ error, code }, values) => isEnglish || !REFUSALS[code] ? error : fill(REFUSALS[code], values);
    class Refused extends Error {
        constructor(status, body, after) { super(refusal(body, { ...body.details, seconds: after })); Object.assign(this, { status, code: body.code, details: body.details || {}, after }); }
    }
    async function call(method, path, body, headers = {}, signal = undefined) {
        const got = await fetch(path, {
            method, signal, credentials: "same-origin", body: body && JSON.stringify(body),
            headers: { ...headers, ...(body ? { "Content-Type": "application/json" } : {}), ...(method === "GET" ? {} : { "X-CSRFToken": token }) },
        });
        if (got.ok) return got;
        const said = await got.json().catch(() => ({ error: gettext("The server has a problem. Try again in a minute."), code: "server_error" }));
        throw new Refused(got.status, said, Number(got.headers.get("Retry-After")) || 2);
    }
    const data = async (...request) => (await (await call(...request)).json()).data;

    async function* events(got) {
        const reader = got.body.pipeThrough(new TextDecoderStream()).getReader();
        let rest = "";
        for (;;) {
            const { value, done } = await reader.read();
            if (done) return;
            rest += value;
            for (let end; (end = rest.indexOf("\n\n")) >= 0; rest = rest.slice(end + 2)) {
                const event = {};
                for (const line of rest.slice(0, end).split("\n")) {
                    const [, name, text] = line.match(/^(\w+): ?(.*)$/) || [];
                    if (name) event[name] = text;
                }
                if (event.event) yield { name: event.event, data: JSON.parse(event.data), id: event.id };
            }
        }
    }

    // --- notices to the user ----------------------------------------------------------------------------------
    function notice(text, link) {
        $(".notice").replaceChildren(text || "");
        if (link) $(".notice").append(" ", Object.assign(document.createElement("a"), link));
    }
    const status = (text) => { $(".status").textContent = text; };
    function explain(error) {
        if (error.status === 401) notice(gettext("You were signed out."), { href: `/copilot/login?next=${encodeURIComponent(location.pathname)}`, textContent: gettext("Sign in again") });
        else if (error.status === 403) notice(gettext("This page is out of date."), { href: location.href, textContent: gettext("Load it again") });
        else if (error instanceof Refused) notice(error.message);
        else notice(gettext("There is no connection. The page tries again automatically. Your text is kept."));
    }

    // --- messages ----------------------------------------------------------------------------------------------------
    const copyOf = (name) => $(`template.${name}`).content.firstElementChild.cloneNode(true);
    const atEnd = () => box.scrollHeight - box.scrollTop - box.clientHeight < 60;
    function keepingPlace(change) {
        const follow = atEnd();
        change();
        if (follow) box.scrollTop = box.scrollHeight;
        $(".jump").hidden = atEnd();
    }
    function withCopyButtons(article) {
        for (const pre of article.querySelectorAll(".settled > pre, .settled :not(.block) > pre")) {
            const block = Object.assign(document.createElement("div"), { className: "block" });
            const copy = Object.assign(document.createElement("button"), { type: "button", className: "copy", textContent: gettext("Copy") });
            copy.onclick = async () => {
                await navigator.clipboard.writeText(pre.innerText).then(() => { copy.textContent = gettext("Copied"); }, () => { copy.textContent = gettext("Select it and copy"); });
                await wait(2000);
                copy.textContent = gettext("Copy");
            };
            pre.tabIndex = 0;
            pre.replaceWith(block);
            block.append(pre, copy);
        }
    }
    function userMessage(text) {
        const article = copyOf("t-user");
        $(".text", article).textContent = text;
        return article;
    }
    function replyMessage(message) {
        const article = copyOf("t-ai");
        if (message) finish(article, message);
        else article.classList.add("waiting");
        return article;
    }
    const SLOW = gettext("This takes longer than usual. Wait, or come back later. The reply will appear here.");
    const MARKS = { stopped: gettext("You stopped the reply."), cut_off: gettext("The reply was cut off here."), timeout: gettext("The reply was cut off here.") };
    function finish(article, message) {
        article.classList.remove("waiting");
        mark(article, "");
        article.classList.toggle("superseded", message.superseded);
        $(".settled", article).innerHTML = message.html; // cleaned by the server
        $(".tail", article).textContent = "";
        withCopyButtons(article);
        if (message.by_colleague) mark(article, gettext("Written by a colleague."));
        if (message.partial) mark(article, message.superseded ? gettext("This reply was cut off. The next one is another attempt.") : MARKS[message.state] || gettext("The reply was cut off here."));
        $(".actions", article).hidden = message.asks_rating;
        $(".retry", article).hidden = !message.partial || message.superseded;
        thumbs(article, message);
    }
    function mark(article, text) { Object.assign($(".mark", article), { hidden: !text, textContent: text }); }
    function failed(article, text, retryable) {
        article.classList.remove("waiting");
        mark(article, text);
        $(".actions", article).hidden = !retryable;
        $(".retry", article).hidden = !retryable;
        for (const thumb of article.querySelectorAll(".thumb")) thumb.hidden = true;
    }
    function thumbs(article, message) {
        let given = message.feedback || { rating: null, note: "" };
        const form = $(".note", article);
        const show = () => {
            for (const rating of ["up", "down"]) $(`.${rating}`, article).setAttribute("aria-pressed", given.rating === rating);
            form.hidden = !given.rating || given.sent;
            form.elements.note.value = given.note;
        };
        const give = async (rating, note, sent) => {
            try {
                await data("PUT", `/copilot/messages/${message.id}/feedback`, { rating, note });
                given = { rating, note, sent };
                status(rating ? gettext("Thank you for your feedback.") : gettext("Your feedback is removed."));
                show();
            } catch (error) { explain(error); }
        };
        for (const rating of ["up", "down"]) $(`.${rating}`, article).onclick = () => give(given.rating === rating ? null : rating, "");
        form.onsubmit = (event) => { event.preventDefault(); give(given.rating, form.elements.note.value, true); };
        given.sent = Boolean(given.note);
        show();
        if (given.rating) form.hidden = true;
    }

    // --- conversations ----------------------------------------------------------------------------------------------------
    function clear(next) {
        view += 1;
        reading?.stop();
        reading = null;
        session = next;
        current.value = next?.id || "new";
        earliest = null;
        known = 0;
        list.replaceChildren();
        notice();
        busy(false);
        $(".earlier").hidden = true;
        $(".welcome").hidden = Boolean(next);
        if (next) role.value = [...role.options].find((one) => one.value === next.role && one.dataset.client === next.client)?.value ?? role.value;
    }
    async function show(id) {
        const { session: found, items, before } = await data("GET", `/copilot?session_id=${id}&last=50`);
        clear(found);
        const mine = view;
        earliest = before;
        $(".earlier").hidden = !before;
        list.append(...items.map((each) => (each.role === "user" ? userMessage(each.content) : replyMessage(each))));
        box.scrollTop = box.scrollHeight;
        offerRating(found.rating);
        const last = items.at(-1);
        known = last?.id || 0;
        if (found.turn_id) follow(found.turn_id, mine, place());
        else if (last?.role === "user" && !found.taken_over) failed(place(), gettext("There is no reply to this yet."), true);
        watch(mine, found.taken_over);
    }
    /** The choices below the question about satisfaction, or a field for the reason, where either is still open. */
    function offerRating(rating) {
        if (rating?.takes_answer) {
            const row = copyOf("t-rating");
            row.append(...rating.choices.map(({ score, title }) => {
                const button = Object.assign(document.createElement("button"), { type: "button", textContent: title });
                button.setAttribute("aria-label", rating.scale === "thumbs" ? (score > 3 ? gettext("Thumb up") : gettext("Thumb down")) : fill(gettext("%(score)s of 5"), { score }));
                button.onclick = () => rate(row, { score });
                return button;
            }));
            list.append(row);
        } else if (rating?.takes_comment) {
            const form = copyOf("t-why");
            form.onsubmit = (event) => { event.preventDefault(); rate(form, { score: rating.score, comment: form.elements.comment.value }); };
            list.append(form);
        } else return;
        box.scrollTop = box.scrollHeight;
    }
    async function rate(row, answer) {
        const { id } = session, buttons = row.querySelectorAll("button");
        for (const button of buttons) button.disabled = true;
        const refused = await data("PUT", `/copilot/sessions/${id}/rating`, answer).then(() => null, (error) => error);
        for (const button of buttons) button.disabled = false;
        if (session?.id !== id) return;
        if (!refused || refused.code === "rated") await show(id).catch(explain); // answered in another window
        if (refused) explain(refused);
        else status(gettext("Thank you for your feedback."));
    }
    async function showEarlier() {
        const { items, before } = await data("GET", `/copilot?session_id=${session.id}&last=50&before=${earliest}`);
        const height = box.scrollHeight;
        list.prepend(...items.map((each) => (each.role === "user" ? userMessage(each.content) : replyMessage(each))));
        box.scrollTop += box.scrollHeight - height;
        earliest = before;
        $(".earlier").hidden = !before;
    }
    function place() {
        const article = replyMessage(null);
        keepingPlace(() => list.append(article));
        return article;
    }
    /** That a colleague takes the session, writes, or hands it back appears by itself: at once where one has it. */
    async function watch(mine, taken) {
        if (taken) notice(gettext("A colleague has this conversation and will reply here."));
        const turn = ++watching;
        for (let look = 1; mine === view && turn === watching; look += 1) {
            await wait(taken ? 5000 : look < 40 ? 15000 : 120000); // an open page polls less and less often
            if (mine !== view || turn !== watching || document.hidden || panel.hidden || !session || reading) continue;
            try {
                const found = await data("GET", `/copilot?session_id=${session.id}&last=1`);
                const news = (found.items[0]?.id || 0) > known || found.session.taken_over !== taken;
                if (news && mine === view && turn === watching && !reading) await show(session.id);
            } catch { /* the next look may fare better */ }
        }
    }
    async function recent(limit = 5) {
        const { items } = await data("GET", `/copilot?limit=${limit}`);
        return items;
    }
    let lists = 0;
    async function listSessions() {
        const mine = ++lists;
        const items = await recent(20);
        if (mine !== lists) return; // a newer list was asked for meanwhile
        $(".sessions .none").hidden = items.length > 0;
        $(".sessions ul").replaceChildren(...items.map(row));
    }
    function row(each) {
        const item = copyOf("t-session"), title = each.title || gettext("Nothing said yet");
        $(".title", item).textContent = title;
        $("small", item).textContent = `${each.role_name} · ${new Date(each.last_message_at).toLocaleString(panel.lang || [], { dateStyle: "medium", timeStyle: "short", timeZone: panel.dataset.zone || undefined })}`;
        if (each.id === session?.id) $(".go", item).setAttribute("aria-current", "true");
        $(".rename", item).setAttribute("aria-label", fill(gettext("Rename: %(title)s"), { title }));
        $(".delete", item).setAttribute("aria-label", fill(gettext("Delete: %(title)s"), { title }));
        const form = $(".retitle", item), sure = $(".sure", item);
        const doing = (work) => async (event) => { event?.preventDefault(); try { notice(); await work(); } catch (error) { explain(error); } };
        $(".go", item).onclick = doing(async () => { toggleSessions(false); await show(each.id); area.focus(); });
        $(".rename", item).onclick = () => { form.hidden = !form.hidden; $("input", form).value = each.title; if (!form.hidden) $("input", form).focus(); };
        form.onsubmit = doing(async () => { await data("PATCH", `/copilot/sessions/${each.id}`, { title: $("input", form).value }); await listSessions(); $(".recent").focus(); });
        $(".delete", item).onclick = () => { sure.hidden = !sure.hidden; if (!sure.hidden) $(".no", sure).focus(); };
        $(".no", sure).onclick = () => { sure.hidden = true; $(".delete", item).focus(); };
        $(".yes", sure).onclick = doing(async () => { await data("DELETE", `/copilot/sessions/${each.id}`); if (each.id === session?.id) clear(null); await listSessions(); $(".recent").focus(); });
        return item;
    }
    function toggleSessions(open) {
        $(".sessions").hidden = !open;
        $(".recent").setAttribute("aria-expanded", open);
        if (open) listSessions().catch(explain);
    }

    // --- asking, and reading the reply -------------------------------------------------------------------------------
    function busy(on) {
        $(".stop").hidden = !on;
        $(".send").hidden = on;
        if (!on) size();
    }
    async function send() {
        const message = area.value.trim();
        if (!message || reading) return;
        const mine = view, asked = userMessage(message), article = copyOf("t-ai");
        article.classList.add("waiting");
        notice();
        $(".welcome").hidden = true;
        list.append(asked, article);
        box.scrollTop = box.scrollHeight;
        area.value = draft.value = "";
        const chosen = role.selectedOptions[0];
        const body = { message, message_id: crypto.randomUUID?.() || `${Date.now()}-${Math.random()}`, ...(session ? { session_id: session.id } : { role: chosen?.value, client: chosen?.dataset.client }) };
        const undo = () => { asked.remove(); article.remove(); area.value = draft.value = message; size(); };
        await read((headers, signal) => call("POST", "/copilot", body, headers, signal), mine, article, undo);
    }
    const retry = (article) => {
        if (reading || !session) return;
        const mine = view, fresh = place();
        if (article.querySelector(".settled").textContent) { article.classList.add("superseded"); mark(article, gettext("This reply was cut off. The next one is another attempt.")); $(".actions", article).hidden = true; } else article.remove();
        read((headers, signal) => call("POST", `/copilot/sessions/${session.id}/retry`, undefined, headers, signal), mine, fresh, () => { fresh.remove(); show(session.id).catch(explain); });
    };
    const follow = (turn, mine, article) => read((headers, signal) => call("GET", `/copilot/stream/${turn}`, undefined, headers, signal), mine, article, () => article.remove());

    /** Read the reply into the article until its end, coming back as often as the connection breaks. */
    async function read(ask, mine, article, undo) {
        const cut = new AbortController();
        const own = reading = { turn: null, stop: () => cut.abort() };
        busy(true);
        status(gettext("The assistant is writing."));
        const slow = setTimeout(() => { if (article.classList.contains("waiting")) { mark(article, SLOW); status(SLOW); } }, 20000);
        let at = "", pause = 500, over = false;
        while (!over && mine === view) {
            try {
                const headers = at ? { "Last-Event-ID": at } : {};
                const got = await (own.turn ? call("GET", `/copilot/stream/${own.turn}`, undefined, headers, cut.signal) : ask(headers, cut.signal));
                notice();
                for await (const event of events(got)) {
                    if (mine !== view) return;
                    pause = 500;
                    if (event.id) at = event.id;
                    if (event.name === "session") {
                        own.turn = event.data.turn_id;
                        session = { ...(session || {}), id: event.data.session_id, title: event.data.title };
                        current.value = session.id;
                        known = Math.max(known, event.data.message_id || 0);
                    } else if (event.name === "delta") write(article, event.data);
                    else { over = true; end(article, event, mine); }
                }
            } catch (error) {
                if (mine !== view || cut.signal.aborted) return;
                if (error instanceof Refused && error.status < 500 && !(own.turn && error.status === 429)) { over = true; refused(error, article, undo, mine); break; }
                if (!(error instanceof Refused)) explain(error);
                pause = Math.min(pause * 2, 5000);
            }
            if (!over) await wait(pause);
        }
        clearTimeout(slow);
        if (mine === view && reading === own) { reading = null; busy(false); }
    }
    function refused(error, article, undo, mine) {
        undo();
        explain(error);
        if (error.code === "busy" && mine === view) setTimeout(() => show(session.id).then(() => notice(error.message)), 0); // another window asked: show its reply
    }
    function write(article, piece) {
        keepingPlace(() => {
            if (article.classList.contains("waiting")) mark(article, "");
            article.classList.remove("waiting");
            const settled = $(".settled", article), tail = $(".tail", article);
            if (piece.start === 0) settled.replaceChildren(), tail.replaceChildren();
            if (piece.html) settled.insertAdjacentHTML("beforeend", piece.html), withCopyButtons(article); // cleaned by the server
            tail.textContent = piece.tail ?? tail.textContent + piece.text;
        });
    }
    function end(article, { name, data: said }, mine) {
        keepingPlace(() => {
            if (said.message) finish(article, said.message);
            else if (name === "error") failed(article, gettext(said.error), said.retryable);
            else if (said.finish_reason === "stopped") failed(article, gettext("You stopped the reply before it began."), true);
            else article.remove();
            if (name === "error" && said.message) { mark(article, gettext(said.error)); $(".retry", article).hidden = !said.retryable; }
        });
        status(name === "error" ? gettext(said.error) : said.message ? fill(gettext("The assistant says: %(text)s"), { text: said.message.content }) : "");
        known = Math.max(known, said.message?.id || 0);
        watch(mine, said.finish_reason === "taken_over");
    }

    // --- voice input ----------------------------------------------------------------------------------------------------
    const Recognition = window.SpeechRecognition || window.webkitSpeechRecognition, voice = $(".voice");
    const PROBLEMS = { "not-allowed": gettext("The microphone is not allowed here. Allow it in the browser's address bar."), "no-speech": gettext("Nothing was heard. Try again, closer to the microphone."), "audio-capture": gettext("No microphone was found. Connect one, or type.") };
    let listening = null;
    function listen() {
        if (!Recognition) { notice(gettext("This browser has no voice input. Type your message instead.")); return; }
        if (listening) { listening.stop(); return; }
        listening = Object.assign(new Recognition(), { continuous: false, interimResults: false, lang: document.documentElement.lang || navigator.language });
        const state = (on) => { voice.setAttribute("aria-pressed", on); voice.setAttribute("aria-label", on ? gettext("Stop listening") : gettext("Speak")); area.placeholder = on ? gettext("Listening…") : gettext("Type your message…"); };
        listening.onstart = () => { state(true); status(gettext("Listening.")); };
        listening.onend = () => { state(false); listening = null; area.focus(); };
        listening.onerror = (event) => notice(PROBLEMS[event.error] || gettext("Voice input failed. Type your message instead."));
        listening.onresult = (event) => { area.value = `${area.value} ${event.results[0][0].transcript}`.trim().slice(0, most); typed(); };
        notice();
        listening.start();
    }

    // --- the panel itself --------------------------------------------------------------------------------------------
    function size() {
        area.style.height = "auto";
        area.style.height = `${Math.min(area.scrollHeight + 2, 144)}px`;
        $(".send").disabled = !area.value.trim();
    }
    function typed() {
        draft.value = area.value;
        size();
        notice(area.value.length > most * 0.9 ? fill(gettext("%(count)s characters are left."), { count: (most - area.value.length).toLocaleString() }) : "");
    }
    async function open(focus = true) {
        panel.hidden = false;
        opener.hidden = true;
        opened.value = "yes";
        opener.setAttribute("aria-expanded", "true");
        size();
        if (focus) area.focus();
        if (loaded) return;
        loaded = true;
        try {
            const id = current.value || (await recent())[0]?.id;
            if (id && id !== "new") await show(id);
        } catch (error) {
            if (error.status === 404) clear(null);
            else { loaded = false; explain(error); }
        }
    }
    function close() {
        panel.hidden = true;
        opener.hidden = false;
        opened.value = "";
        opener.setAttribute("aria-expanded", "false");
        opener.focus();
    }
    function keys(event) {
        if (event.key === "Escape") {
            event.stopPropagation();
            if ($(".sessions").hidden) close();
            else { toggleSessions(false); $(".recent").focus(); }
        }
        if (event.key !== "Tab") return;
        const stops = [...panel.querySelectorAll("button, select, textarea, input, a[href], [tabindex='0']")].filter((one) => !one.disabled && one.offsetParent !== null);
        const edge = event.shiftKey ? stops[0] : stops.at(-1);
        if (root.activeElement === edge) { event.preventDefault(); (event.shiftKey ? stops.at(-1) : stops[0]).focus(); }
    }
    opener.onclick = () => open();
    $(".close").onclick = close;
    $(".new").onclick = () => { clear(null); area.focus(); };
    $(".recent").onclick = () => toggleSessions($(".sessions").hidden);
    $(".earlier").onclick = () => showEarlier().catch(explain);
    $(".jump").onclick = () => { box.scrollTop = box.scrollHeight; $(".jump").hidden = true; };
    box.onscroll = () => { if (atEnd()) $(".jump").hidden = true; };
    role.onchange = () => { clear(null); area.focus(); };
    list.onclick = (event) => { const button = event.target.closest(".retry"); if (button) retry(button.closest(".message")); };
    $(".ask").onsubmit = (event) => { event.preventDefault(); send(); };
    area.onkeydown = (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); } };
    area.oninput = typed;
    voice.onclick = listen;
    $(".stop").onclick = async () => { try { await data("POST", `/copilot/sessions/${session.id}/stop`); area.focus(); } catch (error) { explain(error); } };
    panel.onkeydown = keys;
    document.addEventListener("visibilitychange", () => { // another window may have continued the conversation
        if (!document.hidden && !panel.hidden && session && !reading && loaded) show(session.id).catch(() => {});
    });
    area.value = draft.value || "";
    if (opened.value) open(false);
})();
