// Heads by time: a heat map per member of what `ebbtide probe` wrote.

import { select } from './controls.js';
import { el, setText } from './dom.js';
import { diverging, viridis } from './palette.js';
import { dataTable } from './table.js';
import { exact, number, plural, short } from './text.js';

const FIRST_SHOWN = 12;
const CELL = 14;

/** The heads of every member and layer, largest value at the end first; where the server has not sorted them. */
function order(values, member, layer, ranked) {
  const end = values[values.length - 1][member][layer];
  const heads = end.map((_, h) => h);
  return ranked ? heads : heads.sort((a, b) => (end[b] ?? -Infinity) - (end[a] ?? -Infinity));
}

/** Heat maps of the probes of a run in `root`; they are asked for when the section is opened. Returns `update(about)`
 * for news of the run. */
export function heads(root, name, api) {
  let probe = null;
  let stop = () => {};
  let everyone = false;
  const chooser = select('Measure', [], '', (own) => { probe = own; follow(); });
  const words = el('p', { class: 'note' });
  const scale = el('div', { class: 'timescale' });
  const grid = el('div', { class: 'heads' });
  const section = el('section', { class: 'block', hidden: true }, el('h2', {}, 'Heads over training'), el('div', { class: 'toolbar' }, chooser.element), words, scale, grid);
  root.append(section);

  function follow() {
    stop();
    stop = api.follow('/api/probe', { name, probe }, show, (error) => setText(words, error.message));
  }

  function show(data) {
    const { values, sequences, unit, measure } = data;
    const members = values[0]?.length ?? 0;
    const numbers = values.flat(3).filter((v) => v != null);
    let low = Infinity;
    let high = -Infinity;
    for (const v of numbers) { if (v < low) low = v; if (v > high) high = v; }
    if (/accuracy/.test(unit)) [low, high] = [0, 1];
    const signed = low < 0 && high > 0;
    if (signed) { high = Math.max(-low, high); low = -high; }
    const colour = (v) => (signed ? diverging : viridis)(high > low ? (v - low) / (high - low) : 0.5);
    setText(words, `${measure}, ${unit}: ${plural(members, 'member')}, ${plural(values.length, 'checkpoint')}. Of each layer the head with the largest value at the end comes first; numbers (layer:head) are the member's own.`);
    const bar = el('canvas', { width: 100, height: 6, 'aria-hidden': 'true' });
    const ink = bar.getContext('2d');
    for (let i = 0; i < 100; i += 1) { ink.fillStyle = colour(low + ((high - low) * i) / 99); ink.fillRect(i, 0, 1, 6); }
    scale.replaceChildren(el('span', {}, number(low)), bar, el('span', {}, `${number(high)} (${unit})`));
    const count = everyone ? members : Math.min(members, FIRST_SHOWN);
    const maps = Array.from({ length: count }, (_, m) => map(m, values, sequences, colour, data.ranked, measure));
    const more = count < members && el('button', { type: 'button', onclick: () => { everyone = true; show(data); } }, `Show all ${members} members (${count} are shown)`);
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
    chooser.fill(probes.map((one) => [one.name, one.what || one.name]), probe);
  };
}

function map(member, values, sequences, colour, ranked, measure) {
  const layers = values[0][member].map((_, layer) => layer)
    .filter((layer) => values.some((time) => time[member][layer].some((v) => v != null)));
  const rows = layers.flatMap((layer) => order(values, member, layer, ranked).map((head) => ({ layer, head })));
  const canvas = el('canvas', { width: values.length, height: Math.max(rows.length, 1), role: 'img' });
  canvas.style.height = `${Math.max(rows.length * CELL, CELL)}px`;
  const ctx = canvas.getContext('2d');
  rows.forEach(({ layer, head }, r) => values.forEach((time, t) => {
    const v = time[member][layer][head];
    if (v == null) return;
    ctx.fillStyle = colour(v);
    ctx.fillRect(t, r, 1, 1);
  }));
  const end = values.length - 1;
  const top = rows.map((row) => ({ ...row, v: values[end][member][row.layer][row.head] })).filter((row) => row.v != null).sort((a, b) => b.v - a.v)[0];
  canvas.setAttribute('aria-label', `Member ${member}: ${measure} of ${rows.length} heads at ${values.length} checkpoints; `
    + (top ? `largest at the end ${number(top.v)}, layer ${top.layer} head ${top.head}` : 'no finite value'));
  const at = el('p', { class: 'note', 'aria-live': 'off' }, '\u00a0');
  canvas.addEventListener('mousemove', (event) => {
    const box = canvas.getBoundingClientRect();
    const t = Math.min(end, Math.floor(((event.clientX - box.left) / box.width) * values.length));
    const row = rows[Math.min(rows.length - 1, Math.floor(((event.clientY - box.top) / box.height) * rows.length))];
    if (row) setText(at, `${row.layer}:${row.head} at ${short(sequences[t])}: ${number(values[t][member][row.layer][row.head])}`);
  });
  canvas.addEventListener('mouseleave', () => setText(at, '\u00a0'));
  const labels = el('ol', { class: 'rows', 'aria-hidden': 'true' }, ...rows.map((row) => el('li', {}, `${row.layer}:${row.head}`)));
  const table = el('details', { class: 'data' }, el('summary', {}, 'Show as table'));
  table.addEventListener('toggle', () => {
    if (!table.open || table.children.length > 1) return;
    const body = rows.map((row) => [`${row.layer}:${row.head}`, ...values.map((time) => number(time[member][row.layer][row.head]))]);
    table.append(el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': `Values of member ${member}` },
      dataTable(`Member ${member}`, ['layer:head', ...sequences.map(exact)], body)));
  });
  return el('figure', { class: 'map' }, el('figcaption', {}, el('h3', {}, `Member ${member}`)), el('div', { class: 'heat' }, labels, canvas),
    el('p', { class: 'ends', 'aria-hidden': 'true' }, el('span', {}, short(sequences[0])), el('span', {}, `${short(sequences[end])} sequences`)), at, table);
}
