(() => {
  "use strict";
  const EVERY_MS = 2000;
  const DRAWN_WITHIN_MS = 8000;
  const place = (id) => document.getElementById(id);
  const main = place("main");
  const follow = place("follow");
  let shown = ""; // the version of the report in the frame
  let frame = null;
  let loading = false;
  let known = "";

  const write = (id, words) => {
    const element = place(id);
    if (element.textContent !== words) element.textContent = words;
  };

  const settled = (inner) =>
    new Promise((done) => {
      const began = performance.now();
      const look = () => {
        const plots = inner.getElementById("figure-data");
        if (!plots || inner.documentElement.dataset.drawn || performance.now() - began > DRAWN_WITHIN_MS) done();
        else setTimeout(look, 50);
      };
      look();
    });

  // The next report is drawn behind the one in sight, and takes its place, scroll position and theme.
  const load = ({ version, caution }) => {
    loading = true;
    const next = document.createElement("iframe");
    next.title = "The report so far";
    next.className = "next";
    next.setAttribute("sandbox", "allow-scripts allow-same-origin allow-downloads");
    next.addEventListener("load", async () => {
      const inner = next.contentDocument;
      const before = frame && frame.contentWindow;
      const theme = before && before.document.documentElement.dataset.theme;
      if (theme) {
        const button = inner.getElementById("theme");
        const dark = next.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches;
        if (button && (theme === "dark") !== dark) button.click();
      }
      if (before) next.contentWindow.scrollTo({ top: before.scrollY, behavior: "instant" });
      await settled(inner);
      if (before) next.contentWindow.scrollTo({ top: before.scrollY, left: before.scrollX, behavior: "instant" });
      next.className = "";
      if (frame) frame.remove();
      place("empty").hidden = true;
      frame = next;
      shown = version;
      loading = false;
      write("caution", caution); // it speaks of the report in sight
      document.documentElement.dataset.shown = version;
    });
    next.src = `report?${encodeURIComponent(version)}`;
    main.append(next);
  };

  const look = async () => {
    try {
      const answer = await fetch("state", { cache: "no-store" });
      if (!answer.ok) throw new Error(await answer.text());
      const state = await answer.json();
      const fresh = state.version && state.version !== shown;
      const waits = fresh && shown && !follow.checked && !loading;
      write("headline", state.headline);
      write("detail", state.detail + (loading ? " Estimating what is new …" : waits ? " A newer report waits." : ""));
      place("bar").max = state.of || 1;
      place("bar").value = state.done;
      if (!frame && JSON.stringify(state.known) !== known) {
        known = JSON.stringify(state.known);
        place("known").replaceChildren(...(state.known || []).flatMap((pair) => pair.map((words, n) => {
          const element = document.createElement(n ? "dd" : "dt");
          element.textContent = words;
          return element;
        })));
      }
      if (fresh && !loading && !waits) load(state);
    } catch (error) {
      const gone = error instanceof TypeError;
      write("headline", gone ? "judgeloop watch has ended." : String(error.message).trim());
      write("detail", frame ? "Below is the last report that it gave." : "");
    }
    setTimeout(look, EVERY_MS);
  };
  look();
})();
