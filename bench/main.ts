/**
 * npm run bench -- [boot] [cpu] [--json FILE] [--rounds N] [--idle SECONDS]
 *
 * Measures on this machine, side by side with QEMU's TCG where it is installed: every round takes each system in
 * turn, and the table shows medians.
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { benchBoot } from './boot.ts';
import { benchCpu } from './cpu.ts';
import { type Row, table } from './report.ts';
import { bootable, makeImages } from './systems.ts';

const GROUPS = ['boot', 'cpu'] as const;

function fail(message: string, status: number): never {
  process.stderr.write(`bench: ${message}\n`);
  process.exit(status);
}

function parse() {
  try {
    const { values, positionals } = parseArgs({
      args: process.argv.slice(2),
      options: {
        json: { type: 'string' },
        rounds: { type: 'string', default: '3' },
        idle: { type: 'string', default: '30' },
      },
      allowPositionals: true,
    });
    const wrong = positionals.find((name) => !GROUPS.some((group) => group === name));
    if (wrong) throw new Error(`no such group: ${wrong} (there are ${GROUPS.join(', ')})`);
    const [rounds, idleSeconds] = [Number(values.rounds), Number(values.idle)];
    if (!Number.isInteger(rounds) || rounds < 1) throw new Error('--rounds must be a number from 1 on');
    if (!(idleSeconds > 0)) throw new Error('--idle must be a number of seconds');
    return {
      groups: new Set(positionals.length > 0 ? positionals : GROUPS),
      json: values.json,
      rounds,
      idleSeconds,
    };
  } catch (error) {
    return fail((error as Error).message, 2);
  }
}

const { groups, json, rounds, idleSeconds } = parse();
const say = (text: string) => process.stderr.write(`${text}\n`);
try {
  const images = await makeImages();
  const systems = bootable();
  say(`${images.title}, Node ${process.version}; systems: ${[...systems.keys()].join(', ')}`);
  if (!systems.has('tcg')) say('qemu-system-x86_64 is not installed: no comparison with TCG');
  const rows: Row[] = [];
  if (groups.has('boot')) rows.push(...(await benchBoot(images, systems, { rounds, idleSeconds }, say)));
  if (groups.has('cpu')) rows.push(...(await benchCpu(images, systems, rounds, say)));
  process.stdout.write(table(rows));
  if (json !== undefined) writeFileSync(json, `${JSON.stringify(rows, null, 2)}\n`);
} catch (error) {
  fail((error as Error).message, 1);
}
