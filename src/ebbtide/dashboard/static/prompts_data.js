// What the server has answered about prompts, and what is asked next: one question at a time, the most urgent first.

import { question } from './api.js';

const MOST_PROMPTS = 40;

/** Answers to questions about one run. A prompt is answered for blocks of checkpoints; the rows of all blocks that are
 * known are kept by their sequences. */
export class Answers {
  constructor(api, name, onNews) {
    Object.assign(this, { api, name, onNews, checkpoints: [], busy: null, wish: null });
    this.prompts = new Map();
    this.others = new Map();
    this.summaries = new Map();
    this.failed = new Map();
  }

  /** The answer about a prompt: `fixed` parts, and `rows` by sequences. */
  prompt(wish) {
    return this.prompts.get(promptKey(wish));
  }

  /** The same of members that have prompts of their own. */
  other(wish) {
    return this.others.get(promptKey(wish));
  }

  /** The same over all prompts of an evaluator. */
  summary(wish) {
    return this.summaries.get(summaryKey(wish));
  }

  /** The error of the question that keeps the wish from being shown; null for none. */
  problem(wish) {
    return this.failed.get(this.#address('/api/prompt', wish, wish.at)) ?? null;
  }

  /** Errors of questions about the same evaluator that a view can do without. */
  asides(wish) {
    return ['others', 'summary'].map((what) => this.failed.get(`${what} ${summaryKey(wish)}`)).filter(Boolean);
  }

  /** Wants the answers to {evaluator, index, member, at}; `count` prompts are there. */
  want(wish, count) {
    Object.assign(this, { wish, count });
    this.#pump();
  }

  /** Forgets what has failed and asks again. */
  again() {
    this.failed.clear();
    this.#pump();
  }

  #address(path, wish, at) {
    const { evaluator, member } = wish;
    const params = { name: this.name, evaluator, member };
    if (path !== '/api/prompts/summary') params.index = wish.index;
    if (at != null) params.at = at;
    return question(path, params);
  }

  async #pump() {
    if (this.busy) return;
    try {
      for (let next = this.#next(); next; next = this.#next()) {
        this.busy = next;
        this.onNews();
        try {
          next.keep(await this.api.get(next.url));
        } catch (error) {
          if (error.name === 'AbortError') return;
          this.failed.set(next.name, error.message);
        }
      }
    } finally {
      this.busy = null;
    }
    this.onNews();
  }

  /** The most urgent question that has no answer yet; null when there is none. */
  #next() {
    const { wish } = this;
    const ask = (path, kept, key, to, at, what) => {
      const url = this.#address(path, to, at);
      const name = path === '/api/prompt' ? url : `${what} ${summaryKey(to)}`; // what failed for one prompt is not asked for each
      if (this.failed.has(name) || kept.get(key)?.rows.has(at)) return null;
      return { url, name, what, keep: (data) => remember(kept, key, data) };
    };
    const prompt = (to, at, what) => ask('/api/prompt', this.prompts, promptKey(to), to, at, what);
    const near = prompt(wish, wish.at, 'prompt');
    if (near) return near;
    const known = this.prompt(wish);
    if (!known) return null; // it failed
    const order = [...this.checkpoints].sort((a, b) => Math.abs(this.#place(a) - this.#place(wish.at)) - Math.abs(this.#place(b) - this.#place(wish.at)));
    const elsewhere = (at) => known.fixed.elsewhere > 0 && ask('/api/prompts/others', this.others, promptKey(wish), wish, at, 'others');
    const all = (at) => ask('/api/prompts/summary', this.summaries, summaryKey(wish), wish, at, 'summary');
    const beside = [wish.index + 1, wish.index - 1].filter((one) => one >= 0 && one < this.count);
    return elsewhere(wish.at) || first(order, (at) => prompt(wish, at, 'rest')) || all(wish.at)
      || first(beside, (index) => prompt({ ...wish, index }, wish.at, 'rest'))
      || first(order, elsewhere) || first(order, all);
  }

  #place(at) {
    return this.checkpoints.indexOf(at);
  }
}

const promptKey = ({ evaluator, index, member }) => `${member} ${index} ${evaluator}`;
const summaryKey = ({ evaluator, member }) => `${member} ${evaluator}`;

/** The first result of `make` that is something. */
function first(list, make) {
  for (const one of list) {
    const found = make(one);
    if (found) return found;
  }
  return null;
}

/** Adds the rows of an answer to those that are kept. */
function remember(kept, key, data) {
  const { checkpoints, ...fixed } = data;
  const rows = kept.get(key)?.rows ?? new Map();
  for (const row of checkpoints) rows.set(row.at, row);
  kept.delete(key);
  kept.set(key, { fixed, rows });
  if (kept.size > MOST_PROMPTS) kept.delete(kept.keys().next().value);
}
