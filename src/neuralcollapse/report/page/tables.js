// Tables that sort by a click on a heading, and lists of facts.

/**
 * A sortable table.
 *
 * columns: {key, title, number, show(row)}; rows: objects; options: `high` for a table that scrolls; `opens(row)`, what a
 * link in the first column leads to; `group`, a key whose values head the rows that share them, which stay together when
 * sorted.
 */
function sortableTable(columns, rows, options = {}) {
  let key = null, descending = false;
  const body = element("tbody");
  const heads = columns.map((column) => element("th", { scope: "col", class: column.number ? "number" : "" },
    button(column.title, "Sort by this column", () => {
      descending = key === column.key ? !descending : Boolean(column.number);
      key = column.key;
      fill();
    })));
  const missing = (value) => value === null || value === undefined || value === "";
  function fill() {
    const order = [...rows];
    if (key !== null) {
      order.sort((a, b) => {
        const [left, right] = [a[key], b[key]];
        if (missing(left) || missing(right)) return missing(left) - missing(right);
        const compared = typeof left === "number" && typeof right === "number" ? left - right : String(left).localeCompare(String(right), undefined, { numeric: true });
        return descending ? -compared : compared;
      });
    }
    heads.forEach((head, place) => head.setAttribute("aria-sort", columns[place].key !== key ? "none" : descending ? "descending" : "ascending"));
    const lines = (found) => found.map((row) => element("tr", {}, columns.map((column, place) => {
      const shown = column.show ? column.show(row) : typeof row[column.key] === "number" ? format(row[column.key]) : (row[column.key] ?? "–");
      const content = place === 0 && options.opens ? element("a", { href: options.opens(row) }, shown) : shown;
      return element("td", { class: column.number ? "number" : "" }, content);
    })));
    const groups = options.group ? [...new Set(rows.map((row) => row[options.group]))] : [];
    const heading = (group) => element("tr", { class: "group" }, element("th", { scope: "rowgroup", colspan: columns.length }, element("span", {}, group)));
    body.replaceChildren(...(options.group ? groups.flatMap((group) => [heading(group), ...lines(order.filter((row) => row[options.group] === group))]) : lines(order)));
  }
  fill();
  const table = element("table", {}, element("thead", {}, element("tr", {}, heads)), body);
  const node = element("div", { class: options.high ? "scroll high" : "scroll", tabindex: 0 }, table);
  return { node, show(kept) { rows = kept; fill(); } };
}

/** Names and values, one below the other. */
function facts(entries) {
  return element("dl", { class: "facts" }, Object.entries(entries).flatMap(([name, value]) => [element("dt", {}, name.replaceAll("_", " ")), element("dd", {}, value)]));
}

/** Values as a small curve of their logarithms. */
function sparkline(values, label) {
  const width = 110, height = 26;
  const logs = values.map((value, place) => [place, isNumber(value) && value > 0 ? Math.log10(value) : null]).filter(([, value]) => value !== null);
  if (logs.length < 2) return "–";
  const low = Math.min(...logs.map(([, value]) => value)), high = Math.max(...logs.map(([, value]) => value));
  const points = logs.map(([place, value]) => `${(2 + (place * (width - 4)) / (values.length - 1)).toFixed(1)},${(2 + ((high - value) * (height - 4)) / (high - low || 1)).toFixed(1)}`);
  const space = "http://www.w3.org/2000/svg";
  const drawing = document.createElementNS(space, "svg");
  Object.entries({ width, height, role: "img", "aria-label": label }).forEach(([name, value]) => drawing.setAttribute(name, value));
  const line = document.createElementNS(space, "polyline");
  Object.entries({ points: points.join(" "), fill: "none", stroke: "currentColor", "stroke-width": 1.6 }).forEach(([name, value]) => line.setAttribute(name, value));
  drawing.append(line);
  return drawing;
}
