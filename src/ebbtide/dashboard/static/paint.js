// What is drawn between axes: lines, bands, marks. Coordinates that are null or lie outside a logarithm make gaps.

import { shown, variable } from './palette.js';

const ok = (v, log) => v != null && Number.isFinite(v) && (!log || v > 0);

/** Stretches of indices whose values can all be drawn. */
function stretches(xs, series, log) {
  const found = [];
  let from = -1;
  for (let i = 0; i <= xs.length; i += 1) {
    const good = i < xs.length && ok(xs[i], false) && series.every((ys) => ok(ys[i], log));
    if (good && from < 0) from = i;
    if (!good && from >= 0) {
      found.push([from, i]);
      from = -1;
    }
  }
  return found;
}

/** A line through (xs, ys); a point that stands alone becomes a dot. */
export function line(view, xs, ys, { colour, width = 1, alpha = 1, dash = [], log = false }) {
  const { ctx, X, Y, pixel } = view;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = shown(colour);
  ctx.globalAlpha = alpha;
  ctx.lineWidth = width * pixel;
  ctx.lineJoin = 'round';
  ctx.setLineDash(dash.map((one) => one * pixel));
  ctx.beginPath();
  for (const [from, to] of stretches(xs, [ys], log)) {
    ctx.moveTo(X(xs[from]), Y(ys[from]));
    for (let i = from + 1; i < to; i += 1) ctx.lineTo(X(xs[i]), Y(ys[i]));
    if (to - from === 1) dot(view, X(xs[from]), Y(ys[from]), { colour, radius: Math.max(width, 1.2) });
  }
  ctx.stroke();
  ctx.restore();
}

/** A filled band between two curves. */
export function band(view, xs, low, high, { colour, alpha, log = false }) {
  const { ctx, X, Y } = view;
  ctx.save();
  ctx.fillStyle = shown(colour);
  ctx.globalAlpha = alpha;
  for (const [from, to] of stretches(xs, [low, high], log)) {
    ctx.beginPath();
    ctx.moveTo(X(xs[from]), Y(low[from]));
    for (let i = from + 1; i < to; i += 1) ctx.lineTo(X(xs[i]), Y(low[i]));
    for (let i = to - 1; i >= from; i -= 1) ctx.lineTo(X(xs[i]), Y(high[i]));
    ctx.fill();
  }
  ctx.restore();
}

/** A disc at a place in pixels; `hollow` draws its ring. */
export function dot(view, px, py, { colour, radius = 3, alpha = 1, hollow = false }) {
  const { ctx, pixel } = view;
  ctx.save();
  ctx.globalAlpha = alpha;
  ctx.fillStyle = ctx.strokeStyle = shown(colour);
  ctx.lineWidth = 1.4 * pixel;
  ctx.setLineDash([]);
  const path = new Path2D();
  path.arc(px, py, radius * pixel, 0, 2 * Math.PI);
  if (hollow) ctx.stroke(path);
  else ctx.fill(path);
  ctx.restore();
}

/** A triangle at a place in pixels that points up (`up`) or down. */
export function triangle(view, px, py, { colour, size = 4.5, up = true }) {
  const { ctx, pixel } = view;
  const [w, h] = [size * pixel, (up ? -1 : 1) * size * pixel];
  const path = new Path2D();
  path.moveTo(px - w, py - h * 0.7);
  path.lineTo(px + w, py - h * 0.7);
  path.lineTo(px, py + h);
  path.closePath();
  ctx.save();
  ctx.fillStyle = shown(colour);
  ctx.strokeStyle = variable('--card');
  ctx.lineWidth = pixel;
  ctx.fill(path);
  ctx.stroke(path);
  ctx.restore();
}

/** A horizontal dashed line with a word at its right end: below the line, where curves that learn are not, if there is
 * room. */
