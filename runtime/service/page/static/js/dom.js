// Small helpers that write into the page. Only text is ever set, never HTML: names come from outside.

export function text(tag, content, className = "") {
  const element = document.createElement(tag);
  element.textContent = content;
  if (className) element.className = className;
  return element;
}

function set(element, content) {
  const value = String(content);
  if (element.textContent !== value) element.textContent = value;
}

/** Terms and values of a definition list; elements stay, so that a selection survives. */
export function fill(list, pairs) {
  while (list.children.length > pairs.length) list.lastChild.remove();
  pairs.forEach(([term, value], index) => {
    let row = list.children[index];
    if (!row) {
      row = document.createElement("div");
      row.append(document.createElement("dt"), document.createElement("dd"));
      list.append(row);
    }
    row.classList.toggle("long", String(value).length > 24);
    set(row.children[0], term);
    set(row.children[1], value);
  });
}

/** A table's rows; the first cell of each is its heading. A table without rows is hidden with its frame. */
export function rows(table, values) {
  const body = table.tBodies[0];
  while (body.rows.length > values.length) body.deleteRow(-1);
  values.forEach((cells, index) => {
    const row = body.rows[index] ?? body.insertRow();
    cells.forEach((value, column) => {
      let cell = row.cells[column];
      if (!cell) {
        cell = document.createElement(column ? "td" : "th");
        if (!column) cell.scope = "row";
        row.append(cell);
      }
      set(cell, value);
    });
  });
  table.parentElement.hidden = !values.length;
}
