// One run: what it says in words, an epoch that all panels share, and everything that was measured.

const SIDES = [["means", "class means", "blue"], ["classifier", "classifier", "vermilion"]];

/** The curves of a run that it has numbers for. */
function curvesOf(run) {
  const has = (name) => run.values[name]?.some((value) => value !== null);
  const series = (name, title, stroke, more) => ({ name: title, color: color(stroke), values: valuesOf(run, name), ...more });
  const both = (name) => () => SIDES.filter(([side]) => has(`nc2.${name}_${side}`)).map(([side, title, stroke]) => series(`nc2.${name}_${side}`, title, stroke));
  const one = (name, title, stroke = "black") => () => [series(name, title, stroke)];
  const panels = [
    { id: "nc1", title: "NC1: variability within classes", explain: "nc1", needs: ["nc1"], series: one("nc1", "NC1") },
    { id: "equinorm", title: "NC2: equal norms", explain: "equinorm", needs: ["nc2.equinorm_means"], series: both("equinorm") },
    { id: "equiangularity", title: "NC2: equal angles", explain: "equiangularity", needs: ["nc2.equiangularity_means"], series: both("equiangularity") },
    { id: "maximal-angle", title: "NC2: maximal angles", explain: "maximal_angle", needs: ["nc2.maximal_angle_means"], series: both("maximal_angle") },
    { id: "nc3", title: "NC3: classifier against class means", explain: "nc3", needs: ["nc3"], series: one("nc3", "NC3") },
    { id: "nc4", title: "NC4: decisions unlike the nearest mean's", explain: "nc4", needs: ["nc4_mismatch"], percent: true, series: one("nc4_mismatch", "NC4") },
    {
      id: "accuracy", title: "Accuracy", explain: "accuracy", needs: ["test_accuracy", "accuracy", "train_accuracy"], log: false, percent: true,
      series: () => [[has("train_accuracy") ? "train_accuracy" : "accuracy", "training", "black"], ["nearest_mean_accuracy", "nearest mean, training", "sky"], ["test_accuracy", "test", "orange"]]
        .filter(([name]) => has(name)).map(([name, title, stroke]) => series(name, title, stroke)),
    },
    {
      id: "loss", title: "The MSE loss and its parts", explain: "loss", needs: ["mse.total"],
      note: run.mse ? "" : "This run was trained with another loss; the parts are those of the squared error that its outputs would have.",
      series: () => [["mse.total", "L", "black"], ["mse.nc1", "L_NC1", "blue"], ["mse.nc23", "L_NC2/3", "green"], ["mse.ls_perp", "L⊥", "vermilion"]]
        .filter(([name]) => has(name)).map(([name, title, stroke]) => series(name, title, stroke, { html: title.replace(/_(.*)/, "<sub>$1</sub>") })),
    },
    {
      id: "share", title: "L⊥ / L: distance from the central path", explain: "share", needs: ["mse.ls_perp", "mse.total"], percent: true, all: true,
      series: () => {
        const total = valuesOf(run, "mse.total");
        return [{ name: "L⊥ / L", color: color("vermilion"), values: valuesOf(run, "mse.ls_perp").map((value, place) => (isNumber(value) && total[place] > 0 ? value / total[place] : null)) }];
      },
    },
    { id: "trained-loss", title: `The loss it was trained with${run.labels.loss ? `: ${run.labels.loss}` : ""}`, needs: ["loss"], series: one("loss", "loss") },
    { id: "robustness", title: "Robustness: an upper bound", explain: "robustness", needs: ["robustness"], log: false, series: one("robustness", "relative perturbation", "purple") },
  ];
  return panels.filter((panel) => panel.needs[panel.all ? "every" : "some"](has));
}

/** Colours from the largest singular value to the smallest. */
const rankColor = (rank, count) => `hsl(${250 - (200 * rank) / Math.max(1, count - 1)} 65% ${document.documentElement.dataset.theme === "dark" ? 62 : 42}%)`;