export function level(view, y, word) {
  const { ctx, pixel } = view;
  const py = view.Y(y);
  ctx.save();
  rule(view, view.left, py, view.left + view.width, py, [2, 3]);
  const below = py + 16 * pixel < view.top + view.height;
  const right = view.left + view.width - 2 * pixel;
  if (word) text(view, word, right, py + (below ? 3 : -2) * pixel, 'right', below ? 'top' : 'bottom');
  ctx.restore();
}

/** A vertical dashed line with words beside it, below its middle: the curves it marks are above. */
export function moment(view, x, words, { dash = [5, 4], row = 0 } = {}) {
  const { pixel } = view;
  const px = view.X(x);
  if (px < view.left || px > view.left + view.width) return;
  rule(view, px, view.top, px, view.top + view.height, dash);
  if (!words) return;
  const right = px < view.left + view.width * 0.62;
  text(
    view,
    words,
    px + (right ? 4 : -4) * pixel,
    view.top + view.height * 0.58 + 14 * row * pixel,
    right ? 'left' : 'right',
    'top',
  );
}

/** A faint vertical strip with a word at its foot. */
export function strip(view, from, to, word, alpha) {
  const { ctx, pixel } = view;
  const [a, b] = [from, to].map((v) => Math.min(Math.max(view.X(v), view.left), view.left + view.width));
  ctx.save();
  ctx.fillStyle = variable('--soft');
  ctx.globalAlpha = alpha;
  ctx.fillRect(a, view.top, b - a, view.height);
  ctx.restore();
  ctx.save();
  setFont(view);
  const fits = ctx.measureText(word).width + 8 * pixel < b - a;
  ctx.restore();
  if (fits) text(view, word, (a + b) / 2, view.top + view.height - 4 * pixel, 'center', 'bottom');
}

/** Words in the middle of empty axes. */
export function notice(view, words) {
  text(view, words, view.left + view.width / 2, view.top + view.height / 2, 'center', 'middle');
}

/** An arrow head at a place in pixels, along a direction. */
export function arrow(view, px, py, dx, dy, { colour, size = 5 }) {
  const { ctx, pixel } = view;
  const length = Math.hypot(dx, dy);
  if (!length) return;
  const [ux, uy, s] = [dx / length, dy / length, size * pixel];
  ctx.save();
  ctx.fillStyle = shown(colour);
  ctx.beginPath();
  ctx.moveTo(px + ux * s, py + uy * s);
  ctx.lineTo(px - ux * s - uy * s * 0.8, py - uy * s + ux * s * 0.8);
  ctx.lineTo(px - ux * s + uy * s * 0.8, py - uy * s - ux * s * 0.8);
  ctx.fill();
  ctx.restore();
}

function setFont(view) {
  view.ctx.font = `${11 * view.pixel}px system-ui, sans-serif`;
}

function text(view, words, px, py, align, baseline) {
  const { ctx } = view;
  ctx.save();
  setFont(view);
  ctx.textAlign = align;
  ctx.textBaseline = baseline;
  ctx.lineJoin = 'round';
  ctx.lineWidth = 3 * view.pixel;
  ctx.strokeStyle = variable('--card');
  ctx.strokeText(words, px, py);
  ctx.fillStyle = variable('--soft');
  ctx.fillText(words, px, py);
  ctx.restore();
}

/** A thin dashed line along an axis, on whole pixels. */
export function rule(view, x0, y0, x1, y1, dash) {
  const { ctx, pixel } = view;
  const width = Math.max(1, Math.round(pixel));
  const whole = (v) => Math.round(v) + (width % 2 ? 0.5 : 0);
  ctx.save();
  ctx.strokeStyle = variable('--soft');
  ctx.lineWidth = width;
  ctx.setLineDash(dash.map((one) => one * pixel));
  ctx.beginPath();
  ctx.moveTo(whole(x0), whole(y0));
  ctx.lineTo(whole(x1), whole(y1));
  ctx.stroke();
  ctx.restore();
}
