"""The look and the behaviour of report pages: one style sheet and one script, both embedded; nothing is fetched.

Colours: a diverging blue-orange scale and the Okabe-Ito series, told apart by all common kinds of colour vision; every
mark also carries a sign, a shape or a number. Cells mix the scale's end with the page's own surface, so that light and
dark are the same page.
"""

CSS = """
:root {
  color-scheme: light dark;
  --bg: #ffffff; --surface: #ffffff; --panel: #f5f6f8; --ink: #1b1f24; --soft: #59626d; --line: #d5d9df;
  --pos: #f2a24b; --neg: #74a9dc; --accent: #0b5cad; --focus: #0b5cad; --seq: #f2a24b;
  --s0: #0072b2; --s1: #b84f00; --s2: #007a5a; --s3: #a8467c; --s4: #806500; --s5: #2a73a8; --s6: #555555;
}
@media (prefers-color-scheme: dark) {
  :root {
    --bg: #14171b; --surface: #14171b; --panel: #1d2127; --ink: #e8eaed; --soft: #a4adb8; --line: #363c45;
    --pos: #985205; --neg: #2565a3; --accent: #79b8ff; --focus: #79b8ff; --seq: #985205;
    --s0: #56b4e9; --s1: #f08a4b; --s2: #2fc79a; --s3: #e79bc4; --s4: #e6c23a; --s5: #9ecae1; --s6: #c0c0c0;
  }
}
* { box-sizing: border-box; }
html { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; background: var(--bg);
  color: var(--ink); }
body { margin: 0 auto; max-width: 1180px; padding: 1.6rem 1.4rem 4rem; }
header.top h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .2rem; letter-spacing: -.01em; }
header.top p { margin: 0; color: var(--soft); }
nav.contents { margin: 1.1rem 0 0; padding: .55rem 0; border-block: 1px solid var(--line); display: flex; flex-wrap: wrap;
  gap: .2rem 1.1rem; font-size: .92rem; }
section { margin-top: 2.4rem; }
h2 { font-size: 1.25rem; margin: 0 0 .3rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p, ul, ol { margin: .35rem 0 .7rem; max-width: 76ch; }
a { color: var(--accent); }
.soft, .notes { color: var(--soft); font-size: .9rem; }
.notes p { margin: .15rem 0; }
code, pre { font-family: ui-monospace, "SF Mono", "DejaVu Sans Mono", Menlo, monospace; font-size: .9em; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem; overflow-x: auto;
  margin: .3rem 0; }
.numbers { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1rem 0 .4rem; padding: 0; list-style: none; max-width: none; }
.numbers li { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: .55rem .95rem;
  min-width: 9rem; }
.numbers strong { display: block; font-size: 1.4rem; font-weight: 650; font-variant-numeric: tabular-nums; line-height: 1.25; }
.numbers span { color: var(--soft); font-size: .86rem; }
.scroll { overflow-x: auto; padding-bottom: .3rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
caption { text-align: left; color: var(--soft); padding: .2rem 0 .45rem; font-size: .9rem; caption-side: top;
  min-width: min(30rem, 90vw); }
table.plain th, table.plain td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; white-space: nowrap; }
table.plain th:first-child, table.plain td:first-child, table.plain .text { text-align: left; }
/* Words give way before numbers do: a table scrolls only where its numbers alone are too wide. */
table.plain th, table.plain td.text, table.plain td.words { white-space: normal; overflow-wrap: break-word; }
table.plain thead th { max-width: 8.5rem; } table.plain thead th:first-child { max-width: none; }
table.plain thead th { border-bottom: 2px solid var(--line); font-weight: 600; vertical-align: bottom; }
table.plain tbody th { font-weight: 500; }
table.plain tr.lead th, table.plain tr.lead td { background: var(--panel); }
table.plain tr.rule th, table.plain tr.rule td { border-top: 2px solid var(--soft); }
td .std { color: var(--soft); font-size: .85em; margin-left: .25em; }
.pending { color: var(--soft); font-style: italic; }
td.best { font-weight: 700; } td.second .value { text-decoration: underline; text-underline-offset: 3px; }
th button, .tools button, a.save { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th button:hover, .tools button:hover { text-decoration: underline; }
th[aria-sort=descending] button::after { content: " \\25BC"; font-size: .7em; }
th[aria-sort=ascending] button::after { content: " \\25B2"; font-size: .7em; }
:focus-visible { outline: 2px solid var(--focus); outline-offset: 1px; border-radius: 2px; }
.tools { display: flex; flex-wrap: wrap; gap: .4rem .55rem; align-items: center; margin: .4rem 0 .6rem; font-size: .9rem; }
.tools button, a.save { border: 1px solid var(--line); border-radius: 6px; padding: .18rem .6rem; background: var(--panel);
  text-decoration: none; color: var(--ink); font-size: .88rem; display: inline-block; }
.tools button[aria-pressed=true] { border-color: var(--accent); box-shadow: inset 0 0 0 1px var(--accent); }
.map { display: flex; align-items: flex-start; }
.map svg.tree { flex: none; }
table.heat { border-spacing: 0; }
table.heat td { --m: 0; width: 3.3rem; min-width: 3.3rem; height: 1.75rem; text-align: center; padding: 0 .2rem;
  border: 1px solid var(--surface); font-size: .84rem;
  background: color-mix(in srgb, var(--c, var(--surface)) calc(var(--m) * 1%), var(--surface)); }
table.heat td.pos { --c: var(--pos); } table.heat td.neg { --c: var(--neg); }
table.heat td.wait { background: repeating-linear-gradient(45deg, transparent 0 5px, var(--line) 5px 6px); color: var(--soft);
  font-style: italic; }
table.heat td.best { font-weight: 700; }
table.heat td.part { text-decoration: underline dotted; text-underline-offset: 3px; }
table.heat td:focus { outline: 2px solid var(--focus); outline-offset: -2px; }
table.heat td:hover { box-shadow: inset 0 0 0 2px var(--ink); }
table.heat tbody th { text-align: right; font-weight: 500; padding: 0 .55rem 0 0; white-space: nowrap; height: 1.75rem; }
table.heat thead th { font-weight: 500; vertical-align: bottom; padding: 0 0 .35rem; }
table.heat thead th.slant { height: 6.2rem; }
table.heat thead th.slant > * { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; }
table.heat.small td { width: 1.85rem; min-width: 1.85rem; font-size: .7rem; padding: 0; }
.map.tied { align-items: flex-end; } .map.tied table.heat tbody th { padding-left: .5rem; } svg.tree { max-width: none; }
table.heat.small td, table.heat.small tbody th { height: 1.75rem; }
table.heat.tiny td { width: 11px; min-width: 11px; height: 11px; border: 0; font-size: 0; padding: 0; }
table.heat.tiny tbody th { height: 11px; font-size: 9px; line-height: 11px; padding-right: 4px; }
table.heat.tiny thead th.slant { font-size: 9px; }
.detail { min-height: 2.9rem; margin: .5rem 0 0; padding: .45rem .75rem; background: var(--panel); border-radius: 6px;
  border: 1px solid var(--line); font-size: .9rem; max-width: 76ch; }
.legend { display: flex; align-items: center; gap: .5rem; color: var(--soft); font-size: .86rem; margin: .3rem 0; }
.legend .bar { width: 13rem; height: .8rem; border-radius: 3px; border: 1px solid var(--line);
  background: linear-gradient(90deg, var(--neg), var(--surface), var(--pos)); }
.legend .bar.one { background: linear-gradient(90deg, var(--surface), var(--seq)); }
.pairs { display: flex; flex-wrap: wrap; gap: .5rem 3rem; } .pairs .detail { max-width: 34rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(255px, 1fr)); gap: 1rem 1.2rem; }
figure { margin: 0; }
figure.wide { max-width: 860px; overflow-x: auto; }
figcaption { font-size: .9rem; margin-bottom: .15rem; }
svg { max-width: 100%; height: auto; display: block; }
svg text { fill: var(--ink); font-size: 11px; font-family: inherit; }
svg .axis { stroke: var(--soft); stroke-width: 1; fill: none; } svg .rule { stroke: var(--line); stroke-width: 1; }
svg .zero { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 3; }
svg .dim { fill: var(--soft); } svg .branch { stroke: var(--soft); fill: none; stroke-width: 1.1; }
svg .mark { stroke: var(--surface); stroke-width: .7; }
svg .mark:hover, svg .mark:focus { stroke: var(--ink); stroke-width: 2; outline: none; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--accent); font-size: .92rem; width: fit-content; }
footer { margin-top: 3rem; padding-top: .8rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .86rem; }
.warn { border-left: 4px solid var(--s1); background: var(--panel); padding: .45rem .8rem; border-radius: 0 6px 6px 0; }
.skip { position: absolute; left: -999px; } .skip:focus { position: static; }
@media (max-width: 640px) { figure.wide svg { max-width: none; } body { padding: 1rem .8rem 3rem; } html { font-size: 14px; } }
@media print {
  :root { color-scheme: light; --bg: #fff; --surface: #fff; --panel: #fff; --ink: #000; --soft: #444; --line: #bbb;
    --pos: #f2a24b; --neg: #74a9dc; --accent: #000; --seq: #f2a24b; --s0: #0072b2; --s1: #b84f00; --s2: #007a5a;
    --s3: #a8467c; --s4: #806500; --s5: #2a73a8; --s6: #555; }
  @page { size: A4 landscape; margin: 12mm; }
  html { font-size: 10.5px; } body { max-width: none; padding: 0; }
  nav.contents, .tools, .detail, .skip, a.save { display: none !important; }
  .scroll { overflow: visible; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  h2, h3, caption, figcaption { break-after: avoid; } tr, figure, .heatbox, table.plain { break-inside: avoid; }
  details:not([open]) { display: none; } details > summary { list-style: none; color: var(--ink); }
  section { margin-top: 1.4rem; }
}
"""

