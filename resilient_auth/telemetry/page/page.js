"use strict";
// Renews the sections that have changed: by server-sent events, else by asking again and again.
(() => {
  const base = location.pathname.replace(/\/+$/, "");
  const POLL = 10000, SILENT = 45000;
  const state = document.getElementById("live");
  let source = null, timer = null, heard = Date.now(), failed = 0;

  const say = (text) => { if (state.textContent !== text) state.textContent = text; };

  const show = (told) => {
    heard = Date.now();
    failed = 0;
    for (const [name, html] of Object.entries(told.sections)) {
      const place = document.querySelector(`#${name} > div`);
      if (!place || place.dataset.told === html) continue;
      const open = [...place.querySelectorAll("details[open]")].map((one) => one.id);
      const focused = place.contains(document.activeElement)
        ? [...place.querySelectorAll("summary, [tabindex]")].indexOf(document.activeElement) : -1;
      const status = place.querySelector("[role=status]");
      const fresh = document.createElement("div");
      fresh.innerHTML = html;
      const said = fresh.querySelector("[role=status]");
      if (status && said) {
        // It stays in its place, so that a change of it is read out, and nothing else is.
        if (status.innerHTML !== said.innerHTML) { status.className = said.className; status.innerHTML = said.innerHTML; }
        said.replaceWith(status);
      }
      place.replaceChildren(...fresh.childNodes);
      for (const id of open) { const one = document.getElementById(id); if (one) one.open = true; }
      if (focused >= 0) { const one = place.querySelectorAll("summary, [tabindex]")[focused]; if (one) one.focus(); }
      place.dataset.told = html;
    }
    document.title = told.title;
    const renewed = document.getElementById("renewed");
    renewed.textContent = told.time;
  };

  const poll = async () => {
    try {
      const answer = await fetch(`${base}/now`, { cache: "no-store", credentials: "same-origin" });
      if (answer.status === 401 || answer.status === 403 || answer.redirected) { say("not live: sign in again"); return; }
      if (!answer.ok) throw new Error(String(answer.status));
      show(await answer.json());
      say("live, by asking every 10 s");
    } catch {
      say("not live: the application doesn't answer");
    }
  };

  const ask = () => {
    if (source) { source.close(); source = null; }
    if (timer === null) { poll(); timer = setInterval(poll, POLL); }
  };

  const listen = () => {
    if (!window.EventSource) { ask(); return; }
    source = new EventSource(`${base}/events`);
    source.onmessage = (event) => { show(JSON.parse(event.data)); say("live"); };
    source.onerror = () => { failed += 1; if (failed > 3 || source.readyState === EventSource.CLOSED) ask(); };
  };

  // What nobody looks at takes no reader's place.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      if (source) { source.close(); source = null; }
      if (timer !== null) { clearInterval(timer); timer = null; }
    } else if (!source && timer === null) { failed = 0; heard = Date.now(); listen(); }
  });
  setInterval(() => { if (source && Date.now() - heard > SILENT) ask(); }, 5000);
  listen();
})();
