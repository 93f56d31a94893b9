// Several runs beside one another: overlaid, one panel a run, or as a phase portrait; and their values at the end.

import { choice, select, several, toolbar, undo } from './controls.js';
import { el, link, setText } from './dom.js';
import { EndTable } from './end_table.js';
import { groupOf, isWhole } from './groups.js';
import { runStyle, styleOf } from './palette.js';
import { Panel, swatch } from './panel.js';
import { pathOf, Portrait } from './portrait.js';
import { keep } from './router.js';
import { runsOf, shortNames } from './run_names.js';

const LOSS = 'train_loss';
const MOST_RUNS = 40;

class Comparison {
  constructor(root, params, names, api) {
    Object.assign(this, { api, runs: [], panels: new Map(), limits: {}, off: new Set() });
    const get = (key, allowed) => (allowed.includes(params.get(key)) ? params.get(key) : allowed[0]);
    this.layout = get('layout', ['overlay', 'panels', 'portrait']);
    this.unit = get('unit', ['sequences', 'steps']);
    this.scale = get('axis', ['linear', 'log']);
    this.centre = get('line', ['median', 'mean']);
    this.chosen = params.getAll('show');
    [this.across, this.up] = [params.get('x'), params.get('y')];
    const labels = shortNames(names);
    this.runs = names.map((name, i) => ({
      name,
      label: labels[i],
      ...runStyle(i),
      about: null,
      data: null,
      error: '',
    }));
    this.#build(root);
    api.left.signal.addEventListener('abort', () => {
      for (const { panel } of this.panels.values()) panel.destroy();
    });
    for (const run of this.runs) {
      api.follow(
        '/api/run',
        { name: run.name },
        (about) => {
          run.about = about;
          run.error = '';
          this.#learn();
        },
        (error) => {
          run.error = error.message;
          this.#writeLegend();
        },
      );
    }
  }

  #build(root) {
    const set = (key, name, otherwise) => (value) => {
      this[key] = value;
      if (key !== 'centre' && key !== 'scale') this.limits = {};
      keep({ [name]: value === otherwise ? null : value });
      this.#changed();
    };
    this.control = {
      layout: choice(
        'Layout',
        [
          ['overlay', 'Overlay'],
          ['panels', 'Small multiples'],
          ['portrait', 'Phase portrait'],
        ],
        this.layout,
        set('layout', 'layout', 'overlay'),
      ),
      unit: choice(
        'x axis',
        [
          ['sequences', 'Sequences'],
          ['steps', 'Steps'],
        ],
        this.unit,
        set('unit', 'unit', 'sequences'),
      ),
      scale: choice(
        'Scale of x',
        [
          ['linear', 'Linear'],
          ['log', 'Log'],
        ],
        this.scale,
        set('scale', 'axis', 'linear'),
      ),
      centre: choice(
        'Thick line',
        [
          ['median', 'Median'],
          ['mean', 'Mean'],
        ],
        this.centre,
        set('centre', 'line', 'median'),
      ),
      shown: several('Measures', (chosen) => {
        this.chosen = chosen.length ? chosen : ['none'];
        keep({ show: this.chosen });
        this.#changed();
      }),
      across: select('Horizontal', [], '', set('across', 'x', null)),
      up: select('Vertical', [], '', set('up', 'y', null)),
      reset: undo('Reset zoom', () => this.#zoom(null)),
    };
    this.legend = el('div', { class: 'legend toggles', role: 'group', 'aria-label': 'Runs: press to hide or show' });
    this.place = el('div', { class: 'panels overlay' });
    this.kept = el('p', { class: 'note', role: 'status' });
    const ends = el('section', { class: 'block' }, el('h2', {}, 'Values at the end'));
    this.table = new EndTable(ends);
    root.append(
      toolbar('How curves are drawn', ...Object.values(this.control)),
      this.legend,
      this.place,
      this.kept,
      ends,
    );
    this.#writeLegend();
  }

