// A panel: curves over training of one or several groups, with a legend, a summary in words and their data as a table.

import { el, refill, setText, svg } from './dom.js';
import { chartFrame } from './frame.js';
import { countWords, extent, hasInterval, lastFinite, linesWords, nearest } from './groups.js';
import { band, level, line, moment, notice, strip, triangle } from './paint.js';
import { shown } from './palette.js';
import { padded, Plot } from './plot.js';
import { dataTable } from './table.js';
import { exact, number, plural, short } from './text.js';

const MOST_ROWS = 400;
/** Largest number of curves of which every member is read off at a time; of more, those of the nearest curve. */
const MOST_READ = 3;
const ACCURACY = [-0.03, 1.03];

/** A short line in the colour and dash of a curve. */
export function swatch(colour, dash = []) {
  return svg(
    'svg',
    { viewBox: '0 0 26 10', class: 'swatch', 'aria-hidden': 'true' },
    svg('line', {
      x1: 1,
      y1: 5,
      x2: 25,
      y2: 5,
      stroke: shown(colour),
      'stroke-width': 2.4,
      'stroke-dasharray': dash.join(' ') || 'none',
    }),
  );
}

/** A panel in a figure of its own. `update(model)` shows a model: {title, note, groups, xLabel, xKind, threshold, yLog,
 * marks, marksInWords, phases, height, sync, onZoom, legend, peers}. `legend: false` leaves out the entries where a
 * view has one for all panels; `peers` are the groups of all panels that share these axes. */
