// What is known of a run besides its curves: its state, its facts, its verdict and its command.

import { command, el, link, refill, setText } from './dom.js';
import { finite, median } from './groups.js';
import { exact, field, NONE, number, plural, short, span } from './text.js';

const GOOD = {
  finished: 'holds',
  complete: 'holds',
  done: 'holds',
  running: 'running',
  interrupted: 'undecided',
  waiting: 'plain',
  failed: 'fails',
  diverged: 'fails',
  damaged: 'fails',
  quarantined: 'fails',
};

/** The state of a folder as a coloured word. */
export const badge = (state, words) => el('span', { class: `badge ${GOOD[state] ?? 'plain'}` }, words || state);

/** Counts of a verdict: 4 hold, 1 fails. */
export function verdictWords(verdict) {
  if (!verdict) return null;
  const parts = [
    ['holds', 'hold', verdict.holds],
    ['fails', 'fail', verdict.fails],
    ['undecided', 'undecided', verdict.undecided],
  ];
  return el(
    'span',
    { class: 'counts' },
    ...parts
      .filter((one) => one[2] > 0)
      .map(([kind, words, count]) =>
        el('span', { class: `badge ${kind}` }, `${count} ${count === 1 && kind !== 'undecided' ? kind : words}`),
      ),
  );
}

/** How far a run is: a bar with numbers beside it. */
export function progress(row) {
  if (row.sequences == null || !row.total) return el('span', {}, NONE);
  const share = Math.min(1, row.sequences / row.total);
  const bar = el('progress', {
    max: 1,
    value: share,
    'aria-label': `${Math.round(share * 100)} % of the planned sequences`,
  });
  return el(
    'span',
    { class: 'progress' },
    bar,
    el('span', {}, row.sequences >= row.total ? short(row.total) : `${short(row.sequences)} / ${short(row.total)}`),
  );
}

/** The head of a run's page, in `root`. Returns `update(about)`. */
export function head(root, name) {
  const title = el('h1', {}, name);
  const state = el('p', { class: 'state' });
  const question = el('p', { class: 'question', hidden: true });
  const problem = el('p', { class: 'problem', role: 'status', hidden: true });
  const crumbs = el('p', { class: 'crumbs' }, link('', {}, 'Runs'));
  const parent = name.match(/^(.+)\/runs\/[^/]+$/);
  if (parent) crumbs.append(' / ', link('sweep', { name: parent[1] }, parent[1]));
  const links = el(
    'p',
    { class: 'links' },
    link('prompts', { name }, 'Prompts'),
    link('report', { name }, 'Report'),
    link('compare', { name }, 'Compare'),
  );
  root.append(el('header', { class: 'head' }, crumbs, title, question, state, links, problem));
  return (about) => {
    const { label = {}, members, sequences, total, rate, eta } = about;
    const study = [label.study, label.experiment, label.preset].filter(Boolean).join(', ');
    const share = total ? Math.min(1, sequences / total) : null;
    const running = about.status === 'running';
    setText(question, about.question ?? '');
    question.hidden = !about.question;
    refill(
      state,
      badge(about.status, about.status),
      share != null &&
        el('progress', { max: 1, value: share, 'aria-label': `${Math.round(share * 100)} % of the planned sequences` }),
      total ? `${exact(sequences)} of ${exact(total)} sequences` : null,
      members ? ` \u00d7 ${plural(members, 'member')}` : null,
      running && rate ? ` \u00b7 ${short(rate)} sequences/s` : null,
      running && eta != null ? ` \u00b7 ${span(eta)} left` : null,
      study ? ` \u00b7 ${study}` : null,
    );
    const words =
      about.problem ||
      (about.status !== about.status_words && !['running', 'finished'].includes(about.status)
        ? about.status_words
        : '');
    setText(problem, words || '');
    problem.classList.toggle('unfinished', GOOD[about.status] !== 'fails');
    problem.hidden = !words;
  };
}

/** The verdict, the facts, the settings and the command, in `root`. Returns `update(about)`. */
export function details(root) {
  const verdict = el('div', {});
  const facts = el('div', {});
  const settings = el('div', {});
  let state = '';
  root.append(verdict, facts, settings);
  return (about) => {
    const next = JSON.stringify([
      about.verdict,
      about.facts,
      about.settings,
      about.identity,
      about.commands,
      about.varied,
      about.best,
      about.checkpoints,
    ]);
    if (next === state) return;
    state = next;
    verdict.replaceChildren(...verdictTable(about.verdict));
    facts.replaceChildren(...factsBlock(about));
    if (!settings.contains(document.activeElement)) settings.replaceChildren(...settingsBlock(about));
  };
}