  /** News of the runs: which measures there are. */
  #learn() {
    const there = this.runs.filter((run) => run.about?.evaluators?.length);
    this.headlines = [...new Set(there.flatMap((run) => run.about.evaluators.map((one) => one.name)))];
    const metrics = there.flatMap((run) =>
      run.about.evaluators.flatMap((one) => (run.about.metrics ?? []).map((metric) => `${one.name}/${metric}`)),
    );
    this.measures = [...new Set([...this.headlines, LOSS, ...metrics])];
    const has = (one) => this.measures.includes(one);
    if (!this.chosen.some(has) && this.chosen[0] !== 'none')
      this.chosen = ['icl', 'iwl', ...(has('icl') ? [] : this.headlines.slice(0, 2)), LOSS].filter(has);
    if (!has(this.across)) this.across = ['iwl', 'ciwl', this.headlines[1], LOSS].find(has);
    if (!has(this.up)) this.up = ['icl', this.headlines[0], LOSS].find(has);
    const options = this.measures.map((one) => [one, this.#words(one)]);
    this.control.shown.fill(options, this.chosen.filter(has));
    for (const key of ['across', 'up']) this.control[key].fill(options, this[key]);
    this.#changed();
  }

  #words(curve) {
    return styleOf(curve).label;
  }

