// Prompts: one prompt of an evaluator, what members, oracles and heads do with it, at every checkpoint of a run.

import { select } from './controls.js';
import { el, link, setText } from './dom.js';
import { AnswerList } from './prompts_answers.js';
import { Answers } from './prompts_data.js';
import { Sheet } from './prompts_sheet.js';
import { Strips } from './prompts_strips.js';
import { keep } from './router.js';
import { exact, last, plural } from './text.js';

const STYLE = 'static/prompts.css';
const NEWS_MILLISECONDS = 10000;
const LONG_MILLISECONDS = 300000;
const MOST_LISTED = 300;

/** Shows the view in `root`; the run, and what of it is looked at, are in `params`. */
export async function show(root, params, api) {
  await addStyle();
  const name = params.get('name');
  if (!name) return pickRun(root, api);
  const view = new Prompts(root, name, params, api);
  await view.start();
}

/** Adds the style of this view, once. */
function addStyle() {
  if (document.querySelector(`link[href="${STYLE}"]`)) return null;
  const sheet = el('link', { rel: 'stylesheet', href: STYLE });
  return new Promise((resolve) => {
    sheet.addEventListener('load', resolve);
    sheet.addEventListener('error', resolve);
    document.head.append(sheet);
  });
}

/** A list of runs of which one is to be chosen. */
async function pickRun(root, api) {
  root.append(el('h1', {}, 'Prompts'), el('p', { class: 'soft' }, 'Choose a run: then one of its prompts is shown with what every member, oracle and head does with it, at every checkpoint.'));
  const { rows } = await api.get('/api/runs');
  const runs = rows.filter((row) => row.kind === 'run').sort((a, b) => (b.changed ?? 0) - (a.changed ?? 0));
  root.append(el('ul', { class: 'runs-to-ask' }, ...runs.slice(0, MOST_LISTED).map((row) => el('li', {}, link('prompts', { name: row.name }, row.name), el('span', { class: 'soft' }, ` ${[row.study, row.experiment].filter(Boolean).join(', ')}`)))));
  if (!runs.length) root.append(el('p', {}, 'There is no run here. The runs of a sweep are linked from its page.'));
  if (runs.length > MOST_LISTED) root.append(el('p', { class: 'note' }, `The ${MOST_LISTED} runs that changed last are listed, of ${runs.length}.`));
}

const whole = (text) => (/^\d{1,10}$/.test(text ?? '') ? Number(text) : null);

class Prompts {
  constructor(root, name, params, api) {
    Object.assign(this, { root, name, api, about: null });
    this.wish = { evaluator: params.get('evaluator'), index: whole(params.get('index')) ?? 0, member: whole(params.get('member')) ?? 0, at: whole(params.get('at')) };
    const head = (params.get('head') ?? '').match(/^(\d{1,4}):(\d{1,4})$/);
    this.head = head ? [Number(head[1]), Number(head[2])] : null;
    this.answers = new Answers(api, name, () => this.render());
  }

  async start() {
    this.status = el('span', { class: 'asking', role: 'status' });
    this.problem = el('p', { class: 'problem', role: 'alert', hidden: true });
    this.retry = el('button', { type: 'button', hidden: true, onclick: () => this.answers.again() }, 'Ask again');
    this.root.append(el('header', { class: 'head' }, el('p', { class: 'crumbs' }, link('', {}, 'Runs'), ' / ', link('run', { name: this.name }, this.name)),
      el('h1', {}, `Prompts of ${last(this.name)}`)), this.problem, this.retry);
    try {
      this.about = await this.api.get('/api/prompts/about', { name: this.name });
    } catch (error) {
      if (error.name === 'AbortError') return;
      this.#fail(error.message);
      return;
    }
    if (this.about.problem) {
      this.#fail(`Nothing can be asked: ${this.about.problem}`);
      return;
    }
    this.#settle();
    this.#build();
    this.#want();
    this.api.follow('/api/prompts/about', { name: this.name }, (about) => this.#learn(about));
  }

  #fail(words) {
    this.problem.hidden = false;
    setText(this.problem, words);
  }

