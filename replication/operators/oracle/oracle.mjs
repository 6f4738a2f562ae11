// Answers one JSON line per JSON line: what mingo makes of a filter, an update, a pipeline or a projection.
// Dates travel as {"$date": milliseconds}.
import { createInterface } from 'node:readline';
import { createRequire } from 'node:module';
const require = createRequire(import.meta.url);
const { Query, Context } = require('mingo');
const expression = require('mingo/operators/expression');
const { updateMany, updateOne } = require('mingo/updater');

const options = { context: Context.init({ expression }) };

const revive = (v) => {
  if (Array.isArray(v)) return v.map(revive);
  if (v === null || typeof v !== 'object') return v;
  const keys = Object.keys(v);
  if (keys.length === 1 && keys[0] === '$date') return new Date(v.$date);
  return Object.fromEntries(keys.map((k) => [k, revive(v[k])]));
};

const plain = (v) => {
  if (v instanceof Date) return { $date: +v };
  if (Array.isArray(v)) return Array.from(v, (e) => (e === undefined ? null : plain(e)));
  if (v === null || typeof v !== 'object') return v;
  const out = {};
  for (const k of Object.keys(v)) if (v[k] !== undefined) out[k] = plain(v[k]);
  return out;
};

const answers = {
  match: (c) => new Query(c.filter).test(c.doc),
  update: (c) => {
    const docs = [c.doc];
    // updateOne fails on pipelines when it lists the fields they change.
    (Array.isArray(c.update) ? updateMany : updateOne)(docs, c.filter, c.update, { arrayFilters: c.arrayFilters ?? [], cloneMode: 'deep' }, options);
    return docs[0];
  },
  project: (c) => new Query(c.filter).find([c.doc], c.update).all()[0],
};

// Answers are written by the thousand: a pipe that wakes the reader for each costs more than the answers.
let held = [];
const flush = () => {
  process.stdout.write(held.join(''));
  held = [];
};

for await (const line of createInterface({ input: process.stdin })) {
  let out;
  try {
    const c = revive(JSON.parse(line));
    out = { r: plain(answers[c.kind](c)) };
  } catch (e) {
    out = { e: String(e.message ?? e) };
  }
  held.push(JSON.stringify(out) + '\n');
  if (held.length === 1000) flush();
}
flush();