export class Panel {
  constructor(model) {
    this.note = el('p', { class: 'note' });
    Object.assign(this, chartFrame({ onTable: () => this.#fillTable(), note: this.note }));
    this.model = model;
    this.repaint = () => this.#writeLegend(true);
    addEventListener('themechange', this.repaint);
  }

  /** Shows a model; the element must be in the page. */
  update(model) {
    this.model = model;
    setText(this.title, model.title);
    setText(this.note, model.note ?? '');
    this.note.hidden = !model.note;
    this.#writeLegend();
    this.host.setAttribute('aria-label', this.summary());
    Object.assign(this.host.dataset, {
      lines: model.groups.reduce((sum, group) => sum + (group.members?.length ?? 0), 0),
      bands: model.groups.filter((group) => group.bands && !group.members).length,
      points: Math.max(0, ...model.groups.map((group) => group.x.length)),
      marks: (model.marks ?? []).map((mark) => mark.name).join(' '),
      chance: [...new Set(model.groups.map((group) => group.chance).filter((v) => v != null))].join(' '),
    });
    const options = this.#options(model.groups);
    if (this.plot) this.plot.update(options);
    else this.plot = new Plot(this.host, options);
    if (this.table.open) this.#fillTable();
  }

  zoom(limits) {
    this.plot?.zoom(limits);
  }

  destroy() {
    removeEventListener('themechange', this.repaint);
    this.plot?.destroy();
    this.element.remove();
  }

  /** The panel in words. */
  summary() {
    const { title, groups, marks } = this.model;
    const parts = groups.map((group) => {
      const at = lastFinite(group.centre);
      if (at < 0) return `${group.label}: ${plural(group.total, 'member')}, no finite value yet.`;
      const values = group.centre.filter((v) => v != null);
      const best = Math.max(...values);
      const where = group.x[group.centre.indexOf(best)];
      const interval =
        group.low?.[at] != null ? ` (95 % interval ${number(group.low[at])} to ${number(group.high[at])})` : '';
      const top = this.model.yLog ? '' : `, highest ${number(best)} at ${short(where)}`;
      const chance = group.chance != null ? `, chance ${number(group.chance)}` : '';
      const end = `${group.centreWord} ${number(group.centre[at])}${interval}`;
      const place = `at ${short(group.x[at])} ${this.model.xWord}`;
      return `${group.label}: ${plural(group.total, 'member')}, ${end} ${place}${top}${chance}.`;
    });
    const told = (marks ?? []).filter((mark) => mark.at != null).map((mark) => `${mark.words}.`);
    return [`${title}.`, ...parts, ...told].join(' ');
  }

  #writeLegend(force = false) {
    const groups = this.model.legend === false ? [] : this.model.groups;
    const state = JSON.stringify([
      groups.map((g) => [g.key, g.label, g.colour, g.dash, countWords(g), this.#end(g)]),
      linesWords(this.model.groups),
    ]);
    if (state === this.legendState && !force) return;
    this.legendState = state;
    const entries = groups.map((group) =>
      el(
        'span',
        { class: 'entry' },
        swatch(group.colour, group.dash),
        el('span', {}, group.short ?? group.label),
        el('span', { class: 'end' }, this.#end(group)),
        el('span', { class: 'count' }, countWords(group)),
      ),
    );
    this.legend.replaceChildren(...entries, el('span', { class: 'lines' }, linesWords(this.model.groups)));
  }

  #end(group) {
    const at = lastFinite(group.centre);
    return at < 0 ? '' : number(group.centre[at]);
  }

  #options(groups) {
    const { model } = this;
    const log = Boolean(model.yLog);
    const all = model.peers ?? groups;
    const [low, high] = extent(all, log);
    const accuracies =
      !log &&
      groups.length > 0 &&
      all.every((group) => isShare(group.unit)) &&
      !(low < ACCURACY[0] || high > ACCURACY[1]);
    const xs = all.flatMap((group) => (group.x.length ? [group.x[0], group.x[group.x.length - 1]] : []));
    const [first, end] = [Math.min(...xs), Math.max(...xs)];
    const units = [...new Set(groups.map((group) => group.unit).filter(Boolean))];
    return {
      height: model.height,
      sync: model.sync,
      onZoom: model.onZoom,
      x: {
        label: model.xLabel,
        kind: model.xKind,
        threshold: model.threshold,
        limits: xs.length && end > first ? [first, end] : [0, Math.max(1, xs[0] ?? 1)],
      },
      y: {
        label: units.join(', ') || ' ',
        kind: log ? 'log' : 'linear',
        limits: accuracies ? ACCURACY : padded(low, high, log ? 'log' : 'linear'),
      },
      paint: (view) => this.#paint(view, groups, log),
      read: (view, left, top) => this.#read(view, groups, left, top, log),
      step: (view, from, by) => step(view, groups, from, by),
    };
  }

  #paint(view, groups, log) {
    const { model } = this;
    for (const phase of model.phases ?? []) strip(view, phase.from, phase.to, phase.word, phase.alpha);
    if (!groups.some((group) => lastFinite(group.centre) >= 0)) notice(view, 'no finite number to draw');
    for (const group of groups) {
      const { x, colour, bands, members } = group;
      if (bands && !members) {
        band(view, x, bands.low90, bands.high90, { colour, alpha: 0.12, log });
        band(view, x, bands.low50, bands.high50, { colour, alpha: 0.2, log });
      }
      for (const one of members ?? [])
        line(view, x, one, { colour, width: 0.7, alpha: members.length > 20 ? 0.3 : 0.45, log });
      if (hasInterval(group)) band(view, x, group.low, group.high, { colour, alpha: 0.16, log });
    }
    const levels = [...new Set(groups.map((group) => group.chance).filter((v) => v != null))].sort((a, b) => a - b);
    levels.forEach((y, i) =>
      level(view, y, i && Math.abs(view.Y(y) - view.Y(levels[i - 1])) < 12 * view.pixel ? '' : 'chance'),
    );
    for (const group of groups)
      line(view, group.x, group.centre, { colour: group.colour, width: 2.2, dash: group.dash, log });
    let row = 0;
    const inTime = [...(model.marks ?? [])].sort((a, b) => a.at - b.at);
    for (const mark of inTime) {
      for (const one of mark.points ?? [])
        triangle(view, view.X(one.x), view.Y(one.y), { colour: mark.colour, up: mark.up });
      if (mark.at != null) moment(view, mark.at, model.marksInWords ? mark.words : '', { dash: mark.dash, row: row++ });
    }
  }

  #read(view, groups, left, top, log) {
    const at = view.xValue(left);
    const parts = groups.filter((group) => group.x.length).map((group) => ({ group, i: nearest(group.x, at) }));
    if (!parts.length) return null;
    const closest = parts.reduce((a, b) => (Math.abs(b.group.x[b.i] - at) < Math.abs(a.group.x[a.i] - at) ? b : a));
    const x = closest.group.x[closest.i];
    const content = [el('p', { class: 'at' }, `${exact(x)} ${this.model.xWord}`)];
    const away = ({ group, i }) => (group.centre[i] == null ? Infinity : Math.abs(view.Y(group.centre[i]) - top));
    const own = parts.length > MOST_READ ? parts.reduce((a, b) => (away(b) < away(a) ? b : a)) : null;
    for (const part of parts) content.push(...valuesAt(part.group, part.i, view, top, log, !own || part === own));
    return { left: view.X(x), top, content };
  }

  #fillTable() {
    if (!this.table.open) return;
    const { groups, xWord } = this.model;
    const rows = groups.flatMap((group) => rowsOf(group));
    const most = Math.max(0, ...groups.map((g) => g.members?.length ?? 0));
    const every = Math.ceil(rows.length / MOST_ROWS) || 1;
    const head = [
      'curve',
      xWord,
      'median or mean',
      'low',
      'high',
      'N',
      ...Array.from({ length: most }, (_, m) => `member ${m}`),
    ];
    const note = every > 1 ? `Every ${every}th evaluation of ${exact(rows.length)}; all of them: ebbtide export.` : '';
    refill(
      (this.tableBody ??= this.table.appendChild(
        el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Data of the chart' }),
      )),
      note && el('p', { class: 'note' }, note),
      dataTable(
        this.model.title,
        head,
        rows.filter((_, i) => i % every === 0),
      ),
    );
  }
}

