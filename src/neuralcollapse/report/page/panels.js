// Panels: a heading, a plot, a line that says the values at the chosen epoch, and its tools.
// A plot is drawn when it comes near the window, and again in other colours when the theme changes.

const panels = new Set();
const settings = { epochAxis: "log" };
const nearby = new IntersectionObserver(
  (entries) => entries.forEach((entry) => {
    const panel = entry.target.panel;
    panel.visible = entry.isIntersecting;
    if (panel.visible && panel.stale) panel.draw();
  }),
  { rootMargin: "400px" },
);

// without plotly's bar of buttons, which covers legends: dragging zooms, a double click shows all again
const CONFIG = { responsive: true, displayModeBar: false };

/** The part of a layout that all plots share. */
function commonLayout() {
  const axis = { gridcolor: color("grid"), zerolinecolor: color("grid"), linecolor: color("line"), automargin: true };
  return {
    font: { family: "system-ui, sans-serif", size: 12, color: color("ink") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 52, r: 12, t: 8, b: 40 },
    xaxis: { ...axis }, yaxis: { ...axis },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } },
    hoverlabel: { bgcolor: color("card"), font: { color: color("ink") } },
  };
}

/** Ticks of a logarithmic axis: at powers of ten, at 2 and 5 too where these are few, or evenly where all is near. */
function logTicks(values, percent) {
  const positive = values.filter((value) => isNumber(value) && value > 0);
  if (!positive.length) return {};
  const [low, high] = [Math.min(...positive), Math.max(...positive)].map(Math.log10);
  const span = Math.max(high - low, 0.02);
  const [from, to] = [low - 0.05 * span, high + 0.05 * span];
  const step = Math.ceil(span / 7);
  const digits = span < 3 ? [1, 2, 5] : [1];
  let tickvals = [];
  for (let power = Math.floor(from); power <= Math.ceil(to); power++) if (power % step === 0) tickvals.push(...digits.map((digit) => digit * 10 ** power));
  const inside = tickvals.map(Math.log10).filter((value) => value >= from && value <= to);
  if (inside.length < 3 && span < 1) tickvals = evenTicks(10 ** from, 10 ** to);
  return { tickvals, ticktext: tickvals.map((value) => (percent ? `${Number((100 * value).toPrecision(4))}%` : tickText(value))), range: [from, to] };
}

/** Three to six round numbers between two. */
function evenTicks(low, high) {
  const power = 10 ** Math.floor(Math.log10(high - low));
  const step = [0.2, 0.5, 1, 2].map((digit) => digit * power).find((size) => (high - low) / size < 6);
  return Array.from({ length: 7 }, (_, place) => (Math.ceil(low / step) + place) * step).filter((value) => value <= high);
}

function tickText(value) {
  if (value >= 1e-3 && value < 1e4) return String(Number(value.toPrecision(4)));
  const power = Math.floor(Math.log10(value) + 1e-9);
  const digit = Number((value / 10 ** power).toPrecision(4));
  return `${digit === 1 ? "" : `${digit}·`}10<sup>${power}</sup>`;
}

/** An axis of epochs: logarithmic unless epoch 0 is there or the reader wants it linear. */
function epochAxis(epochs) {
  const log = settings.epochAxis === "log" && epochs.every((epoch) => epoch > 0);
  const ticks = [];
  for (let ten = 1; ten < 1e9; ten *= 10) ticks.push(ten, 2 * ten, 5 * ten);
  return log ? { type: "log", title: { text: "epoch" }, tickvals: ticks, ticktext: ticks.map(String) } : { type: "linear", title: { text: "epoch" } };
}

/**
 * A panel.
 *
 * options: `id`; `title`; `explain`, a key of the glossary; `tall`; `tools`, further buttons; `plot()` gives {data,
 * layout}; `height()`, where neither of the two usual ones fits; `table()` gives the rows of the CSV file; `at(epoch)` gives the text under the plot, as elements; `move(node,
 * epoch)` changes what was drawn for another epoch, where drawing it again would be too much.
 */
function makePanel(options) {
  const plot = element("div", { class: options.tall ? "plot tall" : "plot" });
  const readout = element("p", { class: "readout", "aria-live": "off" });
  const tools = element("div", { class: "tools" },
    options.tools ?? [],
    options.table ? button("CSV", "Save the numbers of this panel", () => saveCsv(`${fileName(options.id)}.csv`, options.table())) : null,
    button("SVG", "Save this picture", () => panel.save()));
  const node = element("section", { class: "panel", id: `panel-${options.id}`, "aria-label": options.title },
    element("header", {}, element("h3", {}, options.title), tools),
    options.controls ? element("div", { class: "controls" }, options.controls) : null,
    plot, readout, options.explain ? explanationOf(options.explain) : null);
  const panel = {
    node, plot, visible: false, epoch: null,
    drawn: false, // whether there is a plot
    stale: true, // whether it has to be drawn when it is next seen
    draw() {
      const { data, layout } = options.plot(panel.epoch);
      const base = commonLayout();
      const axis = (name) => ({ ...base[name], ...layout[name], ...(layout[name]?.title ? { title: { standoff: 10, ...layout[name].title } } : {}) });
      Plotly.react(plot, data, {
        ...base, ...layout, height: options.height?.() ?? (options.tall ? (innerWidth < 640 ? 340 : 440) : 260),
        xaxis: axis("xaxis"), yaxis: axis("yaxis"),
      }, CONFIG);
      if (!panel.drawn && options.click) plot.on("plotly_click", options.click);
      panel.drawn = true;
      panel.stale = false;
    },
    refresh() {
      panel.setReadout();
      panel.stale = true;
      if (panel.visible) panel.draw();
    },
    setReadout() { readout.replaceChildren(...(options.at ? [options.at(panel.epoch)].flat() : [])); },
    setEpoch(epoch) {
      panel.epoch = epoch;
      panel.setReadout();
      if (!options.move) return;
      if (panel.visible && !panel.stale) options.move(plot, epoch);
      else panel.stale = true;
    },
    save() {
      if (panel.stale) panel.draw();
      const layout = { ...plot.layout, paper_bgcolor: color("page") };
      Plotly.downloadImage({ data: plot.data, layout }, { format: "svg", filename: fileName(options.id), width: plot.clientWidth, height: plot.clientHeight });
    },
  };
  node.panel = panel;
  panels.add(panel);
  nearby.observe(node);
  panel.setReadout();
  return panel;
}

