/** The conformance run: `npm run conformance -- [options]`, see USAGE. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { definitions } from '../../src/x86/isa/index.ts';
import { compare } from './compare.ts';
import { NativeEngine, OracleUnavailable } from './native.ts';
import { deserialize, failureText, markdown, serialize, summary } from './present.ts';
import { ProcessorEngine } from './processor.ts';
import { background, runPlan } from './run.ts';
import { allVariants } from './variants.ts';

const USAGE = `usage: npm run conformance -- [options]
  --states N      states of each form (default 1000)
  --sample        all forms, with as many states as fit into 40 seconds
  --form WORDS    only forms whose name has all these words: 'add 32 mem'
  --seed TEXT     repeat the run that printed this seed
  --replay FILE   only the cases of a file that --save wrote
  --save FILE     where failing cases go (default .cache/conformance/failures.json)
  --report FILE   write the mismatches by instruction, as Markdown
  --translator    every instruction through the translator instead of the interpreter
  --list          print the names of the forms
exit status: 0 no mismatches, 1 mismatches, 2 wrong use or no oracle`;

const SAMPLE_MILLISECONDS = 40_000;
const SHOWN = 20;

function replay(file: string, root: string, translator = false): number {
  const { batch, cases } = deserialize(readFileSync(file, 'utf8'), allVariants(definitions).variants);
  const expected = new NativeEngine(root).run(batch);
  const engine = new ProcessorEngine(translator);
  const got = engine.run(batch);
  let failed = 0;
  for (const [index, { instruction, target }] of cases.entries()) {
    const differences = compare(batch, index, instruction, target, expected, got);
    if (differences.length === 0) continue;
    failed++;
    const record = batch.record(index);
    const vector = expected.view.getUint32(expected.offsets[index]! + 4, true);
    console.log(failureText({ instruction, target, record, vector, differences }));
  }
  console.log(`${cases.length} cases again, ${failed} mismatches`);
  return failed === 0 ? 0 : 1;
}

function main(root: string): number {
  const { values } = parseArgs({
    options: {
      states: { type: 'string' },
      sample: { type: 'boolean' },
      form: { type: 'string' },
      seed: { type: 'string' },
      replay: { type: 'string' },
      save: { type: 'string' },
      report: { type: 'string' },
      list: { type: 'boolean' },
      translator: { type: 'boolean' },
      help: { type: 'boolean' },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  if (values.replay !== undefined) return replay(values.replay, root, values.translator);
  const { variants, excluded } = allVariants(definitions, values.form);
  if (values.list) {
    for (const { name } of variants) console.log(name);
    return 0;
  }
  if (variants.length === 0) {
    console.error(`no form matches '${values.form}'`);
    return 2;
  }
  const states = Number(values.states ?? 1000);
  if (!Number.isInteger(states) || states < 1) {
    console.error(`--states wants a number above 0, not '${values.states}'`);
    return 2;
  }
  const seed = values.seed ?? Date.now().toString(36);
  console.log(`seed ${seed}`);
  const engine = new ProcessorEngine(values.translator);
  let shown = 0;
  const report = runPlan(
    {
      variants,
      seed,
      states,
      timeLimit: values.sample ? SAMPLE_MILLISECONDS : undefined,
      progress: (done, total) => {
        if (!process.stderr.isTTY) return;
        const percent = Math.floor((100 * done) / total);
        if (percent !== shown) process.stderr.write(`\r${percent} %`);
        shown = percent;
      },
    },
    new NativeEngine(root),
    engine,
  );
  if (process.stderr.isTTY) process.stderr.write('\r');
  for (const failure of report.failures.slice(0, SHOWN)) console.log(`${failureText(failure)}\n`);
  if (report.failures.length > SHOWN)
    console.log(`(${report.failures.length - SHOWN} more in the file below)\n`);
  console.log(summary(report, engine.name));
  if (excluded.length > 0) console.log(`not compared: ${excluded.join(' ')}`);
  if (report.failures.length > 0) {
    const file = values.save ?? join(root, '.cache/conformance/failures.json');
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, serialize(report.failures, background(seed)));
    console.log(`replay with --replay ${file}`);
  }
  if (values.report !== undefined) writeFileSync(values.report, markdown(report, seed));
  return report.mismatches === 0 && report.hung === 0 ? 0 : 1;
}

try {
  process.exitCode = main(process.cwd());
} catch (error) {
  const wrongUse =
    error instanceof TypeError && 'code' in error && `${error.code}`.startsWith('ERR_PARSE_ARGS');
  if (!(error instanceof OracleUnavailable || wrongUse)) throw error;
  console.error(wrongUse ? `${error.message}\n${USAGE}` : (error as Error).message);
  process.exitCode = 2;
}
