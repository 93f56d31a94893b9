// Which view is shown. The address after # names it and its settings, so every view can be linked to.

import { Api } from './api.js';
import { el } from './dom.js';

const VIEWS = {
  runs: () => import('./runs.js'),
  run: () => import('./run.js'),
  compare: () => import('./compare.js'),
  sweep: () => import('./sweep.js'),
  prompts: () => import('./prompts.js'),
  report: () => import('./report.js'),
};
const TITLES = { runs: 'Runs', run: 'Run', compare: 'Compare', sweep: 'Sweep', prompts: 'Prompts', report: 'Report' };

let api = null;
let turn = 0;

/** The view and the settings in the address. */
function place() {
  const [path, ...query] = location.hash.replace(/^#\/?/, '').split('?');
  return { view: path || 'runs', params: new URLSearchParams(query.join('?')) };
}

/** Changes settings in the address without leaving the view; null removes one. */
export function keep(changes) {
  const { view, params } = place();
  for (const [name, value] of Object.entries(changes)) {
    params.delete(name);
    for (const one of [value].flat()) if (one != null && one !== '') params.append(name, one);
  }
  const words = params.toString();
  history.replaceState(null, '', `#/${view === 'runs' ? '' : view}${words ? `?${words}` : ''}`);
}

function mark(view, params) {
  const names = params.getAll('name');
  for (const one of document.querySelectorAll('nav [data-view]')) {
    const own = one.dataset.view;
    if (own === view || (own === 'runs' && (view === 'run' || view === 'sweep')))
      one.setAttribute('aria-current', 'page');
    else one.removeAttribute('aria-current');
    if (own !== 'runs') {
      const query = new URLSearchParams((own === 'compare' ? names : names.slice(0, 1)).map((name) => ['name', name]));
      one.href = `#/${own}${names.length ? `?${query}` : ''}`;
    }
  }
}

function tellConnection(problem) {
  const place = document.getElementById('connection');
  const words = problem ? 'no answer, trying again' : 'live';
  if (place.textContent !== words) place.textContent = words;
  place.classList.toggle('lost', Boolean(problem));
  place.title = problem ?? 'This page follows the folders while it is visible.';
}

/** Shows the view of the address. */
async function show() {
  const { view, params } = place();
  if (location.hash === '#main') return; // the link that skips the navigation
  const mine = (turn += 1);
  api?.close();
  api = new Api((problem) => mine === turn && tellConnection(problem));
  const main = document.getElementById('main');
  const root = el('div', { class: `view view-${view in VIEWS ? view : 'none'}` });
  mark(view, params);
  main.replaceChildren(root);
  document.title = [params.get('name'), TITLES[view] ?? 'Not found', 'ebbtide'].filter(Boolean).join(' \u00b7 ');
  if (mine > 1) main.focus({ preventScroll: true });
  scrollTo(0, 0);
  if (!(view in VIEWS)) {
    root.append(el('h1', {}, 'There is no such view'), el('p', {}, el('a', { href: '#/' }, 'All runs')));
    return;
  }
  try {
    const module = await VIEWS[view]();
    if (mine === turn) await module.show(root, params, api);
  } catch (error) {
    if (mine !== turn || error.name === 'AbortError') return;
    root.append(el('p', { class: 'problem', role: 'alert' }, `This view cannot be shown: ${error.message}`));
  }
}

/** Follows the address from now on. */
export function start() {
  addEventListener('hashchange', show);
  document.querySelector('.skip').addEventListener('click', (event) => {
    event.preventDefault();
    document.getElementById('main').focus();
  });
  show();
}
