// ---- Charts, by Vega, which runs when the first one is wanted -------------------------------------------------------

const specs = parsed("chart-specs");
const dark = matchMedia("(prefers-color-scheme: dark)");
const GROUPS = { front: "Scores along the front", expertise: "Expertise", informativeness: "Informativeness", style: "Style", other: "Policies of no single preference" };

function theme() {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const font = getComputedStyle(document.body).fontFamily;
  const text = { labelColor: colour("soft"), titleColor: colour("ink"), labelFont: font, titleFont: font, labelFontSize: 12, titleFontSize: 12, titleFontWeight: 400 };
  return {
    background: "transparent",
    view: { stroke: null },
    axis: { ...text, gridColor: colour("rule"), domainColor: colour("edge"), tickColor: colour("edge") },
    legend: text,
  };
}

function showCharts() {
  const key = `${state.view} ${dark.matches}`;
  if (byId("charts").dataset.drawn === key) return;
  byId("charts").dataset.drawn = key;
  if (!window.vegaEmbed) document.head.append(make("script", { textContent: parsed("vega") }));
  const wantedGroups = state.view === "soups" ? ["front"] : Object.keys(GROUPS).filter((name) => name !== "front");
  const groups = wantedGroups
    .map((name) => [name, specs.filter((chart) => chart.group === name)])
    .filter(([, found]) => found.length)
    .map(([name, found]) => {
      const places = found.map(() => make("figure", { className: "chart" }));
      const title = make("h2", { textContent: GROUPS[name] });
      const group = make("section", { className: "group" }, title, make("div", { className: "pair" }, ...places));
      return { group, draw: () => found.forEach((chart, i) => draw(places[i], chart.spec)) };
    });
  if (!groups.length && state.view === "curves") byId("charts").replaceChildren(make("p", { className: "none", textContent: "No policy logged its training." }));
  else byId("charts").replaceChildren(...groups.map(({ group }) => group));
  groups.forEach(({ draw: drawn }) => drawn());
}

function draw(place, spec) {
  const tooltip = { theme: dark.matches ? "dark" : "light" };
  window.vegaEmbed(place, spec, { actions: false, renderer: "svg", config: theme(), tooltip }).catch((error) => {
    place.textContent = `The chart cannot be drawn: ${error.message}`;
  });
}
