// A pair of axes that can be zoomed and read off, by uPlot. What is drawn in it is the business of a painter.

import { el } from './dom.js';
import { variable } from './palette.js';
import { short } from './text.js';

const uPlot = window.uPlot;
const SMALLEST_DRAG = 6;
const MARGIN = 1.05;

/** Plots beside one another share the place of the cursor, and nothing else. */
const isMove = (type) => type === 'mousemove' || type === 'mouseleave';

/** Axis kinds. `symlog`: linear below a threshold, logarithmic above, so that 0 has its place. */
function scaleOf(kind, threshold) {
  if (kind === 'log') return { distr: 100, fwd: (v) => Math.log10(Math.max(v, 1e-300)), bwd: (v) => 10 ** v };
  if (kind === 'symlog') {
    return {
      distr: 100,
      fwd: (v) => (v <= threshold ? v / threshold : 1 + Math.log10(v / threshold)),
      bwd: (v) => (v <= 1 ? v * threshold : threshold * 10 ** (v - 1)),
    };
  }
  return { distr: 1 };
}

/** Ticks of a logarithmic axis between two values: powers of ten, and 2 and 5 times these where there are few. */
function logTicks(low, high, room, threshold) {
  const found = threshold && low <= 0 ? [0] : [];
  const first = Math.floor(Math.log10(threshold && low < threshold ? threshold : Math.max(low, 1e-300)));
  const decades = [];
  for (let d = first; 10 ** d <= high; d += 1) decades.push(d);
  const factors = decades.length * 3 <= room ? [1, 2, 5] : [1];
  const step = Math.max(1, Math.ceil(decades.length / Math.max(room, 2)));
  for (const d of decades) {
    if (d % step === 0)
      found.push(...factors.map((f) => f * 10 ** d).filter((v) => v >= Math.max(low, threshold || 0) && v <= high));
  }
  return found;
}

const DIGITS = '\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079';
const raised = (power) =>
  String(power)
    .replace('-', '\u207b')
    .replace(/\d/g, (digit) => DIGITS[digit]);

/** Labels of ticks: k and M; small powers of ten as powers; as many digits as tell neighbours apart. */
function tickLabels(ticks, log = false) {
  const step = ticks.length > 1 ? Math.min(...ticks.slice(1).map((v, i) => Math.abs(v - ticks[i]))) : 0;
  const largest = Math.max(...ticks.map(Math.abs));
  if (!log && largest < 10 && step >= 0.001) {
    // decimals of the step, the same for all
    const decimals = [0, 1, 2, 3].find((d) =>
      ticks.every((v) => Math.abs(v * 10 ** d - Math.round(v * 10 ** d)) < 1e-6),
    );
    if (decimals != null) return ticks.map((v) => v.toFixed(decimals));
  }
  const write = (v, digits) => {
    const power = Math.log10(Math.abs(v));
    if (v !== 0 && power < -2.5 && Math.abs(power - Math.round(power)) < 1e-9) return `10${raised(Math.round(power))}`;
    return v !== 0 && Math.abs(v) < 1e-3 ? v.toExponential(0) : short(v, digits);
  };
  for (const digits of [3, 4, 5, 6]) {
    const words = ticks.map((v) => (v == null ? null : write(v, digits)));
    if (new Set(words).size === words.length) return words;
  }
  return ticks.map((v) => (v == null ? null : String(v)));
}

/** Lowest and highest with a little room, for an axis of this kind. */
export function padded(low, high, kind) {
  if (!Number.isFinite(low) || !Number.isFinite(high)) return kind === 'log' ? [0.1, 1] : [0, 1];
  if (kind === 'log') return low === high ? [low / 2, high * 2] : [low / 1.15, high * 1.15];
  const room = (high - low) * (MARGIN - 1) || Math.abs(high) * 0.1 || 0.5;
  return [low - room, high + room];
}

/** Axes in `host`. `options`: `height`; `x` and `y`: {label, kind, threshold, limits, ticks: [[value, words]]};
 * `paint(view)` draws, with `view.X` and `view.Y` from values to pixels of the canvas; `read(view, left, top)` says
 * what lies at a place as {left, top, content} or null; `step(view, from, by)` the place of the next point, for the
 * keyboard; `onZoom(limits)` when the reader chooses limits (null: all); `sync`, a name shared by plots whose cursors
 * move together. */
