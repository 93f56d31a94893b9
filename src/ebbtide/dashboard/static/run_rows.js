// The rows of the list of runs: its columns, and how a folder and a task of a sweep are drawn.

import { address, el } from './dom.js';
import { badge, progress, verdictWords } from './facts.js';
import { ago, exact, field, last, NONE, number, plural, span } from './text.js';

const MOST_VALUES = 3;

const verdictRank = (row) => (row.verdict ? row.verdict.holds - row.verdict.fails : null);

/** The columns of the list: {key, title, value(row) to sort by, number}. */
export const COLUMNS = [
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
const TITLES = Object.fromEntries(COLUMNS.map((one) => [one.key, one.title]));

/** The item of a folder; `expanded` says whether a sweep is open. */
export function folderItem(row, open) {
  const sweep = row.kind === 'sweep';
  return {
    key: row.name,
    name: row.kind === 'damaged' ? null : row.name,
    opens: address(sweep ? 'sweep' : 'run', { name: row.name }),
    row,
    level: 1,
    expanded: sweep ? open : null,
  };
}

/** The items of the tasks of a sweep, from its answer; one that says so while there is none. */
export function taskItems(name, { data, error }) {
  if (!data) return [{ key: `${name} tasks`, level: 2, words: error || 'reading the tasks \u2026' }];
  const tasks = new Map();
  for (const row of data.rows) {
    const id = row.task ?? `${tasks.size}`;
    if (!tasks.has(id)) tasks.set(id, []);
    tasks.get(id).push(row);
  }
  const axes = Object.keys(data.axes).filter((axis) => !axis.startsWith('seeds'));
  return [...tasks].map(([id, rows]) => {
    const values = axes.map((axis) => {
      const all = [...new Set(rows.map((row) => field(row.axes[axis])))];
      return `${last(axis.replaceAll('.', '/'))} ${all.length > MOST_VALUES ? `${all.length} values` : all.join(', ')}`;
    });
    const words = [rows[0].arm, ...values].filter(Boolean).join('; ') || `task ${id}`;
    const { run, state } = rows[0];
    const opens = run ? address('run', { name: run }) : null;
    return { key: `${name} ${id}`, name: run, opens, level: 2, words, task: id, state, members: rows.length };
  });
}

/** A row as {attributes, cells}. Of `actions`, `chosen(name)` says whether a name is chosen; `onChoose` and `onExpand`
 * take the item. */
export function drawItem(item, actions) {
  return item.level === 2 ? drawTask(item, actions) : drawFolder(item, actions);
}

function pick(item, title, { chosen, onChoose }) {
  const onclick = (event) => {
    event.preventDefault();
    onChoose(item);
  };
  const box = { type: 'checkbox', tabindex: -1, checked: chosen(item.name), 'aria-label': `Choose ${title}`, onclick };
  return el('td', { class: 'c-pick' }, item.name ? el('input', box) : '');
}

function cell(key, ...content) {
  const number_ = COLUMNS.find((one) => one.key === key).number;
  return el('td', { class: `c-${key}${number_ ? ' number' : ''}`, 'data-label': TITLES[key] }, ...content);
}

function drawFolder(item, actions) {
  const { row, expanded } = item;
  const opening = {
    type: 'button',
    class: 'opener',
    tabindex: -1,
    'aria-label': `${expanded ? 'Close' : 'Open'} ${row.name}`,
    onclick: () => actions.onExpand(item, !expanded),
  };
  const opener = expanded == null ? null : el('button', opening, expanded ? '\u25be' : '\u25b8');
  const name = el('a', { href: item.opens, tabindex: -1, title: row.name }, row.name);
  const about = [row.study, row.experiment].filter(Boolean).join(' / ') || (row.kind === 'run' ? NONE : row.kind);
  const preset = row.preset ? el('span', { class: 'soft' }, ` ${row.preset}`) : null;
  const study = row.kind === 'damaged' ? null : el('span', { class: 'line' }, about, preset);
  const why = row.problem ? el('span', { class: 'why', title: row.problem }, row.problem) : null;
  const own = actions.chosen(row.name);
  return {
    attributes: {
      'aria-level': 1,
      'aria-expanded': expanded == null ? null : String(expanded),
      'aria-selected': String(own),
      class: own ? 'chosen' : null,
    },
    cells: [
      pick(item, row.name, actions),
      el('th', { scope: 'row', class: 'c-name' }, el('span', { class: 'line' }, opener, name)),
      cell('study', study, why),
      cell('status', badge(row.status)),
      cell('members', exact(row.members)),
      cell('sequences', row.tasks ? tasksWords(row.tasks) : progress(row)),
      cell('eta', row.eta == null ? '' : span(row.eta)),
      ...['icl', 'iwl', 'loss'].map((key) => cell(key, number(row[key]))),
      cell('verdict', verdictWords(row.verdict)),
      cell('changed', ago(row.changed)),
    ],
  };
}

function tasksWords({ done, running, waiting, quarantined }) {
  return `${exact(done)} of ${plural(done + running + waiting + quarantined, 'task')}`;
}

function drawTask(item, actions) {
  const words = el(
    'span',
    { class: 'line' },
    item.opens ? el('a', { href: item.opens, tabindex: -1 }, item.words) : item.words,
  );
  const name = el('th', { scope: 'row', class: 'c-name', colspan: item.state ? null : COLUMNS.length }, words);
  const rest = [
    cell('study', el('span', { class: 'line task-name' }, item.task)),
    cell('status', item.state ? badge(item.state) : null),
    cell('members', exact(item.members)),
    el('td', { colspan: COLUMNS.length - 4, class: 'rest' }),
  ];
  return {
    attributes: { 'aria-level': 2, class: 'task' },
    cells: [pick(item, item.name, actions), name, ...(item.state ? rest : [])],
  };
}
