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
for (const part of document.querySelectorAll(".pictures")) {
  const pager = part.querySelector(".pager"), cards = [...part.querySelectorAll(".card")], size = Number(part.dataset.page);
  let page = 0;
  pager?.addEventListener("click", ({ target }) => {
    if (!target.dataset.step) return;
    page += Number(target.dataset.step);
    cards.forEach((card, i) => (card.hidden = Math.floor(i / size) !== page));
    pager.querySelector("span").textContent = `${page * size + 1}–${Math.min((page + 1) * size, cards.length)} of ${cards.length}`;
    const [before, after] = pager.querySelectorAll("button");
    before.disabled = page === 0;
    after.disabled = (page + 1) * size >= cards.length;
  });
}
