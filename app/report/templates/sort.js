"use strict";
// A click on a heading sorts the rows by its column; a second click reverses the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const order = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order === 1 ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => order * key(a).localeCompare(key(b), "en", { numeric: true }) ||
        a.rowIndex - b.rowIndex);
      if (rows.every((row) => key(row) === "" || !Number.isNaN(Number(key(row))))) {
        const number = (row) => (key(row) === "" ? Infinity * order : Number(key(row)));
        rows.sort((a, b) => order * (number(a) - number(b)) || 0);
      }
      table.tBodies[0].append(...rows);
    });
  });
}
