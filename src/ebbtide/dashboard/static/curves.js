// The curves of one run with the controls over them: small multiples, an overlay, or a phase portrait.

import { choice, select, several, toggle, toolbar, undo } from './controls.js';
import { el, setText } from './dom.js';
import { groupOf, isWhole } from './groups.js';
import { marksOf, phasesOf } from './marks.js';
import { GROUPS, inOrder, styleOf } from './palette.js';
import { Panel } from './panel.js';
import { pathOf, Portrait } from './portrait.js';
import { keep } from './router.js';

const LOSS = 'train_loss';
const HEADLINE = 'headline';

/** Whether a curve is shown on a logarithmic axis: losses. */
const isLoss = (curve, unit) => curve === LOSS || unit === 'nats';

/** The curves of a run in `root`, with their controls. */
export class Curves {
  constructor(root, params, name, api) {
    Object.assign(this, { name, api, begun: false, about: null, data: null, panels: new Map(), limits: {} });
    const get = (key, allowed, otherwise) => (allowed.includes(params.get(key)) ? params.get(key) : otherwise);
    this.layout = get('layout', ['panels', 'overlay', 'portrait'], 'panels');
    this.unit = get('unit', ['sequences', 'steps'], 'sequences');
    this.scale = get('axis', ['linear', 'log'], 'linear');
    this.centre = get('line', ['median', 'mean'], 'median');
    this.marked = params.get('marks') !== 'off';
    this.metric = params.get('metric') || HEADLINE;
    this.shownNames = params.getAll('show');
    [this.across, this.up] = [params.get('x'), params.get('y')];
    this.#controls();
    api.left.signal.addEventListener('abort', () => {
      for (const panel of this.panels.values()) panel.destroy();
    });
    this.place = el('div', { class: 'panels' });
    this.kept = el('p', { class: 'note', role: 'status' });
    this.problem = el('p', { class: 'problem', role: 'status', hidden: true });
    root.append(el('section', { 'aria-label': 'Curves' }, this.toolbar, this.problem, this.place, this.kept));
  }

  #controls() {
    const set = (key, name, otherwise) => (value) => {
      this[key] = value;
      keep({ [name]: value === otherwise ? null : value });
      this.#changed();
    };
    this.control = {
      layout: choice(
        'Layout',
        [
          ['panels', 'Small multiples'],
          ['overlay', 'Overlay'],
          ['portrait', 'Phase portrait'],
        ],
        this.layout,
        (v) => {
          this.#forgetZoom();
          set('layout', 'layout', 'panels')(v);
        },
      ),
      unit: choice(
        'x axis',
        [
          ['sequences', 'Sequences'],
          ['steps', 'Steps'],
        ],
        this.unit,
        (v) => {
          this.#forgetZoom();
          set('unit', 'unit', 'sequences')(v);
        },
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
      metric: select(
        'Measure',
        [[HEADLINE, 'headline of each evaluator']],
        HEADLINE,
        set('metric', 'metric', HEADLINE),
      ),
      shown: several('Evaluators', (chosen) => {
        const all = this.about.evaluators.length + 1;
        this.shownNames = chosen.length === all ? [] : chosen.length ? chosen : ['none'];
        keep({ show: this.shownNames });
        this.#changed();
      }),
      across: select('Horizontal', [], '', (v) => {
        this.#forgetZoom();
        set('across', 'x', null)(v);
      }),
      up: select('Vertical', [], '', (v) => {
        this.#forgetZoom();
        set('up', 'y', null)(v);
      }),
      marked: toggle('Peak, half-fall and phases', this.marked, (on) => {
        this.marked = on;
        keep({ marks: on ? null : 'off' });
        this.#show();
      }),
      reset: undo('Reset zoom', () => this.#zoom(null)),
    };
    const order = ['layout', 'unit', 'scale', 'centre', 'metric', 'shown', 'across', 'up', 'marked', 'reset'];
    this.toolbar = toolbar('How curves are drawn', ...order.map((key) => this.control[key]));
    this.#showControls();
  }

  #showControls() {
    const portrait = this.layout === 'portrait';
    for (const key of ['unit', 'scale', 'metric', 'shown', 'marked']) this.control[key].element.hidden = portrait;
    const marked = !this.about || this.about.evaluators.some((one) => one.name === 'icl');
    if (!marked) this.control.marked.element.hidden = true;
    for (const key of ['across', 'up']) this.control[key].element.hidden = !portrait;
  }