export class Plot {
  constructor(host, options) {
    this.host = host;
    this.options = options;
    this.limits = null;
    this.readout = el('div', { class: 'readout', hidden: true });
    this.said = el('p', { class: 'hidden', 'aria-live': 'polite' });
    host.tabIndex = 0;
    this.watch = new ResizeObserver(() => this.#resize());
    this.repaint = () => this.redraw();
    addEventListener('themechange', this.repaint);
    host.addEventListener('keydown', (event) => this.#key(event));
    host.addEventListener('blur', () => {
      if (this.byKey) this.#hide();
    });
    this.#build();
    this.watch.observe(host);
  }

  /** Takes new options. The chosen limits stay, unless the kind or the meaning of an axis changes. */
  update(options) {
    const meaning = (one) =>
      JSON.stringify([one.x.kind, one.x.label, one.x.threshold, one.y.kind, one.y.label, one.height, one.x.ticks]);
    const same = meaning(options) === meaning(this.options);
    this.options = options;
    if (!same) {
      this.u.destroy();
      this.#build();
      return;
    }
    this.#apply();
  }

  /** Chooses limits {x: [a, b], y: [a, b]}; an axis left out, and null, show everything. */
  zoom(limits) {
    this.limits = limits;
    this.#apply();
  }

  /** Draws again, with the colours of now. */
  redraw() {
    this.u.redraw(false, true);
  }

  destroy() {
    this.watch.disconnect();
    removeEventListener('themechange', this.repaint);
    this.u.destroy();
  }

  #build() {
    const { x, y, height, sync } = this.options;
    const soft = () => variable('--soft');
    const line = () => variable('--line');
    const axis = (one, space) => ({
      stroke: soft,
      font: '12px system-ui, sans-serif',
      labelFont: '12px system-ui, sans-serif',
      label: one.label,
      labelSize: 18,
      labelGap: 2,
      gap: 4,
      space,
      ticks: { size: 4, stroke: line, width: 1 },
      border: { show: true, stroke: soft, width: 1 },
      values: (u, ticks) => (one.kind === 'linear' ? tickLabels(ticks) : tickLabels(ticks, true)),
      filter: (u, ticks) => ticks,
      ...(one.ticks
        ? {
            splits: () => one.ticks.map(([at]) => at),
            values: () => one.ticks.map(([, words]) => words),
          }
        : one.kind === 'linear'
          ? {}
          : {
              splits: (u, index, low, high) => logTicks(low, high, index ? u.height / 32 : u.width / 70, one.threshold),
            }),
    });
    const range = (which) => () => this.#shownLimits()[which];
    this.u = new uPlot(
      {
        width: Math.max(this.host.clientWidth, 120),
        height,
        legend: { show: false },
        padding: [10, 14, 0, 0],
        scales: {
          x: { time: false, auto: false, range: range('x'), ...scaleOf(x.kind, x.threshold) },
          y: { auto: false, range: range('y'), ...scaleOf(y.kind, y.threshold) },
        },
        series: [{}, { scale: 'y', paths: () => null, points: { show: false } }],
        axes: [
          { ...axis(x, 64), size: 28, grid: { show: false } },
          {
            ...axis(y, 36),
            size: (u, words) => (words ? 12 + 7 * Math.max(...words.map((w) => w?.length ?? 0)) : 40),
            grid: { stroke: line, width: 1 },
          },
        ],
        cursor: {
          drag: { x: true, y: true, uni: 24, dist: SMALLEST_DRAG, setScale: false },
          points: { show: false },
          y: false,
          ...(sync
            ? { sync: { key: sync, scales: ['x', null], setSeries: false, filters: { pub: isMove, sub: isMove } } }
            : {}),
          bind: {
            dblclick: () => () => {
              this.options.onZoom?.(null);
              return null;
            },
          },
        },
        hooks: {
          draw: [(u) => this.#paint(u)],
          setCursor: [(u) => this.#move(u)],
          setSelect: [(u) => this.#selected(u)],
        },
      },
      [
        [0, 1],
        [null, null],
      ],
      this.host,
    );
    this.host.append(this.readout, this.said);
    this.u.over.addEventListener('mouseleave', () => this.#hide());
    this.u.over.addEventListener('mouseenter', () => {
      this.inside = true;
    });
    this.#note();
  }

  #shownLimits() {
    return { x: this.limits?.x ?? this.options.x.limits, y: this.limits?.y ?? this.options.y.limits };
  }

  #apply() {
    const { x, y } = this.#shownLimits();
    this.u.batch(() => {
      this.u.setScale('x', { min: x[0], max: x[1] });
      this.u.setScale('y', { min: y[0], max: y[1] });
    });
    this.u.redraw(false, true);
    this.#note();
    if (!this.readout.hidden && this.inside) this.#move(this.u);
  }

  /** Writes the limits that are shown into the element, for scripts that read the page. */
  #note() {
    const { x, y } = this.#shownLimits();
    Object.assign(this.host.dataset, {
      xMin: x[0],
      xMax: x[1],
      yMin: y[0],
      yMax: y[1],
      xKind: this.options.x.kind,
      zoomed: this.limits ? 'yes' : 'no',
    });
  }

  #resize() {
    const width = this.host.clientWidth;
    if (width > 0 && width !== this.u.width) this.u.setSize({ width, height: this.options.height });
  }

  /** The mapping from values to pixels: of the canvas, or (`css`) of the plotting area. */
  #view(u, css = false) {
    const { left, top, width, height } = css
      ? { left: 0, top: 0, width: u.over.clientWidth, height: u.over.clientHeight }
      : u.bbox;
    const { x, y } = u.scales;
    const fx = x.fwd ?? ((v) => v);
    const fy = y.fwd ?? ((v) => v);
    const [kx, ky] = [width / (x._max - x._min), height / (y._max - y._min)];
    return {
      X: (v) => left + (fx(v) - x._min) * kx,
      Y: (v) => top + height - (fy(v) - y._min) * ky,
      left,
      top,
      width,
      height,
      ctx: u.ctx,
      pixel: css ? 1 : devicePixelRatio,
      xValue: (at) => u.posToVal(at, 'x'),
    };
  }