SCRIPT = """
'use strict';
for (const box of document.querySelectorAll('.heatbox')) {
  const table = box.querySelector('table.heat'), detail = box.querySelector('.detail'), body = table.tBodies[0];
  const idle = detail ? detail.textContent : '';
  const cells = () => [...body.rows].map(row => [...row.cells].slice(1));
  const show = cell => { if (detail) detail.textContent = cell ? cell.getAttribute('aria-label') : idle; };
  const value = cell => cell.dataset.v === undefined ? -Infinity : Number(cell.dataset.v);
  const roam = cell => {
    for (const other of table.querySelectorAll('td[tabindex="0"]')) other.tabIndex = -1;
    cell.tabIndex = 0; cell.focus();
  };
  table.addEventListener('mouseover', event => { const cell = event.target.closest('td[aria-label]'); if (cell) show(cell); });
  table.addEventListener('mouseleave', () => show(null));
  table.addEventListener('focusin', event => { const cell = event.target.closest('td[aria-label]'); if (cell) show(cell); });
  table.addEventListener('click', event => { const cell = event.target.closest('td[aria-label]'); if (cell) roam(cell); });
  table.addEventListener('keydown', event => {
    const cell = event.target.closest('td[aria-label]');
    const move = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    if (!cell || (!move && event.key !== 'Home' && event.key !== 'End')) return;
    event.preventDefault();
    const grid = cells(), r = grid.findIndex(row => row.includes(cell)), c = grid[r].indexOf(cell);
    const column = event.key === 'Home' ? 0 : event.key === 'End' ? grid[r].length - 1 : c + move[1];
    const next = (grid[move ? r + move[0] : r] || [])[column];
    if (next) roam(next);
  });
  const orderRows = keys => [...body.rows].sort(keys).forEach(row => body.append(row));
  const place = row => Number(row.dataset.i);
  const unmark = () => {
    for (const th of table.querySelectorAll('[aria-sort]')) th.removeAttribute('aria-sort');
    for (const button of box.querySelectorAll('.tools button')) button.setAttribute('aria-pressed', 'false');
  };
  const byColumn = (th, direction) => {
    const c = [...th.parentNode.cells].indexOf(th);
    orderRows((a, b) => direction * (value(b.cells[c]) - value(a.cells[c])) || place(a) - place(b));
    unmark(); th.setAttribute('aria-sort', direction > 0 ? 'descending' : 'ascending');
  };
  const orderColumns = rank => {
    for (const row of table.rows) {
      const [first, ...rest] = row.cells;
      rest.sort((a, b) => rank(Number(a.dataset.c), Number(b.dataset.c))).forEach(cell => row.append(cell));
    }
  };
  for (const button of table.querySelectorAll('thead button')) button.addEventListener('click', () => {
    const th = button.closest('th');
    byColumn(th, th.getAttribute('aria-sort') === 'descending' ? -1 : 1);
  });
  for (const button of table.querySelectorAll('tbody th button')) button.addEventListener('click', () => {
    const row = button.closest('tr'), values = {};
    for (const cell of [...row.cells].slice(1)) values[cell.dataset.c] = value(cell);
    orderColumns((a, b) => values[b] - values[a] || a - b);
    unmark(); row.cells[0].setAttribute('aria-sort', 'descending');
  });
  for (const button of box.querySelectorAll('.tools button[data-order]')) button.addEventListener('click', () => {
    if (button.dataset.order === 'mean') {
      orderRows((a, b) => Number(b.dataset.mean) - Number(a.dataset.mean) || place(a) - place(b));
    } else { orderRows((a, b) => place(a) - place(b)); orderColumns((a, b) => a - b); }
    unmark(); button.setAttribute('aria-pressed', 'true');
  });
}
for (const table of document.querySelectorAll('table.sortable')) {
  for (const button of table.querySelectorAll('thead button')) button.addEventListener('click', () => {
    const th = button.closest('th'), c = [...th.parentNode.cells].indexOf(th), body = table.tBodies[0];
    const direction = th.getAttribute('aria-sort') === 'descending' ? -1 : 1;
    const key = row => { const v = row.cells[c].dataset.v; return v === undefined ? null : Number(v); };
    const rows = [...body.rows].filter(row => !row.classList.contains('lead'));
    rows.sort((a, b) => {
      const x = key(a), y = key(b);
      if (x === null || y === null) return x === y ? a.cells[c].textContent.localeCompare(b.cells[c].textContent) * direction
        : x === null ? 1 : -1;
      return direction * (y - x);
    });
    rows.forEach(row => body.append(row));
    for (const other of table.querySelectorAll('[aria-sort]')) other.removeAttribute('aria-sort');
    th.setAttribute('aria-sort', direction > 0 ? 'descending' : 'ascending');
  });
}
let opened = [];
addEventListener('beforeprint', () => {
  opened = [...document.querySelectorAll('details[data-print]:not([open])')]; opened.forEach(d => { d.open = true; });
});
addEventListener('afterprint', () => opened.forEach(d => { d.open = false; }));
"""
