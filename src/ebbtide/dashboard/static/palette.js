// Colours and dashes: those of the figures that `ebbtide report` draws (report/figure.py), and their dark variants.

/** The style of an evaluator's curve: a colour of Okabe and Ito or Tol, safe for the colour-blind, and a dash that
 * distinguishes it in black and white. */
const CONTEXT = {
  icl: ['ICL (trained classes, labels 0/1)', '#0072B2', []],
  icl_holdout: ['ICL, held-out classes', '#56B4E9', [8, 3]],
  icl_reserved: ['ICL, reserved labels', '#000000', [2, 2.5]],
  flip: ['Flip (labels swapped)', '#CC79A7', [6, 2, 2, 2]],
  icl_common: ['ICL, common classes', '#009E73', [9, 2, 2, 2]],
  icl_pairs: ['ICL, held-out pairs of labels', '#E69F00', [2, 4]],
  icl_rare: ['ICL, rare classes', '#D55E00', [4, 4]],
  icl_no_copy: ['ICL, query not in the context', '#882255', [7, 4]],
  flip_no_copy: ['Flip, query not in the context', '#999933', [6, 2, 2, 2, 2, 2]],
};
const WEIGHTS = {
  iwl: ['IWL', '#D55E00', []],
  ciwl: ['CIWL', '#E69F00', [8, 3]],
  train: ['Training distribution', '#009E73', [2, 2.5]],
  iwl_exemplar: ['IWL, held-out exemplars', '#000000', [6, 2, 2, 2]],
  iwl_common: ['IWL, common classes', '#0072B2', [9, 2, 2, 2]],
  iwl_rare: ['IWL, rare classes', '#CC79A7', [4, 4]],
};
const LOSS = { train_loss: ['Training loss', '#000000', []] };

/** The panels of an overlay, as in the figure of a run. */
export const GROUPS = [
  ['From the context', CONTEXT],
  ['From the weights', WEIGHTS],
  ['Training', LOSS],
];

/** Names of curves in the order of the figure: context, weights, the rest, training. */
export function inOrder(curves) {
  const own = [...Object.keys(CONTEXT), ...Object.keys(WEIGHTS)];
  const rank = (curve) => {
    const name = curve.split('/')[0];
    return name in LOSS ? Infinity : own.includes(name) ? own.indexOf(name) : own.length;
  };
  return [...curves].sort((a, b) => (rank(a) === rank(b) ? 0 : rank(a) - rank(b)));
}

/** Colours of runs and of evaluators that have no style of their own. */
export const CYCLE = [
  '#0072B2',
  '#D55E00',
  '#009E73',
  '#CC79A7',
  '#E69F00',
  '#56B4E9',
  '#000000',
  '#882255',
  '#999933',
];
const DASHES = [[], [8, 3], [2, 2.5], [6, 2, 2, 2], [9, 2, 2, 2]];

const DARK = {
  '#0072B2': '#4c9be8',
  '#56B4E9': '#9bd8ff',
  '#000000': '#e6e8ec',
  '#CC79A7': '#e79ac4',
  '#009E73': '#2fbf95',
  '#E69F00': '#f2b93b',
  '#D55E00': '#f5803e',
  '#882255': '#d66a9f',
  '#999933': '#c6c65e',
};

/** Whether the page is dark now. */
const isDark = () => document.documentElement.dataset.theme === 'dark';

/** A colour as it is shown now: the same on light ground, a lighter one on dark ground. */
export const shown = (colour) => (isDark() ? (DARK[colour] ?? colour) : colour);

/** The style of a curve by its name (`icl`, `icl/loss`); `index` chooses where the name has none. */
export function styleOf(curve, index = 0) {
  const [name, ...metric] = curve.split('/');
  const found = CONTEXT[name] ?? WEIGHTS[name] ?? LOSS[name];
  const words = found?.[0] ?? name;
  return {
    label: metric.length ? `${words}: ${metric.join('/').replaceAll('_', ' ')}` : words,
    colour: found?.[1] ?? CYCLE[index % CYCLE.length],
    dash: found?.[2] ?? DASHES[Math.floor(index / CYCLE.length) % DASHES.length],
  };
}

/** The colour and the dash of run number `index` of a comparison. */
export const runStyle = (index) => ({
  colour: CYCLE[index % CYCLE.length],
  dash: DASHES[Math.floor(index / CYCLE.length) % DASHES.length],
});

const VIRIDIS = [
  '#440154',
  '#48186a',
  '#472d7b',
  '#424086',
  '#3b528b',
  '#33638d',
  '#2c728e',
  '#26828e',
  '#21918c',
  '#1fa088',
  '#28ae80',
  '#3fbc73',
  '#5ec962',
  '#84d44b',
  '#addc30',
  '#d8e219',
  '#fde725',
];
const PUOR = [
  '#7f3b08',
  '#b25706',
  '#e08214',
  '#fcb761',
  '#fee0b6',
  '#f6f6f7',
  '#d8daeb',
  '#b1aad1',
  '#8073ac',
  '#532687',
  '#2d004b',
];

function between(stops, share) {
  const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(place), stops.length - 2);
  const parts = [1, 3, 5].map((at) => {
    const [a, b] = [stops[i], stops[i + 1]].map((one) => parseInt(one.slice(at, at + 2), 16));
    return Math.round(a + (b - a) * (place - i));
  });
  return `rgb(${parts.join(', ')})`;
}

/** A colour of the map viridis; share 0 is its dark end. */
export const viridis = (share) => between(VIRIDIS, share);

/** A colour of the map PuOr; share 0.5 is its white middle. */
export const diverging = (share) => between(PUOR, share);

/** A colour along time or along the values of an axis, readable on the ground of now: viridis without its palest end
 * on light ground, without its darkest on dark ground. */
export const ordered = (share) => (isDark() ? viridis(0.4 + 0.6 * share) : viridis(0.88 * (1 - share)));

/** Black or white, whichever is readable on a colour `rgb(r, g, b)`. */
export function inkOn(colour) {
  const [r, g, b] = colour.match(/\d+/g).map(Number);
  return 0.3 * r + 0.59 * g + 0.11 * b > 128 ? '#000' : '#fff';
}

/** The value of a CSS variable of the page, such as `--ink`. */
export const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
