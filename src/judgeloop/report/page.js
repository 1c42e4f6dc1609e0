(() => {
  "use strict";
  const { figures, colours } = JSON.parse(document.getElementById("figure-data").textContent);
  const darkScheme = window.matchMedia("(prefers-color-scheme: dark)");
  const config = { responsive: true, displaylogo: false, modeBarButtons: [["toImage"]], displayModeBar: "hover" };

  // Only values under a key that speaks of colour are tokens: a name that looks like one stays a name.
  const themed = (node, values, colour) => {
    if (Array.isArray(node)) return node.map((value) => themed(value, values, colour));
    if (node && typeof node === "object") {
      return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, themed(value, values, key.includes("color"))]));
    }
    const known = colour && typeof node === "string" && node.startsWith("@") && Object.hasOwn(values, node.slice(1));
    return known ? values[node.slice(1)] : node;
  };

  const draw = (printing) => {
    const values = colours[darkScheme.matches && !printing ? "dark" : "light"];
    for (const [id, spec] of Object.entries(figures)) {
      const place = document.getElementById(id);
      if (!place) continue;
      const { data, layout } = themed(spec, values, false);
      if (printing) layout.width = place.closest(".panels").children.length > 1 ? 320 : 660;
      Plotly.react(place, data, layout, config);
    }
  };

  draw(false);
  darkScheme.addEventListener("change", () => draw(false));
  window.addEventListener("beforeprint", () => {
    for (const folded of document.querySelectorAll(".card details")) folded.open = true;
    draw(true);
  });
  window.addEventListener("afterprint", () => draw(false));
})();
