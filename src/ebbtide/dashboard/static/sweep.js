// A sweep: its members, scalars against an axis, the phase diagram, and curves by an axis.

import { select } from './controls.js';
import { address, el, link, refill, setText } from './dom.js';
import { badge, details } from './facts.js';
import { CurvesByAxis } from './by_axis.js';
import { ordered } from './palette.js';
import { phaseDiagram, sorted } from './phase.js';
import { keep } from './router.js';
import { Scatter } from './scatter.js';
import { SortTable } from './table.js';
import { exact, field, last, NONE, number, plural } from './text.js';

const COLUMNS = [
  'icl_peak',
  'icl_final',
  'transience',
  'iwl_final',
  'peak_sequences',
  'half_decay_sequences',
  'train_loss_final',
];
const MOST_SERIES = 8;
const NOTHING = 'nothing';

/** Colour of a series that is alone: the blue of ICL. */
const ALONE = '#0072B2';

const isLoss = (scalar) => scalar.startsWith('train_loss');

/** An answer in which the arms of an experiment are an axis too. */
function withArms(data) {
  if (!data.arms?.length) return data;
  return {
    ...data,
    axes: { arm: data.arms, ...data.axes },
    rows: data.rows.map((row) => ({ ...row, axes: { arm: row.arm, ...row.axes } })),
  };
}

class View {
  constructor(root, params, name, api) {
    Object.assign(this, { name, api });
    this.scalar = params.get('scalar');
    this.axis = params.get('axis');
    this.by = params.get('by');
    [this.x, this.y] = [params.get('x'), params.get('y')];
    this.head = el('p', { class: 'state' });
    this.problem = el('p', { class: 'problem', role: 'status', hidden: true });
    const set = (key, name_) => (value) => {
      this[key] = value;
      keep({ [name_]: value });
      this.phaseState = null;
      this.#show();
    };
    this.control = Object.fromEntries(
      [
        ['scalar', 'Scalar'],
        ['axis', 'Against'],
        ['by', 'Colour by'],
        ['x', 'Columns'],
        ['y', 'Rows'],
      ].map(([key, words]) => [key, select(words, [], '', set(key, key))]),
    );
    this.scatter = new Scatter();
    this.phase = el('div', {});
    this.members = el('section', { class: 'block' }, el('h2', {}, 'Members'));
    this.curves = new CurvesByAxis(name, params, api);
    this.about = el('div', {});
    this.tellAbout = details(this.about);
    const links = el(
      'p',
      { class: 'links' },
      link('compare', { name }, 'Compare all runs'),
      link('report', { name }, 'Report'),
    );
    root.append(
      el(
        'header',
        { class: 'head' },
        el('p', { class: 'crumbs' }, link('', {}, 'Runs')),
        el('h1', {}, name),
        (this.question = el('p', { class: 'question' })),
        this.head,
        links,
        this.problem,
      ),
      el(
        'div',
        { class: 'pair' },
        (this.against = el(
          'section',
          { class: 'block' },
          el('h2', {}, 'A scalar against an axis'),
          el(
            'div',
            { class: 'toolbar' },
            this.control.scalar.element,
            this.control.axis.element,
            this.control.by.element,
          ),
          this.scatter.element,
        )),
        (this.diagram = el(
          'section',
          { class: 'block' },
          el('h2', {}, 'Phase diagram'),
          el('div', { class: 'toolbar' }, this.control.x.element, this.control.y.element),
          this.phase,
        )),
      ),
      this.curves.element,
      this.members,
      this.about,
    );
    api.follow('/api/run', { name }, (about) => this.tellAbout(about));
    addEventListener(
      'themechange',
      (this.repaint = () => {
        this.phaseState = null;
        this.#show();
      }),
    );
    api.left.signal.addEventListener('abort', () => {
      removeEventListener('themechange', this.repaint);
      this.scatter.destroy();
      this.curves.destroy();
    });
  }

  /** News of the sweep. */
  learn(answer) {
    const data = withArms(answer);
    this.data = data;
    const { states = {}, problem } = data;
    const told = Object.entries(states).map(([state, count]) => badge(state, `${exact(count)} ${state}`));
    const from = [data.study, data.experiment, data.preset].filter(Boolean).join(', ');
    refill(this.head, plural(data.members ?? data.rows.length, 'member'), ...told, from ? ` \u00b7 ${from}` : '');
    setText(this.question, data.question ?? '');
    const fewer =
      data.shown < data.members ? `The first ${exact(data.shown)} of ${exact(data.members)} members are shown.` : '';
    setText(this.problem, [problem, fewer].filter(Boolean).join(' '));
    this.problem.hidden = !this.problem.textContent;
    this.#options();
    this.#writeMembers();
    this.curves.learn(data);
    this.#show();
  }

