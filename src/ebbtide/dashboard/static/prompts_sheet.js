// One prompt: its slots as columns with what they show, their labels and classes, and below them the attention of the
// query over the context, one row for each head.

import { el, setText } from './dom.js';
import { drawBars, drawHeat, drawImage } from './prompts_draw.js';
import { chip, plain } from './prompts_kinds.js';
import { number } from './text.js';

const TAGS = { bursty: 'copy', distractor: 'distractor', other: '\u00b7', query: 'query' };
const SHORT = { distractor: 'distr.' };
const ROW = 15;

const percent = (v) => `${(100 * v).toFixed(v < 0.0995 && v > 0 ? 1 : 0)} %`;

/** The prompt in `root`; `onHead(head)` is called with the chosen head, [layer, head] or null. */
export class Sheet {
  constructor(root, onHead) {
    Object.assign(this, { onHead, prompt: null, key: null, rows: [] });
    this.title = el('h2', {});
    this.words = el('p', { class: 'asks' });
    this.place = el('div', { class: 'scroll sheet', tabindex: 0, role: 'region', 'aria-label': 'The prompt and its attention' });
    this.detail = el('p', { class: 'note', 'aria-live': 'polite' });
    this.notes = el('div', { class: 'note' });
    this.element = el('section', { class: 'block' }, this.title, this.words, this.place, this.detail, this.notes);
    root.append(this.element);
    addEventListener('themechange', this.redraw = () => { this.key = null; if (this.state) this.update(this.state); });
  }

  /** Shows {prompt, row, head, key}: the fixed parts of an answer, and its row at the chosen checkpoint. */
  update(state) {
    this.state = state;
    if (state.key !== this.key) this.#build(state);
    this.key = state.key;
    this.#attention(state);
  }

  /** Ends what the page would otherwise keep calling. */
  close() {
    removeEventListener('themechange', this.redraw);
  }

