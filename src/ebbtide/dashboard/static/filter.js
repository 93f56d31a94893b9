// The filter of the list of runs: words, `field:value`, and `field:<number`; a minus before either turns it round.

const TEXTS = ['name', 'study', 'experiment', 'preset', 'status', 'kind'];
const NUMBERS = ['members', 'sequences', 'total', 'eta', 'icl', 'iwl', 'loss'];
const SIZES = { k: 1e3, m: 1e6, g: 1e9 };

/** The text of a row in which words are looked for. */
export function textOf(row) {
  return [...TEXTS.map((key) => row[key]), row.status_words, row.problem].filter(Boolean).join(' ').toLowerCase();
}

function numberOf(words) {
  const found = words.match(/^(-?[\d.]+(?:e-?\d+)?)([kmg]?)$/);
  return found ? Number(found[1]) * (SIZES[found[2]] ?? 1) : NaN;
}

function testNumber(value, words) {
  const [, sign, rest] = words.match(/^(<=|>=|<|>|=)?(.*)$/);
  const wanted = numberOf(rest);
  if (Number.isNaN(wanted)) return true; // not yet typed to its end
  if (value == null) return false;
  return (
    { '<': value < wanted, '>': value > wanted, '<=': value <= wanted, '>=': value >= wanted }[sign] ?? value === wanted
  );
}

function testOf(part) {
  const turned = part.startsWith('-') && part.length > 1;
  const words = turned ? part.slice(1) : part;
  const [, key, value] = words.match(/^([a-z]+):(.*)$/) ?? [];
  let test = (row, text) => text.includes(words);
  if (key === 'verdict') test = (row) => (row.verdict ? !value || row.verdict[value] > 0 : value === 'none');
  else if (TEXTS.includes(key))
    test = (row) =>
      String(row[key] ?? '')
        .toLowerCase()
        .includes(value);
  else if (NUMBERS.includes(key)) test = (row) => testNumber(row[key], value);
  return turned ? (row, text) => !test(row, text) : test;
}

/** A function of (row, its text) that says whether a filter lets the row through. */
export function filterOf(words) {
  const tests = (words.toLowerCase().match(/(?:[^\s"]|"[^"]*")+/g) ?? []).map((part) =>
    testOf(part.replaceAll('"', '')),
  );
  return (row, text) => tests.every((test) => test(row, text));
}
