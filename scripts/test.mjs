// `npm test`: style, types, build, tests. Every step runs, whatever became of the one before it; the last line
// counts what passed and what failed. Arguments go to vitest: `npm test -- src/xen`.
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
const report = join(folder, 'report.json');
const ran = run(bin('vitest'), [
  'run',
  '--reporter=default',
  '--reporter=json',
  `--outputFile.json=${report}`,
  ...process.argv.slice(2),
]);
try {
  const { numPassedTests, numFailedTests, numPendingTests, testResults } = JSON.parse(
    readFileSync(report, 'utf8'),
  );
  passed += numPassedTests;
  failed += numFailedTests;
  // A file that did not even load has no test of its own to fail.
  failed += testResults.filter(
    (file) => file.status === 'failed' && file.assertionResults.length === 0,
  ).length;
  if (numPendingTests > 0) console.log(`${numPendingTests} skipped`);
} catch (error) {
  console.error(`vitest left no report: ${error.message}`);
  failed++;
}
if (!ran && failed === 0) failed++;
rmSync(folder, { recursive: true });

console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
