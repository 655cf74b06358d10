// Numbers as the page holds them: rounded, with "inf", "-inf" and "nan" as texts and null where nothing was measured.

const DATA = JSON.parse(document.getElementById("data").textContent);

const SPECIAL = { inf: Infinity, "-inf": -Infinity, nan: NaN };

/** A number of the data; null stays null. */
const numeric = (value) => (typeof value === "string" ? SPECIAL[value] : value ?? null);

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** Three significant digits, as a person writes them. */
function format(value, percent = false) {
  if (value === null || value === undefined) return "–";
  if (Number.isNaN(value)) return "undefined";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (percent) return `${(100 * value).toFixed(2)}%`;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) {
    const [digits, power] = value.toExponential(2).split("e");
    return `${digits.replace("-", "−")}·10${[...String(Number(power))].map((sign) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[sign] ?? "⁻").join("")}`;
  }
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

const FAMILIAR = {
  nc1: "NC1", nc3: "NC3", nc4_mismatch: "NC4", train_error: "training error", train_accuracy: "training accuracy", test_accuracy: "test accuracy",
  nearest_mean_accuracy: "accuracy of the nearest mean", "mse.total": "MSE loss L", "mse.nc1": "L_NC1", "mse.nc23": "L_NC2/3", "mse.ls": "L_LS",
  "mse.ls_perp": "L⊥", "mse.weight_ls_norm": "norm of the least-squares classifier", "mse.weight_decay": "λ", "mse.path_ratio": "C/ω²", loss: "loss of the training", feature_penalty: "penalty of the features", learning_rate: "learning rate",
  num_examples: "examples", num_classes: "classes", classes_present: "classes with examples", dim: "features", seconds: "seconds since the start",
};

/** What a number is called; one of a later paper keeps its name. */
function titleOfMetric(name) {
  const [, kind, side] = name.match(/^nc2\.(\w+)_(means|classifier)$/) ?? [];
  if (kind) return `NC2 ${{ equinorm: "norms", equiangularity: "equal angles", maximal_angle: "maximal angles" }[kind]}, ${side === "means" ? "class means" : side}`;
  return FAMILIAR[name] ?? name;
}

/** The values of a metric over a run's epochs, or null where the run has none. */
const valuesOf = (run, name) => run.values[name]?.map(numeric) ?? null;

/** The last measured value of a metric. */
const finalOf = (run, name) => valuesOf(run, name)?.at(-1) ?? null;

/** Names of the numbers measured in any of some runs, without the single ranks of the spectrum. */
const metricsOf = (runs) => [...new Set(runs.flatMap((run) => Object.keys(run.values)))].filter((name) => !/^snr\.\d+$/.test(name));

/** Names of numbers and what they are called, for a choice. */
const metricChoices = (names) => names.map((name) => [name, titleOfMetric(name)]);

/** The singular values ω_1 ≥ ω_2 ≥ … over the epochs. */
function spectrumOf(run) {
  const found = [];
  for (let rank = 1; run.values[`snr.${rank}`]; rank++) found.push(valuesOf(run, `snr.${rank}`));
  return found;
}

const nameOfClass = (names, label) => (names[label] === undefined || names[label] === "" ? `class ${label}` : names[label]);

const floatsOf = (text, kind) => new kind(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);

/** Rows of a flat array. */
const rowsOf = (flat, width) => Array.from({ length: flat.length / width }, (_, row) => Array.from(flat.subarray(row * width, (row + 1) * width)));

/** The class means, rows of the classifier and features of a snapshot, in coordinates of the span of class means. */
function unpack(packed) {
  if (packed.ready) return packed.ready;
  const { dim } = packed;
  const means = rowsOf(floatsOf(packed.means, Float32Array), dim);
  const weight = packed.weight ? rowsOf(floatsOf(packed.weight, Float32Array), dim) : null;
  let features = null;
  if (packed.features) {
    const deviations = rowsOf(floatsOf(packed.features, Int16Array), dim);
    let next = 0;
    features = packed.counts.map((count, place) =>
      deviations.slice(next, (next += count)).map((row) => row.map((value, axis) => means[place][axis] + value * packed.unit)),
    );
  }
  packed.ready = { dim, means, weight, features };
  return packed.ready;
}

/** The place of the last snapshot at or before an epoch; that of the first where there is none. */
const snapshotBefore = (snapshots, epoch) => Math.max(0, snapshots.epochs.findLastIndex((at) => at <= epoch));

const dot = (a, b) => a.reduce((sum, value, axis) => sum + value * b[axis], 0);
const lengthOf = (a) => Math.sqrt(dot(a, a));
const cosine = (a, b) => dot(a, b) / (lengthOf(a) * lengthOf(b));
