// Tables: plain ones for data, and sortable ones.

import { el } from './dom.js';

/** A table with a caption for screen readers; the first column is a header of its row. */
export function dataTable(caption, head, rows) {
  return el(
    'table',
    { class: 'values' },
    el('caption', { class: 'hidden' }, caption),
    el('thead', {}, el('tr', {}, ...head.map((one) => el('th', { scope: 'col' }, one)))),
    el(
      'tbody',
      {},
      ...rows.map((row) => el('tr', {}, ...row.map((one, i) => el(i ? 'td' : 'th', i ? {} : { scope: 'row' }, one)))),
    ),
  );
}

const collator = new Intl.Collator('en', { numeric: true });

/** Compares two values for sorting: numbers by size, the rest as text; what is missing comes last either way. */
export function compare(a, b, down) {
  const [noA, noB] = [a, b].map((v) => v == null || v === '' || Number.isNaN(v));
  if (noA || noB) return noA - noB;
  const order = typeof a === 'number' && typeof b === 'number' ? a - b : collator.compare(String(a), String(b));
  return down ? -order : order;
}

/** A table whose columns sort. `columns`: [{key, title, value(row), show(row), number}]; `update(rows)` shows rows. */
export class SortTable {
  constructor(caption, columns, sort) {
    this.columns = columns;
    [this.key, this.down] = sort ?? [null, false];
    this.rows = [];
    this.heads = columns.map((one) =>
      el(
        'th',
        { scope: 'col', class: one.number ? 'number' : false },
        el('button', { type: 'button', onclick: () => this.#sort(one.key) }, one.title),
      ),
    );
    this.body = el('tbody', {});
    this.element = el(
      'div',
      { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': caption },
      el(
        'table',
        { class: 'sortable' },
        el('caption', { class: 'hidden' }, caption),
        el('thead', {}, el('tr', {}, ...this.heads)),
        this.body,
      ),
    );
  }

  update(rows) {
    this.rows = rows;
    this.#show();
  }

  #sort(key) {
    this.down = this.key === key && !this.down;
    this.key = key;
    this.#show();
  }

  #show() {
    const column = this.columns.find((one) => one.key === this.key);
    const rows = column
      ? [...this.rows].sort((a, b) => compare(column.value(a), column.value(b), this.down))
      : this.rows;
    this.columns.forEach((one, i) => {
      this.heads[i].setAttribute('aria-sort', one.key !== this.key ? 'none' : this.down ? 'descending' : 'ascending');
    });
    const fresh = rows.map((row) =>
      el(
        'tr',
        {},
        ...this.columns.map((one) =>
          el('td', { class: one.number ? 'number' : false }, one.show ? one.show(row) : one.value(row)),
        ),
      ),
    );
    const focused = this.body.contains(document.activeElement) ? document.activeElement.getAttribute('href') : null;
    this.body.replaceChildren(...fresh);
    if (focused) [...this.body.querySelectorAll('a')].find((one) => one.getAttribute('href') === focused)?.focus();
  }
}
