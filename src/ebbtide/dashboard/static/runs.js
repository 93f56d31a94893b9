// The list of runs and sweeps: filtered, sorted, and with several chosen, compared.

import { select } from './controls.js';
import { address, el, setText } from './dom.js';
import { filterOf, textOf } from './filter.js';
import { keep } from './router.js';
import { Rows } from './rows.js';
import { COLUMNS, drawItem, folderItem, taskItems } from './run_rows.js';
import { compare } from './table.js';
import { exact, plural } from './text.js';

/** Milliseconds until the next question while the server reads the root, and that many for each row known so far. */
const READING_PERIOD = 400;
const PERIOD_OF_ROW = 0.25;

class List {
  constructor(root, params, api) {
    Object.assign(this, { api, all: [], texts: new Map(), chosen: new Set(), open: new Map() });
    this.filter = params.get('filter') ?? '';
    this.states = new Set(params.getAll('status'));
    const sort = params.get('sort') ?? '-changed';
    this.down = sort.startsWith('-');
    this.key = COLUMNS.some((one) => one.key === sort.replace(/^-/, '')) ? sort.replace(/^-/, '') : 'changed';
    this.#build(root);
  }

  #build(root) {
    this.place = el('p', { class: 'crumbs' });
    this.count = el('p', { class: 'note', role: 'status' });
    this.box = el('input', {
      type: 'search',
      placeholder: 'words, study:transience, icl:<0.6',
      'aria-label': 'Filter runs',
      spellcheck: 'false',
      autocomplete: 'off',
      oninput: () => {
        this.filter = this.box.value;
        keep({ filter: this.filter });
        this.#arrange();
      },
      onkeydown: (event) => {
        if (event.key === 'ArrowDown') {
          event.preventDefault();
          this.rows.focus();
        }
        if (event.key === 'Escape' && this.box.value) {
          event.preventDefault();
          this.box.value = '';
          this.box.dispatchEvent(new Event('input'));
        }
      },
    });
    this.box.value = this.filter;
    this.chips = el('div', { class: 'chips', role: 'group', 'aria-label': 'Status' });
    this.sorter = select(
      'Sort by',
      COLUMNS.flatMap((one) => [
        [one.key, `${one.title}, upwards`],
        [`-${one.key}`, `${one.title}, downwards`],
      ]),
      '',
      (v) => this.#sortBy(v.replace(/^-/, ''), v.startsWith('-')),
    );
    this.sorter.element.classList.add('narrow-only');
    this.heads = COLUMNS.map((one) =>
      el(
        'th',
        { scope: 'col', class: `c-${one.key}${one.number ? ' number' : ''}` },
        el(
          'button',
          {
            type: 'button',
            onclick: () =>
              this.#sortBy(one.key, this.key === one.key ? !this.down : Boolean(one.number || one.key === 'sequences')),
          },
          one.title,
        ),
      ),
    );
    this.everyone = el('input', {
      type: 'checkbox',
      'aria-label': 'Choose all runs shown',
      onchange: () => this.#chooseAll(this.everyone.checked),
    });
    const headRow = el(
      'tr',
      { 'aria-rowindex': 1 },
      el('th', { scope: 'col', class: 'c-pick' }, this.everyone),
      ...this.heads,
    );
    const actions = {
      chosen: (name) => this.chosen.has(name),
      onChoose: (item) => this.#choose(item),
      onExpand: (item, wanted) => this.#expand(item, wanted),
    };
    this.rows = new Rows({
      label: 'Runs',
      head: headRow,
      columns: COLUMNS.length + 1,
      draw: (item) => drawItem(item, actions),
      key: (item) => item.key,
      onOpen: (item) => {
        location.hash = item.opens;
      },
      onPick: (item) => this.#choose(item),
      onExpand: (item, wanted) => this.#expand(item, wanted),
    });
    this.empty = el('p', { class: 'empty', hidden: true });
    this.barWords = el('span', { role: 'status' });
    this.barLink = el('a', { class: 'button' }, 'Compare');
    const none = el('button', { type: 'button', onclick: () => this.#chooseNone() }, 'Choose none');
    this.bar = el('div', { class: 'bar', role: 'region', 'aria-label': 'Chosen runs', hidden: true });
    this.bar.append(this.barWords, this.barLink, none);
    root.append(
      el('header', { class: 'head' }, el('h1', {}, 'Runs'), this.place),
      el('div', { class: 'toolbar' }, this.box, this.chips, this.sorter.element, this.count),
      this.rows.element,
      this.empty,
      this.bar,
      el(
        'p',
        { class: 'note keys' },
        'Keys: / filters, arrows move, Enter opens, Space chooses, left and right close and open a sweep.',
      ),
    );
    root.addEventListener('keydown', (event) => {
      if (event.key === 'Escape' && event.target !== this.box) this.#chooseNone();
    });
    this.slash = (event) => {
      if (event.key === '/' && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
        event.preventDefault();
        this.box.focus();
        this.box.select();
      }
    };
    document.addEventListener('keydown', this.slash);
    this.api.left.signal.addEventListener('abort', () => {
      document.removeEventListener('keydown', this.slash);
      this.rows.destroy();
    });
    this.#writeSort();
  }

  /** News of the root. */
  learn({ root, rows, reading, version }) {
    this.all = rows;
    this.texts = new Map(rows.map((row) => [row, textOf(row)]));
    const partly = reading && reading.done < reading.of;
    setText(
      this.place,
      [root, version && `ebbtide ${version}`, partly && `reading ${exact(reading.done)} of ${exact(reading.of)}`]
        .filter(Boolean)
        .join(' \u00b7 '),
    );
    const names = new Set(rows.map((row) => row.name));
    for (const [name, one] of this.open)
      if (!names.has(name)) {
        one.stop();
        this.open.delete(name);
      }
    this.#arrange();
    return partly ? READING_PERIOD + PERIOD_OF_ROW * rows.length : undefined;
  }

  #sortBy(key, down) {
    Object.assign(this, { key, down });
    keep({ sort: `${down ? '-' : ''}${key}` });
    this.#writeSort();
    this.#arrange();
  }

