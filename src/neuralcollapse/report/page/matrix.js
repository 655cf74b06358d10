// The angles between class means: all pairs as a matrix, and one pair in the plane of its two means.

/** Cosines of the centred class means of a snapshot, less that of a simplex. */
function anglesOf(snapshot, classes) {
  return snapshot.means.map((a, i) => snapshot.means.map((b, j) => (i === j ? null : cosine(a, b) + 1 / (classes - 1))));
}

/** The matrix and the pair beside it; `classes` is C, of which the snapshots may hold only some. */
function matrixPanels(run, classes) {
  const { snapshots } = run;
  const names = snapshots.classes.map((label) => nameOfClass(run.class_names, label));
  const angles = snapshots.sets.map(() => null);
  const anglesAt = (place) => (angles[place] ??= anglesOf(unpack(snapshots.sets[place]), classes));
  const placeAt = (epoch) => snapshotBefore(snapshots, epoch ?? snapshots.epochs.at(-1));
  const overEpochs = snapshots.epochs.length > 1;
  let pair = farthest(anglesAt(snapshots.sets.length - 1));
  const choose = (next) => {
    if (next[0] === next[1]) return;
    pair = next;
    selects.replaceChildren(...pick());
    [both, course].forEach((panel) => panel?.refresh());
  };
  const pick = () => [0, 1].map((slot) => choice(slot ? "and" : "Classes", names.map((name, place) => [place, name]), pair[slot], (value) => {
    const next = [...pair];
    next[slot] = Number(value);
    if (next[0] === next[1]) next[1 - slot] = pair[slot];
    choose(next);
  }));
  const selects = element("div", { class: "controls" }, pick());

  const matrix = makePanel({
    id: "matrix", title: "Cosines of class means, less that of a simplex", explain: "matrix", tall: true,
    plot: (epoch) => {
      const values = anglesAt(placeAt(epoch));
      const size = Math.max(1e-12, values.flat().reduce((most, value) => Math.max(most, Math.abs(value ?? 0)), 0));
      return {
        data: [{
          type: "heatmap", z: values, zmin: -size, zmax: size, hoverongaps: false,
          x: names.map((_, place) => place), y: names.map((_, place) => place),
          customdata: values.map((_, i) => names.map((name, j) => `${plain(names[i])}, ${plain(name)}`)),
          hovertemplate: "%{customdata}: %{z:.4g}<extra></extra>",
          colorscale: [[0, color("blue")], [0.5, color("page")], [1, color("vermilion")]],
          colorbar: { thickness: 10, tickformat: ".2~g", outlinewidth: 0, len: 0.9 },
        }],
        layout: {
          margin: { l: 60, r: 10, t: 8, b: 60 }, hovermode: "closest",
          xaxis: { showgrid: false, zeroline: false, tickvals: names.map((_, place) => place), ticktext: names.map(shortName), tickangle: "auto", constrain: "domain" },
          yaxis: { showgrid: false, zeroline: false, tickvals: names.map((_, place) => place), ticktext: names.map(shortName), autorange: "reversed", scaleanchor: "x", constrain: "domain" },
        },
      };
    },
    click: (event) => choose([event.points[0].y, event.points[0].x]),
    move: () => matrix.draw(),
    at: (epoch) => {
      const values = anglesAt(placeAt(epoch)).flat().filter((value) => value !== null);
      const worst = values.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0);
      const when = overEpochs ? `Epoch ${snapshots.epochs[placeAt(epoch)]}. ` : "";
      const some = snapshots.classes.length < classes ? ` The matrix has ${snapshots.classes.length} of ${classes} classes, those of the pairs farthest from a simplex.` : "";
      return [`${when}Farthest from a simplex: `, element("b", {}, format(worst)), `. Click a pair to see its classes.${some}`];
    },
    table: () => [["", ...names], ...anglesAt(placeAt(matrix.epoch)).map((row, place) => [names[place], ...row])],
  });

  const both = makePanel({
    id: "pair", title: "Two classes in the plane of their means", tall: true, controls: selects,
    plot: (epoch) => ({ data: pairTraces(unpack(snapshots.sets[placeAt(epoch)]), pair, pair.map((place) => names[place]), classes), layout: {
      hovermode: "closest", margin: { l: 10, r: 10, t: 8, b: 10 },
      xaxis: { showticklabels: false, zeroline: false }, yaxis: { showticklabels: false, zeroline: false, scaleanchor: "x" },
    } }),
    move: () => both.draw(),
    at: (epoch) => {
      const { means } = unpack(snapshots.sets[placeAt(epoch)]);
      const [a, b] = pair.map((place) => means[place]);
      const degrees = (value) => `${((Math.acos(Math.max(-1, Math.min(1, value))) * 180) / Math.PI).toFixed(1)}°`;
      const when = overEpochs ? `Epoch ${snapshots.epochs[placeAt(epoch)]}: ` : "";
      return [`${when}${names[pair[0]]} and ${names[pair[1]]}, cosine `, element("b", {}, format(cosine(a, b))), `, angle ${degrees(cosine(a, b))} (simplex ${degrees(-1 / (classes - 1))}); norms ${format(lengthOf(a))} and ${format(lengthOf(b))}`];
    },
    table: () => [["epoch", "class", "class", "cosine", "cosine less the simplex's"], ...snapshots.epochs.map((epoch, place) => {
      const value = anglesAt(place)[pair[0]][pair[1]];
      return [overEpochs ? epoch : null, names[pair[0]], names[pair[1]], value - 1 / (classes - 1), value];
    })],
  });
  both.node.append(element("p", { class: "note" }, "Lines from the origin, the global mean, lead to the two class means (circles) and, dashed, to where the second one would lie in a simplex."
    + (snapshots.sets.some((set) => set.weight) ? " Diamonds are the rows of the classifier, scaled to the means' norm." : "")));

  const course = overEpochs ? curvePanel({
    id: "pair-course", title: "The cosine of the pair over the epochs", run, log: false, tall: true,
    series: () => [
      { name: `${names[pair[0]]} and ${names[pair[1]]}`, color: color("black"), epochs: snapshots.epochs, values: snapshots.epochs.map((_, place) => anglesAt(place)[pair[0]][pair[1]] - 1 / (classes - 1)) },
      { name: "simplex", color: color("grey"), dash: "dash", epochs: snapshots.epochs, values: snapshots.epochs.map(() => -1 / (classes - 1)), readout: false },
    ],
  }) : null;
  return [matrix, both, course].filter(Boolean);
}

