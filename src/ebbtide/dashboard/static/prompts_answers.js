// What every member answers to a prompt at a checkpoint, and what scripted oracles or classical predictors answer.

import { el, setText } from './dom.js';
import { shown, variable } from './palette.js';
import { prepare } from './prompts_draw.js';
import { chip, kindOf, KINDS, look, paintNode, plain } from './prompts_kinds.js';
import { number, plural } from './text.js';

const FIRST = 60;
const MANY = 16;
const ORACLES = {
  ICL: 'the label of the exemplar in context that is nearest to the query',
  IWL: 'the label that training ties to the query\u2019s class',
  CIWL: 'that label if it is in context, else any label in context',
  majority: 'the most frequent label of the context',
  last: 'the last label of the context',
  random: 'a guess',
};

/** The answers in `root`; `onMember(member)` is called with a member that the reader chose. */
export class AnswerList {
  constructor(root, onMember) {
    Object.assign(this, { onMember, everyone: false, state: null });
    this.title = el('h2', {}, 'Answers');
    this.scale = el('canvas', { class: 'scale', role: 'img' });
    this.body = el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Answers of members and oracles' });
    this.more = el('button', { type: 'button', hidden: true, onclick: () => { this.everyone = true; this.update(this.state); } });
    this.element = el('section', { class: 'block answers' }, this.title, this.scale, this.body, this.more);
    root.append(this.element);
    new ResizeObserver(() => this.#drawScale()).observe(this.element);
  }

  /** Shows {prompt, row, rows, members, asked, chosen, words}: `rows` are those of all checkpoints; `asked` has what is asked of members with prompts of their own. */
  update(state) {
    this.state = state;
    const { prompt, row, members, chosen } = state;
    setText(this.title, `Answers at ${state.words}`);
    const held = document.activeElement?.dataset?.member;
    const answers = row?.answers ?? [];
    const count = this.everyone ? answers.length : Math.min(answers.length, FIRST);
    const list = answers.slice(0, count).map((one, i) => this.#member(one, members[i], i));
    const few = prompt.kind === 'fewshot';
    const labels = few || prompt.kind === 'label';
    const head = ['', labels ? 'answers' : 'prediction', labels ? 'most probable labels' : ''];
    const bodies = [el('tbody', {}, ...list)];
    const others = [...prompt.oracles.map((one) => this.#oracle(one)), ...prompt.predictors.map((one) => this.#predictor(one))];
    const many = members.length > MANY;
    this.body.classList.toggle('many', many);
    if (others.length) bodies[many ? 'unshift' : 'push'](el('tbody', { class: 'oracles' }, el('tr', {}, el('th', { colspan: 3, scope: 'rowgroup' }, few ? 'Scripted oracles' : 'Classical predictors')), ...others));
    this.body.replaceChildren(el('table', { class: 'answers' }, el('caption', { class: 'hidden' }, this.title.textContent),
      el('thead', {}, el('tr', {}, ...head.map((one) => el(one ? 'th' : 'td', one ? { scope: 'col' } : {}, one)))), ...bodies));
    this.more.hidden = count === answers.length;
    setText(this.more, `Show all ${plural(answers.length, 'member')} (${count} are shown)`);
    if (held != null) this.body.querySelector(`[data-member="${held}"]`)?.focus();
    this.chosen = chosen;
    this.#drawScale();
  }

  /** The prompt that a member answers: the shown one, or one of its own. */
  #asked(i) {
    const { prompt, asked } = this.state;
    return asked[i - (this.state.members.length - asked.length)] ?? prompt;
  }

  #member(answer, member, i) {
    const { prompt, chosen } = this.state;
    const own = this.#asked(i);
    const button = el('button', { type: 'button', 'data-member': member, 'aria-pressed': member === chosen ? 'true' : 'false', onclick: () => this.onMember(member) }, `member ${member}`);
    const name = el('th', { scope: 'row' }, button);
    const row = (value, words, last) => line(name, value, words, last, member === chosen);
    if (answer.diverged) return row('no number', 'diverged', '');
    const asks = own === prompt ? '' : ` (asked ${plain(own.target)})`;
    if (answer.top) {
      const few = prompt.kind === 'fewshot';
      const [label] = answer.top[0];
      const words = few ? KINDS[answer.kind][1] : '';
      const inside = few && !answer.right && answer.right_in_context ? el('span', { class: 'soft' }, '; among the context\u2019s labels it prefers the right one') : '';
      return row([chip(own, label, few), ' ', rightMark(answer.right), asks], [words, inside], bar(own, answer.top, few));
    }
    if (answer.cells) return row([rightMark(answer.right), asks], '', cells(answer.cells, own.target));
    if ('score' in answer) return row([number(answer.score), ' ', rightMark(answer.right), asks], '', '');
    const value = Array.isArray(answer.value) ? answer.value.map(number).join(', ') : number(answer.value);
    return row([value, asks], look(answer).words, '');
  }

  #oracle(one) {
    const { prompt } = this.state;
    const tied = one.top.filter(([, p]) => p > 0.1);
    const best = tied.length > 3 ? [] : tied; // a guess
    const chips = best.length ? best.flatMap(([label], i) => [i ? ' or ' : '', chip(prompt, label, true)]) : ['any label'];
    const mark = best.length === 1 ? rightMark(one.right) : best.some(([label]) => label === prompt.target) ? el('span', { class: 'soft' }, 'right by chance') : rightMark(false);
    return line(el('th', { scope: 'row' }, one.name), [...chips, ' ', best.length ? mark : ''], ORACLES[one.name] ?? '', bar(prompt, one.top, true));
  }

  #predictor(one) {
    const { prompt } = this.state;
    const error = (one.value - prompt.target) ** 2;
    return line(el('th', { scope: 'row' }, one.name), number(one.value), `squared error ${number(error)}`, '');
  }

