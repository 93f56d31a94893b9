// The rows of a long table: only those in sight are in the page, and the keyboard moves over all of them.

import { el } from './dom.js';

const BEYOND = 8;

/** A tree grid of rows of one height (the CSS variable --row of the table). `options`: `label`, `head` (a row),
 * `columns`, `key(item)`, `draw(item)` -> {attributes, cells}, `onOpen`, `onPick`, `onExpand(item, wanted)`. An item
 * that can be opened has `opens`. */
export class Rows {
  constructor(options) {
    this.options = options;
    this.items = [];
    this.active = null;
    this.before = el('tr', { class: 'room', 'aria-hidden': 'true' }, el('td', { colspan: options.columns }));
    this.after = el('tr', { class: 'room', 'aria-hidden': 'true' }, el('td', { colspan: options.columns }));
    this.body = el('tbody', {}, this.before, this.after);
    this.element = el(
      'table',
      {
        class: 'runs',
        role: 'treegrid',
        'aria-label': options.label,
        'aria-multiselectable': 'true',
        tabindex: 0,
        onkeydown: (event) => this.#key(event),
      },
      el('thead', {}, options.head),
      this.body,
    );
    this.body.addEventListener('mousedown', (event) => {
      const index = Number(event.target.closest('tr')?.dataset.index ?? NaN);
      if (Number.isNaN(index)) return;
      this.active = options.key(this.items[index]);
      if (!event.target.closest('a')) {
        event.preventDefault();
        this.element.focus({ preventScroll: true });
      }
      this.#mark(); // no new rows now: the click that follows needs those that are there
    });
    this.scrolled = () => {
      cancelAnimationFrame(this.frame);
      this.frame = requestAnimationFrame(() => this.#drawWindow());
    };
    addEventListener('scroll', this.scrolled, { passive: true });
    addEventListener('resize', this.scrolled);
  }

  /** Shows items in place of those before; the place of the keyboard stays at its item. */
  show(items) {
    const index = this.#index();
    this.items = items;
    if (this.#index() < 0)
      this.active = items.length ? this.options.key(items[Math.min(Math.max(index, 0), items.length - 1)]) : null;
    this.element.setAttribute('aria-rowcount', items.length + 1);
    this.#drawWindow(true);
  }

  /** Draws the rows in sight again. */
  redraw() {
    this.#drawWindow(true);
  }

  focus() {
    this.element.focus();
  }

  destroy() {
    removeEventListener('scroll', this.scrolled);
    removeEventListener('resize', this.scrolled);
    cancelAnimationFrame(this.frame);
  }

  #index() {
    return this.items.findIndex((item) => this.options.key(item) === this.active);
  }

  #height() {
    return parseFloat(getComputedStyle(this.element).getPropertyValue('--row')) || 40;
  }

  #drawWindow(force = false) {
    const row = this.#height();
    const top = -this.body.getBoundingClientRect().top;
    const first = Math.max(0, Math.min(Math.floor(top / row) - BEYOND, this.items.length - 1));
    const last = Math.min(this.items.length, Math.ceil((top + innerHeight) / row) + BEYOND);
    if (!force && first === this.first && last === this.last && row === this.row) return;
    Object.assign(this, { first, last, row });
    this.before.firstChild.style.height = `${first * row}px`;
    this.after.firstChild.style.height = `${Math.max(0, this.items.length - last) * row}px`;
    this.before.hidden = first === 0;
    this.after.hidden = last >= this.items.length;
    const fresh = this.items.slice(first, last).map((item, i) => {
      const { attributes, cells } = this.options.draw(item);
      const index = first + i;
      const node = el(
        'tr',
        {
          id: `row-${index}`,
          'data-index': index,
          'data-key': this.options.key(item),
          'aria-rowindex': index + 2,
          ...attributes,
          ondblclick: (event) => {
            if (item.opens && !event.target.closest('input, button')) this.options.onOpen(item);
          },
        },
        ...cells,
      );
      return node;
    });
    this.body.replaceChildren(this.before, ...fresh, this.after);
    this.#mark();
  }

  /** Marks the row of the keyboard. */
  #mark() {
    const now = this.#index();
    for (const node of this.body.rows) node.classList.toggle('active', node.id === `row-${now}`);
    if (now >= this.first && now < this.last) this.element.setAttribute('aria-activedescendant', `row-${now}`);
    else this.element.removeAttribute('aria-activedescendant');
  }

  #go(index) {
    const to = Math.min(Math.max(index, 0), this.items.length - 1);
    if (to < 0) return;
    this.active = this.options.key(this.items[to]);
    const row = this.#height();
    const at = this.element.tBodies[0].getBoundingClientRect().top + to * row;
    const head = this.element.tHead.offsetHeight + (document.querySelector('header.top')?.offsetHeight ?? 0);
    if (at < head) scrollBy(0, at - head);
    else if (at + row > innerHeight - 60) scrollBy(0, at + row - innerHeight + 60);
    this.#drawWindow(true);
  }

  #key(event) {
    if (event.target !== this.element || event.altKey || event.ctrlKey || event.metaKey) return;
    const now = this.#index();
    const item = this.items[now];
    const page = Math.max(1, Math.floor(innerHeight / this.#height()) - 3);
    const to = {
      ArrowDown: now + 1,
      ArrowUp: now - 1,
      Home: 0,
      End: this.items.length - 1,
      PageDown: now + page,
      PageUp: now - page,
    }[event.key];
    if (to != null) this.#go(to);
    else if (event.key === 'Enter' && item?.opens) this.options.onOpen(item);
    else if (event.key === ' ' && item) this.options.onPick(item);
    else if (event.key === 'ArrowRight' && item) this.options.onExpand(item, true);
    else if (event.key === 'ArrowLeft' && item) {
      if (item.level > 1) {
        let up = now;
        while (up > 0 && this.items[up].level > 1) up -= 1;
        this.#go(up);
      } else this.options.onExpand(item, false);
    } else return;
    event.preventDefault();
  }
}
