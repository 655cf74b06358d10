// Several runs beside one another.

const FACETS = ["dataset", "network", "loss", "seed"];
const LOSS_COLORS = ["blue", "vermilion", "green", "purple", "orange", "sky", "grey"];

/** The different values of a label, squared error first among losses. */
function valuesOfLabel(runs, label) {
  const found = [...new Set(runs.map((run) => run.labels[label]))].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
  return label === "loss" ? [...found.filter((loss) => loss === "MSE"), ...found.filter((loss) => loss !== "MSE")] : found;
}

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

function studyView(runs, notRun) {
  const kept = { ...Object.fromEntries(FACETS.map((label) => [label, ""])), text: "" };
  const updates = [];
  const chosen = () => runs.filter((run) => FACETS.every((label) => !kept[label] || run.labels[label] === kept[label])
    && (!kept.text || `${run.name} ${Object.values(run.labels).join(" ")} ${run.status}`.toLowerCase().includes(kept.text.toLowerCase())));
  const counted = element("output", { class: "soft" });
  const update = () => {
    const left = chosen();
    counted.textContent = `${left.length} of ${runs.length} runs`;
    updates.forEach((each) => each(left));
  };
  const filters = element("div", { class: "controls", id: "filters" },
    FACETS.filter((label) => valuesOfLabel(runs, label).length > 1).map((label) => choice(titleOf(label), [["", "all"], ...valuesOfLabel(runs, label)], "", (value) => { kept[label] = value; update(); })),
    element("label", {}, "Search", element("input", { type: "search", oninput: (event) => { kept.text = event.target.value; update(); } })), counted);

  const shared = FACETS.map((label) => [label, valuesOfLabel(runs, label)]).filter(([, values]) => values.length === 1 && values[0]).map(([label, [value]]) => `${titleOf(label).toLowerCase()} ${value}`);
  const nodes = [element("h2", {}, "Runs"), filters, shared.length ? element("p", { class: "note" }, `All runs: ${shared.join(", ")}.`) : null, studyTable(runs, updates).node,
    element("p", { class: "note" }, "The numbers are those of the last measured epoch. First zero error: the first measured epoch without a training error; stays zero from: the one from which on there is none. A click on a run opens it.")];
  if (notRun.length) nodes.push(element("h2", {}, "Not run"), element("ul", { class: "strip", id: "not-run" }, notRun.map((cell) => element("li", {}, cell))));
  nodes.push(element("h2", {}, "Over the epochs"), ...facetSection(runs, updates));
  nodes.push(element("h2", {}, "One number against another"), scatterPanel(runs, updates).node);
  const losses = valuesOfLabel(runs, "loss");
  if (losses.length > 1) nodes.push(element("h2", {}, "One loss less another"), differencePanel(runs, updates).node);
  if (runs.length > 1) nodes.push(element("h2", {}, "Two runs side by side"), ...compareSection(runs));
  update();
  return { nodes, stop() {} };
}

const titleOf = (label) => ({ dataset: "Data set", network: "Network", loss: "Loss", seed: "Seed" })[label] ?? label;

function studyTable(runs, updates) {
  const rowOf = (run) => ({
    run, name: run.name, ...run.labels, state: run.status || "–", epoch: run.epochs.at(-1) ?? null,
    first: run.events.first, stays: run.events.stays, nc1: finalOf(run, "nc1"), nc2: finalOf(run, "nc2.equiangularity_means"),
    nc3: finalOf(run, "nc3"), nc4: finalOf(run, "nc4_mismatch"), test: finalOf(run, "test_accuracy"),
  });
  const number = (key, title) => ({ key, title, number: true });
  const percent = (key, title) => ({ key, title, number: true, show: (row) => format(row[key], true) });
  const columns = [
    { key: "name", title: "Run" }, ...FACETS.map((label) => ({ key: label, title: titleOf(label) })), { key: "state", title: "Status" },
    number("epoch", "Last epoch"), number("first", "First zero error"), number("stays", "Stays zero from"),
    { key: "curve", title: "NC1", show: ({ run }) => sparkline(valuesOf(run, "nc1") ?? [], `NC1 of ${run.name}`) },
    number("nc1", "NC1 at the end"), number("nc2", "NC2 angles"), number("nc3", "NC3"), percent("nc4", "NC4"), percent("test", "Test accuracy"),
  ].filter((column) => !FACETS.includes(column.key) || valuesOfLabel(runs, column.key).length > 1);
  const table = sortableTable(columns, runs.map(rowOf), { opens: (row) => `#run=${encodeURIComponent(row.name)}` });
  table.node.id = "runs";
  updates.push((left) => table.show(left.map(rowOf)));
  return table;
}