/** Whether a unit is a share between 0 and 1. */
export const isShare = (unit) => /accuracy|probab|mass|share/.test(unit ?? '');

function rowsOf(group) {
  return Array.from(group.x, (x, i) => [
    group.label,
    exact(x),
    ...[group.centre, group.low, group.high].map((ys) => number(ys?.[i])),
    String(group.n?.[i] ?? group.total),
    ...(group.members ?? []).map((ys) => number(ys[i])),
  ]);
}

/** What a reader is told of a group at one evaluation: its middle and, with `whole`, every member's value, with the
 * nearest in bold. */
function valuesAt(group, i, view, top, log, whole) {
  const interval = group.low?.[i] != null ? ` [${number(group.low[i])}, ${number(group.high[i])}]` : '';
  const count = group.n ? `N = ${group.n[i]}` : countWords(group);
  const head = el(
    'p',
    { class: 'group' },
    swatch(group.colour, group.dash),
    group.short !== group.centreWord && el('b', {}, group.short ?? group.label),
    `${group.centreWord} ${number(group.centre[i])}${interval} `,
    el('span', { class: 'count' }, count),
  );
  if (group.bands && !group.members) {
    const { low90, low50, high50, high90 } = group.bands;
    const outer = `nine tenths ${number(low90[i])} to ${number(high90[i])}`;
    const words = `${outer}, half ${number(low50[i])} to ${number(high50[i])}`;
    return [head, el('p', { class: 'quantiles' }, words)];
  }
  if (!group.members || !whole) return [head];
  const away = group.members.map((ys) =>
    ys[i] == null || (log && ys[i] <= 0) ? Infinity : Math.abs(view.Y(ys[i]) - top),
  );
  const closest = away.indexOf(Math.min(...away));
  const cells = group.members.map((ys, m) =>
    el('li', { class: m === closest && away[m] < 14 ? 'nearest' : false }, el('span', {}, String(m)), number(ys[i])),
  );
  return [head, el('ol', { class: 'members' }, ...cells)];
}

/** The place of the next evaluation for the keyboard. */
function step(view, groups, from, by) {
  const xs = groups.find((group) => group.x.length)?.x;
  if (!xs) return null;
  const inside = Array.from(xs.keys()).filter((i) => view.X(xs[i]) >= -0.5 && view.X(xs[i]) <= view.width + 0.5);
  if (!inside.length) return null;
  const now =
    from == null ? (by > 0 ? inside[0] - by : inside[inside.length - 1] - by) : nearest(xs, view.xValue(from));
  return view.X(xs[Math.min(Math.max(now + by, inside[0]), inside[inside.length - 1])]);
}
