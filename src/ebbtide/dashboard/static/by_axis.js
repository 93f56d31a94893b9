// Curves of a sweep by the value of an axis: thin lines are members, the thick line is their median.

import { choice, select, undo } from './controls.js';
import { el, setText } from './dom.js';
import { isWhole, median } from './groups.js';
import { ordered, styleOf } from './palette.js';
import { Panel } from './panel.js';
import { sorted } from './phase.js';
import { keep } from './router.js';
import { field, plural } from './text.js';

const MOST_RUNS = 32;

/** The section with the curves. It asks for the curves of at most `MOST_RUNS` runs unless the reader wants all. */
export class CurvesByAxis {
  constructor(name, params, api) {
    Object.assign(this, {
      name,
      api,
      answers: new Map(),
      followed: new Map(),
      begun: new Set(),
      met: new Set(),
      panels: new Map(),
      limits: null,
      all: false,
    });
    this.curve = params.get('curve') ?? 'icl';
    this.axis = params.get('split');
    this.scale = params.get('scale') === 'log' ? 'log' : 'linear';
    const set = (key, name_) => (value) => {
      this[key] = value;
      keep({ [name_]: value });
      this.#follow();
      this.#show();
    };
    this.control = {
      curve: select('Measure', [], '', set('curve', 'curve')),
      axis: select('By', [], '', set('axis', 'split')),
      scale: choice(
        'Scale of x',
        [
          ['linear', 'Linear'],
          ['log', 'Log'],
        ],
        this.scale,
        set('scale', 'scale'),
      ),
      reset: undo('Reset zoom', () => this.#zoom(null)),
    };
    this.note = el('p', { class: 'note', role: 'status' });
    this.more = el('button', {
      type: 'button',
      hidden: true,
      onclick: () => {
        this.all = true;
        this.learn(this.data);
      },
    });
    this.place = el('div', { class: 'panels overlay' });
    this.element = el(
      'section',
      { class: 'block', hidden: true },
      el('h2', {}, 'Curves by an axis'),
      el('div', { class: 'toolbar' }, ...Object.values(this.control).map((one) => one.element)),
      this.note,
      this.more,
      this.place,
    );
  }

  /** News of the sweep: rows whose runs may have curves. */
  learn(data) {
    this.data = data;
    const names = Object.keys(data.axes).filter((one) => data.axes[one].length > 1);
    const axes = names.length ? names : Object.keys(data.axes);
    if (!axes.includes(this.axis)) this.axis = axes.find((one) => !one.startsWith('seeds')) ?? axes[0];
    this.control.axis.fill(
      axes.map((one) => [one, one]),
      this.axis,
    );
    this.element.hidden = !this.#runs().length || !this.axis;
    for (const run of this.#runs()) this.#meet(run);
    if (this.curves) this.#follow();
  }

  /** Asks what a run has, until it has an evaluation. */
  async #meet(run) {
    if (this.begun.has(run) || this.met.has(run) || (!this.all && this.met.size >= MOST_RUNS)) return;
    this.met.add(run);
    try {
      const about = await this.api.get('/api/run', { name: run });
      if (about.checkpoints?.length) this.begun.add(run);
      this.curves ??= [...(about.evaluators ?? []).map((one) => one.name), 'train_loss'];
      if (!this.curves.includes(this.curve)) this.curve = this.curves[0];
      this.control.curve.fill(
        this.curves.map((one) => [one, styleOf(one).label]),
        this.curve,
      );
      this.#follow();
    } catch (error) {
      if (error.name !== 'AbortError') setText(this.note, error.message);
    } finally {
      if (!this.begun.has(run)) this.met.delete(run); // asked again with the next news of the sweep
    }
  }

  destroy() {
    for (const panel of this.panels.values()) panel.destroy();
  }

  #runs() {
    return [...new Set(this.data.rows.map((row) => row.run).filter(Boolean))];
  }

  #follow() {
    const runs = this.#runs();
    const wanted = this.all ? runs : runs.slice(0, MOST_RUNS);
    for (const run of wanted.filter((one) => this.begun.has(one))) {
      const key = `${run} ${this.curve}`;
      if (this.followed.get(run)?.key === key) continue;
      this.followed.get(run)?.stop();
      this.answers.delete(run);
      this.followed.set(run, {
        key,
        stop: this.api.follow(
          '/api/curves',
          { name: run, curve: this.curve },
          (data) => {
            this.answers.set(run, data);
            this.#show();
          },
          () => {},
        ),
      });
    }
    this.more.hidden = wanted.length === runs.length;
    setText(this.more, `Show all ${runs.length} runs (${wanted.length} are shown)`);
  }

  #zoom(limits) {
    this.limits = limits;
    for (const panel of this.panels.values()) panel.zoom(limits);
    this.control.reset.set(Boolean(limits));
  }

  #show() {
    const answers = [...this.answers.values()].filter((data) => data.curves[this.curve]);
    if (!answers.length) return;
    const values = sorted(this.data.axes[this.axis]);
    const groups = values
      .map((value, i) => this.#group(value, ordered(values.length > 1 ? i / (values.length - 1) : 0)))
      .filter(Boolean);
    const hidden = answers.filter((data) => !data.curves[this.curve].members).length;
    const bands = `${plural(hidden, 'run')} with more than 50 members: members are not sent one by one: left out.`;
    const sampled = answers.find((data) => !isWhole(data));
    setText(this.note, [hidden ? bands : '', sampled ? `Of each run ${sampled.kept}.` : ''].join(' ').trim());
    const model = {
      title: `${styleOf(this.curve).label} by ${this.axis}`,
      groups,
      height: 340,
      xWord: 'sequences',
      xLabel: 'sequences (per member)',
      xKind: this.scale === 'log' ? 'symlog' : 'linear',
      threshold: this.scale === 'log' ? Math.min(...groups.map((g) => g.x.find((v) => v > 0) ?? 1)) : undefined,
      yLog: groups.length > 0 && groups.every((group) => group.unit === 'nats' || this.curve === 'train_loss'),
      onZoom: (limits) => this.#zoom(limits),
    };
    let panel = this.panels.get('all');
    if (!panel) {
      panel = new Panel(model);
      this.panels.set('all', panel);
      this.place.append(panel.element);
    }
    panel.update(model);
  }

  /** The members with one value of the axis, over the sequences of all their runs. */
  #group(value, colour) {
    const lines = [];
    for (const row of this.data.rows) {
      const data = row.run && this.answers.get(row.run);
      const found = data?.curves[this.curve];
      if (found?.members?.[row.place] && JSON.stringify(row.axes[this.axis]) === JSON.stringify(value))
        lines.push({ at: data.sequences, ys: found.members[row.place], found });
    }
    if (!lines.length) return null;
    const x = [...new Set(lines.flatMap((one) => one.at))].sort((a, b) => a - b);
    const members = lines.map(({ at, ys }) => {
      const known = new Map(at.map((v, i) => [v, ys[i]]));
      return x.map((v) => known.get(v) ?? null);
    });
    const columns = x.map((_, i) => members.map((ys) => ys[i]).filter((v) => v != null));
    return {
      key: JSON.stringify(value),
      label: `${this.axis} ${field(value)}`,
      short: field(value),
      colour,
      dash: [],
      x,
      members,
      bands: null,
      total: members.length,
      centre: columns.map(median),
      centreWord: 'median',
      low: null,
      high: null,
      n: columns.map((one) => one.length),
      diverged: [],
      chance: lines[0].found.chance,
      unit: lines[0].found.unit ?? '',
    };
  }
}