/** Small panels of one number, by data set and network, a colour for each loss, a band over seeds. */
function facetSection(runs, updates) {
  const names = metricsOf(runs);
  const state = { name: names.includes("nc1") ? "nc1" : names[0], by: ["dataset", "network"], log: true };
  const holder = element("div", { class: "grid", id: "facets" });
  let made = [];
  let left = runs;
  const losses = valuesOfLabel(runs, "loss");
  const colorOf = (loss) => color(LOSS_COLORS[losses.indexOf(loss) % LOSS_COLORS.length]);
  const rebuild = () => {
    clearPanels(made);
    const groups = Map.groupBy(left, (run) => state.by.map((label) => run.labels[label]).filter(Boolean).join(", "));
    const finite = left.flatMap((run) => valuesOf(run, state.name) ?? []).filter((value) => isNumber(value) && (!state.log || value > 0));
    const range = finite.length ? [finite.reduce((a, b) => Math.min(a, b)), finite.reduce((a, b) => Math.max(a, b))] : [0, 1];
    made = [...groups].map(([title, members]) => facetPanel(title, members, state, range, colorOf));
    holder.replaceChildren(...made.map((panel) => panel.node));
  };
  const facets = [["dataset,network", "data set and network"], ["dataset", "data set"], ["network", "network"], ["loss", "loss"], ["seed", "seed"], ["", "one panel"]];
  const controls = element("div", { class: "controls" },
    choice("Number", metricChoices(names), state.name, (value) => { state.name = value; rebuild(); }),
    choice("A panel for each", facets, state.by.join(), (value) => { state.by = value ? value.split(",") : []; rebuild(); }),
    choice("Axis", [["log", "logarithmic"], ["linear", "linear"]], "log", (value) => { state.log = value === "log"; rebuild(); }));
  updates.push((found) => { left = found; rebuild(); });
  return [controls, element("p", { class: "note" }, "All panels have one axis. A line is the median over the runs of one loss in the panel, the band goes from the least to the greatest, and n is their number."), holder];
}

function facetPanel(title, members, state, [low, high], colorOf) {
  const groups = [...Map.groupBy(members, (run) => run.labels.loss)];
  const curves = groups.map(([loss, same]) => {
    const epochs = [...new Set(same.flatMap((run) => run.epochs))].sort((a, b) => a - b);
    const at = (epoch) => same.map((run) => valuesOf(run, state.name)?.[run.epochs.indexOf(epoch)]).filter(isNumber);
    const found = epochs.map((epoch) => [epoch, at(epoch)]).filter(([, values]) => values.length);
    return { loss, n: same.length, epochs: found.map(([epoch]) => epoch), middle: found.map(([, values]) => median(values)), low: found.map(([, values]) => Math.min(...values)), high: found.map(([, values]) => Math.max(...values)) };
  });
  const drawn = (value) => (state.log && value <= 0 ? null : value);
  return makePanel({
    id: `facet-${title}-${state.name}`, title: title || "All runs",
    plot: () => ({
      data: curves.flatMap((curve) => {
        const stroke = colorOf(curve.loss);
        const line = { type: "scatter", mode: "lines", name: plain(`${curve.loss || "runs"} (n = ${curve.n})`), x: curve.epochs, y: curve.middle.map(drawn), line: { color: stroke, width: 2 }, hovertemplate: "%{y:.4g}" };
        if (curve.n < 2) return [line];
        const edge = { type: "scatter", mode: "lines", x: curve.epochs, line: { width: 0 }, hoverinfo: "skip", showlegend: false };
        return [{ ...edge, y: curve.low.map(drawn) }, { ...edge, y: curve.high.map(drawn), fill: "tonexty", fillcolor: `${stroke}33` }, line];
      }),
      layout: {
        hovermode: "x unified", showlegend: true, xaxis: epochAxis(curves.flatMap((curve) => curve.epochs)),
        yaxis: { type: state.log ? "log" : "linear", exponentformat: "power", title: { text: plain(titleOfMetric(state.name)) }, ...(state.log ? logTicks([low, high]) : { range: [Math.min(0, low), high * 1.05] }) },
      },
    }),
    table: () => [["loss", "n", "epoch", "median", "least", "greatest"], ...curves.flatMap((curve) => curve.epochs.map((epoch, place) => [curve.loss, curve.n, epoch, curve.middle[place], curve.low[place], curve.high[place]]))],
  });
}

