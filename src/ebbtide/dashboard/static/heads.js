// Heads by time: a heat map per member of what `ebbtide probe` wrote.

import { select } from './controls.js';
import { el, setText } from './dom.js';
import { diverging, viridis } from './palette.js';
import { dataTable } from './table.js';
import { exact, number, plural, short } from './text.js';

const FIRST_SHOWN = 12;
const CELL = 14;

/** The rows of a member's map as {words, values [checkpoint]}: heads by layer, or what else the measure has an axis of;
 * rows without any number are left out. `order` holds the numbers of heads that the server has sorted. */
function rowsOf({ axes, values, order }, member) {
  const walk = (one, path) => (Array.isArray(one) ? one.flatMap((inner, i) => walk(inner, [...path, i])) : [path]);
  const paths = values.length ? walk(values[0][member], []) : [];
  const at = (one, path) => path.reduce((inner, i) => inner?.[i], one) ?? null;
  return paths
    .map((path) => {
      const own = order ? [...path.slice(0, -1), at(order[member], path)] : path;
      return {
        words: axes[0] === 'prompt' ? 'mean' : own.join(':') || 'all',
        values: values.map((time) => at(time[member], path)),
      };
    })
    .filter((row) => row.values.some((v) => v != null));
}

/** Heat maps of the probes of a run in `root`; they are asked for when the section is opened. Returns `update(about)`
 * for news of the run. */
export function heads(root, name, api) {
  let probe = null;
  let stop = () => {};
  let everyone = false;
  const chooser = select('Measure of heads', [], '', (own) => {
    probe = own;
    follow();
  });
  const words = el('p', { class: 'note' });
  const scale = el('div', { class: 'timescale' });
  const grid = el('div', { class: 'heads' });
  const section = el(
    'section',
    { class: 'block', hidden: true },
    el('h2', {}, 'Heads over training'),
    el('div', { class: 'toolbar' }, chooser.element),
    words,
    scale,
    grid,
  );
  root.append(section);

  function follow() {
    stop();
    stop = api.follow('/api/probe', { name, probe }, show, (error) => setText(words, error.message));
  }

  function show(data) {
    const { values, sequences, axes } = data;
    const measure = data.measure.replaceAll('_', ' ');
    const unit = data.unit || measure;
    const members = values[0]?.length ?? 0;
    const numbers = values.flat(3).filter((v) => v != null);
    let low = Infinity;
    let high = -Infinity;
    for (const v of numbers) {
      if (v < low) low = v;
      if (v > high) high = v;
    }
    if (/accuracy/.test(unit)) [low, high] = [0, 1];
    const signed = low < 0 && high > 0;
    if (signed) {
      high = Math.max(-low, high);
      low = -high;
    }
    const colour = (v) => (signed ? diverging : viridis)(high > low ? (v - low) / (high - low) : 0.5);
    const sortedWords = data.order
      ? ` Sorted within each member and layer by the value at the end; ${axes.join(':')} are the member's own numbers.`
      : data.averaged
        ? ` Averaged ${data.averaged}.`
        : '';
    setText(
      words,
      `${data.what || measure}: ${plural(members, 'member')}, ${plural(values.length, 'checkpoint')}.${sortedWords}`,
    );
    const bar = el('canvas', { width: 100, height: 6, 'aria-hidden': 'true' });
    const ink = bar.getContext('2d');
    for (let i = 0; i < 100; i += 1) {
      ink.fillStyle = colour(low + ((high - low) * i) / 99);
      ink.fillRect(i, 0, 1, 6);
    }
    scale.replaceChildren(el('span', {}, number(low)), bar, el('span', {}, `${number(high)} (${unit})`));
    const count = everyone ? members : Math.min(members, FIRST_SHOWN);
    const maps = Array.from({ length: count }, (_, m) => map(m, rowsOf(data, m), sequences, colour, measure));
    const more =
      count < members &&
      el(
        'button',
        {
          type: 'button',
          onclick: () => {
            everyone = true;
            show(data);
          },
        },
        `Show all ${members} members (${count} are shown)`,
      );
    const focused = grid.contains(document.activeElement);
    if (!focused) grid.replaceChildren(...maps, ...(more ? [more] : []));
  }

  return (about) => {
    const probes = about.probes ?? [];
    section.hidden = !probes.length;
    if (!probes.length) return;
    if (!probes.some((one) => one.name === probe)) {
      probe = probes[0].name;
      follow();
    }
    chooser.fill(
      probes.map((one) => [one.name, `${one.measure.replaceAll('_', ' ')} on ${one.evaluator}`]),
      probe,
    );
  };
}

function map(member, rows, sequences, colour, measure) {
  const canvas = el('canvas', { width: sequences.length, height: Math.max(rows.length, 1), role: 'img' });
  canvas.style.height = `${Math.max(rows.length * CELL, CELL)}px`;
  const ctx = canvas.getContext('2d');
  rows.forEach(({ values }, r) =>
    values.forEach((v, t) => {
      if (v == null) return;
      ctx.fillStyle = colour(v);
      ctx.fillRect(t, r, 1, 1);
    }),
  );
  const end = sequences.length - 1;
  const top = rows.filter((row) => row.values[end] != null).sort((a, b) => b.values[end] - a.values[end])[0];
  canvas.setAttribute(
    'aria-label',
    `Member ${member}: ${measure} of ${plural(rows.length, 'head')} at ${plural(sequences.length, 'checkpoint')}; ` +
      (top ? `largest at the end ${number(top.values[end])}, ${top.words}` : 'no finite value at the end'),
  );
  const at = el('p', { class: 'note', 'aria-live': 'off' }, '\u00a0');
  canvas.addEventListener('mousemove', (event) => {
    const box = canvas.getBoundingClientRect();
    const t = Math.min(end, Math.floor(((event.clientX - box.left) / box.width) * sequences.length));
    const row = rows[Math.min(rows.length - 1, Math.floor(((event.clientY - box.top) / box.height) * rows.length))];
    if (row) setText(at, `${row.words} at ${short(sequences[t])}: ${number(row.values[t])}`);
  });
  canvas.addEventListener('mouseleave', () => setText(at, '\u00a0'));
  const labels = el('ol', { class: 'rows', 'aria-hidden': 'true' }, ...rows.map((row) => el('li', {}, row.words)));
  const table = el('details', { class: 'data' }, el('summary', {}, 'Show as table'));
  table.addEventListener('toggle', () => {
    if (!table.open || table.children.length > 1) return;
    const body = rows.map((row) => [row.words, ...row.values.map(number)]);
    table.append(
      el(
        'div',
        { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': `Values of member ${member}` },
        dataTable(`Member ${member}`, ['row', ...sequences.map(exact)], body),
      ),
    );
  });
  return el(
    'figure',
    { class: 'map' },
    el('figcaption', {}, el('h3', {}, `Member ${member}`)),
    el('div', { class: 'heat' }, labels, canvas),
    el(
      'p',
      { class: 'ends', 'aria-hidden': 'true' },
      el('span', {}, short(sequences[0])),
      el('span', {}, `${short(sequences[end])} sequences`),
    ),
    at,
    table,
  );
}
