// Which view is shown, in which theme, and loading again while a run goes on.

/** The features of one network, measured once. */
function featuresView(subject) {
  const counts = Object.entries(subject.counts).map(([name, value]) => [titleOfMetric(name), value.toLocaleString("en")]);
  const nodes = [
    element("h2", { id: "reading" }, "What it says"), reading(subject.reading),
    facts(Object.fromEntries([["layer", subject.layer || "–"], ...counts, ["weighting", subject.weighting || "–"]])),
  ];
  if (subject.spectrum.length) {
    const values = subject.spectrum.map(numeric);
    const spectrum = makePanel({
      id: "spectrum", title: "Signal-to-noise spectrum", explain: "spectrum", tall: true,
      plot: () => ({
        data: [{ type: "scatter", mode: values.length > 60 ? "lines" : "lines+markers", x: values.map((_, rank) => rank + 1), y: values.map((value) => (isNumber(value) && value > 0 ? value : null)), line: { color: color("blue") }, hovertemplate: "ω%{x}: %{y:.4g}<extra></extra>" }],
        layout: { hovermode: "closest", xaxis: { title: { text: "rank" } }, yaxis: { type: "log", title: { text: "ω" }, ...logTicks(values) } },
      }),
      at: () => {
        const outside = values.filter((value) => !isNumber(value) || value <= 0).length;
        return [`${values.length} singular values, the largest `, element("b", {}, format(values[0])), ", the smallest ", element("b", {}, format(values.at(-1))), outside ? `; ${outside} of them are infinite or zero and not drawn` : ""];
      },
      table: () => [["rank", "ω"], ...values.map((value, rank) => [rank + 1, value])],
    });
    const means = subject.snapshots && subject.snapshots.classes.length > 1 ? matrixPanels(subject, subject.counts.classes_present) : [];
    nodes.push(element("h2", {}, means.length ? "Angles and spectrum" : "Spectrum"), element("div", { class: "grid wide" }, means.map((panel) => panel.node), spectrum.node));
  }
  if (subject.per_class) nodes.push(...classesSection(subject));
  const text = (key, title) => ({ key, title });
  const rows = subject.table.map((row) => ({ ...row, value: numeric(row.value) }));
  const table = sortableTable([{ key: "name", title: "Number", show: (row) => row.name.split(/(?<=[_.])/).flatMap((part) => [part, element("wbr")]) }, { key: "value", title: "Value", number: true, show: (row) => format(row.value) }, text("good", "At full collapse"), text("measures", "Measures"), { key: "explain", title: "Formula", show: (row) => formulaOf(row.explain) }, text("source", "Source")], rows, { group: "family" });
  table.node.id = "numbers";
  nodes.push(element("h2", {}, "Every number"), button("CSV", "Save the table", () => saveCsv("numbers.csv", [["family", "number", "value", "at full collapse", "measures", "source"], ...rows.map((row) => [row.family, row.name, row.value, row.good, row.measures, row.source])])), table.node);
  return { nodes, stop() {} };
}

let current = null;

/** Draw the view that the address names: a run of a study, or the whole. */
function showView() {
  current?.stop();
  clearPanels();
  const wanted = new URLSearchParams(location.hash.slice(1)).get("run");
  const run = DATA.kind === "run" ? DATA.runs[0] : DATA.runs.find((each) => each.name === wanted);
  const view = document.getElementById("view");
  if (DATA.kind === "features") current = featuresView(DATA);
  else current = run ? runView(run) : studyView(DATA.runs, DATA.not_run);
  const inStudy = run && DATA.kind === "study";
  view.replaceChildren(...(inStudy ? [element("p", {}, element("a", { href: "#" }, "← All runs")), element("h2", {}, run.name), element("p", { class: "soft" }, Object.values(run.labels).filter(Boolean).join(", "))] : []), ...current.nodes.filter(Boolean));
  if (inStudy) scrollTo(0, 0);
}

function setTheme(theme, chosen) {
  if (chosen) remember(theme);
  document.documentElement.dataset.theme = theme;
  for (const panel of panels) panel.refresh();
}

/** The theme that the reader has chosen, kept for when the page loads itself again; a browser may forbid that. */
function remember(theme) {
  try { sessionStorage.setItem("theme", theme); } catch { /* the next page begins as the system has it */ }
}

function remembered() {
  try { return sessionStorage.getItem("theme"); } catch { return null; }
}

const darkWanted = matchMedia("(prefers-color-scheme: dark)");
setTheme(remembered() ?? (darkWanted.matches ? "dark" : "light"));
darkWanted.addEventListener("change", () => setTheme(darkWanted.matches ? "dark" : "light"));
document.getElementById("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark", true));
addEventListener("hashchange", showView);
showView();
// while the run goes on the file is written again; a reader who is busy is not interrupted
if (DATA.watched) {
  let busy = 0;
  ["pointerdown", "keydown", "wheel", "touchstart"].forEach((kind) => addEventListener(kind, () => { busy = Date.now(); }, { passive: true }));
  setInterval(() => { if (Date.now() - busy > 15000 && !document.hidden) location.reload(); }, DATA.watched * 1000);
}
