// The slider over checkpoints, with two strips above it: what every member answers to the prompt at each checkpoint,
// and what members do with all prompts of the evaluator.

import { el, setText } from './dom.js';
import { shown, variable } from './palette.js';
import { drawLine, fillCell, prepare } from './prompts_draw.js';
import { legendOf, lineLegend, look } from './prompts_kinds.js';
import { exact, number, plural, short } from './text.js';

const THUMB = 18;
const TALLEST = 170;
const LINES = { ICL: ['#0072B2', []], CIWL: ['#E69F00', [8, 3]], IWL: ['#D55E00', [3, 2]], right: ['#009E73', [], 6], error: ['#009E73', []] };
const PREDICTORS = [['#8a8f98', [6, 3]], ['#CC79A7', [2, 2]]];

/** The slider and its strips in `root`; `onPick(place)` is called with the place of the chosen checkpoint. */
export class Strips {
  constructor(root, onPick) {
    Object.assign(this, { onPick, state: null });
    this.grid = el('canvas', { role: 'img' });
    this.lines = el('canvas', { role: 'img' });
    this.slider = el('input', { type: 'range', min: 0, max: 0, value: 0, class: 'time', 'aria-label': 'Checkpoint', oninput: () => onPick(Number(this.slider.value)) });
    this.where = el('output', { class: 'where' });
    this.kinds = el('div', {});
    this.now = el('p', { class: 'now', 'aria-live': 'polite' });
    this.all = el('p', { class: 'now' });
    this.aside = el('p', { class: 'note' });
    this.gridTitle = el('h3', {});
    this.lineTitle = el('h3', {});
    this.lineKinds = el('div', {});
    this.ends = el('p', { class: 'ends', 'aria-hidden': 'true' });
    this.element = el('section', { class: 'block strips', 'aria-label': 'Over training' },
      el('div', { class: 'strip-head' }, this.gridTitle, this.kinds), this.grid,
      this.slider, this.ends, this.where, this.now, this.aside,
      el('div', { class: 'strip-head' }, this.lineTitle, this.lineKinds), this.lines, this.all);
    root.append(this.element);
    for (const canvas of [this.grid, this.lines]) {
      const pick = (event) => this.#pick(canvas, event);
      canvas.addEventListener('pointerdown', (event) => { canvas.setPointerCapture(event.pointerId); pick(event); });
      canvas.addEventListener('pointermove', (event) => { if (event.buttons) pick(event); });
    }
    new ResizeObserver(() => this.#draw()).observe(this.element);
  }

  /** Shows {checkpoints, place, batch, kind, members, rows, worst, summary}: rows and the summary's by sequences. */
  update(state) {
    this.state = state;
    const { checkpoints, place, batch } = state;
    this.slider.max = checkpoints.length - 1;
    if (Number(this.slider.value) !== place) this.slider.value = place;
    const at = checkpoints[place];
    const words = `${exact(at)} sequences, step ${exact(at / batch)}, checkpoint ${place + 1} of ${checkpoints.length}`;
    setText(this.where, words);
    this.slider.setAttribute('aria-valuetext', words);
    this.ends.replaceChildren(el('span', {}, short(checkpoints[0])), el('span', {}, `${short(checkpoints.at(-1))} sequences`));
    setText(this.gridTitle, `Answers of ${plural(state.members.length, 'member')} to this prompt`);
    const kinds = JSON.stringify([state.kind, state.worst, document.documentElement.dataset.theme]);
    if (kinds !== this.kindsKey) this.kinds.replaceChildren(state.kind ? legendOf(state.kind, state.worst) : '');
    this.kindsKey = kinds;
    setText(this.now, this.#nowWords());
    this.#summarise();
    this.#draw();
  }

  #pick(canvas, event) {
    const { checkpoints } = this.state ?? {};
    if (!checkpoints) return;
    const box = canvas.getBoundingClientRect();
    const share = (event.clientX - box.left - THUMB / 2) / Math.max(box.width - THUMB, 1);
    this.onPick(Math.min(checkpoints.length - 1, Math.max(0, Math.round(share * (checkpoints.length - 1)))));
  }

  /** The answers at the chosen checkpoint, counted. */
  #nowWords() {
    const { rows, checkpoints, place, kind, worst, members } = this.state;
    const row = rows.get(checkpoints[place]);
    if (!row) return '\u00a0';
    if (row.problem) return `This checkpoint is damaged: ${row.problem}`;
    if (kind === 'number' || kind === 'vector') {
      const errors = row.answers.filter((one) => !one.diverged).map((one) => one.error);
      const mean = errors.reduce((a, b) => a + b, 0) / errors.length;
      return `Mean squared error over ${plural(members.length, 'member')}: ${number(mean)}`;
    }
    const counts = new Map();
    for (const one of row.answers) {
      const { words } = look(one, worst);
      const all = one.kind ? `${words} (${one.right ? 'right' : 'wrong'})` : words;
      counts.set(all, (counts.get(all) ?? 0) + 1);
    }
    const parts = [...counts].sort((a, b) => b[1] - a[1]);
    const verb = kind === 'fewshot' ? ' answer with' : ' are';
    return `Of ${plural(row.answers.length, 'member')}, ${parts.map(([words, count], i) => `${count}${i ? '' : count === 1 ? verb.replace('answer', 'answers').replace('are', 'is') : verb} ${i && kind === 'fewshot' ? 'with ' : ''}${words}`).join(', ')}.`;
  }