/** Forget panels that are no longer shown: by default all, those of the view that is left. */
function clearPanels(left = panels) {
  for (const panel of left) {
    panels.delete(panel);
    nearby.unobserve(panel.node);
    if (panel.drawn) Plotly.purge(panel.plot);
  }
}

/** The line of the chosen epoch, then the two zero-error events and the divisions of the learning rate. */
function epochLines(run, epoch) {
  const line = (at, stroke, dash, width = 1.5) => ({
    type: "line", x0: at, x1: at, y0: 0, y1: 1, yref: "paper", line: { color: color(stroke), dash, width }, layer: "below",
  });
  const { first, stays, divisions } = run.events;
  return [
    { ...line(epoch ?? run.epochs.at(-1), "accent", "solid", 2), layer: "above" },
    ...(first === null || first === stays ? [] : [line(first, "zero", "dot")]),
    ...(stays === null ? [] : [line(stays, "zero", "solid")]),
    ...divisions.map((at) => line(at, "grey", "dash", 1)),
  ];
}

/**
 * Curves over epochs. A logarithmic axis shows a value of zero as a triangle at the foot of the panel.
 *
 * options: those of `makePanel`, and `run`; `series()`, each {name, values, color, dash, epochs}; `log`, whether the
 * axis begins logarithmic; `percent`; `label` of the axis.
 */
function curvePanel(options) {
  const { run, series: all } = options;
  let log = options.log ?? true;
  const epochsOf = (series) => series.epochs ?? run.epochs;
  const scale = button(log ? "log" : "linear", "Logarithmic or linear axis", () => {
    log = !log;
    scale.textContent = log ? "log" : "linear";
    panel.refresh();
  });
  const lowest = () => Math.min(1, ...all().flatMap((each) => each.values.filter((value) => isNumber(value) && value > 0))) / 2;
  const traces = () => {
    const listed = all();
    const floor = lowest();
    return listed.flatMap((each) => {
      const shown = each.values.map((value) => (isNumber(value) && (!log || value > 0) ? value : null));
      const line = {
        type: "scatter", mode: shown.filter((value) => value !== null).length === 1 ? "markers" : "lines", name: each.html ?? plain(each.name),
        x: epochsOf(each), y: shown, line: { color: each.color, dash: each.dash ?? "solid", width: each.width ?? 2 },
        marker: { color: each.color }, showlegend: listed.length > 1 && each.legend !== false, legendgroup: each.name,
        hovertemplate: options.percent ? "%{y:.3%}" : "%{y:.4g}",
      };
      const zeros = epochsOf(each).filter((_, place) => each.values[place] === 0);
      if (!log || !zeros.length) return [line];
      return [line, {
        type: "scatter", mode: "markers", name: plain(each.name), legendgroup: each.name, showlegend: false, x: zeros, y: zeros.map(() => floor),
        marker: { symbol: "triangle-down", size: 7, color: each.color }, hovertemplate: "0",
      }];
    });
  };
  const panel = makePanel({
    ...options,
    tools: [scale, ...(options.tools ?? [])],
    plot: (epoch) => ({
      data: traces(),
      layout: {
        hovermode: "x unified", shapes: epochLines(run, epoch), xaxis: epochAxis(run.epochs),
        yaxis: {
          type: log ? "log" : "linear", title: { text: options.label ?? "" }, exponentformat: "power",
          ...(log ? logTicks(all().flatMap((each) => [...each.values, each.values.includes(0) ? lowest() : null]), options.percent) : { tickformat: options.percent ? "~%" : "" }),
        },
      },
    }),
    move: (plot, epoch) => Plotly.relayout(plot, { "shapes[0].x0": epoch, "shapes[0].x1": epoch }),
    at: (epoch) => {
      if (epoch === null) return [];
      const said = all().filter((each) => each.readout !== false).map((each) => {
        const place = epochsOf(each).indexOf(epoch);
        return element("span", {}, `${each.name} `, element("b", {}, format(place < 0 ? null : each.values[place], options.percent)));
      });
      return [`Epoch ${epoch}: `, ...said];
    },
    table: () => {
      const listed = all();
      const epochs = [...new Set(listed.flatMap(epochsOf))].sort((a, b) => a - b);
      return [["epoch", ...listed.map((each) => each.name)],
        ...epochs.map((epoch) => [epoch, ...listed.map((each) => each.values[epochsOf(each).indexOf(epoch)] ?? null)])];
    },
  });
  return panel;
}
