// A phase portrait: one measure against another, a path per member, with the direction of time.

import { el, refill, setText, svg } from './dom.js';
import { chartFrame } from './frame.js';
import { countWords } from './groups.js';
import { arrow, dot, level, line, notice, rule } from './paint.js';
import { ordered } from './palette.js';
import { isShare, swatch } from './panel.js';
import { padded, Plot } from './plot.js';
import { dataTable } from './table.js';
import { exact, number, plural, short } from './text.js';

const ARROWS = 5;
const MOST_ROWS = 400;

/** Paths of two groups of one run: every member's values of both measures, and their medians. */
export function pathOf(horizontal, vertical, sequences, more) {
  const members =
    horizontal.members && vertical.members
      ? horizontal.members.map((xs, m) => ({ x: xs, y: vertical.members[m] }))
      : null;
  return {
    members,
    centre: { x: horizontal.centre, y: vertical.centre },
    sequences,
    total: horizontal.total,
    diverged: horizontal.diverged,
    centreWord: horizontal.centreWord,
    ...more,
  };
}

/** A phase portrait in a figure. `update(model)`: {title, paths, x: {label, unit, chance}, y: {...}, height, onZoom}; a
 * path without a colour is coloured by time. */
export class Portrait {
  constructor() {
    this.scale = el('div', { class: 'timescale' });
    Object.assign(this, chartFrame({ onTable: () => this.#fillTable(), kind: 'portrait', wide: true, under: this.scale }));
    this.repaint = () => this.#writeLegend();
    addEventListener('themechange', this.repaint);
  }

  update(model) {
    this.model = model;
    setText(this.title, model.title);
    this.#writeLegend();
    this.host.setAttribute('aria-label', this.summary());
    this.host.dataset.lines = model.paths.reduce((sum, path) => sum + (path.members?.length ?? 0), 0);
    const options = this.#options();
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

  summary() {
    const { x, y, paths, title } = this.model;
    const parts = paths.map((path) => {
      const at = path.sequences.length - 1;
      if (at < 0) return `${path.label}: no evaluation yet.`;
      const place = (i) => `${x.label} ${number(path.centre.x[i])}, ${y.label} ${number(path.centre.y[i])}`;
      const way = `${path.centreWord} from ${place(0)} to ${place(at)} at ${short(path.sequences[at])} sequences`;
      return `${path.label}: ${plural(path.total, 'member')}; ${way}.`;
    });
    return [`${title}: ${y.label} against ${x.label}.`, ...parts].join(' ');
  }

  #writeLegend() {
    const { paths } = this.model;
    const entries = paths.map((path) =>
      el(
        'span',
        { class: 'entry' },
        path.colour ? swatch(path.colour, path.dash) : null,
        path.label,
        el('span', { class: 'count' }, countWords(path)),
      ),
    );
    const thin = paths.some((path) => path.members) ? 'thin: members' : 'members are not drawn: more than 50';
    const centre = paths[0]?.centreWord ?? 'median';
    refill(
      this.legend,
      ...entries,
      el('span', { class: 'lines' }, `${thin}; thick: ${centre} of each measure; arrows: time; ring: start, disc: end`),
    );
    if (paths.some((path) => path.colour)) {
      this.scale.hidden = true;
      return;
    }
    const end = Math.max(0, ...paths.flatMap((path) => path.sequences.slice(-1)));
    const bar = svg(
      'svg',
      { viewBox: '0 0 100 6', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
      ...Array.from({ length: 50 }, (_, i) =>
        svg('rect', { x: i * 2, y: 0, width: 2.2, height: 6, fill: ordered(i / 49) }),
      ),
    );
    this.scale.hidden = false;
    this.scale.replaceChildren(el('span', {}, '0'), bar, el('span', {}, `${short(end)} sequences`));
  }

  #options() {
    const { model } = this;
    const axis = (which) => {
      const { label, unit, log } = model[which];
      let [low, high] = [Infinity, -Infinity];
      for (const path of model.paths) {
        for (const one of [...(path.members ?? []), path.centre]) {
          for (const v of one[which]) {
            if (v != null && (!log || v > 0)) [low, high] = [Math.min(low, v), Math.max(high, v)];
          }
        }
      }
      const whole = !log && isShare(unit) && low >= -0.03 && high <= 1.03;
      return {
        label: unit ? `${label}, ${unit}` : label,
        kind: log ? 'log' : 'linear',
        limits: whole ? [-0.03, 1.03] : padded(low, high, log ? 'log' : 'linear'),
      };
    };
    return {
      height: model.height,
      onZoom: model.onZoom,
      x: axis('x'),
      y: axis('y'),
      paint: (view) => this.#paint(view),
      read: (view, left, top) => this.#read(view, left, top),
    };
  }

  #paint(view) {
    const { paths, x, y } = this.model;
    if (!paths.some((path) => path.sequences.length)) notice(view, 'no evaluation yet');
    if (y.chance != null) level(view, y.chance, 'chance');
    if (x.chance != null) rule(view, view.X(x.chance), view.top, view.X(x.chance), view.top + view.height, [2, 3]);
    for (const path of paths) {
      for (const one of path.members ?? []) this.#walk(view, path, one, 0.8, 0.55);
      this.#walk(view, path, path.centre, 2.6, 1);
      this.#ends(view, path, path.centre);
    }
  }

  #walk(view, path, { x, y }, width, alpha) {
    const end = path.sequences[path.sequences.length - 1] || 1;
    const colourAt = (i) => path.colour ?? ordered(path.sequences[i] / end);
    if (path.colour) line(view, x, y, { colour: path.colour, width, alpha, dash: path.dash });
    else {
      for (let i = 1; i < x.length; i += 1) {
        line(view, [x[i - 1], x[i]], [y[i - 1] ?? NaN, y[i] ?? NaN], { colour: colourAt(i), width, alpha });
      }
    }
    if (width < 2) return;
    const at = (i) => [view.X(x[i]), view.Y(y[i])];
    const lengths = [0];
    for (let i = 1; i < x.length; i += 1) {
      const [[ax, ay], [bx, by]] = [at(i - 1), at(i)];
      lengths.push(lengths[i - 1] + (Number.isFinite(ax + ay + bx + by) ? Math.hypot(bx - ax, by - ay) : 0));
    }
    const total = lengths[lengths.length - 1];
    for (let k = 1; k <= ARROWS && total > 0; k += 1) {
      const i = lengths.findIndex((v) => v >= (total * k) / (ARROWS + 1));
      if (i < 1) continue;
      const [[ax, ay], [bx, by]] = [at(i - 1), at(i)];
      arrow(view, (ax + bx) / 2, (ay + by) / 2, bx - ax, by - ay, { colour: colourAt(i), size: 6 });
    }
  }

  #ends(view, path, { x, y }) {
    if (!x.length) return;
    const end = x.length - 1;
    dot(view, view.X(x[0]), view.Y(y[0]), { colour: path.colour ?? '#000000', radius: 4.5, hollow: true });
    dot(view, view.X(x[end]), view.Y(y[end]), { colour: path.colour ?? '#000000', radius: 4.5 });
  }

