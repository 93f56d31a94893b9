// A scalar against an axis of a sweep: members as points, medians as a line.

import { el, refill, setText } from './dom.js';
import { chartFrame } from './frame.js';
import { median } from './groups.js';
import { dot, line, notice } from './paint.js';
import { swatch } from './panel.js';
import { padded, Plot } from './plot.js';
import { dataTable } from './table.js';
import { field, number, plural } from './text.js';

const MOST_TICKS = 12;

/** The places of an axis' values: their size where all are numbers (logarithmic over a wide range), else their
 * order. */
function placesOf(values) {
  const numeric = values.length > 1 && values.every((v) => typeof v === 'number');
  const log = numeric && values.every((v) => v > 0) && Math.max(...values) / Math.min(...values) >= 10;
  const at = (value) => (numeric ? value : values.findIndex((one) => JSON.stringify(one) === JSON.stringify(value)));
  const all = values.map(at);
  const ends = log
    ? [Math.min(...all) / 1.3, Math.max(...all) * 1.3]
    : numeric
      ? padded(Math.min(...all), Math.max(...all))
      : [-0.5, values.length - 0.5];
  const step = Math.ceil(values.length / MOST_TICKS);
  return {
    at,
    kind: log ? 'log' : 'linear',
    limits: ends,
    ticks: values.filter((_, i) => i % step === 0).map((v) => [at(v), field(v)]),
  };
}

/** The chart in a figure. `update(model)`: {title, axis, scalar, values (of the axis), series: [{label, colour, points:
 * [{value, y, words}]}], yLog, height}. */
export class Scatter {
  constructor() {
    Object.assign(this, chartFrame({ onTable: () => this.#fillTable() }));
    this.limits = null;
  }

  update(model) {
    this.model = model;
    this.places = placesOf(model.values);
    setText(this.title, model.title);
    const total = model.series.reduce((sum, one) => sum + one.points.length, 0);
    refill(
      this.legend,
      ...model.series
        .filter((one) => one.label)
        .map((one) =>
          el(
            'span',
            { class: 'entry' },
            swatch(one.colour),
            one.label,
            el('span', { class: 'count' }, `N = ${one.points.length}`),
          ),
        ),
      el('span', { class: 'lines' }, `points: ${plural(total, 'member')}; line: their median`),
    );
    this.host.setAttribute('aria-label', this.summary());
    this.host.dataset.points = total;
    const ys = model.series
      .flatMap((one) => one.points.map((point) => point.y))
      .filter((v) => v != null && (!model.yLog || v > 0));
    const options = {
      height: model.height,
      onZoom: (limits) => {
        this.limits = limits;
        this.plot.zoom(limits);
      },
      x: { label: model.axis, ...this.places },
      y: {
        label: model.scalar,
        kind: model.yLog ? 'log' : 'linear',
        limits: padded(Math.min(...ys), Math.max(...ys), model.yLog ? 'log' : 'linear'),
      },
      paint: (view) => this.#paint(view),
      read: (view, left, top) => this.#read(view, left, top),
    };
    if (this.plot) this.plot.update(options);
    else this.plot = new Plot(this.host, options);
    if (this.table.open) this.#fillTable();
  }

  destroy() {
    this.plot?.destroy();
    this.element.remove();
  }

  summary() {
    const { model } = this;
    const parts = model.series.map(
      (one) =>
        `${one.label ? `${one.label}: ` : ''}${this.#medians(one)
          .map(({ value, y, n }) => `${field(value)} ${number(y)} (N = ${n})`)
          .join(', ')}`,
    );
    return `${model.title}. Median by ${model.axis}: ${parts.join('; ')}.`;
  }

  #medians(series) {
    return this.model.values
      .map((value) => {
        const own = series.points
          .filter((point) => JSON.stringify(point.value) === JSON.stringify(value))
          .map((point) => point.y)
          .filter((v) => v != null);
        return { value, y: median(own), n: own.length };
      })
      .filter((one) => one.n)
      .sort((a, b) => this.places.at(a.value) - this.places.at(b.value));
  }

  #paint(view) {
    const { series, yLog } = this.model;
    if (!series.some((one) => one.points.some((point) => point.y != null))) notice(view, 'no finite number to draw');
    for (const { points, colour } of series) {
      for (const { value, y } of points)
        if (y != null && (!yLog || y > 0))
          dot(view, view.X(this.places.at(value)), view.Y(y), { colour, radius: 3, alpha: 0.55 });
    }
    for (const one of series) {
      const medians = this.#medians(one);
      line(
        view,
        medians.map((m) => this.places.at(m.value)),
        medians.map((m) => m.y),
        { colour: one.colour, width: 2.2, log: yLog },
      );
    }
  }

  #read(view, left, top) {
    let best = null;
    for (const series of this.model.series) {
      for (const point of series.points) {
        if (point.y == null) continue;
        const away = Math.hypot(view.X(this.places.at(point.value)) - left, view.Y(point.y) - top);
        if (!best || away < best.away) best = { away, point, series };
      }
    }
    if (!best || best.away > 40) return null;
    const { point, series } = best;
    const n = this.#medians(series).find((one) => JSON.stringify(one.value) === JSON.stringify(point.value));
    return {
      left: view.X(this.places.at(point.value)),
      top: view.Y(point.y),
      content: [
        el('p', { class: 'at' }, `${this.model.axis} ${field(point.value)}`),
        el('p', {}, `${point.words}: ${number(point.y)}`),
        el('p', { class: 'count' }, `median ${number(n.y)}, N = ${n.n}`),
      ],
    };
  }

  #fillTable() {
    if (!this.table.open) return;
    const rows = this.model.series.flatMap((one) =>
      one.points.map((point) => [field(point.value), ...(one.label ? [one.label] : []), point.words, number(point.y)]),
    );
    const head = [
      this.model.axis,
      ...(this.model.series.some((one) => one.label) ? ['by'] : []),
      'member',
      this.model.scalar,
    ];
    refill(
      (this.tableBody ??= this.table.appendChild(
        el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Data of the chart' }),
      )),
      dataTable(this.model.title, head, rows),
    );
  }
}
