// Figure 1 of the paper to be turned: three classes in the plane of their means, four in space.

const CLASS_COLORS = ["blue", "orange", "green", "purple"];
const FIXED_FRAME = 1.6; // the simplex has its corners at distance 1

/** The corners of a simplex of k = 2, 3 or 4 corners around the origin, at distance 1. */
function simplex(k) {
  const around = (radius, height) => [90, 210, 330].map((angle) => [radius * Math.cos((angle * Math.PI) / 180), radius * Math.sin((angle * Math.PI) / 180), ...height]);
  if (k === 2) return [[1], [-1]];
  if (k === 3) return around(1, []);
  return [[0, 0, 1], ...around(Math.sqrt(8) / 3, [-1 / 3])];
}

/** Eigenvalues and eigenvectors (columns) of a small symmetric matrix, by Jacobi's rotations. */
function eigen(matrix) {
  const a = matrix.map((row) => [...row]);
  const n = a.length;
  const v = a.map((_, i) => a.map((_, j) => (i === j ? 1 : 0)));
  for (let sweep = 0; sweep < 30; sweep++) {
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) {
      if (Math.abs(a[p][q]) < 1e-300) continue;
      const angle = 0.5 * Math.atan2(2 * a[p][q], a[q][q] - a[p][p]);
      const [c, s] = [Math.cos(angle), Math.sin(angle)];
      for (let k = 0; k < n; k++) [a[k][p], a[k][q]] = [c * a[k][p] - s * a[k][q], s * a[k][p] + c * a[k][q]];
      for (let k = 0; k < n; k++) [a[p][k], a[q][k]] = [c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]];
      for (let k = 0; k < n; k++) [v[k][p], v[k][q]] = [c * v[k][p] - s * v[k][q], s * v[k][p] + c * v[k][q]];
    }
  }
  return { values: a.map((row, i) => row[i]), vectors: v };
}

/**
 * Project a snapshot on the space that the means of k classes span, turned so that they lie nearest to a simplex: with
 * centred means M (k × d) and the simplex S (k × k−1) the directions are A (AᵀA)^(−1/2), A = MᵀS (orthogonal Procrustes;
 * Schönemann, 1966). Means are scaled to mean norm 1, and so are the rows of the classifier.
 */
function project(snapshot, places) {
  const { means, weight, features, dim } = snapshot;
  const k = places.length;
  const corners = simplex(k);
  const average = (rows) => Array.from({ length: dim }, (_, axis) => rows.reduce((sum, row) => sum + row[axis], 0) / rows.length);
  const less = (row, origin) => row.map((value, axis) => value - origin[axis]);
  const chosen = places.map((place) => means[place]);
  const origin = average(chosen);
  const centred = chosen.map((row) => less(row, origin));
  const a = Array.from({ length: dim }, (_, axis) => Array.from({ length: k - 1 }, (_, j) => centred.reduce((sum, row, i) => sum + row[axis] * corners[i][j], 0)));
  const gram = corners[0].map((_, i) => corners[0].map((_, j) => a.reduce((sum, row) => sum + row[i] * row[j], 0)));
  const { values, vectors } = eigen(gram);
  const largest = Math.max(...values);
  const roots = values.map((value) => (value > 1e-12 * largest ? 1 / Math.sqrt(value) : 0));
  const half = gram.map((_, i) => gram.map((_, j) => roots.reduce((sum, root, l) => sum + vectors[i][l] * root * vectors[j][l], 0)));
  const directions = a.map((row) => half.map((_, j) => row.reduce((sum, value, i) => sum + value * half[i][j], 0)));
  const onto = (row) => directions[0].map((_, j) => row.reduce((sum, value, axis) => sum + value * directions[axis][j], 0));
  const meanNorm = (rows) => rows.reduce((sum, row) => sum + lengthOf(row), 0) / rows.length || 1;
  const scaled = (rows, scale) => rows.map((row) => row.map((value) => value / scale));
  const seen = centred.map(onto);
  const scale = meanNorm(seen);
  let rows = null;
  if (weight) {
    const middle = average(places.map((place) => weight[place]));
    rows = places.map((place) => onto(less(weight[place], middle)));
    rows = scaled(rows, meanNorm(rows));
  }
  return {
    corners, means: scaled(seen, scale), weight: rows,
    features: places.map((place) => (features ? scaled(features[place].map((row) => onto(less(row, origin))), scale) : [])),
  };
}