/** The last value of any number against that of any other. */
function scatterPanel(runs, updates) {
  const names = metricsOf(runs);
  const state = { x: names.includes("nc1") ? "nc1" : names[0], y: names.includes("test_accuracy") ? "test_accuracy" : names[1] ?? names[0], logX: true, logY: false };
  const losses = valuesOfLabel(runs, "loss"), datasets = valuesOfLabel(runs, "dataset");
  const symbols = ["circle", "square", "diamond", "triangle-up", "cross", "star", "x"];
  let left = runs;
  const axis = (key, log) => ({ type: state[log] ? "log" : "linear", title: { text: plain(titleOfMetric(state[key])) }, exponentformat: "power", ...(state[log] ? logTicks(left.map((run) => finalOf(run, state[key]))) : {}) });
  const panel = makePanel({
    id: "scatter", title: "Each run at its last measured epoch", tall: true,
    controls: [
      choice("Across", metricChoices(names), state.x, (value) => { state.x = value; panel.refresh(); }), choice("", [["log", "log"], ["linear", "linear"]], "log", (value) => { state.logX = value === "log"; panel.refresh(); }),
      choice("Up", metricChoices(names), state.y, (value) => { state.y = value; panel.refresh(); }), choice("", [["linear", "linear"], ["log", "log"]], "linear", (value) => { state.logY = value === "log"; panel.refresh(); }),
    ],
    plot: () => ({
      data: losses.flatMap((loss, place) => datasets.map((dataset, index) => {
        const same = left.filter((run) => run.labels.loss === loss && run.labels.dataset === dataset);
        return {
          type: "scatter", mode: "markers", name: plain([dataset, loss].filter(Boolean).join(", ") || "runs"), x: same.map((run) => finalOf(run, state.x)), y: same.map((run) => finalOf(run, state.y)), text: same.map((run) => plain(run.name)),
          marker: { size: 10, symbol: symbols[index % symbols.length], color: color(LOSS_COLORS[place % LOSS_COLORS.length]), line: { width: 1, color: color("page") } }, hovertemplate: "%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>", visible: same.length > 0,
        };
      })),
      layout: { hovermode: "closest", xaxis: axis("x", "logX"), yaxis: axis("y", "logY") },
    }),
    table: () => [["run", ...FACETS, state.x, state.y], ...left.map((run) => [run.name, ...FACETS.map((label) => run.labels[label]), finalOf(run, state.x), finalOf(run, state.y)])],
  });
  updates.push((found) => { left = found; panel.refresh(); });
  return panel;
}

/** a − b, where both are rounded numbers: what is left of equal ones by rounding is zero. */
function less(a, b) {
  if (!isNumber(a) || !isNumber(b)) return null;
  return Math.abs(a - b) < 1e-9 * Math.max(Math.abs(a), Math.abs(b)) ? 0 : Number((a - b).toPrecision(5));
}