  #wanted() {
    return this.layout === 'portrait'
      ? [...new Set([this.across, this.up])]
      : this.chosen.filter((one) => one !== 'none');
  }

  #changed() {
    const portrait = this.layout === 'portrait';
    for (const key of ['unit', 'scale', 'shown']) this.control[key].element.hidden = portrait;
    for (const key of ['across', 'up']) this.control[key].element.hidden = !portrait;
    for (const run of this.runs.filter((one) => one.about?.checkpoints?.length)) {
      const own = new Set([
        LOSS,
        ...(run.about.evaluators ?? []).flatMap((one) => [
          one.name,
          ...(run.about.metrics ?? []).map((metric) => `${one.name}/${metric}`),
        ]),
      ]);
      const wanted = [...new Set([...this.#wanted(), ...this.chosen])].filter((one) => own.has(one));
      const key = JSON.stringify(wanted);
      if (key === run.asked) continue;
      run.asked = key;
      run.stop?.();
      if (wanted.length) {
        run.stop = this.api.follow(
          '/api/curves',
          { name: run.name, curve: wanted },
          (data) => {
            run.data = data;
            run.error = '';
            this.#show();
          },
          (error) => {
            run.error = error.message;
            this.#writeLegend();
          },
        );
      }
    }
    this.#show();
  }

  #writeLegend() {
    const state = JSON.stringify(
      this.runs.map((run) => [
        run.about?.members,
        run.about?.status,
        run.data?.diverged,
        this.off.has(run.name),
        run.error,
        document.documentElement.dataset.theme,
      ]),
    );
    if (state === this.legendState) return;
    this.legendState = state;
    const focused = this.legend.contains(document.activeElement) ? document.activeElement.dataset.name : null;
    this.legend.replaceChildren(
      ...this.runs.map((run) => {
        const lost = run.data?.diverged?.length;
        const count = run.about?.members ? `N = ${run.about.members}${lost ? `, ${lost} diverged` : ''}` : '';
        return el(
          'button',
          {
            type: 'button',
            class: 'entry',
            'data-name': run.name,
            title: run.error || run.name,
            'aria-pressed': String(!this.off.has(run.name)),
            onclick: () => {
              if (!this.off.delete(run.name)) this.off.add(run.name);
              this.#show();
            },
          },
          swatch(run.colour, run.dash),
          el('span', {}, run.label),
          el('span', { class: 'count' }, run.error || count),
        );
      }),
    );
    if (focused) [...this.legend.children].find((one) => one.dataset.name === focused)?.focus();
  }

  #zoom(limits, key = 'all') {
    if (limits == null) this.limits = {};
    else {
      this.limits.x = limits.x ?? this.limits.x;
      if (limits.y) this.limits[key] = limits.y;
    }
    this.#applyLimits();
  }

  #applyLimits() {
    for (const [key, { panel, zoomKey }] of this.panels) {
      const [x, y] = [this.limits.x, this.limits[zoomKey ?? key]];
      panel.zoom(x || y ? { ...(x ? { x } : {}), ...(y ? { y } : {}) } : null);
    }
    this.control.reset.set(Object.keys(this.limits).length > 0);
  }

  #show() {
    this.#writeLegend();
    const runs = this.runs.filter((run) => run.data && !this.off.has(run.name));
    const models =
      this.layout === 'portrait'
        ? this.#portrait(runs)
        : this.layout === 'panels'
          ? this.#multiples(runs)
          : this.#overlay(runs);
    this.place.classList.toggle('overlay', this.layout === 'overlay' || this.layout === 'portrait');
    const keys = models.map((one) => one.key);
    for (const [key, { panel }] of this.panels)
      if (!keys.includes(key)) {
        panel.destroy();
        this.panels.delete(key);
      }
    models.forEach(({ key, model, zoomKey }, i) => {
      let panel = this.panels.get(key)?.panel;
      if (!panel) panel = this.layout === 'portrait' ? new Portrait() : new Panel(model);
      this.panels.set(key, { panel, zoomKey });
      if (this.place.children[i] !== panel.element)
        this.place.insertBefore(panel.element, this.place.children[i] ?? null);
      panel.update(model);
    });
    if (Object.keys(this.limits).length) this.#applyLimits();
    const sampled = runs.filter((run) => !isWhole(run.data)).map((run) => `${run.label}: ${run.data.kept}`);
    setText(this.kept, sampled.length ? `Shown of ${sampled.join('; ')}.` : '');
    this.#writeTable();
  }

  #group(run, curve) {
    return groupOf(
      run.data,
      curve,
      { label: run.label, colour: run.colour, dash: run.dash },
      { unit: this.unit, centre: this.centre, key: run.name },
    );
  }

  #axes(groups) {
    const first = Math.min(...groups.map((group) => group.x.find((v) => v > 0) ?? Infinity));
    return {
      xKind: this.scale === 'log' ? 'symlog' : 'linear',
      threshold: this.scale === 'log' ? (Number.isFinite(first) ? first : 1) : undefined,
      xWord: this.unit,
      xLabel: this.unit === 'steps' ? 'steps' : 'sequences (per member)',
      yLog: groups.length > 0 && groups.every((group) => group.unit === 'nats' || group.loss),
      sync: 'comparison',
    };
  }

  #overlay(runs) {
    return this.#wanted().map((curve) => {
      const groups = runs
        .filter((run) => run.data.curves[curve])
        .map((run) => ({ ...this.#group(run, curve), loss: curve === LOSS }));
      return {
        key: curve,
        model: {
          title: this.#words(curve),
          groups,
          height: curve === LOSS ? 240 : 320,
          legend: false,
          ...this.#axes(groups),
          onZoom: (limits) => this.#zoom(limits, curve),
        },
      };
    });
  }

  #multiples(runs) {
    return this.#wanted().flatMap((curve) => {
      const there = runs.filter((run) => run.data.curves[curve]);
      const own = { dash: [], loss: curve === LOSS, short: this.centre };
      const peers = there.map((run) => ({ ...this.#group(run, curve), ...own }));
      return there.map((run, i) => ({
        key: `${run.name} ${curve}`,
        zoomKey: curve,
        model: {
          title: run.label,
          note: this.#words(curve),
          groups: [peers[i]],
          peers,
          height: 220,
          ...this.#axes(peers),
          onZoom: (limits) => this.#zoom(limits, curve),
        },
      }));
    });
  }

  #portrait(runs) {
    const { across, up } = this;
    const both = runs.filter((run) => run.data.curves[across] && run.data.curves[up]);
    if (!both.length) return [];
    const axis = (curve) => {
      const group = this.#group(both[0], curve);
      return {
        label: this.#words(curve),
        unit: group.unit,
        chance: group.chance,
        log: curve === LOSS || group.unit === 'nats',
      };
    };
    const paths = both.map((run) =>
      pathOf(this.#group(run, across), this.#group(run, up), run.data.sequences, {
        label: run.label,
        colour: run.colour,
        dash: run.dash,
      }),
    );
    const key = `portrait ${across} ${up}`;
    return [
      {
        key,
        model: {
          title: `${this.#words(up)} against ${this.#words(across)}`,
          paths,
          x: axis(across),
          y: axis(up),
          height: 520,
          onZoom: (limits) => this.#zoom(limits, key),
        },
      },
    ];
  }

  #writeTable() {
    const curves = this.chosen.filter((one) => this.measures?.includes(one));
    this.table.update(this.runs, curves, this.centre);
  }
}

/** Shows the runs that the address names. */
export async function show(root, params, api) {
  const names = params.getAll('name');
  root.append(
    el(
      'header',
      { class: 'head' },
      el('p', { class: 'crumbs' }, link('', {}, 'Runs'), ' / compare'),
      el('h1', {}, 'Compare'),
    ),
  );
  if (!names.length) {
    root.append(el('p', {}, 'Choose several runs in the ', link('', {}, 'list of runs'), ' and press Compare.'));
    return;
  }
  const wanting = [];
  const runs = await runsOf(names, api, wanting);
  const problem = el('p', { class: 'problem', role: 'status' });
  if (runs.length > MOST_RUNS) wanting.push(`Only the first ${MOST_RUNS} of ${runs.length} runs are shown.`);
  setText(problem, wanting.join(' '));
  if (wanting.length) root.append(problem);
  if (runs.length) new Comparison(root, params, runs.slice(0, MOST_RUNS), api);
}