  /** The predictions of all members on one axis, with the truth and the classical predictors. */
  #drawScale() {
    const { prompt, row, chosen, members } = this.state ?? {};
    this.scale.hidden = prompt?.kind !== 'number';
    const width = this.element.clientWidth - 48;
    if (this.scale.hidden || !row?.answers || width < 50) return;
    const values = row.answers.map((one) => one.value ?? null);
    const marks = prompt.predictors.map((one) => one.value);
    const ever = [...this.state.rows.values()].flatMap((one) => (one.answers ?? []).map((answer) => answer.value));
    const all = [...ever, ...marks, prompt.target].filter((v) => v != null); // the same axis at every checkpoint
    const pad = (Math.max(...all) - Math.min(...all)) * 0.08 || 1;
    const [low, high] = [Math.min(...all) - pad, Math.max(...all) + pad];
    const x = (v) => 8 + ((v - low) / (high - low)) * (width - 16);
    const ctx = prepare(this.scale, width, 86);
    ctx.font = `11px ${variable('--text') || 'sans-serif'}`;
    ctx.textAlign = 'center';
    const stick = (v, colour, words, from, to, textAt) => {
      ctx.fillStyle = shown(colour);
      ctx.fillRect(x(v) - 1, from, 2, to - from);
      ctx.fillText(words, Math.min(Math.max(x(v), 46), width - 46), textAt);
    };
    ctx.fillStyle = variable('--line');
    ctx.fillRect(0, 40, width, 1);
    stick(prompt.target, '#009E73', `truth ${number(prompt.target)}`, 14, 54, 11);
    marks.forEach((v, i) => stick(v, '#D55E00', prompt.predictors[i].name, 30, 54, i % 2 ? 81 : 67));
    values.forEach((v, i) => {
      if (v == null) return;
      ctx.beginPath();
      ctx.arc(x(v), 40, members[i] === chosen ? 6 : 4.5, 0, 7);
      ctx.globalAlpha = 0.75;
      ctx.fillStyle = shown('#0072B2');
      ctx.fill();
      ctx.globalAlpha = 1;
      if (members[i] === chosen) { ctx.strokeStyle = variable('--ink'); ctx.lineWidth = 1.5; ctx.stroke(); }
    });
    this.scale.setAttribute('aria-label', `Predictions on one axis: truth ${number(prompt.target)}; members ${values.map(number).join(', ')}; ${prompt.predictors.map((one) => `${one.name} ${number(one.value)}`).join(', ')}`);
  }
}

/** A row: a name, an answer with words below it, and what is beside it. */
function line(name, value, words, beside, chosen = false) {
  return el('tr', { class: chosen ? 'chosen' : '' }, name, el('td', {}, ...[value].flat(), el('div', { class: 'which' }, ...[words].flat())), el('td', {}, beside));
}

const rightMark = (right) => el('span', { class: right ? 'mark right' : 'mark wrong' }, right ? '\u2713 right' : '\u2717 wrong');

/** The most probable labels as parts of a bar; what is left of 1 is empty. */
function bar(prompt, top, few) {
  const parts = top.filter(([, p]) => p >= 0.005).map(([label, p]) => {
    const part = el('span', { title: `label ${label}: ${(100 * p).toFixed(1)} %` }, p >= 0.12 ? `${label}: ${(100 * p).toFixed(0)} %` : '');
    part.style.width = `${100 * p}%`;
    paintNode(part, few ? KINDS[kindOf(prompt, label)][0] : label === prompt.target ? '#009E73' : '#8a8f98');
    return part;
  });
  const words = top.map(([label, p]) => `${label}: ${(100 * p).toFixed(1)} %`).join(', ');
  return el('div', { class: 'bar-of', role: 'img', 'aria-label': words }, ...parts);
}

function cells(values, target) {
  return el('span', { class: 'small' }, ...values.map(([v], i) => el('span', { class: v === target[i] ? 'cell' : 'cell wrong' }, String(v))));
}