  #summarise() {
    const { summary, checkpoints, place, kind } = this.state;
    const names = summary ? Object.keys([...summary.rows.values()].find((row) => row.shares)?.shares ?? {}) : [];
    this.names = names;
    const has = names.length > 0;
    setText(this.lineTitle, has ? this.#title(summary.fixed) : 'All prompts of this evaluator: not counted yet');
    const entries = names.map((name) => [...this.#line(name), lineWords(name)]);
    const predictors = Object.entries(summary?.fixed.predictors ?? {});
    predictors.forEach(([name], i) => entries.push([...PREDICTORS[i % 2], name]));
    this.lineKinds.replaceChildren(lineLegend(entries));
    const row = summary?.rows.get(checkpoints[place]);
    if (!row?.shares) {
      setText(this.all, row?.problem ? `Damaged: ${row.problem}` : '\u00a0');
      return;
    }
    const parts = names.map((name) => `${lineWords(name)} ${valueWords(name, mean(row.shares[name]))}`);
    const theirs = predictors.map(([name, value]) => `${name} ${number(value)}`);
    setText(this.all, `At this checkpoint: ${[...parts, ...theirs].join(', ')}${kind === 'fewshot' ? ' of answers' : ''}`);
  }

  /** Colour, dash and width of a line; a line that is alone is not a broad one below others. */
  #line(name) {
    const [colour, dash, width] = LINES[name];
    return this.names.length > 1 && width ? [colour, dash, width] : [colour, dash, 1.8];
  }

  #title(fixed) {
    const some = fixed.used < fixed.prompts ? `the first ${fixed.used} of ${fixed.prompts}` : `all ${fixed.used}`;
    const who = fixed.members.length < fixed.all ? `${fixed.members.length} of ${fixed.all} members` : plural(fixed.members.length, 'member');
    return `Over ${some} prompts, mean of ${who}`;
  }