function spectrumPanels(run) {
  const spectrum = spectrumOf(run);
  if (!spectrum.length) return [];
  const theory = run.theory ?? {};
  let overlay = true;
  const toggle = theory.predicted ? button("closed form", "Show or hide the closed form", () => { overlay = !overlay; toggle.setAttribute("aria-pressed", overlay); main.refresh(); }) : null;
  toggle?.setAttribute("aria-pressed", overlay);
  const shown = spectrum.map((_, rank) => rank).filter((rank) => rank % Math.ceil(spectrum.length / 60) === 0);
  const main = curvePanel({
    id: "spectrum", title: "Signal-to-noise spectrum", explain: "spectrum", run, tall: true, label: "ω", tools: [toggle].filter(Boolean),
    series: () => [
      ...shown.map((rank) => ({ name: `ω${rank + 1}`, color: rankColor(rank, spectrum.length), values: spectrum[rank], legend: spectrum.length <= 12 })),
      ...(overlay && theory.predicted ? shown.map((rank) => ({
        name: `closed form ${rank + 1}`, color: rankColor(rank, spectrum.length), dash: "dot", width: 1.5, epochs: theory.epochs, values: theory.predicted[rank].map(numeric), legend: false, readout: false,
      })) : []),
    ],
  });
  const note = theory.predicted ? "Dotted: the closed form of the central path from the first measured spectrum, at the times of one fitted clock." : theory.why;
  if (note) main.node.append(element("p", { class: "note" }, note));
  if (shown.length < spectrum.length) main.node.append(element("p", { class: "note" }, `Drawn are ${shown.length} of ${spectrum.length} singular values.`));
  if (!theory.predicted) return [main];
  const fit = curvePanel({
    id: "clock", title: "How well the closed form describes it", explain: "closed_form", run, tall: true, label: "rms of log(ω / ω of the path)",
    series: () => [
      { name: "closed form, one clock", color: color("black"), epochs: theory.epochs, values: theory.residual.map(numeric) },
      { name: "a path that stands still", color: color("grey"), dash: "dash", epochs: theory.epochs, values: theory.unmoved.map(numeric) },
    ],
  });
  fit.node.append(element("p", { class: "note" }, "0.1 is ten per cent. The second curve says how far the spectrum is from its first values: only what lies well below it is explained."));
  return [main, fit];
}

/** Any number that was measured, by its name. */
function anyPanel(run) {
  const names = metricsOf([run]);
  if (!names.length) return null;
  let name = names.find((each) => each === "mse.ls") ?? names[0];
  const panel = curvePanel({
    id: "any", title: "Any number that was measured", run,
    controls: [choice("Number", metricChoices(names), name, (value) => { name = value; panel.refresh(); })],
    series: () => [{ name: titleOfMetric(name), color: color("black"), values: valuesOf(run, name) }],
  });
  return panel;
}

/** A heatmap of layers × epochs for one number. */
function layersPanel(run) {
  const { epochs, values } = run.layers;
  const layers = Object.keys(values);
  const names = metricsOf(layers.map((layer) => ({ values: values[layer] })));
  let name = names.includes("nc1") ? "nc1" : names[0];
  let log = true;
  const row = (layer) => (values[layer][name] ?? epochs.map(() => null)).map(numeric);
  const scale = button("log", "Logarithmic or linear colours", () => { log = !log; scale.textContent = log ? "log" : "linear"; panel.refresh(); });
  const panel = makePanel({
    id: "layers", title: "Layers × epochs", tall: true, tools: [scale], explain: "nc1",
    controls: [choice("Number", metricChoices(names), name, (value) => { name = value; panel.refresh(); })],
    plot: (epoch) => {
      const found = layers.map(row);
      const z = found.map((line) => line.map((value) => (!isNumber(value) ? null : !log ? value : value > 0 ? Math.log10(value) : null)));
      return {
        data: [{
          type: "heatmap", z, x: epochs.map(String), y: layers.map(plain), customdata: found.map((line) => line.map((value) => format(value))),
          hovertemplate: "%{y}, epoch %{x}: %{customdata}<extra></extra>", colorscale: "Viridis",
          colorbar: { thickness: 10, outlinewidth: 0, title: { text: log ? "log₁₀" : "" } },
        }],
        layout: {
          margin: { l: 120, r: 10, t: 8, b: 40 }, hovermode: "closest", xaxis: { type: "category", title: { text: "epoch" }, showgrid: false },
          yaxis: { autorange: "reversed", showgrid: false, type: "category" },
          shapes: [{ type: "line", x0: String(epoch ?? epochs.at(-1)), x1: String(epoch ?? epochs.at(-1)), y0: 0, y1: 1, yref: "paper", line: { color: color("accent"), width: 2 } }],
        },
      };
    },
    move: (plot, epoch) => Plotly.relayout(plot, { "shapes[0].x0": String(epoch), "shapes[0].x1": String(epoch) }),
    at: (epoch) => [`Epoch ${epoch ?? epochs.at(-1)}: `, ...layers.map((layer) => element("span", {}, `${layer} `, element("b", {}, format(row(layer)[epochs.indexOf(epoch ?? epochs.at(-1))]))))],
    table: () => [["layer", ...epochs], ...layers.map((layer) => [layer, ...row(layer)])],
  });
  return panel;
}

