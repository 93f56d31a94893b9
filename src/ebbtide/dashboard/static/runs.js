// The list of runs and sweeps: filtered, sorted, and with several chosen, compared.

import { select } from './controls.js';
import { address, el, refill, setText } from './dom.js';
import { badge, progress, verdictWords } from './facts.js';
import { filterOf, textOf } from './filter.js';
import { Rows } from './rows.js';
import { keep } from './router.js';
import { compare } from './table.js';
import { ago, exact, field, last, NONE, number, plural, span } from './text.js';

const READING_PERIOD = 400;

const verdictRank = (row) => (row.verdict ? row.verdict.holds - row.verdict.fails : null);

const COLUMNS = [
  { key: 'name', title: 'Run', value: (row) => row.name },
  { key: 'study', title: 'Study', value: (row) => [row.study, row.experiment, row.preset].filter(Boolean).join(' ') },
  { key: 'status', title: 'Status', value: (row) => row.status },
  { key: 'members', title: 'N', value: (row) => row.members, number: true },
  { key: 'sequences', title: 'Sequences', value: (row) => row.sequences },
  { key: 'eta', title: 'Left', value: (row) => row.eta, number: true },
  { key: 'icl', title: 'ICL', value: (row) => row.icl, number: true },
  { key: 'iwl', title: 'IWL', value: (row) => row.iwl, number: true },
  { key: 'loss', title: 'Loss', value: (row) => row.loss, number: true },
  { key: 'verdict', title: 'Verdict', value: verdictRank },
  { key: 'changed', title: 'Changed', value: (row) => row.changed, number: true },
];

