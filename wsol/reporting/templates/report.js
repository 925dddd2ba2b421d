// Sorting keeps the floors apart: they are a second body of the table and sort among themselves. Empty cells stay at the end.
for (const table of document.querySelectorAll("table.board")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") !== "descending";
    heads.forEach((h) => h.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const number = head.classList.contains("num");
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((r) => !r.classList.contains("rule"));
      const value = (row) => row.cells[column].dataset.v;
      rows.sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        return (number ? y - x : y.localeCompare(x)) * (down ? 1 : -1);
      });
      body.append(...rows);
    }
  }));
}
const big = document.getElementById("big");
for (const button of document.querySelectorAll("button.zoom"))
  button.addEventListener("click", () => {
    const [from, to] = [button.querySelector("img"), big.querySelector("img")];
    to.src = from.src;
    to.alt = from.alt;
    big.showModal();
  });