/** The classes one by one: bars of the number that is chosen, and a table. */
function classesSection(subject) {
  const { columns, epochs, tables, note } = subject.per_class;
  const asRow = (cells) => Object.fromEntries(columns.map((column, place) => [column.key, column.number ? numeric(cells[place]) : cells[place]]));
  const placeAt = (epoch) => snapshotBefore({ epochs }, epoch ?? epochs.at(-1));
  const rowsAt = (epoch) => tables[placeAt(epoch)].map(asRow);
  const numbers = columns.filter((column) => column.number);
  let shown = numbers.find((column) => column.key === "nc1") ?? numbers[0];
  const table = sortableTable(
    columns.map((column) => ({ ...column, show: column.number ? (row) => format(row[column.key], column.percent) : undefined })),
    rowsAt(null), { high: true });
  const most = 60;
  const bars = makePanel({
    id: "classes", title: "Class by class",
    controls: [choice("Number", numbers.map((column) => [column.key, column.title]), shown.key, (value) => { shown = numbers.find((column) => column.key === value); bars.refresh(); })],
    plot: (epoch) => {
      const sorted = rowsAt(epoch).filter((row) => isNumber(row[shown.key])).sort((a, b) => b[shown.key] - a[shown.key]).slice(0, most);
      return {
        data: [{ type: "bar", x: sorted.map((_, place) => place), y: sorted.map((row) => row[shown.key]), marker: { color: color("blue") }, text: sorted.map((row) => plain(row.class)), textposition: "none", hovertemplate: "%{text}: %{y:.4g}<extra></extra>" }],
        layout: {
          hovermode: "closest", xaxis: { tickvals: sorted.map((_, place) => place), ticktext: sorted.map((row) => shortName(row.class)), showgrid: false },
          yaxis: { tickformat: shown.percent ? "~%" : "", exponentformat: "power", title: { text: shown.title } },
        },
      };
    },
    move: () => bars.draw(),
    at: (epoch) => {
      table.show(rowsAt(epoch));
      const when = epochs.length > 1 ? `Epoch ${epochs[placeAt(epoch)]}. ` : "";
      return [when + (tables[0].length > most ? `The ${most} classes with the largest values.` : "")];
    },
    table: () => [["epoch", ...columns.map((column) => column.title)], ...tables.flatMap((rows, place) => rows.map((cells) => [epochs[place], ...cells]))],
  });
  return [element("h2", { id: "classes" }, "Classes"), note ? element("p", { class: "note" }, note) : null, bars.node, table.node];
}

const reading = (sentences) => element("ul", { class: "reading" }, sentences.map(([verdict, text]) => element("li", { class: verdict }, text)));

