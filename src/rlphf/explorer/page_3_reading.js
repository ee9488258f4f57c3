// ---- The list of prompts --------------------------------------------------------------------------------------------

let listed = [];
let listKey = "";

function candidates() {
  const cells = state.view === "soups" ? data.recipes.map(recipeCell) : methods().map(cellFor);
  const found = new Set(cells.flatMap((cell) => (cell ? cell.prompts : [])));
  return [...found].sort((a, b) => a - b);
}

function showList() {
  const key = JSON.stringify([state.view === "soups", state.user, state.combination, state.search, state.spread, [...state.without]]);
  if (key !== listKey) {
    listKey = key;
    const words = state.search.toLowerCase();
    const comparing = state.view !== "soups";
    const all = candidates();
    const spreads = new Map(all.map((prompt) => [prompt, comparing ? spreadOf(prompt) : null]));
    listed = all.filter((prompt) => data.prompts[prompt].prompt.toLowerCase().includes(words));
    if (comparing && state.spread) listed = listed.filter((prompt) => (spreads.get(prompt) ?? 0) >= state.spread);
    byId("count").textContent = listed.length === all.length ? `${all.length}` : `${listed.length} of ${all.length}`;
    byId("list").replaceChildren(
      ...listed.map((prompt) => {
        const gap = spreads.get(prompt);
        const told = gap === null ? null : make("span", { className: "gap" }, make("span", { className: "hidden-text", textContent: "spread " }), number(gap));
        const button = make("button", { type: "button" }, make("span", { textContent: data.prompts[prompt].prompt }), told);
        button.addEventListener("click", () => change({ prompt }));
        return make("li", { "data-prompt": prompt }, button);
      }),
    );
  }
  if (!listed.includes(state.prompt) && listed.length) state.prompt = listed[0];
  for (const item of byId("list").children) {
    const current = Number(item.dataset.prompt) === state.prompt;
    const button = item.firstChild;
    if (current && !button.hasAttribute("aria-current")) reveal(item);
    if (current) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
}

// Scrolls the list alone: `scrollIntoView` would also make the item the place that Tab goes on from. Items out of sight have an
// assumed height (content-visibility), so what comes into sight is measured once more.
function reveal(item, again = true) {
  const list = byId("list");
  const [inner, outer] = [item, list].map((element) => element.getBoundingClientRect());
  list.scrollTop += Math.min(0, inner.top - outer.top) + Math.max(0, inner.bottom - outer.bottom);
  if (again) requestAnimationFrame(() => reveal(item, false));
}

function move(by) {
  const place = listed.indexOf(state.prompt) + by;
  if (place < 0 || place >= listed.length) return;
  const inside = byId("list").contains(document.activeElement);
  change({ prompt: listed[place] });
  if (inside) byId("list").querySelector("[aria-current]").focus();
}

// ---- Answers side by side -------------------------------------------------------------------------------------------

function showAsked() {
  const place = byId("asked");
  if (state.user === null) {
    const prompts = state.combination.map((name) => data.preferences[name].prompt).join(" ");
    place.replaceChildren("Appended to the question for methods that are prompted: ", make("q", { textContent: prompts }));
    return;
  }
  const user = users.get(state.user);
  const weights = Object.entries(user.weights).map(([name, weight]) => `${preferenceLabel(name)} ${number(weight)}`);
  const parts = [`User ${user.id}, ${user.group}${weights.length ? `; weighs ${weights.join(", ")}` : ""}.`];
  if (user.text) parts.push(" Self-description: ", make("q", { textContent: user.text }));
  place.replaceChildren(...parts);
}

function showQuestion() {
  const prompt = data.prompts[state.prompt];
  byId("topic").textContent = prompt.topic ?? "";
  byId("prompt").textContent = prompt.prompt;
  const place = listed.indexOf(state.prompt);
  byId("previous").disabled = place <= 0;
  byId("next").disabled = place >= listed.length - 1;
}

function showAnswers() {
  const weights = asked();
  const cells = shown()
    .map((method) => [method, cellFor(method)])
    .filter(([, cell]) => cell?.row.has(state.prompt));
  const means = cells.map(([, cell]) => meanAt(cell, weights, cell.row.get(state.prompt) * cell.samples + Math.min(state.sample, cell.samples - 1)));
  const best = Math.max(...means.map((mean) => mean ?? -1));
  const cards = cells.map(([method, cell], i) => card(cell, weights, labelOf(method), means.length > 1 && means[i] === best ? "highest" : ""));
  if (!cards.length) cards.push(make("p", { className: "none", textContent: "No method is shown; tick one above." }));
  byId("cards").replaceChildren(...cards);
}
