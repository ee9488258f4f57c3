// ---- Soups ----------------------------------------------------------------------------------------------------------

const recipeCell = (recipe) => (recipe.kind === "user" ? data.user_cells : data.cells)[recipe.cell];
const described = (weights) =>
  Object.entries(weights)
    .filter(([, weight]) => weight !== 0)
    .map(([name, weight]) => `${preferenceLabel(name)} ${number(weight)}`)
    .join(", ");

function wanted() {
  const taking = state.weights.filter((axis) => axis.on);
  const weights = {};
  for (const { ends, share } of taking) {
    weights[ends[0]] = (weights[ends[0]] ?? 0) + (1 - share) / taking.length;
    weights[ends[1]] = (weights[ends[1]] ?? 0) + share / taking.length;
  }
  return weights;
}

function distance(a, b) {
  const names = new Set([...Object.keys(a), ...Object.keys(b)]);
  return Math.sqrt(sum([...names].map((name) => ((a[name] ?? 0) - (b[name] ?? 0)) ** 2)));
}

function nearest() {
  const target = wanted();
  return data.recipes
    .filter((recipe) => recipeCell(recipe).row.has(state.prompt))
    .map((recipe) => ({ recipe, away: distance(target, recipe.weights) }))
    .sort((a, b) => a.away - b.away)
    .slice(0, 3);
}

function recipeTitle(recipe) {
  if (recipe.kind === "user") return `User ${recipe.name}’s soup`;
  if (recipe.kind === "front") return "Between two policies";
  return recipe.name.split("-").join(" ");
}

function showSoups() {
  const found = nearest();
  const place = byId("nearest");
  const weights = described(wanted());
  if (!weights) place.textContent = "No axis takes part; tick one above.";
  else if (!found.length) place.textContent = "No soup was decoded.";
  else {
    const [first] = found;
    const how = first.away < 0.005 ? "decoded at just these weights" : `${number(first.away)} away from what you set`;
    place.replaceChildren("You set ", make("strong", { textContent: weights }), ". Nearest decoded recipe: ",
      make("strong", { textContent: described(first.recipe.weights) }), `, ${how}.`);
  }
  const cards = (weights ? found : []).map(({ recipe, away }, i) =>
    card(recipeCell(recipe), recipe.weights, recipeTitle(recipe), i ? "" : "nearest", `${described(recipe.weights)}; distance ${number(away)}`),
  );
  byId("cards").replaceChildren(...cards);
}

function buildSliders() {
  const sliders = data.axes.map((axis, i) => {
    const chosen = () => state.weights[i];
    const set = (changes) => change({ weights: state.weights.map((old, j) => (j === i ? { ...old, ...changes } : old)) });
    const on = make("input", { type: "checkbox", id: `on-${i}` });
    on.addEventListener("change", () => set({ on: on.checked }));
    const range = make("input", { type: "range", id: `share-${i}`, min: "0", max: "1", step: "0.05" });
    range.addEventListener("input", () => set({ share: Number(range.value), on: true }));
    const ends = [0, 1].map((end) => {
      if (axis.preferences.length <= 2) return make("span");
      const options = axis.preferences.map((name) => make("option", { value: name, textContent: preferenceLabel(name) }));
      const select = make("select", { "aria-label": `${axis.axis}, ${end ? "second" : "first"} preference` }, ...options);
      select.addEventListener("change", () => set({ ends: chosen().ends.map((old, j) => (j === end ? select.value : old)) }));
      return make("span", {}, select, make("output"));
    });
    const title = make("label", { htmlFor: `on-${i}` }, on, ` ${axis.axis}`);
    const slider = make("div", { className: "slider" }, title, range, make("div", { className: "ends" }, ...ends));
    slider.update = () => {
      const { on: takes, ends: names, share } = chosen();
      on.checked = takes;
      range.value = share;
      range.setAttribute("aria-label", `${axis.axis}: share of ${preferenceLabel(names[1])}`);
      range.setAttribute("aria-valuetext", `${preferenceLabel(names[0])} ${number(1 - share)}, ${preferenceLabel(names[1])} ${number(share)}`);
      slider.classList.toggle("off", !takes);
      ends.forEach((place, end) => {
        const part = number(end ? share : 1 - share);
        if (!place.firstElementChild) place.textContent = `${preferenceLabel(names[end])} ${part}`;
        else {
          place.firstElementChild.value = names[end];
          place.lastElementChild.textContent = ` ${part}`;
        }
      });
    };
    return slider;
  });
  byId("sliders").replaceChildren(...sliders);
}