  /** News of the run itself: its evaluators and metrics. */
  learn(about) {
    this.about = about;
    const metrics = about.metrics ?? [];
    if (this.metric !== HEADLINE && !metrics.includes(this.metric)) this.metric = HEADLINE;
    this.control.metric.fill(
      [[HEADLINE, 'headline of each evaluator'], ...metrics.map((one) => [one, one.replaceAll('_', ' ')])],
      this.metric,
    );
    const names = inOrder((about.evaluators ?? []).map((one) => one.name));
    this.control.shown.fill(
      [...names, LOSS].map((one) => [one, styleOf(one).label]),
      [...names, LOSS].filter((one) => this.#isShown(one)),
    );
    const measures = [...names, LOSS, ...names.flatMap((one) => metrics.map((metric) => `${one}/${metric}`))];
    const has = (one) => measures.includes(one);
    if (!has(this.across)) this.across = ['iwl', 'ciwl', names[1], names[0], LOSS].find(has);
    if (!has(this.up)) this.up = ['icl', names[0], LOSS].find(has);
    for (const key of ['across', 'up'])
      this.control[key].fill(
        measures.map((one) => [one, styleOf(one).label]),
        this[key],
      );
    this.#showControls();
    const begun = about.checkpoints?.length > 0;
    if (begun && !this.begun) this.#follow();
    this.begun = begun;
    if (!begun) setText(this.kept, 'No evaluation has been committed yet.');
  }

  #isShown(name) {
    return !this.shownNames.length || this.shownNames.includes(name);
  }

  /** The curves to ask for: names as the server knows them, in the order of the page. */
  #wanted() {
    if (this.layout === 'portrait') return [...new Set([this.across, this.up])];
    const names = inOrder(this.about.evaluators.map((one) => one.name)).filter((one) => this.#isShown(one));
    const curves = names.map((one) => (this.metric === HEADLINE ? one : `${one}/${this.metric}`));
    return this.#isShown(LOSS) ? [...curves, LOSS] : curves;
  }

  #changed() {
    this.#showControls();
    const wanted = JSON.stringify(this.#wanted());
    if (wanted === this.asked) this.#show();
    else this.#follow();
  }

