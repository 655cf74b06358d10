// Elements, downloads and colours. Text is always set as text: nothing from outside is ever read as HTML.

/** An element with attributes, properties beginning with "on", and children: elements or texts. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** A labelled choice; `options` are texts or [value, text]. */
function choice(label, options, chosen, changed) {
  const select = element("select", { onchange: () => changed(select.value) });
  for (const option of options) {
    const [value, text] = Array.isArray(option) ? option : [option, option];
    select.append(element("option", { value, selected: String(value) === String(chosen) }, text));
  }
  return element("label", {}, label, select);
}

const button = (text, title, pressed) => element("button", { type: "button", title, onclick: pressed }, text);

/** The sentence and the formula of the glossary, to be unfolded beside a panel. */
function explanationOf(key) {
  const source = document.querySelector(`#explain-${key} .explanation`);
  if (!source) return null;
  return element("details", {}, element("summary", {}, "What is this?"), source.cloneNode(true));
}

/** The formula of the glossary alone, for a table. */
const formulaOf = (key) => document.getElementById(`explain-${key}`)?.querySelector("math")?.cloneNode(true) ?? "–";

function saveCsv(name, rows) {
  const address = URL.createObjectURL(new Blob([asCsv(rows)], { type: "text/csv" }));
  const link = element("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

/** Rows of cells as comma-separated values; a text that a spreadsheet would take for a formula gets an apostrophe. */
function asCsv(rows) {
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

const fileName = (text) => text.replace(/[^\w.-]+/g, "-").replace(/^-|-$/g, "").slice(0, 80) || "panel";

/** A colour of the page's style, in the theme that is shown. */
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Text for plotly, which reads a few tags and entities. */
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