const shortName = (name) => plain(name.length > 14 ? `${name.slice(0, 13)}…` : name);

/** The pair whose angle is farthest from a simplex. */
function farthest(values) {
  let found = [0, 1];
  values.forEach((row, i) => row.forEach((value, j) => { if (i < j && Math.abs(value) > Math.abs(values[found[0]][found[1]])) found = [i, j]; }));
  return found;
}

function pairTraces(snapshot, pair, names, classes) {
  const { means, weight, features } = snapshot;
  const [a, b] = pair.map((place) => means[place]);
  const scaled = (row, factor) => row.map((value) => value * factor);
  const first = scaled(a, 1 / lengthOf(a));
  const rest = b.map((value, axis) => value - dot(b, first) * first[axis]);
  const second = lengthOf(rest) > 1e-9 * lengthOf(b) ? scaled(rest, 1 / lengthOf(rest)) : rest.map(() => 0);
  const onto = (row) => [dot(row, first), dot(row, second)];
  const size = (lengthOf(a) + lengthOf(b)) / 2;
  const angle = Math.acos(-1 / (classes - 1));
  const trace = (points, more) => ({ type: "scatter", x: points.map((point) => point[0]), y: points.map((point) => point[1]), hoverinfo: "name", showlegend: false, ...more });
  const data = [trace([[0, 0], [size * Math.cos(angle), size * Math.sin(angle)]], { mode: "lines", name: "simplex", showlegend: true, line: { color: color("grey"), dash: "dash", width: 1.5 } })];
  pair.forEach((place, index) => {
    const stroke = color(CLASS_COLORS[index]);
    const name = plain(names[index]);
    if (features) data.push(trace(features[place].map(onto), { mode: "markers", name: `${name}: features`, marker: { size: 5, color: stroke, opacity: 0.55 } }));
    if (weight) {
      const row = scaled(weight[place], size / lengthOf(weight[place]));
      data.push(trace([onto(row)], { mode: "markers", name: `${name}: classifier`, marker: { symbol: "diamond", size: 10, color: stroke, line: { width: 1, color: color("page") } } }));
    }
    data.push(trace([[0, 0], onto(means[place])], { mode: "lines+markers", name, showlegend: true, line: { color: stroke, width: 2 }, marker: { size: [0, 13], color: stroke, line: { width: 1.5, color: color("ink") } } }));
  });
  return data;
}