/** The epoch that all panels share: a slider, play, and the axis of epochs. */
function timeline(run) {
  let playing = null;
  const slider = element("input", { type: "range", id: "epoch", min: 0, max: run.epochs.length - 1, value: run.epochs.length - 1, "aria-label": "Epoch", oninput: () => show(Number(slider.value)) });
  const label = element("output", { for: "epoch" });
  const play = button("▶ Play", "Play the epochs", () => (playing === null ? start() : stop()));
  function show(place) {
    slider.value = place;
    const epoch = run.epochs[place];
    label.textContent = `Epoch ${epoch}`;
    slider.setAttribute("aria-valuetext", label.textContent);
    for (const panel of panels) panel.setEpoch(epoch);
  }
  function step() {
    const next = Number(slider.value) + 1;
    if (next >= run.epochs.length) stop();
    else { show(next); playing = setTimeout(step, 180); }
  }
  function start() {
    play.textContent = "❚❚ Stop";
    if (Number(slider.value) >= run.epochs.length - 1) show(0);
    playing = setTimeout(step, 180);
  }
  function stop() {
    clearTimeout(playing);
    playing = null;
    play.textContent = "▶ Play";
  }
  const { first, stays, divisions } = run.events;
  const key = element("p", { class: "key" },
    element("span", { class: "now" }, "this epoch"),
    first === null || first === stays ? null : element("span", { class: "first" }, `first epoch without a training error: ${first}`),
    stays === null ? null : element("span", { class: "stays" }, `no training error from epoch ${stays} on`),
    divisions.length ? element("span", { class: "division" }, `learning rate divided before ${divisions.length > 1 ? "epochs" : "epoch"} ${divisions.join(", ")}`) : null);
  const axis = choice("Axis", [["log", "log epochs"], ["linear", "linear epochs"]], settings.epochAxis, (value) => {
    settings.epochAxis = value;
    for (const panel of panels) panel.refresh();
  });
  axis.classList.add("axes");
  return { node: element("div", { class: "timeline" }, play, slider, label, axis, key), show, stop };
}

/** Everything about a run. */
function runView(run) {
  const said = [element("h2", { id: "reading" }, "What it says"), reading(run.reading)];
  if (run.trained && run.status !== "finished") said.push(element("p", { class: "note" }, `Status: ${run.status || "begun"}, ${run.trained[0]} of ${run.trained[1]} epochs.`));
  if (run.departures.length) said.push(element("p", { class: "note" }, `Unlike the paper's protocol: ${run.departures.join("; ")}.`));
  if (run.thinned) said.push(element("p", { class: "note" }, `This page holds ${run.thinned[0]} of ${run.thinned[1]} measured epochs.`));
  if (!run.epochs.length) return { nodes: [...said, ...configuration(run)], stop() {} };
  const line = timeline(run);
  const curves = curvesOf(run).map((options) => {
    const panel = curvePanel({ ...options, run });
    if (options.note) panel.node.append(element("p", { class: "note" }, options.note));
    return panel.node;
  });
  const nodes = [...said, line.node];
  const [matrix, ...pair] = run.snapshots?.classes.length > 1 ? matrixPanels(run, run.classes ?? run.snapshots.classes.length) : [];
  if (matrix) {
    nodes.push(element("h2", { id: "portrait" }, "The portrait"), element("div", { class: "grid wide" }, portraitPanel(run).node, matrix.node));
    if (run.snapshots.left_out) nodes.push(element("p", { class: "note" }, `The class means of ${run.snapshots.left_out} further epochs were left out, to keep the file small.`));
  } else if (Object.keys(run.environment).length) {
    nodes.push(element("p", { class: "note" }, "This run directory has no snapshots, so there is no portrait and no matrix of class means."));
  }
  nodes.push(element("h2", { id: "numbers" }, "NC1 to NC4, the loss and the accuracy"), element("div", { class: "grid" }, curves));
  if (matrix) nodes.push(element("h2", { id: "pairs" }, "A pair of classes"), element("div", { class: "grid wide" }, pair.map((panel) => panel.node)));
  const spectrum = spectrumPanels(run);
  if (spectrum.length) nodes.push(element("h2", { id: "theory" }, "The spectrum and its closed form"), element("div", { class: "grid wide" }, spectrum.map((panel) => panel.node)));
  if (run.per_class) nodes.push(...classesSection(run));
  if (run.layers) nodes.push(element("h2", { id: "layers" }, "Layers"), layersPanel(run).node);
  const any = anyPanel(run);
  if (any) nodes.push(element("h2", { id: "any" }, "Everything else"), any.node);
  nodes.push(...configuration(run));
  line.show(run.epochs.length - 1);
  return { nodes, stop: line.stop };
}

/** What makes the run again. */
function configuration(run) {
  const nodes = [];
  if (Object.keys(run.settings).length) nodes.push(element("h2", { id: "configuration" }, "Configuration"), facts(run.settings));
  if (run.command) nodes.push(element("h2", {}, "The command that makes it again"), element("pre", {}, run.command));
  if (Object.keys(run.environment).length) nodes.push(element("h2", {}, "Machine and versions"), facts(run.environment));
  return nodes;
}