function verdictTable(verdict) {
  if (!verdict?.claims?.length) return [];
  const rows = verdict.claims.map((one) =>
    el(
      'tr',
      {},
      el('th', { scope: 'row' }, el('b', {}, one.claim), el('span', { class: 'statement' }, one.statement ?? '')),
      el(
        'td',
        { 'data-label': 'verdict' },
        decided(one.verdict),
        one.note ? el('span', { class: 'statement' }, one.note) : null,
      ),
      el(
        'td',
        { 'data-label': 'median' },
        number(one.estimate),
        one.low != null ? el('span', { class: 'interval' }, ` [${number(one.low)}, ${number(one.high)}]`) : null,
      ),
      el('td', { 'data-label': 'needed' }, one.needed ?? NONE),
      el('td', { 'data-label': 'members' }, one.members ?? NONE, el('span', { class: 'statement' }, one.share ?? '')),
    ),
  );
  return [
    el(
      'section',
      { class: 'block' },
      el('h2', {}, 'Verdict'),
      verdict.registered ? el('p', { class: 'note' }, verdict.registered) : null,
      el(
        'div',
        { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Verdict' },
        el(
          'table',
          { class: 'cards' },
          el('caption', { class: 'hidden' }, 'Claims and their verdicts'),
          el(
            'thead',
            {},
            el(
              'tr',
              {},
              ...['Claim', 'Verdict', 'Median of members', 'Needed', 'Members'].map((one) =>
                el('th', { scope: 'col' }, one),
              ),
            ),
          ),
          el('tbody', {}, ...rows),
        ),
      ),
    ),
  ];
}

const decided = (verdict) =>
  el(
    'span',
    { class: `badge ${['holds', 'fails', 'undecided'].find((one) => String(verdict).startsWith(one)) ?? 'plain'}` },
    String(verdict ?? NONE),
  );

function factsBlock(about) {
  const rows = (about.facts ?? [])
    .filter(([, words]) => words)
    .map(([words, value]) => el('div', {}, el('dt', {}, words), el('dd', {}, value)));
  if (Object.keys(about.varied ?? {}).length) {
    const values = Object.entries(about.varied)
      .map(([own, all]) => `${own}: ${all.map(field).join(', ')}`)
      .join('; ');
    rows.push(el('div', {}, el('dt', {}, 'Varied'), el('dd', {}, values)));
  }
  if (about.checkpoints?.length) {
    const at = about.checkpoints.map((one) => short(typeof one === 'object' ? one.sequences : one));
    const words = at.length > 12 ? `${at.slice(0, 3).join(', ')} \u2026 ${at.slice(-2).join(', ')}` : at.join(', ');
    rows.push(el('div', {}, el('dt', {}, 'Checkpoints'), el('dd', {}, `${at.length}: ${words}`)));
  }
  const block = [el('h2', {}, about.kind === 'run' ? 'About this run' : 'About this folder')];
  if (about.paper) rows.unshift(el('div', {}, el('dt', {}, 'Paper'), el('dd', {}, about.paper)));
  const best = finite(about.best?.sequences ?? []);
  if (best.length)
    rows.push(
      el(
        'div',
        {},
        el('dt', {}, `Best models by ${about.best.by}`),
        el(
          'dd',
          {},
          `at ${short(median(best))} sequences (median of ${plural(best.length, 'member')}; `,
          `${short(best[0])} to ${short(best[best.length - 1])})`,
        ),
      ),
    );
  if (rows.length) block.push(el('dl', {}, ...rows));
  const commands = about.commands ?? (about.command ? [{ what: 'reproduce', command: about.command }] : []);
  const told = commands.length
    ? [
        el(
          'section',
          { class: 'block' },
          el('h2', {}, 'Commands to copy'),
          el('p', { class: 'note' }, 'This page changes nothing: it shows what to type.'),
          el(
            'dl',
            { class: 'commands' },
            ...commands.map((one) => el('div', {}, el('dt', {}, one.what), el('dd', {}, command(one.command)))),
          ),
        ),
      ]
    : [];
  return [...told, el('section', { class: 'block' }, ...block)];
}

function settingsBlock(about) {
  const table = (title, rows, head) =>
    rows?.length
      ? el(
          'details',
          {},
          el('summary', {}, title),
          el(
            'div',
            { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': title },
            el(
              'table',
              { class: 'values' },
              el('caption', { class: 'hidden' }, title),
              el('thead', {}, el('tr', {}, ...head.map((one) => el('th', { scope: 'col' }, one)))),
              el(
                'tbody',
                {},
                ...rows.map((row) =>
                  el(
                    'tr',
                    {},
                    el('th', { scope: 'row' }, String(row[0])),
                    ...row.slice(1).map((one) => el('td', {}, field(one))),
                  ),
                ),
              ),
            ),
          ),
        )
      : null;
  const own = [
    table('Settings', about.settings, about.settings_columns ?? ['field', 'value']),
    table('Versions and machine', about.identity, ['what', 'value']),
  ].filter(Boolean);
  return own.length ? [el('section', { class: 'block' }, ...own)] : [];
}