/** What one loss has at the end less what another has, on the same data set, network and seed. */
function differencePanel(runs, updates) {
  const names = metricsOf(runs), losses = valuesOfLabel(runs, "loss");
  const state = { name: names.includes("test_accuracy") ? "test_accuracy" : names[0], first: losses[0], second: losses[1] };
  let left = runs;
  const cellOf = (run) => ["dataset", "network", "seed"].map((label) => run.labels[label]).join("\n");
  const pairs = () => {
    const others = new Map(left.filter((run) => run.labels.loss === state.second).map((run) => [cellOf(run), run]));
    return left.filter((run) => run.labels.loss === state.first && others.has(cellOf(run))).map((run) => {
      const [a, b] = [finalOf(run, state.name), finalOf(others.get(cellOf(run)), state.name)];
      const several = valuesOfLabel(runs, "seed").length > 1;
      return { cell: [run.labels.dataset, run.labels.network, several ? `seed ${run.labels.seed}` : ""].filter(Boolean).join(", "), a, b, difference: less(a, b) };
    });
  };
  const panel = makePanel({
    id: "difference", title: "The difference at the end of training", height: () => Math.max(160, 60 + 26 * pairs().length),
    controls: [
      choice("Number", metricChoices(names), state.name, (value) => { state.name = value; panel.refresh(); }),
      choice("", losses, state.first, (value) => { state.first = value; panel.refresh(); }), choice("less", losses, state.second, (value) => { state.second = value; panel.refresh(); }),
    ],
    plot: () => {
      const found = pairs();
      return {
        data: [{ type: "bar", orientation: "h", y: found.map(({ cell }) => plain(cell)), x: found.map(({ difference }) => difference), marker: { color: color("blue") }, customdata: found.map(({ a, b }) => [format(a), format(b)]), hovertemplate: "%{y}: %{x:.4g}<br>(%{customdata[0]} and %{customdata[1]})<extra></extra>" }],
        layout: { hovermode: "closest", margin: { l: 180, r: 12, t: 8, b: 40 }, yaxis: { autorange: "reversed" } },
      };
    },
    at: () => {
      const found = pairs();
      const known = found.map(({ difference }) => difference).filter(isNumber);
      return [`${titleOfMetric(state.name)}, ${state.first} less ${state.second}. ${found.length} cells have both. `, known.length ? element("span", {}, "Median difference ", element("b", {}, format(Number(median(known).toPrecision(5))))) : ""];
    },
    table: () => [["cell", state.first, state.second, "difference"], ...pairs().map(({ cell, a, b, difference }) => [cell, a, b, difference])],
  });
  updates.push((found) => { left = found; panel.refresh(); });
  return panel;
}

/** In which settings two runs differ, and what each has at the end. */
function compareSection(runs) {
  let [a, b] = [runs[0], runs[1]];
  const holder = element("div", { class: "grid wide", id: "compared" });
  const pick = (label, chosen, changed) => choice(label, runs.map((run, place) => [place, run.name]), runs.indexOf(chosen), (value) => { changed(runs[Number(value)]); fill(); });
  function fill() {
    const names = [...new Set([...Object.keys(a.settings), ...Object.keys(b.settings)])];
    const differing = names.filter((name) => a.settings[name] !== b.settings[name]);
    const columns = (head) => [{ key: "name", title: head }, { key: "a", title: a.name }, { key: "b", title: b.name }];
    const rows = differing.map((name) => ({ name: name.replaceAll("_", " "), a: a.settings[name] ?? "–", b: b.settings[name] ?? "–" }));
    const numbers = metricsOf([a, b]).map((name) => ({ name: titleOfMetric(name), a: finalOf(a, name), b: finalOf(b, name) }));
    holder.replaceChildren(
      element("section", { class: "panel" }, element("h3", {}, rows.length ? "Settings that differ" : "No setting differs"), rows.length ? sortableTable(columns("setting"), rows).node : null),
      element("section", { class: "panel" }, element("h3", {}, "At the end"), sortableTable(columns("number").map((column, place) => ({ ...column, number: place > 0, show: place ? (row) => format(row[column.key]) : undefined })), numbers, { high: true }).node));
  }
  fill();
  return [element("div", { class: "controls" }, pick("Run", a, (run) => { a = run; }), pick("and", b, (run) => { b = run; })), holder];
}
