// Kinds of answers: their colours, and their words. A kind says where a label comes from, not whether it is right.

import { el, svg } from './dom.js';
import { inkOn, shown, viridis } from './palette.js';
import { number } from './text.js';

/** Kinds of labels in few-shot prompts: [colour, words]. The colours are those of ICL, CIWL and IWL in all figures. */
export const KINDS = {
  context: ['#0072B2', 'a label of the context'],
  both: ['#E69F00', 'the query\u2019s own label, which is in context'],
  own: ['#D55E00', 'the query\u2019s own label, not in context'],
  other: ['#8a8f98', 'another label'],
};
const RIGHT = { true: ['#009E73', 'right'], false: ['#8a8f98', 'wrong'] };
const DIVERGED = ['#000000', 'diverged'];

/** The kind of a label of a prompt: {slots, own_label}, or of a prompt that is known by its labels alone. */
export function kindOf(prompt, label) {
  const labels = prompt.labels ?? prompt.slots.map((slot) => slot.label);
  const inside = labels.includes(label);
  if (label === prompt.own_label) return inside ? 'both' : 'own';
  return inside ? 'context' : 'other';
}

/** The colour of an answer and its words; `fewshot`: whether it is a label with a kind. `worst`: the error that has the
 * palest colour, of answers that are numbers. */
export function look(answer, worst = 1) {
  if (answer.diverged) return { colour: DIVERGED[0], words: DIVERGED[1], wrong: false };
  if (answer.kind) return { colour: KINDS[answer.kind][0], words: KINDS[answer.kind][1], wrong: !answer.right };
  if ('error' in answer) {
    const share = Math.min(1, Math.sqrt((answer.error ?? worst) / (worst || 1)));
    return { colour: viridis(1 - share), words: `squared error ${number(answer.error)}`, wrong: false };
  }
  const [colour, words] = RIGHT[Boolean(answer.right)];
  return { colour, words, wrong: false };
}

/** A label in the colour of its kind; the one that is asked for is framed. */
export function chip(prompt, label, fewshot) {
  const colour = fewshot ? KINDS[kindOf(prompt, label)][0] : '#8a8f98';
  const node = el('span', { class: `label-chip${fewshot && label === prompt.target ? ' asked' : ''}` }, String(label));
  paintNode(node, colour);
  return node;
}

/** Gives a node the ground `colour` (of light pages) and readable ink. */
export function paintNode(node, colour) {
  const now = shown(colour);
  node.style.backgroundColor = now;
  node.style.color = inkOn(rgb(now));
}

const rgb = (hex) => (hex.startsWith('#') ? `rgb(${[1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)).join(', ')})` : hex);

/** A response as words: whole numbers as they are. */
export const plain = (response) => [response].flat().map((v) => (Number.isInteger(v) ? v : number(v))).join(' ');

/** What the colours mean, as a list of squares with words. */
export function legend(entries) {
  return el('ul', { class: 'kinds' }, ...entries.map(([colour, words, hatched]) => {
    const square = el('span', { class: `square${hatched ? ' hatched' : ''}`, 'aria-hidden': 'true' });
    square.style.backgroundColor = shown(colour);
    return el('li', {}, square, words);
  }));
}

/** What lines mean: [colour, dash, width or words, words]. */
export function lineLegend(entries) {
  return el('ul', { class: 'kinds' }, ...entries.map((entry) => {
    const [colour, dash, width] = entry.length > 3 ? entry : [entry[0], entry[1], 2];
    const line = svg('line', { x1: 0, y1: 5, x2: 26, y2: 5, 'stroke-width': width, 'stroke-dasharray': dash.join(' '), 'stroke-opacity': width > 3 ? 0.45 : 1, stroke: shown(colour) });
    return el('li', {}, svg('svg', { class: 'swatch', viewBox: '0 0 26 10', 'aria-hidden': 'true' }, line), entry.at(-1));
  }));
}

/** The legend of the answers to a prompt. */
export function legendOf(kind, worst) {
  if (kind === 'fewshot') return legend([...Object.values(KINDS), ['#8a8f98', 'hatched: wrong', true]]);
  if (kind === 'number' || kind === 'vector') {
    return legend([[viridis(1), 'squared error 0'], [viridis(0.5), number(worst / 4)], [viridis(0), `${number(worst)} or more`]]);
  }
  return legend(Object.values(RIGHT));
}