  #build({ prompt }) {
    const { slots, kind } = prompt;
    this.prompt = prompt;
    const few = kind === 'fewshot';
    const narrow = matchMedia('(max-width: 46rem)').matches;
    const room = Math.max(this.place.clientWidth - 86, 200) / slots.length;
    const largest = few ? (slots.length <= 3 && !narrow ? 116 : 92) : 72;
    this.width = Math.round(Math.min(largest, Math.max(narrow ? 38 : 44, slots.length <= 6 && !narrow ? largest : room)));
    this.big = this.width - 12;
    setText(this.title, `Prompt ${prompt.index} of ${prompt.evaluator}`);
    this.words.replaceChildren(...this.#asks());
    const held = document.activeElement?.dataset?.head;
    const head = (text, ...cells) => el('tr', {}, el('th', { scope: 'row' }, text), ...cells);
    const cell = (slot, i, ...inner) => el('td', { class: `${i === slots.length - 1 ? 'query' : ''}${slot.same ? ' same' : ''}` }, ...inner);
    const most = Math.max(...slots.flatMap((slot) => (slot.input.coordinates ?? []).map(Math.abs)), 1e-12);
    const pictures = slots.map((slot, i) => cell(slot, i, this.#picture(slot, i, most)));
    const parts = [head('slot', ...slots.map((slot, i) => cell(slot, i, i === slots.length - 1 ? 'query' : String(i + 1)))), head('shows', ...pictures)];
    if (few) {
      parts.push(head(prompt.stream ? 'followed by' : 'label', ...slots.map((slot, i) => cell(slot, i, slot.label == null ? '?' : chip(prompt, slot.label, true)))));
      parts.push(head('class', ...slots.map((slot, i) => cell(slot, i, el('span', { class: slot.same ? 'class same' : 'class' }, String(slot.class))))));
      parts.push(head('role', ...slots.map((slot, i) => cell(slot, i, el('span', { class: 'role' }, (this.width < 56 && SHORT[slot.tag]) || (TAGS[slot.tag] ?? slot.tag))))));
    } else {
      parts.push(head('response', ...slots.map((slot, i) => cell(slot, i, i === slots.length - 1 ? '?' : this.#response(slot)))));
    }
    this.rows = this.#heads();
    const table = el('table', { class: 'prompt' }, el('caption', { class: 'hidden' }, this.title.textContent), el('tbody', {}, ...parts),
      this.rows.length ? el('tbody', { class: 'attention' }, ...this.rows.map((row) => row.element)) : '');
    this.place.replaceChildren(table);
    const columns = table.querySelectorAll('tbody:first-of-type tr:first-child td');
    for (const one of columns) one.style.width = one.style.minWidth = `${this.width}px`;
    if (held) this.place.querySelector(`[data-head="${held}"]`)?.focus();
    this.notes.replaceChildren(...this.#tokenWords(), ...prompt.notes.map((one) => el('p', {}, one)));
  }

  #asks() {
    const { prompt } = this;
    if (prompt.kind !== 'fewshot') {
      return [`The response to the query is ${plain(prompt.target)}; the members predict it from what comes before.`];
    }
    const own = prompt.own_label == null ? ['Training ties no label to the query\u2019s class.'] : ['Training ties ', chip(prompt, prompt.own_label, true), ' to the query\u2019s class.'];
    return ['Asked for: ', chip(prompt, prompt.target, true), '. ', ...own];
  }

  #picture(slot, i, most) {
    const { input } = slot;
    const which = i === this.prompt.slots.length - 1 ? 'the query' : `slot ${i + 1}`;
    const about = slot.class == null ? which : `${which}, exemplar ${slot.exemplar} of class ${slot.class}${slot.same && i < this.prompt.slots.length - 1 ? ', the class of the query' : ''}`;
    if ('symbol' in input) return el('span', { class: 'symbol', role: 'img', 'aria-label': `${about}: symbol ${input.symbol}` }, String(input.symbol));
    const canvas = el('canvas', { role: 'img', 'aria-label': input.drawing ? `Drawing of ${about}` : `Coordinates of ${about}: ${coordinateWords(input)}` });
    if (input.drawing) drawImage(canvas, input, this.big);
    else drawBars(canvas, input.coordinates, most, this.big, 44);
    if (!input.drawing) canvas.title = coordinateWords(input);
    return canvas;
  }

  #response(slot) {
    const { response } = slot;
    if (!slot.present) return 'not shown';
    if (Array.isArray(response)) return el('span', { class: 'small' }, plain(response));
    return this.prompt.kind === 'label' ? chip(this.prompt, response, false) : el('span', { class: 'small' }, Number(response?.toPrecision(3)));
  }

  #heads() {
    const { layers, heads } = this.prompt;
    const rows = [];
    for (let layer = 0; layer < (layers ?? 0); layer += 1) {
      for (let head = 0; head < heads; head += 1) {
        const canvas = el('canvas', { role: 'img' });
        const button = el('button', { type: 'button', 'data-head': `${layer}:${head}`, onclick: () => this.onHead([layer, head]) }, `${layer}:${head}`);
        const cell = el('td', { colspan: this.prompt.slots.length }, canvas);
        canvas.addEventListener('pointerdown', () => this.onHead([layer, head]));
        const element = el('tr', { class: head === 0 ? 'first' : '' }, el('th', { scope: 'row' }, button), cell);
        rows.push({ layer, head, canvas, button, element });
      }
    }
    return rows;
  }

  #tokenWords() {
    const { prompt } = this;
    if (!prompt.layers) return [];
    const two = prompt.tokens.some((one) => one[1] === 'label');
    const what = two ? 'Each slot is two tokens, its exemplar and then its label: two cells of a row.' : prompt.tokens[0]?.[1] === 'pair' ? 'Each slot is one token, the pair.' : 'Each slot is one token.';
    return [el('p', {}, `Rows below the slots: attention of the query over the tokens in every head (layer:head) of member ${prompt.member}. ${what}`)];
  }

  #attention({ prompt, row, head }) {
    const weights = row?.attention;
    for (const one of this.rows) {
      const own = weights?.[one.layer]?.[one.head] ?? [];
      const chosen = head && head[0] === one.layer && head[1] === one.head;
      one.element.classList.toggle('chosen', Boolean(chosen));
      one.button.setAttribute('aria-pressed', chosen ? 'true' : 'false');
      const signed = own.some((v) => v < 0 || v > 1.001);
      const most = signed ? Math.max(...own.map(Math.abs)) : 0;
      const cells = own.map((weight, t) => [...this.#cell(prompt.tokens[t]), weight]);
      drawHeat(one.canvas, cells, this.width * prompt.slots.length, chosen ? ROW + 7 : ROW, most);
      one.canvas.setAttribute('aria-label', `Layer ${one.layer}, head ${one.head}: ${this.#most(own)}`);
    }
    const shown = head && weights?.[head[0]]?.[head[1]];
    setText(this.detail, shown ? `Head ${head[0]}:${head[1]}: ${this.#most(shown, 5)}` : this.rows.length ? 'Choose a head (layer:head) to read its weights.' : '');
  }

  /** Left edge and width of a token's cell. */
  #cell([slot, what]) {
    const two = this.prompt.tokens.some((one) => one[1] === 'label') && slot < this.prompt.slots.length - 1;
    const wide = two ? this.width / 2 : this.width;
    return [slot * this.width + (what === 'label' ? wide : 0), wide];
  }

  /** The tokens with the largest weights, in words. */
  #most(weights, count = 3) {
    if (!weights.length) return 'not computed yet';
    const order = weights.map((v, t) => [v, t]).sort((a, b) => Math.abs(b[0] ?? 0) - Math.abs(a[0] ?? 0)).slice(0, count);
    return order.map(([v, t]) => `${v == null ? 'no number' : v < 0 || v > 1.001 ? number(v) : percent(v)} on ${this.#tokenName(t)}`).join(', ');
  }

  #tokenName(t) {
    const [slot, what] = this.prompt.tokens[t];
    const one = this.prompt.slots[slot];
    if (slot === this.prompt.slots.length - 1) return 'the query itself';
    const label = what === 'label' && one.label != null ? ` ${one.label}` : '';
    return `the ${what}${label} of slot ${slot + 1}${one.same ? ' (class of the query)' : ''}`;
  }
}

const coordinateWords = (input) => input.coordinates.slice(0, 8).map(number).join(', ') + (input.of > 8 ? ` \u2026 (${input.of} in all)` : '');