  #follow() {
    this.stop?.();
    const wanted = this.#wanted();
    this.asked = JSON.stringify(wanted);
    const within = this.window ? { from: this.window[0], to: this.window[1] } : {};
    if (!wanted.length || !this.about.checkpoints?.length) {
      this.#show();
      return;
    }
    this.stop = this.api.follow(
      '/api/curves',
      { name: this.name, curve: wanted, ...within },
      (data) => {
        this.data = data;
        this.problem.hidden = true;
        this.#show();
      },
      (error) => {
        this.problem.hidden = false;
        setText(this.problem, error.message);
      },
    );
  }

  #forgetZoom() {
    this.limits = {};
    if (this.window) this.asked = null;
    this.window = null;
  }

  #zoom(limits, key = 'all') {
    if (limits == null) this.limits = {};
    else {
      // the x axis is shared by all panels, the y axis is each panel's own
      this.limits.x = limits.x ?? this.limits.x;
      if (limits.y) this.limits[key] = limits.y;
    }
    this.#applyLimits();
    this.#look();
  }

  /** Asks for all evaluations within the limits where only some of them were sent, and for the whole run afterwards. */
  #look() {
    const sampled = this.window != null || !isWhole(this.data);
    if (!sampled || this.layout === 'portrait') return;
    const factor = this.unit === 'steps' ? this.about.batch || 1 : 1;
    this.window = this.limits.x
      ? [Math.max(0, Math.floor(this.limits.x[0] * factor)), Math.ceil(this.limits.x[1] * factor)]
      : null;
    this.#follow();
  }

  #limitsOf(key) {
    const { x } = this.limits;
    const y = this.limits[key];
    return x || y ? { ...(x ? { x } : {}), ...(y ? { y } : {}) } : null;
  }

  #applyLimits() {
    for (const [key, panel] of this.panels) panel.zoom(this.#limitsOf(key));
    this.control.reset.set(Object.keys(this.limits).length > 0);
  }

  #show() {
    if (!this.data || !this.about) return;
    const wanted = this.#wanted().filter((curve) => this.data.curves[curve]);
    const models =
      this.layout === 'portrait'
        ? this.#portrait()
        : this.layout === 'overlay'
          ? this.#overlay(wanted)
          : this.#panels(wanted);
    this.place.classList.toggle('overlay', this.layout !== 'panels');
    const keys = models.map(([key]) => key);
    for (const [key, panel] of this.panels) {
      if (!keys.includes(key)) {
        panel.destroy();
        this.panels.delete(key);
      }
    }
    for (const [key, model] of models) {
      let panel = this.panels.get(key);
      if (!panel) {
        panel = this.layout === 'portrait' ? new Portrait() : new Panel(model);
        this.panels.set(key, panel);
      }
      if (this.place.children[keys.indexOf(key)] !== panel.element)
        this.place.insertBefore(panel.element, this.place.children[keys.indexOf(key)] ?? null);
      panel.update(model);
    }
    setText(this.kept, isWhole(this.data) ? '' : `Shown: ${this.data.kept}; zoom in for more.`);
    if (Object.keys(this.limits).length) this.#applyLimits();
  }

  #group(curve) {
    const index = this.about.evaluators.findIndex((one) => one.name === curve.split('/')[0]);
    return groupOf(this.data, curve, styleOf(curve, Math.max(index, 0)), { unit: this.unit, centre: this.centre });
  }

  #axes(groups) {
    const x = groups[0]?.x ?? [];
    const batch =
      this.data.steps?.length > 1 ? Math.round(this.data.sequences[1] / this.data.steps[1]) : this.about.batch;
    return {
      xKind: this.scale === 'log' ? 'symlog' : 'linear',
      threshold: this.scale === 'log' ? (x.find((v) => v > 0) ?? 1) : undefined,
      xWord: this.unit,
      xLabel: this.unit === 'steps' ? `steps (of ${batch} sequences)` : 'sequences (per member)',
      sync: this.name,
    };
  }

  #markedFor(group) {
    if (!this.marked) return { marks: [], phases: [] };
    const factor = this.unit === 'steps' ? this.about.batch || 1 : 1;
    const marks = marksOf(this.data, { factor, group });
    return { marks, phases: group ? phasesOf(marks, group.x[group.x.length - 1]) : [] };
  }

  #panels(wanted) {
    return wanted.map((curve) => {
      const group = this.#group(curve);
      const own = curve === 'icl';
      return [
        curve,
        {
          title: group.label,
          groups: [{ ...group, dash: [], short: group.centreWord }],
          height: 230,
          yLog: isLoss(curve, group.unit),
          ...this.#axes([group]),
          ...this.#markedFor(own ? group : null),
          marksInWords: own,
          onZoom: (limits) => this.#zoom(limits, curve),
        },
      ];
    });
  }

  #overlay(wanted) {
    const left = new Set(wanted);
    const parts = GROUPS.map(([title, styles]) => [title, wanted.filter((curve) => curve.split('/')[0] in styles)]);
    parts.forEach(([, curves]) => curves.forEach((curve) => left.delete(curve)));
    parts.splice(2, 0, ['Evaluators', [...left]]);
    return parts
      .filter(([, curves]) => curves.length)
      .map(([title, curves], i) => {
        const groups = curves.map((curve) => this.#group(curve));
        const first = groups.find((group) => group.key === 'icl') ?? null;
        return [
          title,
          {
            title,
            groups,
            height: title === 'Training' ? 220 : 320,
            yLog: curves.every((curve, k) => isLoss(curve, groups[k].unit)),
            ...this.#axes(groups),
            ...this.#markedFor(first),
            marksInWords: i === 0,
            onZoom: (limits) => this.#zoom(limits, title),
          },
        ];
      });
  }

  #portrait() {
    const { across, up } = this;
    if (!this.data.curves[across] || !this.data.curves[up]) return [];
    const [horizontal, vertical] = [this.#group(across), this.#group(up)];
    const path = pathOf(horizontal, vertical, this.data.sequences, { label: 'this run' });
    const axis = (curve, group) => ({
      label: group.label,
      unit: group.unit,
      chance: group.chance,
      log: isLoss(curve, group.unit),
    });
    return [
      [
        `portrait ${across} ${up}`,
        {
          title: `${vertical.label} against ${horizontal.label}`,
          paths: [path],
          x: axis(across, horizontal),
          y: axis(up, vertical),
          height: 520,
          onZoom: (limits) => this.#zoom(limits, `portrait ${across} ${up}`),
        },
      ],
    ];
  }
}