/** The panel of the portrait with its choices. */
function portraitPanel(run) {
  const { snapshots } = run;
  const names = snapshots.classes.map((label) => nameOfClass(run.class_names, label));
  let chosen = snapshots.classes.map((_, place) => place).slice(0, names.length > 3 ? 4 : 3);
  let trails = false;
  let frame = "fixed";
  let outside = 0;
  const cache = new Map();
  const viewAt = (place) => {
    const key = `${chosen} ${place}`;
    if (!cache.has(key)) cache.set(key, project(unpack(snapshots.sets[place]), chosen));
    return cache.get(key);
  };
  const traces = (epoch) => {
    const place = snapshotBefore(snapshots, epoch);
    const view = viewAt(place);
    const spatial = chosen.length === 4;
    const everything = [...view.features.flat(), ...view.means, ...(view.weight ?? [])].flat().map(Math.abs);
    const reach = frame === "fixed" ? FIXED_FRAME : Math.max(1.1, 1.05 * everything.reduce((a, b) => Math.max(a, b), 0));
    const inside = (point) => point.every((value) => Math.abs(value) <= reach);
    outside = view.features.flat().filter((point) => !inside(point)).length;
    const trace = (points, more) => {
      const axis = (index) => points.map((point) => (point === null ? null : (point[index] ?? 0)));
      return { type: spatial ? "scatter3d" : "scatter", x: axis(0), y: axis(1), ...(spatial ? { z: axis(2) } : {}), hoverinfo: "name", showlegend: false, ...more };
    };
    const edges = view.corners.flatMap((from, i) => view.corners.slice(i + 1).flatMap((to) => [from, to, null]));
    const data = [trace(edges, { mode: "lines", name: "simplex", line: { color: color("grey"), width: 1.5 }, hoverinfo: "skip" })];
    chosen.forEach((which, index) => {
      const stroke = color(CLASS_COLORS[index]);
      const name = plain(names[which]);
      const origin = view.corners[0].map(() => 0);
      data.push(trace(view.features[index].filter(inside), {
        mode: "markers", name: `${name}: features`, marker: { size: spatial ? 2.5 : 5, color: stroke, opacity: 0.55, line: { width: 0 } },
      }));
      if (trails) {
        const path = snapshots.epochs.slice(0, place + 1).map((_, at) => viewAt(at).means[index]);
        data.push(trace(path, { mode: "lines+markers", name: `${name}: path of the mean`, line: { color: stroke, width: 2 }, marker: { size: 2, color: stroke } }));
      }
      if (view.weight) {
        data.push(trace([origin, view.weight[index]], {
          mode: "lines+markers", name: `${name}: classifier`, line: { color: stroke, width: spatial ? 5 : 2.5 },
          marker: { symbol: "diamond", size: [0, spatial ? 5 : 10], color: stroke, line: { width: 1, color: color("page") } },
        }));
      }
      data.push(trace([view.means[index]], {
        mode: "markers", name, showlegend: true, marker: { symbol: "circle", size: spatial ? 7 : 13, color: stroke, opacity: 0.85, line: { width: spatial ? 2 : 1.5, color: color("ink") } },
      }));
    });
    return { data, reach, spatial };
  };
  const pick = (slot) => {
    const options = [...(slot === 3 ? [[-1, "none: a plane"]] : []), ...names.map((name, place) => [place, name])];
    return choice(`Class ${slot + 1}`, options, chosen[slot] ?? -1, (value) => {
      const place = Number(value);
      const next = [...chosen];
      const other = next.indexOf(place);
      if (place < 0) next.splice(3, 1);
      else if (other >= 0 && other !== slot && next[slot] !== undefined) [next[slot], next[other]] = [place, next[slot]];
      else if (other < 0) next[slot] = place;
      chosen = next;
      controls.replaceChildren(...choices());
      panel.refresh();
    });
  };
  const choices = () => [
    ...Array.from({ length: Math.min(4, names.length) }, (_, slot) => pick(slot)),
    choice("Frame", [["fixed", "fixed"], ["fitted", "fitted to this epoch"]], frame, (value) => { frame = value; panel.refresh(); }),
    snapshots.epochs.length > 1
      ? element("label", {}, element("input", { type: "checkbox", checked: trails, onchange: (event) => { trails = event.target.checked; panel.refresh(); } }), "paths of the means")
      : null,
  ].filter(Boolean);
  const controls = element("div", { class: "controls" }, choices());
  const panel = makePanel({
    id: "portrait", title: "Features, class means and classifier", tall: true, controls,
    plot: (epoch) => {
      const { data, reach, spatial } = traces(epoch ?? snapshots.epochs.at(-1));
      const hidden = { visible: false, range: [-reach, reach] };
      const layout = { hovermode: "closest", uirevision: `${chosen.length}`, margin: { l: 0, r: 0, t: 8, b: 0 } };
      if (spatial) {
        layout.scene = {
          xaxis: { ...hidden, showspikes: false }, yaxis: { ...hidden, showspikes: false }, zaxis: { ...hidden, showspikes: false },
          aspectmode: "cube", camera: { eye: { x: 0.7, y: 0.7, z: 0.26 } }, dragmode: "orbit",
        };
      } else {
        layout.xaxis = { ...hidden };
        layout.yaxis = { ...hidden, scaleanchor: "x" };
      }
      panel.setReadout();
      return { data, layout };
    },
    move: () => panel.draw(),
    at: (epoch) => {
      const at = epoch ?? snapshots.epochs.at(-1);
      const shown = snapshots.epochs[snapshotBefore(snapshots, at)];
      const when = shown === at ? `Epoch ${at}.` : `Snapshot of epoch ${shown}, the nearest to epoch ${at} that is kept.`;
      const view = viewAt(snapshotBefore(snapshots, at));
      const count = view.features.flat().length;
      const said = count ? ` ${outside} of ${count} features lie outside the frame and are not drawn.` : "";
      return [when, element("b", {}, said)];
    },
    table: () => {
      const place = snapshotBefore(snapshots, panel.epoch ?? snapshots.epochs.at(-1));
      const view = viewAt(place);
      const rows = (kind, found) => found.map((point, index) => [snapshots.epochs[place], names[chosen[index]], kind, ...point]);
      return [["epoch", "class", "kind", "x", "y", ...(chosen.length > 3 ? ["z"] : [])], ...rows("mean", view.means), ...rows("classifier", view.weight ?? []),
        ...view.features.flatMap((found, index) => found.map((point) => [snapshots.epochs[place], names[chosen[index]], "feature", ...point]))];
    },
  });
  panel.node.append(element("p", { class: "note" },
    "Circles are class means, diamonds the rows of the classifier, dots features, and grey the simplex that collapse leads to. The space is that of the "
    + "chosen classes' means; each epoch is turned to lie nearest to the simplex and scaled to mean norm 1."));
  return panel;
}
