// The values of several runs at the end of each, as a table.

import { el, link } from './dom.js';
import { badge } from './facts.js';
import { lastFinite, median } from './groups.js';
import { styleOf } from './palette.js';
import { swatch } from './panel.js';
import { SortTable } from './table.js';
import { exact, NONE, number, short } from './text.js';

/** A table in `root`. `update(runs, curves, centre)` shows a column for each curve, and where ICL peaks and falls. */
export class EndTable {
  constructor(root) {
    this.root = root;
  }

  update(runs, curves, centre) {
    const key = `${curves.join(' ')} ${centre}`;
    if (key !== this.key) {
      this.key = key;
      this.table?.element.remove();
      this.table = new SortTable('Values at the end of each run', columns(curves, centre));
      this.root.append(this.table.element);
    }
    this.table.update(runs);
  }
}

function columns(curves, centre) {
  return [
    {
      key: 'run',
      title: 'Run',
      value: (run) => run.label,
      show: (run) => [swatch(run.colour, run.dash), ' ', link('run', { name: run.name }, run.label)],
    },
    {
      key: 'status',
      title: 'Status',
      value: (run) => run.about?.status,
      show: (run) => (run.about ? badge(run.about.status) : run.error || NONE),
    },
    count('members', 'N', (run) => run.about?.members, exact),
    count('sequences', 'Sequences', (run) => run.about?.sequences, short),
    ...curves.map((curve) => measured(curve, centre)),
    count('peak', 'ICL peak at', (run) => median(run.data?.marks?.peak ?? []), short),
    count('half', 'Half-fall at', (run) => median(run.data?.marks?.half_fall ?? []), short),
  ];
}

const count = (key, title, value, write) => ({ key, title, value, show: (run) => write(value(run)), number: true });

function measured(curve, centre) {
  const end = (run, what) => {
    const found = run.data?.curves[curve];
    const at = lastFinite(found?.[centre]);
    return at < 0 ? null : (found[what]?.[at] ?? null);
  };
  const interval = (run) => {
    if (centre !== 'median' || end(run, 'low') == null) return null;
    return el('span', { class: 'interval' }, ` [${number(end(run, 'low'))}, ${number(end(run, 'high'))}]`);
  };
  return {
    key: curve,
    title: `${styleOf(curve).label}, ${centre}`,
    number: true,
    value: (run) => end(run, centre),
    show: (run) => [number(end(run, centre)), interval(run)],
  };
}