  #paint(u) {
    const view = this.#view(u);
    const { ctx } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(view.left, view.top, view.width, view.height);
    ctx.clip();
    this.options.paint(view);
    ctx.restore();
  }

  #selected(u) {
    const { left, top, width, height } = u.select;
    if (width < 1 && height < 1) return;
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    if (width < SMALLEST_DRAG && height < SMALLEST_DRAG) return;
    const all = { width: u.over.clientWidth, height: u.over.clientHeight };
    const limits = {};
    if (width >= SMALLEST_DRAG && width < all.width) limits.x = [u.posToVal(left, 'x'), u.posToVal(left + width, 'x')];
    if (height >= SMALLEST_DRAG && height < all.height)
      limits.y = [u.posToVal(top + height, 'y'), u.posToVal(top, 'y')];
    if (limits.x || limits.y) this.options.onZoom?.({ ...(this.limits ?? {}), ...limits });
  }

  #move(u) {
    const { left, top } = u.cursor;
    if (!this.inside && !this.byKey) return; // moved by a plot beside this one
    if (left == null || left < 0) return;
    this.#tell(this.options.read?.(this.#view(u, true), left, top));
  }

  #tell(found) {
    if (!found) {
      this.readout.hidden = true;
      return;
    }
    this.at = found;
    this.readout.replaceChildren(...[found.content].flat());
    this.readout.hidden = false;
    const over = this.u.over;
    const wide = this.readout.offsetWidth;
    const high = this.readout.offsetHeight;
    const page = this.host.getBoundingClientRect().left;
    const at = over.offsetLeft + found.left;
    const room = document.documentElement.clientWidth - 8;
    const x = page + at + 14 + wide <= room ? at + 14 : at - 14 - wide;
    const y =
      over.offsetTop + Math.min(Math.max((found.top ?? 0) - high / 2, 0), Math.max(over.clientHeight - high, 0));
    this.readout.style.left = `${Math.min(Math.max(x, 8 - page), room - page - wide)}px`;
    this.readout.style.top = `${y}px`;
  }

  #hide() {
    this.inside = false;
    this.byKey = false;
    this.readout.hidden = true;
    if (this.u.cursor.left >= 0) this.u.setCursor({ left: -10, top: -10 }, false);
  }

  #key(event) {
    if (event.target !== this.host) return;
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === 'Escape') {
      if (!this.readout.hidden) this.#hide();
      else if (this.limits) this.options.onZoom?.(null);
      else return;
    } else if ((event.key === '+' || event.key === '-') && !event.ctrlKey && !event.metaKey) {
      this.#zoomBy(event.key === '+' ? 0.5 : 2);
    } else if (by && this.options.step) {
      const view = this.#view(this.u, true);
      const left = this.options.step(view, this.readout.hidden ? null : this.at.left, event.shiftKey ? 10 * by : by);
      if (left == null) return;
      this.byKey = true;
      this.u.setCursor({ left, top: view.height / 2 }, true);
      this.said.textContent = this.readout.textContent;
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #zoomBy(factor) {
    const { x } = this.#shownLimits();
    const [low, high] = this.options.x.limits;
    const scale = this.u.scales.x;
    const [fwd, bwd] = [scale.fwd ?? ((v) => v), scale.bwd ?? ((v) => v)];
    const [a, b] = x.map(fwd);
    const middle = this.readout.hidden ? (a + b) / 2 : fwd(this.u.posToVal(this.at.left, 'x'));
    const half = ((b - a) / 2) * factor;
    if (2 * half >= fwd(high) - fwd(low)) {
      this.options.onZoom?.(null);
      return;
    }
    this.options.onZoom?.({
      ...(this.limits ?? {}),
      x: [Math.max(bwd(middle - half), low), Math.min(bwd(middle + half), high)],
    });
  }
}
