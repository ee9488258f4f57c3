// ---- Making elements: texts are set as texts, so that no answer can be markup ---------------------------------------

function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element && key !== "list" && key !== "form") element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function radios(name, options, chosen, picked) {
  const choices = options.map(([value, label]) => {
    const input = make("input", { type: "radio", name, value, checked: value === chosen });
    input.addEventListener("change", () => picked(value));
    return make("label", {}, input, make("span", { textContent: label }));
  });
  return make("div", { className: "choices" }, ...choices);
}

// ---- Answers and their scores ---------------------------------------------------------------------------------------

const methods = () => (state.user === null ? data.methods : data.user_methods);
const shown = () => methods().filter((name) => !state.without.has(name));
const combination = () => state.combination.join("-");

// The cell of a method that asks nothing serves all combinations.
function cellFor(method) {
  if (state.user !== null) return userCellOf.get(`${method} ${state.user}`);
  return cellOf.get(`${method} ${combination()}`) ?? cellOf.get(`${method} `);
}

// What a cell is scored by: criteria with their weights in the mean. A user's own score is a mean already.
function criteriaOf(cell, weights) {
  if (cell.user !== undefined && cell.scores.score) return { own: cell.scores.score, parts: [] };
  const parts = Object.entries(weights).filter(([name, weight]) => weight !== 0 && cell.scores[name]);
  return { own: null, parts };
}

function meanAt(cell, weights, place) {
  const { own, parts } = criteriaOf(cell, weights);
  if (own) return own[place];
  const total = sum(parts.map(([, weight]) => weight));
  return total ? sum(parts.map(([name, weight]) => weight * cell.scores[name][place])) / total : null;
}

function meanOverSamples(cell, weights, prompt) {
  const first = cell.row.get(prompt) * cell.samples;
  const means = Array.from({ length: cell.samples }, (_, i) => meanAt(cell, weights, first + i));
  return means.includes(null) ? null : sum(means) / means.length;
}

const asked = () => Object.fromEntries(state.combination.map((name) => [name, 1]));

// How far apart the shown methods' mean scores of a prompt are; null where fewer than two have one.
function spreadOf(prompt) {
  const weights = asked();
  const found = shown()
    .map(cellFor)
    .filter((cell) => cell?.row.has(prompt))
    .map((cell) => meanOverSamples(cell, weights, prompt))
    .filter((mean) => mean !== null);
  return found.length > 1 ? Math.max(...found) - Math.min(...found) : null;
}

function bar(name, value, kind) {
  const width = make("i");
  width.style.width = `${100 * Math.min(1, Math.max(0, value))}%`;
  const track = make("div", { className: "bar", "aria-hidden": "true" }, width);
  const cells = [make("td", {}, track), make("td", { textContent: number(value) })];
  return make("tr", { className: kind }, make("th", { scope: "row", textContent: name }), ...cells);
}

function scoreTable(cell, weights, place, title) {
  const { own, parts } = criteriaOf(cell, weights);
  const rows = parts.map(([name]) => bar(preferenceLabel(name), cell.scores[name][place], "preference"));
  const mean = meanAt(cell, weights, place);
  const even = new Set(parts.map(([, weight]) => weight)).size < 2;
  if (mean !== null) rows.push(bar(own ? "user’s score" : even ? "mean" : "weighted mean", mean, "mean"));
  if (cell.scores.helpfulness) rows.push(bar("helpfulness", cell.scores.helpfulness[place], "helpfulness"));
  if (!rows.length) return make("p", { className: "weights", textContent: "Not judged." });
  const caption = make("caption", { className: "hidden-text", textContent: `Scores of ${title}` });
  return make("table", { className: "scores" }, caption, make("tbody", {}, ...rows));
}

function card(cell, weights, title, tag, detail = null) {
  const row = cell.row.get(state.prompt);
  const place = row * cell.samples + Math.min(state.sample, cell.samples - 1);
  const text = data.texts[cell.texts[place]];
  const tokens = `${cell.tokens[place]} ${cell.tokens[place] === 1 ? "token" : "tokens"}`;
  const size = make("span", { className: "size", textContent: tokens });
  if (cell.cut.has(place)) size.append(make("span", { className: "cut", textContent: ", cut off" }));
  const heading = make("header", {}, make("h3", { textContent: title }));
  if (tag) heading.append(make("span", { className: "tag", textContent: tag }));
  heading.append(size);
  const said = text.trim()
    ? make("p", { className: "said", textContent: text })
    : make("p", { className: "said nothing", textContent: "says nothing" });
  const about = detail === null ? null : make("p", { className: "weights", textContent: detail });
  return make("article", { className: "card" }, heading, about, scoreTable(cell, weights, place, title), said);
}