  #draw() {
    if (!this.state) return;
    const width = this.element.querySelector('.ends').clientWidth;
    if (!width) return;
    this.#drawGrid(width);
    this.#drawLines(width);
  }

  #x(width, i) {
    const last = Math.max(this.state.checkpoints.length - 1, 1);
    return THUMB / 2 + (i / last) * (width - THUMB);
  }

  #mark(ctx, width, height) {
    const x = this.#x(width, this.state.place);
    ctx.fillStyle = variable('--ink');
    ctx.fillRect(x - 0.75, 0, 1.5, height);
  }

  #drawGrid(width) {
    const { checkpoints, rows, members, worst, chosen } = this.state;
    const each = Math.max(1, Math.min(16, TALLEST / Math.max(members.length, 1)));
    const height = Math.max(16, each * members.length);
    const ctx = prepare(this.grid, width, height);
    const wide = checkpoints.length > 1 ? (width - THUMB) / (checkpoints.length - 1) : width - THUMB;
    checkpoints.forEach((at, i) => {
      const row = rows.get(at);
      const left = Math.max(0, this.#x(width, i) - wide / 2);
      const right = Math.min(width, this.#x(width, i) + wide / 2);
      if (!row || row.problem) {
        ctx.fillStyle = variable('--plain-back');
        ctx.fillRect(left, 0, right - left - 1, height);
        return;
      }
      const gap = each > 5 ? 1 : 0;
      row.answers.forEach((one, m) => {
        const { colour, wrong } = look(one, worst);
        fillCell(ctx, left, m * each, right - left - (wide > 4 ? 1 : 0), each - gap, colour, wrong);
      });
    });
    if (members.length > 1) {
      const m = members.indexOf(chosen);
      ctx.fillStyle = variable('--ink');
      if (m >= 0) ctx.fillRect(0, m * each, 3, Math.max(each - 1, 1));
    }
    this.#mark(ctx, width, height);
    this.grid.setAttribute('aria-label', `Answers of ${plural(members.length, 'member')} (rows) at ${plural(checkpoints.length, 'checkpoint')} (columns). ${this.now.textContent}`);
  }

  #drawLines(width) {
    const { checkpoints, summary } = this.state;
    const height = 64;
    const ctx = prepare(this.lines, width, height);
    ctx.fillStyle = variable('--line');
    for (const y of [0.5, height / 2, height - 0.5]) ctx.fillRect(0, y - 0.5, width, 1);
    const at = (name) => checkpoints.map((one) => mean(summary?.rows.get(one)?.shares?.[name]));
    const theirs = Object.values(summary?.fixed.predictors ?? {});
    let top = 1;
    if (this.names.includes('error')) top = Math.max(...at('error').filter((v) => v != null), ...theirs, 1e-9);
    const y = (v) => (v == null ? null : height - 2 - (v / top) * (height - 4));
    const order = [...this.names].sort((a, b) => (b === 'right') - (a === 'right')); // the broad one below
    for (const name of order) drawLine(ctx, at(name).map((v, i) => [this.#x(width, i), y(v)]), ...this.#line(name));
    theirs.forEach((v, i) => drawLine(ctx, [[0, y(v)], [width, y(v)]], ...PREDICTORS[i % 2]));
    this.#mark(ctx, width, height);
    ctx.fillStyle = shown('#8a8f98');
    ctx.font = `10px ${variable('--text') || 'sans-serif'}`;
    ctx.textAlign = top === 1 ? 'left' : 'right'; // errors fall, shares rise
    ctx.fillText(top === 1 ? '100 %' : number(top), top === 1 ? 2 : width - 14, 11);
    this.lines.setAttribute('aria-label', this.names.length ? `${this.lineTitle.textContent}, over checkpoints. ${this.all.textContent}` : 'not counted yet');
  }
}

const lineWords = (name) => (name === 'right' ? 'right' : name === 'error' ? 'mean squared error' : `agree with ${name}`);
const valueWords = (name, value) => (name === 'error' ? number(value) : value == null ? '\u2013' : `${(100 * value).toFixed(0)} %`);

/** The mean of the values that are there; null where none is. */
function mean(values) {
  const there = (values ?? []).filter((v) => v != null);
  return there.length ? there.reduce((a, b) => a + b, 0) / there.length : null;
}
