// Tables that are sorted by a press on a heading; what is missing comes last either way.

import { make } from "./dom.js";

export function startSorting() {
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const [heading, column] of headings(table)) addButton(table, heading, column);
  }
}

// Each heading of one column, with the number of its column.
function* headings(table) {
  const taken = [];
  for (const [row, line] of [...table.tHead.rows].entries()) {
    let column = 0;
    for (const cell of line.cells) {
      while (taken[row]?.[column]) column++;
      for (let down = 0; down < cell.rowSpan; down++) {
        taken[row + down] ??= [];
        for (let across = 0; across < cell.colSpan; across++) taken[row + down][column + across] = true;
      }
      if (cell.scope === "col" && !cell.classList.contains("strip")) yield [cell, column];
      column += cell.colSpan;
    }
  }
}

function addButton(table, heading, column) {
  const button = make("button", { type: "button", class: "sorter" }, ...heading.childNodes);
  heading.append(button);
  button.addEventListener("click", () => {
    const descending = heading.ariaSort ? heading.ariaSort === "ascending" : column > 0;
    for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    sort(table, column, descending);
  });
}

// Brings new rows into the order that the table is in.
export function sortAgain(table) {
  for (const [heading, column] of headings(table)) {
    if (heading.ariaSort) sort(table, column, heading.ariaSort === "descending");
  }
}

function sort(table, column, descending) {
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const compared = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const order = isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
    return descending ? -order : order;
  };
  for (const body of table.tBodies) body.append(...[...body.rows].sort((a, b) => compared(value(a), value(b))));
}
