// Drawings of single prompts on canvases: characters, coordinates, attention, answers over checkpoints.

import { diverging, shown, variable } from './palette.js';

/** Sizes a canvas in CSS pixels and returns its context, scaled so that one unit is such a pixel. */
export function prepare(canvas, width, height) {
  const dense = devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * dense));
  canvas.height = Math.max(1, Math.round(height * dense));
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const ctx = canvas.getContext('2d');
  ctx.scale(canvas.width / width, canvas.height / height);
  return ctx;
}

function channels(colour) {
  const probe = document.createElement('canvas').getContext('2d');
  probe.fillStyle = colour;
  probe.fillRect(0, 0, 1, 1);
  return probe.getImageData(0, 0, 1, 1).data;
}

/** Draws an image, one byte of ink for each pixel in base64, in the colour of the page's text. */
export function drawImage(canvas, { drawing, side }, size) {
  const ink = Uint8Array.from(atob(drawing), (one) => one.charCodeAt(0));
  const [r, g, b] = channels(variable('--ink'));
  canvas.width = canvas.height = side;
  const ctx = canvas.getContext('2d');
  const image = ctx.createImageData(side, side);
  for (let i = 0; i < side * side; i += 1) image.data.set([r, g, b, ink[i] ?? 0], 4 * i);
  ctx.putImageData(image, 0, 0);
  canvas.style.width = canvas.style.height = `${size}px`;
}

/** Draws coordinates as bars up and down from a middle line; `most` is the size of the longest bar. */
export function drawBars(canvas, values, most, width, height) {
  const ctx = prepare(canvas, width, height);
  const step = width / values.length;
  ctx.fillStyle = variable('--line');
  ctx.fillRect(0, height / 2 - 0.5, width, 1);
  ctx.fillStyle = variable('--ink');
  values.forEach((value, i) => {
    const tall = ((value ?? 0) / (most || 1)) * (height / 2 - 1);
    ctx.fillRect(i * step + step * 0.1, height / 2 - Math.max(tall, 0), Math.max(step * 0.8, 0.6), Math.abs(tall));
  });
}

/** Draws one head's attention: `cells` of [left, width, weight]. Weights may be negative where `most` is given. */
export function drawHeat(canvas, cells, width, height, most) {
  const ctx = prepare(canvas, width, height);
  for (const [left, wide, weight] of cells) {
    if (weight == null) continue;
    ctx.globalAlpha = most ? 1 : Math.min(1, Math.max(0, weight)) ** 0.7;
    ctx.fillStyle = most ? diverging(0.5 - weight / (2 * most)) : shown('#0072B2');
    ctx.fillRect(left + 0.5, 0.5, wide - 1, height - 1);
  }
}

/** Fills a rectangle with a colour; hatched where `wrong`. */
export function fillCell(ctx, x, y, w, h, colour, wrong) {
  ctx.fillStyle = shown(colour);
  ctx.fillRect(x, y, w, h);
  if (!wrong) return;
  ctx.save();
  ctx.beginPath();
  ctx.rect(x, y, w, h);
  ctx.clip();
  ctx.strokeStyle = variable('--card');
  ctx.globalAlpha = 0.75;
  ctx.lineWidth = 1.2;
  ctx.beginPath();
  const lean = h < 4 ? 0 : h; // rows of a pixel or two are hatched by upright lines
  for (let from = x - lean; from < x + w; from += 5) {
    ctx.moveTo(from, y + h);
    ctx.lineTo(from + lean, y);
  }
  ctx.stroke();
  ctx.restore();
}

/** Draws a line through the points that are there. */
export function drawLine(ctx, points, colour, dash = [], width = 1.8) {
  ctx.strokeStyle = shown(colour);
  ctx.lineWidth = width;
  ctx.globalAlpha = width > 3 ? 0.35 : 1;
  ctx.setLineDash(dash);
  ctx.beginPath();
  let pen = false;
  for (const [x, y] of points) {
    if (y == null) { pen = false; continue; }
    if (pen) ctx.lineTo(x, y);
    else ctx.moveTo(x, y);
    pen = true;
  }
  ctx.stroke();
  ctx.setLineDash([]);
  ctx.globalAlpha = 1;
}
