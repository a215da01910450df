// Live news of the desk, on every page of the back office: counts in the menu and the title, sound and notifications.
//
// One window of a browser holds the stream (a web lock decides which) and tells the others. Others listen with
// window.convoLive.on(news => …); news: { hello } or { changed, alerts, counts, present }, see services/desk/live.py.
(function () {
  "use strict";

  const link = () => document.querySelector('#nav-sidebar a[href$="/admin/inbox/"], #nav-sidebar-apps a[href$="/admin/inbox/"]');
  const TOLD = { sound: "convo-sound", notification: "convo-notification" };
  const listeners = [];
  const pageTitle = document.title;
  let counts = null;
  let isConnected = false;
  let sound = null; // an AudioContext, once the user has touched the page

  const live = {
    on(listener) { listeners.push(listener); },
    get isConnected() { return isConnected; },
    wants: (kind) => localStorage.getItem(TOLD[kind]) === "yes",
    async choose(kind, on) {
      if (kind === "notification" && on && await Notification.requestPermission() !== "granted") on = false;
      localStorage.setItem(TOLD[kind], on ? "yes" : "no");
      if (kind === "sound" && on) ring();
      return on;
    },
    openConversation: () => "", // the inbox says which is open
  };
  window.convoLive = live;

  function show() {
    if (!counts) return;
    const waiting = counts.unassigned + counts.mentions;
    document.title = waiting ? `(${waiting}) ${pageTitle}` : pageTitle;
    const item = link();
    if (!item) return;
    let badge = item.querySelector(".convo-count");
    if (!badge) {
      badge = document.createElement("span");
      badge.className = "convo-count";
      item.append(badge);
    }
    badge.textContent = waiting;
    badge.title = interpolate(gettext("waiting for anybody: %(unassigned)s, mentions of you: %(mentions)s"), { unassigned: counts.unassigned, mentions: counts.mentions }, true);
    badge.hidden = !waiting;
  }

  function hear(news) {
    if ("isConnected" in news) isConnected = news.isConnected;
    if (news.counts) {
      counts = news.counts;
      show();
    }
    listeners.forEach((listener) => listener(news));
  }

  // --- telling the person --------------------------------------------------------------------------------------------
  function ring() {
    sound ||= new AudioContext();
    const at = sound.currentTime;
    [[660, 0], [880, 0.12]].forEach(([pitch, after]) => {
      const tone = sound.createOscillator();
      const volume = sound.createGain();
      tone.frequency.value = pitch;
      volume.gain.setValueAtTime(0.12, at + after);
      volume.gain.exponentialRampToValueAtTime(0.001, at + after + 0.25);
      tone.connect(volume).connect(sound.destination);
      tone.start(at + after);
      tone.stop(at + after + 0.25);
    });
    live.rang = (live.rang || 0) + 1;
  }

  function alertOf(news) {
    const others = (news.alerts || []).filter(([id]) => document.hidden || id !== live.openConversation());
    if (!others.length) return;
    if (live.wants("sound")) ring();
    if (!live.wants("notification") || !document.hidden || Notification.permission !== "granted") return;
    const [[id, name]] = others;
    const told = new Notification(others.length > 1
      ? interpolate(gettext("%(count)s customers wrote"), { count: others.length }, true)
      : interpolate(gettext("%(name)s wrote"), { name }, true), { tag: "convo" });
    told.onclick = () => {
      window.focus();
      location.assign(`${link()?.pathname || "/admin/inbox/"}${id}/`);
    };
  }

  document.addEventListener("pointerdown", () => { if (live.wants("sound")) sound ||= new AudioContext(); }, { once: true });

  // --- the stream ----------------------------------------------------------------------------------------------------
  const channel = "BroadcastChannel" in window ? new BroadcastChannel("convo-live") : null;

  function tellAll(news) {
    hear(news);
    channel?.postMessage(news);
  }

  function stream(url) {
    const source = new EventSource(url);
    source.addEventListener("hello", () => tellAll({ hello: true, isConnected: true }));
    source.addEventListener("news", (event) => {
      const news = JSON.parse(event.data);
      tellAll(news);
      alertOf(news);
    });
    source.addEventListener("error", () => {
      tellAll({ isConnected: false });
      if (source.readyState === EventSource.CLOSED) setTimeout(() => stream(url), 10000); // no room at present
    });
    channel?.addEventListener("message", (event) => {
      if (event.data.asks) channel.postMessage({ counts, isConnected });
    });
  }

  document.addEventListener("DOMContentLoaded", () => {
    const item = link();
    if (!item) return; // not signed in, or no inbox
    const url = `${item.pathname}live/`;
    if (channel) {
      channel.addEventListener("message", (event) => { if (!event.data.asks) hear(event.data); });
      channel.postMessage({ asks: true });
    }
    if (navigator.locks && channel) navigator.locks.request("convo-live", () => new Promise(() => stream(url)));
    else stream(url);
  });
})();