  #read(view, left, top) {
    let best = null;
    for (const path of this.model.paths) {
      const all = [...(path.members ?? []).map((one, m) => [one, `member ${m}`]), [path.centre, path.centreWord]];
      for (const [one, words] of all) {
        for (let i = 0; i < one.x.length; i += 1) {
          if (one.x[i] == null || one.y[i] == null) continue;
          const away = Math.hypot(view.X(one.x[i]) - left, view.Y(one.y[i]) - top);
          if (!best || away < best.away) best = { away, path, one, words, i };
        }
      }
    }
    if (!best || best.away > 40) return null;
    const { path, one, words, i } = best;
    const { x, y } = this.model;
    return {
      left: view.X(one.x[i]),
      top: view.Y(one.y[i]),
      content: [
        el('p', { class: 'at' }, `${path.label}, ${words}`),
        el('p', {}, `${exact(path.sequences[i])} sequences`),
        el('p', {}, `${y.label} ${number(one.y[i])}, ${x.label} ${number(one.x[i])}`),
      ],
    };
  }

  #fillTable() {
    if (!this.table.open) return;
    const { paths, x, y, title } = this.model;
    const rows = paths.flatMap((path) =>
      path.sequences.map((at, i) => [
        path.label,
        exact(at),
        number(path.centre.x[i]),
        number(path.centre.y[i]),
        String(path.members ? path.members.filter((one) => one.x[i] != null && one.y[i] != null).length : path.total),
      ]),
    );
    const every = Math.ceil(rows.length / MOST_ROWS) || 1;
    refill(
      (this.tableBody ??= this.table.appendChild(
        el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Data of the chart' }),
      )),
      every > 1 && el('p', { class: 'note' }, `Every ${every}th evaluation of ${exact(rows.length)}.`),
      dataTable(
        title,
        ['run', 'sequences', `${x.label}, ${paths[0]?.centreWord}`, `${y.label}, ${paths[0]?.centreWord}`, 'N'],
        rows.filter((_, i) => i % every === 0),
      ),
    );
  }
}