/** The view a row opens. */
const viewOf = (row) => (row.kind === 'sweep' ? 'sweep' : 'run');

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
    this.rows = new Rows({
      label: 'Runs',
      head: headRow,
      columns: COLUMNS.length + 1,
      draw: (item) => this.#draw(item),
      key: (item) => item.key,
      onOpen: (item) => {
        location.hash = address(item.view, { name: item.name });
      },
      onPick: (item) => this.#choose(item),
      onExpand: (item, wanted) => this.#expand(item, wanted),
    });
    this.empty = el('p', { class: 'empty', hidden: true });
    this.bar = el('div', { class: 'bar', role: 'region', 'aria-label': 'Chosen runs', hidden: true });
    root.append(
      el('header', { class: 'head' }, el('h1', {}, 'Runs'), this.place),
      el('div', { class: 'toolbar' }, this.box, this.chips, this.sorter.element, this.count),
      this.rows.element,
      this.empty,
      this.bar,
      el(
        'p',
        { class: 'note keys' },
        'Keys: / filter, arrows move, Enter opens, Space chooses, right and left open and close a sweep, Escape clears.',
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
      `${root}${version ? ` \u00b7 ebbtide ${version}` : ''}${partly ? ` \u00b7 reading ${exact(reading.done)} of ${exact(reading.of)}` : ''}`,
    );
    const names = new Set(rows.map((row) => row.name));
    for (const [name, one] of this.open)
      if (!names.has(name)) {
        one.stop();
        this.open.delete(name);
      }
    this.#arrange();
    return partly ? READING_PERIOD : undefined;
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
      const own = {
        key: row.name,
        name: row.name,
        view: viewOf(row),
        row,
        level: 1,
        expanded: row.kind === 'sweep' ? this.open.has(row.name) : null,
      };
      return own.expanded ? [own, ...this.#tasks(row.name)] : [own];
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

  #tasks(name) {
    const { data, error } = this.open.get(name);
    if (!data) return [{ key: `${name} tasks`, level: 2, words: error || 'reading the tasks \u2026' }];
    const tasks = new Map();
    for (const row of data.rows) {
      const id = row.task ?? `${tasks.size}`;
      if (!tasks.has(id)) tasks.set(id, []);
      tasks.get(id).push(row);
    }
    return [...tasks].map(([id, rows]) => {
      const { run } = rows[0];
      const axes = Object.keys(data.axes)
        .filter((axis) => !axis.startsWith('seeds'))
        .map((axis) => [axis, [...new Set(rows.map((row) => field(row.axes[axis])))]]);
      const words = [
        rows[0].arm,
        ...axes.map(
          ([axis, all]) =>
            `${last(axis.replaceAll('.', '/'))} ${all.length > 3 ? `${all.length} values` : all.join(', ')}`,
        ),
      ]
        .filter(Boolean)
        .join('; ');
      return {
        key: `${name} ${id}`,
        name: run,
        view: 'run',
        level: 2,
        words: words || `task ${id}`,
        task: id,
        state: rows[0].state,
        members: rows.length,
      };
    });
  }

  #draw(item) {
    if (item.level === 2) return this.#drawTask(item);
    const { row } = item;
    const box = el('input', {
      type: 'checkbox',
      tabindex: -1,
      checked: this.chosen.has(row.name),
      'aria-label': `Choose ${row.name}`,
      onclick: (event) => {
        event.preventDefault();
        this.#choose(item);
      },
    });
    const opener =
      item.expanded != null &&
      el(
        'button',
        {
          type: 'button',
          class: 'opener',
          tabindex: -1,
          'aria-label': `${item.expanded ? 'Close' : 'Open'} ${row.name}`,
          onclick: () => this.#expand(item, !item.expanded),
        },
        item.expanded ? '\u25be' : '\u25b8',
      );
    const about = [row.study, row.experiment].filter(Boolean).join(' / ');
    const tasks =
      row.tasks &&
      `${exact(row.tasks.done)} of ${plural(row.tasks.done + row.tasks.running + row.tasks.waiting + row.tasks.quarantined, 'task')}`;
    const cell = (key, content, more = {}) =>
      el(
        'td',
        {
          class: `c-${key}${more.number ? ' number' : ''}`,
          'data-label': COLUMNS.find((one) => one.key === key).title,
        },
        ...[content].flat(),
      );
    return {
      attributes: {
        'aria-level': 1,
        'aria-expanded': item.expanded == null ? false : String(item.expanded),
        'aria-selected': String(this.chosen.has(row.name)),
        class: this.chosen.has(row.name) ? 'chosen' : false,
      },
      cells: [
        el('td', { class: 'c-pick' }, box),
        el(
          'th',
          { scope: 'row', class: 'c-name' },
          el(
            'span',
            { class: 'line' },
            opener,
            el('a', { href: address(item.view, { name: row.name }), tabindex: -1, title: row.name }, row.name),
          ),
        ),
        cell('study', [
          about || row.kind !== 'damaged'
            ? el(
                'span',
                { class: 'line' },
                about || (row.kind === 'run' ? NONE : row.kind),
                row.preset ? el('span', { class: 'soft' }, ` ${row.preset}`) : null,
              )
            : null,
          row.problem ? el('span', { class: 'why', title: row.problem }, row.problem) : null,
        ]),
        cell('status', badge(row.status, row.status)),
        cell('members', row.members == null ? NONE : exact(row.members), { number: true }),
        cell('sequences', tasks ? el('span', {}, tasks) : progress(row)),
        cell('eta', row.eta == null ? '' : span(row.eta), { number: true }),
        ...['icl', 'iwl', 'loss'].map((key) => cell(key, row[key] == null ? NONE : number(row[key]), { number: true })),
        cell('verdict', verdictWords(row.verdict) ?? ''),
        cell('changed', ago(row.changed), { number: true }),
      ],
    };
  }

  #drawTask(item) {
    const own = item.name
      ? el('a', { href: address('run', { name: item.name }), tabindex: -1 }, item.words)
      : item.words;
    return {
      attributes: { 'aria-level': 2, class: 'task' },
      cells: [
        el(
          'td',
          { class: 'c-pick' },
          item.name
            ? el('input', {
                type: 'checkbox',
                tabindex: -1,
                checked: this.chosen.has(item.name),
                'aria-label': `Choose ${item.name}`,
                onclick: (event) => {
                  event.preventDefault();
                  this.#choose(item);
                },
              })
            : '',
        ),
        el('th', { scope: 'row', class: 'c-name' }, el('span', { class: 'line' }, own)),
        el(
          'td',
          { class: 'c-study', colspan: item.state ? null : COLUMNS.length - 1 },
          el('span', { class: 'line task-name' }, item.task ?? ''),
        ),
        ...(item.state
          ? [
              el('td', { class: 'c-status' }, badge(item.state, item.state)),
              el('td', { class: 'c-members number', 'data-label': 'N' }, exact(item.members)),
              el('td', { colspan: COLUMNS.length - 4, class: 'rest' }),
            ]
          : []),
      ],
    };
  }

  #choose(item) {
    if (!item.name || item.row?.kind === 'damaged') return;
    if (!this.chosen.delete(item.name)) this.chosen.add(item.name);
    this.rows.redraw();
    this.#writeBar();
  }

  #chooseAll(on) {
    for (const item of this.items)
      if (item.level === 1 && item.row.kind !== 'damaged') {
        if (on) this.chosen.add(item.name);
        else this.chosen.delete(item.name);
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
    this.everyone.checked =
      count > 0 &&
      this.items.every((item) => item.level > 1 || this.chosen.has(item.name) || item.row.kind === 'damaged');
    this.everyone.indeterminate = count > 0 && !this.everyone.checked;
    if (!count) return;
    refill(this.bar, el('span', {}, `${plural(count, 'run')} chosen`));
    this.bar.append(
      el('a', { class: 'button', href: address('compare', { name: [...this.chosen] }) }, 'Compare'),
      el('button', { type: 'button', onclick: () => this.#chooseNone() }, 'Choose none'),
    );
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
