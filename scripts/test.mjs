// `npm test`: style, types, build, tests. Every step runs, whatever became of the one before it; the last line
// counts what passed and what failed. Arguments go to vitest, for some of the unit tests: `npm test -- src/xen`.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { provide } from './prerequisites.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const bin = (name) => join(root, 'node_modules/.bin', name);

function run(program, args) {
  return spawnSync(program, args, { cwd: root, stdio: 'inherit' }).status === 0;
}

const missing = provide();
if (missing) {
  console.error(`The tests need tools that are not installed. Install them with:\n  ${missing}`);
  process.exit(1);
}

const steps = [
  ['style', bin('biome'), ['check', '--error-on-warnings', '.']],
  ['types', bin('tsc'), ['--project', 'tsconfig.json']],
  ['build', bin('tsc'), ['--project', 'tsconfig.build.json']],
];
let passed = 0;
let failed = 0;
for (const [name, program, args] of steps) {
  const good = run(program, args);
  if (good) passed++;
  else failed++;
  console.log(`${name}: ${good ? 'passed' : 'FAILED'}`);
}

const folder = mkdtempSync(join(tmpdir(), 'xenolith-test-'));
const args = process.argv.slice(2);
const suites = [['unit', []]];
// The tests that boot whole domains run at the end, unless only some tests are asked for.
if (args.length === 0) suites.push(['system', ['--config', join(root, 'test/system/vitest.config.ts')]]);
for (const [name, config] of suites) {
  const report = join(folder, `${name}.json`);
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const good = run(bin('vitest'), ['run', ...config, ...reporters, ...args]);
  const before = failed;
  try {
    const result = JSON.parse(readFileSync(report, 'utf8'));
    passed += result.numPassedTests;
    failed += result.numFailedTests;
    // A file that did not even load has no test of its own to fail.
    const broken = ({ status, assertionResults }) => status === 'failed' && assertionResults.length === 0;
    failed += result.testResults.filter(broken).length;
    if (result.numPendingTests > 0) console.log(`${name}: ${result.numPendingTests} skipped`);
  } catch (error) {
    console.error(`vitest left no report of the ${name} tests: ${error.message}`);
    failed++;
  }
  // Whatever else vitest does not like (an error outside of the tests) must not pass as success.
  if (!good && failed === before) failed++;
}
rmSync(folder, { recursive: true });

console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