  #writeSort() {
    COLUMNS.forEach((one, i) =>
      this.heads[i].setAttribute('aria-sort', one.key !== this.key ? 'none' : this.down ? 'descending' : 'ascending'),
    );
    this.sorter.fill(
      COLUMNS.flatMap((one) => [
        [one.key, `${one.title}, upwards`],
        [`-${one.key}`, `${one.title}, downwards`],
      ]),
      `${this.down ? '-' : ''}${this.key}`,
    );
  }

  #arrange() {
    const passes = filterOf(this.filter);
    const found = this.all.filter((row) => passes(row, this.texts.get(row)));
    this.#writeChips(found);
    const { value } = COLUMNS.find((one) => one.key === this.key);
    const shown = found
      .filter((row) => !this.states.size || this.states.has(row.status))
      .sort((a, b) => compare(value(a), value(b), this.down) || compare(a.name, b.name));
    this.items = shown.flatMap((row) => {
      const own = folderItem(row, this.open.has(row.name));
      return own.expanded ? [own, ...taskItems(row.name, this.open.get(row.name))] : [own];
    });
    this.rows.show(this.items);
    const words =
      shown.length === this.all.length
        ? plural(shown.length, 'folder')
        : `${exact(shown.length)} of ${plural(this.all.length, 'folder')}`;
    setText(this.count, words);
    this.empty.hidden = shown.length > 0;
    setText(
      this.empty,
      this.all.length ? 'No run passes this filter.' : 'No run is here yet. Make one with: ebbtide run transience',
    );
    this.#writeBar();
  }

  #writeChips(found) {
    const counts = new Map();
    for (const row of found) counts.set(row.status, (counts.get(row.status) ?? 0) + 1);
    for (const own of this.states) if (!counts.has(own)) counts.set(own, 0);
    const order = [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]));
    const state = JSON.stringify([order, [...this.states]]);
    if (state === this.chipState) return;
    this.chipState = state;
    const focused = this.chips.contains(document.activeElement) ? document.activeElement.dataset.status : null;
    this.chips.replaceChildren(
      ...order.map(([own, count]) =>
        el(
          'button',
          {
            type: 'button',
            class: 'chip',
            'data-status': own,
            'aria-pressed': String(this.states.has(own)),
            onclick: () => {
              if (!this.states.delete(own)) this.states.add(own);
              keep({ status: [...this.states] });
              this.#arrange();
            },
          },
          `${own} ${exact(count)}`,
        ),
      ),
    );
    if (focused) [...this.chips.children].find((one) => one.dataset.status === focused)?.focus();
  }

  /** Opens or closes a sweep; its tasks are asked for while it is open. */
  #expand(item, wanted) {
    if (item.expanded == null || item.expanded === wanted) return;
    const { name } = item;
    if (!wanted) {
      this.open.get(name).stop();
      this.open.delete(name);
    } else {
      const one = { data: null, error: '' };
      this.open.set(name, one);
      one.stop = this.api.follow(
        '/api/sweep',
        { name },
        (data) => {
          Object.assign(one, { data, error: '' });
          this.#arrange();
        },
        (error) => {
          one.error = error.message;
          this.#arrange();
        },
      );
    }
    this.#arrange();
  }

  #choose(item) {
    if (!item.name) return;
    if (!this.chosen.delete(item.name)) this.chosen.add(item.name);
    this.rows.redraw();
    this.#writeBar();
  }

  #chooseAll(on) {
    for (const { name } of this.items.filter((item) => item.level === 1 && item.name)) {
      if (on) this.chosen.add(name);
      else this.chosen.delete(name);
    }
    this.rows.redraw();
    this.#writeBar();
  }

  #chooseNone() {
    if (!this.chosen.size) return;
    this.chosen.clear();
    this.rows.redraw();
    this.#writeBar();
  }

  #writeBar() {
    const count = this.chosen.size;
    this.bar.hidden = !count;
    const able = this.items.filter((item) => item.level === 1 && item.name);
    this.everyone.checked = count > 0 && able.every((item) => this.chosen.has(item.name));
    this.everyone.indeterminate = count > 0 && !this.everyone.checked;
    setText(this.barWords, `${plural(count, 'run')} chosen`);
    this.barLink.href = address('compare', { name: [...this.chosen] });
  }
}

/** Shows the list. */
export async function show(root, params, api) {
  const list = new List(root, params, api);
  const problem = el('p', { class: 'problem', role: 'alert', hidden: true });
  root.prepend(problem);
  api.follow(
    '/api/runs',
    {},
    (data) => {
      problem.hidden = true;
      return list.learn(data);
    },
    (error) => {
      problem.hidden = false;
      setText(problem, error.message);
    },
  );
}
