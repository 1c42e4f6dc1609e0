(async () => {
  "use strict";
  const stored = (id) => document.getElementById(id).textContent;
  const { figures, colours, onPaper } = JSON.parse(stored("figure-data"));
  const root = document.documentElement;
  const darkScheme = window.matchMedia("(prefers-color-scheme: dark)");
  const config = { responsive: true, displaylogo: false, modeBarButtons: [["toImage"]], displayModeBar: "hover" };
  let drawing = null;

  // -- theme: the system's, until the reader chooses ----------------------------------------------------------------
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : darkScheme.matches);
  const button = document.getElementById("theme");
  const nameTheme = () => {
    button.textContent = isDark() ? "Light theme" : "Dark theme";
  };
  button.hidden = false;
  nameTheme();

  // -- cases: search and filters, with a count that a screen reader hears ---------------------------------------------
  const reader = document.querySelector(".reader");
  if (reader) {
    const cases = [...reader.querySelectorAll(".case")].map((element) => ({ element, words: element.textContent.toLowerCase() }));
    const search = reader.querySelector("input");
    const filters = [...reader.querySelectorAll("select")];
    const count = reader.querySelector("output");
    const filter = () => {
      const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const { element, words } of cases) {
        const fits = wanted.every((word) => words.includes(word)) && filters.every((one) => !one.value || element.dataset[one.name] === one.value);
        element.hidden = !fits;
        shown += fits ? 1 : 0;
      }
      for (const group of reader.querySelectorAll(".group")) group.hidden = !group.querySelector(".case:not([hidden])");
      count.textContent = `${shown} of ${cases.length} cases`;
    };
    search.addEventListener("input", filter);
    for (const one of filters) one.addEventListener("change", filter);
    reader.querySelector("button").addEventListener("click", () => {
      search.value = "";
      for (const one of filters) one.value = "";
      filter();
      search.focus();
    });
    reader.querySelector(".controls").hidden = false;
    filter();
  }

  // Paper cannot unfold the further sentences of an answer.
  const rest = [...document.querySelectorAll(".rest:not([open])")];
  window.addEventListener("beforeprint", () => rest.forEach((one) => (one.open = true)));
  window.addEventListener("afterprint", () => rest.forEach((one) => (one.open = false)));

  // -- plots ----------------------------------------------------------------------------------------------------------
  // Only values under a key that speaks of colour are tokens: a name that looks like one stays a name.
  const themed = (node, values, colour) => {
    if (Array.isArray(node)) return node.map((value) => themed(value, values, colour));
    if (node && typeof node === "object") {
      return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, themed(value, values, key.includes("color"))]));
    }
    const known = colour && typeof node === "string" && node.startsWith("@") && Object.hasOwn(values, node.slice(1));
    return known ? values[node.slice(1)] : node;
  };

  const draw = (id, printing) => {
    const place = document.getElementById(id);
    const { data, layout } = themed(figures[id], colours[isDark() && !printing ? "dark" : "light"], false);
    if (printing) {
      const beside = place.closest(".panels").children.length;
      layout.width = beside > 1 ? 320 : 660;
      if (beside > 2) layout.height = Math.round(layout.height * 0.78); // a figure of many plots stays on one sheet
    }
    place.style.minHeight = `${layout.height}px`;
    place.dataset.drawn = "";
    drawing.react(place, data, layout, config);
  };

  // A plot is a stop of the Tab key; arrows walk its points, and the point's words are spoken.
  const said = document.getElementById("said");
  const plain = (words) => words.replace(/<br>/g, ", ").replace(/<[^>]*>/g, "").replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
  const walk = (place) => {
    let at = -1;
    place.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step || !place.data) return;
      const points = place.data.flatMap((trace, curveNumber) =>
        Array.isArray(trace.text) && trace.hoverinfo === "text" && !Array.isArray(trace.text[0]) ? trace.text.map((words, pointNumber) => ({ curveNumber, pointNumber, words: String(words) })) : []);
      if (!points.length) return;
      event.preventDefault();
      at = (at + step + points.length) % points.length;
      const { curveNumber, pointNumber, words } = points[at];
      drawing.Fx.hover(place, [{ curveNumber, pointNumber }]);
      said.textContent = `${plain(words)} (${at + 1} of ${points.length})`;
    });
    place.addEventListener("blur", () => drawing && place.data && drawing.Fx.unhover(place));
  };

  const ids = Object.keys(figures).filter((id) => document.getElementById(id));
  const waiting = () => ids.filter((id) => !("drawn" in document.getElementById(id).dataset));
  const redraw = () => {
    nameTheme();
    for (const id of ids) if ("drawn" in document.getElementById(id).dataset) draw(id, false);
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    redraw();
  });
  darkScheme.addEventListener("change", redraw);

  // The plotting library is packed: what is unpacked runs only if it has the hash that the page's policy names.
  const unpack = async () => {
    const packed = Uint8Array.from(atob(stored("plotly")), (letter) => letter.charCodeAt(0));
    const source = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
    const script = document.createElement("script");
    script.textContent = source;
    document.head.append(script);
    return window.Plotly;
  };
  if (!ids.length) return;
  // The page counts as loaded once its plots are drawn, so that a screenshot or a print without a reader holds them: a frame whose
  // document stays open keeps the load event back, for a while at most.
  const held = document.createElement("iframe");
  held.hidden = true;
  document.body.append(held);
  held.contentDocument.open();
  const loaded = () => {
    if (!held.isConnected) return;
    held.contentDocument.close();
    held.remove();
  };
  setTimeout(loaded, 60000);
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  try {
    drawing = await unpack();
  } catch {
    // An old browser that cannot unpack: every figure still has its numbers in words and as a table.
  }
  if (!drawing) {
    loaded();
    document.getElementById("undrawn").hidden = false;
    for (const id of ids) document.getElementById(id).hidden = true;
    return;
  }
  for (const id of ids) walk(document.getElementById(id));

  // What is in sight is drawn first, the rest when the browser has nothing better to do.
  const sight = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      sight.unobserve(target);
      if (!("drawn" in target.dataset)) draw(target.id, false);
    }
    root.dataset.sight ??= String(Math.round(performance.now()));
  }, { rootMargin: "400px" });
  for (const id of ids) sight.observe(document.getElementById(id));
  const later = window.requestIdleCallback ?? ((work) => setTimeout(work, 30));
  const next = () => {
    const [id] = waiting();
    if (id === undefined) {
      root.dataset.drawn = String(Math.round(performance.now()));
      loaded();
      return;
    }
    draw(id, false);
    later(next);
  };
  later(next);

  window.addEventListener("beforeprint", () => {
    // Of the cases that the reader's search left, the first of each group are printed, and how many are not is said.
    for (const group of document.querySelectorAll(".group")) {
      const shown = [...group.querySelectorAll(".case:not([hidden])")];
      const left = group.querySelector(".on-paper");
      shown.forEach((one, place) => one.classList.toggle("later", place >= onPaper));
      if (left) {
        left.hidden = shown.length <= onPaper;
        left.textContent = `On paper the first ${onPaper} of ${shown.length} cases; the file itself holds all.`;
      }
    }
    for (const id of ids) draw(id, true);
  });
  window.addEventListener("afterprint", () => ids.forEach((id) => draw(id, false)));
})();