  /** Brings what was asked for in the address to what there is. */
  #settle() {
    const { evaluators, checkpoints, prompts, members } = this.about;
    const names = evaluators.map((one) => one.name);
    const { wish } = this;
    if (!names.includes(wish.evaluator)) wish.evaluator = names.includes('icl') ? 'icl' : names[0];
    wish.index = Math.min(wish.index, prompts - 1);
    wish.member = Math.min(wish.member, members - 1);
    if (wish.at == null) wish.at = checkpoints.at(-1);
    if (!checkpoints.includes(wish.at)) wish.at = checkpoints.reduce((a, b) => (Math.abs(b - wish.at) < Math.abs(a - wish.at) ? b : a));
    this.answers.checkpoints = checkpoints;
  }

  #build() {
    const { evaluators, prompts, members, model, task } = this.about;
    this.evaluator = select('Evaluator', evaluators.map((one) => [one.name, one.name]), this.wish.evaluator, (v) => this.#set({ evaluator: v }));
    this.index = stepper('Prompt', prompts, this.wish.index, (v) => this.#set({ index: v }));
    this.member = stepper('Member', members, this.wish.member, (v) => this.#set({ member: v }));
    const keys = 'Keys: \u2190 \u2192 checkpoint, \u2191 \u2193 prompt (while the slider or the prompt has the focus)';
    const words = [task && `task ${task}`, model && `model ${model}`].filter(Boolean).join(', ').replaceAll('_', ' ');
    this.root.append(el('div', { class: 'toolbar' }, this.evaluator.element, this.index.element, this.member.element,
      el('p', { class: 'note' }, words), this.status));
    this.stage = el('div', { class: 'stage' });
    this.root.append(this.stage, el('p', { class: 'note keys' }, keys));
    this.strips = new Strips(this.stage, (place) => this.#set({ at: this.about.checkpoints[place] }));
    this.sheet = new Sheet(this.stage, (head) => this.#choose(head));
    this.list = new AnswerList(this.stage, (member) => this.#set({ member }));
    const { signal } = this.api.left;
    document.addEventListener('keydown', (event) => this.#key(event), { signal });
    addEventListener('themechange', () => this.render(), { signal });
    signal.addEventListener('abort', () => this.sheet.close(), { once: true });
  }

  #learn(about) {
    const news = about.checkpoints.join() !== this.about.checkpoints.join();
    this.about = about;
    if (news && about.checkpoints.length) {
      this.#settle();
      this.#want();
    }
    return about.complete ? LONG_MILLISECONDS : NEWS_MILLISECONDS;
  }

  #set(changes) {
    Object.assign(this.wish, changes);
    this.index.set(this.wish.index);
    this.member.set(this.wish.member);
    this.#want();
  }

  #choose(head) {
    const same = this.head && this.head.join() === head.join();
    this.head = same ? null : head;
    keep({ head: this.head && this.head.join(':') });
    this.render();
  }

  #want() {
    const { evaluator, index, member, at } = this.wish;
    keep({ evaluator, index, member, at });
    this.answers.want({ ...this.wish }, this.about.prompts);
    this.render();
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const { target } = event;
    const typing = target.matches('input:not([type="range"]), select, textarea, summary') || target.isContentEditable;
    if (typing || !this.strips) return;
    const inside = this.stage.contains(target);
    const place = this.about.checkpoints.indexOf(this.wish.at);
    const end = this.about.checkpoints.length - 1;
    const moves = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: inside ? 0 : null, End: inside ? end : null };
    const steps = inside ? { ArrowUp: -1, ArrowDown: 1 } : {};
    if (moves[event.key] != null) this.#set({ at: this.about.checkpoints[Math.min(end, Math.max(0, moves[event.key]))] });
    else if (steps[event.key]) this.#set({ index: Math.min(this.about.prompts - 1, Math.max(0, this.wish.index + steps[event.key])) });
    else return;
    event.preventDefault();
  }

  /** Shows what is known of what is wanted; what is not known yet stays as it was, paler. */
  render() {
    if (!this.strips) return;
    const { wish, about, answers } = this;
    const problem = answers.problem(wish);
    this.problem.hidden = !problem;
    this.retry.hidden = !problem;
    if (problem) setText(this.problem, problem);
    const known = answers.prompt(wish);
    const waiting = !known?.rows.has(wish.at) && !problem;
    this.stage.classList.toggle('old', !known || waiting);
    this.#tell(waiting);
    const prompt = known?.fixed;
    const other = answers.other(wish);
    const members = [...(prompt?.members ?? []), ...(other?.fixed.members ?? [])];
    const rows = new Map();
    for (const at of about.checkpoints) {
      const row = known?.rows.get(at);
      if (row) rows.set(at, row.answers ? { ...row, answers: [...row.answers, ...(other?.rows.get(at)?.answers ?? [])] } : row);
    }
    const errors = [...rows.values()].flatMap((row) => (row.answers ?? []).map((one) => one.error)).filter((v) => v != null);
    this.strips.update({
      checkpoints: about.checkpoints, place: about.checkpoints.indexOf(wish.at), batch: about.batch, kind: prompt?.kind ?? null,
      members, rows, worst: errors.length ? Math.max(...errors) : 1, chosen: wish.member, summary: answers.summary(wish),
    });
    if (!prompt) return;
    const row = rows.get(wish.at);
    this.sheet.update({ prompt, row, head: this.head, key: `${wish.evaluator} ${wish.index} ${wish.member}` });
    this.list.update({ prompt, row, rows, members, asked: other?.fixed.asked ?? [], chosen: wish.member, words: `${exact(wish.at)} sequences` });
    setText(this.strips.aside, this.#asideWords(prompt, other));
    this.stage.classList.toggle('side', prompt.slots.length <= 6);
  }

  #tell(waiting) {
    const { busy } = this.answers;
    const first = this.answers.prompts.size === 0;
    const words = !busy ? '' : waiting ? (first ? 'A process with the models starts: this takes some seconds once \u2026' : 'Asking the models \u2026')
      : { others: 'Asking the other members \u2026', summary: 'Counting over all prompts \u2026' }[busy.what] ?? '';
    setText(this.status, words);
  }

  #asideWords(prompt, other) {
    const words = this.answers.asides(this.wish);
    if (prompt.elsewhere) {
      const asked = other ? other.fixed.members.length : 0;
      const rest = asked < prompt.elsewhere && other ? ` Only ${asked} of ${prompt.elsewhere} are asked.` : '';
      words.unshift(`Members learn different classes, so ${plural(prompt.elsewhere, 'other member')} ${prompt.elsewhere === 1 ? 'answers' : 'answer'} prompt ${prompt.index} of their own: kinds of answers can be compared, labels cannot.${rest}`);
    }
    return words.join(' ');
  }
}

/** A number from 0 to `count` - 1, with a button on either side. */
function stepper(words, count, value, onChange) {
  const input = el('input', { type: 'number', min: 0, max: count - 1, value, inputmode: 'numeric', onchange: () => step(0) });
  const step = (by) => {
    const now = Math.min(count - 1, Math.max(0, Math.round(Number(input.value) || 0) + by));
    input.value = now;
    onChange(now);
  };
  const button = (by, text, label) => el('button', { type: 'button', 'aria-label': label, onclick: () => step(by) }, text);
  const row = el('span', { class: 'stepper' }, button(-1, '\u2039', `previous ${words.toLowerCase()}`), input, button(1, '\u203a', `next ${words.toLowerCase()}`), el('span', { class: 'soft' }, `of ${exact(count)}`));
  return { element: el('div', { class: 'select', role: 'group', 'aria-label': words }, el('label', {}, words, ' '), row), set: (now) => { input.value = now; } };
}