  #options() {
    const { axes, scalars } = this.data;
    const many = Object.keys(axes).filter((one) => axes[one].length > 1);
    const names = many.length ? many : Object.keys(axes);
    const own = names.filter((one) => !one.startsWith('seeds'));
    const seeded = [...own, ...names.filter((one) => one.startsWith('seeds'))];
    const pick = (value, among, otherwise) => (among.includes(value) ? value : otherwise);
    this.scalar = pick(
      this.scalar,
      scalars,
      ['transience', 'icl_final', scalars[0]].find((one) => scalars.includes(one)),
    );
    this.axis = pick(this.axis, seeded, seeded[0]);
    this.by = pick(this.by, [NOTHING, ...seeded], own.find((one) => one !== this.axis) ?? NOTHING);
    this.x = pick(this.x, seeded, seeded[0]);
    this.y = pick(
      this.y,
      seeded,
      seeded.find((one) => one !== this.x),
    );
    const words = (one) => [one, one];
    this.control.scalar.fill(
      scalars.map((one) => [one, one.replaceAll('_', ' ')]),
      this.scalar,
    );
    this.control.axis.fill(seeded.map(words), this.axis);
    this.control.by.fill([[NOTHING, NOTHING], ...seeded.map(words)], this.by);
    this.control.x.fill(seeded.map(words), this.x);
    this.control.y.fill(seeded.map(words), this.y);
  }

  #show() {
    if (!this.data || !this.axis || !this.scalar) {
      this.against.hidden = true;
      this.diagram.hidden = true;
      return;
    }
    const { rows, axes } = this.data;
    const point = (row) => ({
      value: row.axes[this.axis],
      y: row.scalars[this.scalar],
      words: Object.entries(row.axes)
        .map(([axis, v]) => `${last(axis.replaceAll('.', '/'))} ${field(v)}`)
        .join(', '),
    });
    const { by } = this;
    const values = by !== NOTHING && by !== this.axis ? sorted(axes[by]) : [];
    const split = values.length > 1 && values.length <= MOST_SERIES;
    const series = split
      ? values.map((v, i) => ({
          label: `${by} ${field(v)}`,
          colour: ordered(i / (values.length - 1)),
          points: rows.filter((row) => JSON.stringify(row.axes[by]) === JSON.stringify(v)).map(point),
        }))
      : [{ label: '', colour: ALONE, points: rows.map(point) }];
    this.scatter.update({
      title: `${this.scalar.replaceAll('_', ' ')} against ${this.axis}`,
      axis: this.axis,
      scalar: this.scalar.replaceAll('_', ' '),
      values: sorted(axes[this.axis]),
      series,
      yLog: isLoss(this.scalar),
      height: 300,
    });
    this.diagram.hidden = !this.y;
    if (this.y) {
      const state = JSON.stringify([rows.map((row) => row.scalars[this.scalar] ?? null), this.x, this.y, this.scalar]);
      if (this.x === this.y) this.phase.replaceChildren(el('p', { class: 'note' }, 'Choose two different axes.'));
      else if (state !== this.phaseState)
        this.phase.replaceChildren(...phaseDiagram({ rows, axes, x: this.x, y: this.y, scalar: this.scalar }));
      this.phaseState = state;
    }
  }

  #writeMembers() {
    const { axes, scalars, rows } = this.data;
    if (!this.table) {
      const shown = COLUMNS.filter((one) => scalars.includes(one));
      const columns = [
        ...Object.keys(axes).map((axis) => ({
          key: axis,
          title: axis,
          value: (row) => row.axes[axis],
          show: (row) => field(row.axes[axis]),
        })),
        { key: 'state', title: 'State', value: (row) => row.state, show: (row) => badge(row.state) },
        {
          key: 'run',
          title: 'Run',
          value: (row) => row.run ?? '',
          show: (row) => (row.run ? el('a', { href: address('run', { name: row.run }) }, last(row.run)) : NONE),
        },
        { key: 'place', title: 'Member', value: (row) => row.place, show: (row) => field(row.place), number: true },
        ...(shown.length ? shown : scalars.slice(0, 7)).map((one) => ({
          key: `scalar ${one}`,
          title: one.replaceAll('_', ' '),
          number: true,
          value: (row) => row.scalars[one],
          show: (row) => (one.endsWith('_sequences') ? exact(row.scalars[one]) : number(row.scalars[one])),
        })),
      ];
      this.table = new SortTable('Members of the sweep', columns);
      this.members.append(this.table.element);
    }
    this.table.update(rows);
  }
}

/** Shows the sweep `name` of the address. */
export async function show(root, params, api) {
  const name = params.get('name');
  if (!name) {
    root.append(el('h1', {}, 'No sweep is named'), el('p', {}, link('', {}, 'All runs')));
    return;
  }
  const missing = el('p', { class: 'problem', role: 'alert', hidden: true });
  root.append(missing);
  const reading = el('p', { class: 'note', role: 'status' }, 'Reading the sweep \u2026');
  root.append(reading);
  let view = null;
  api.follow(
    '/api/sweep',
    { name },
    (data) => {
      missing.hidden = true;
      reading.remove();
      view ??= new View(root, params, name, api);
      view.learn(data);
    },
    (error) => {
      reading.remove();
      missing.hidden = false;
      setText(missing, error.message);
    },
  );
}
