import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const SRC = join(ROOT, 'src');

/** From the ground up: a layer imports itself and what stands before it. */
const LAYERS = ['wasm', 'machine', 'x86', 'xen', 'dom0', 'toolstack'];
/** These run wherever JavaScript does. */
const PORTABLE = new Set(['wasm', 'machine', 'x86', 'xen', 'dom0']);

/** Libraries that need no host either. */
const PORTABLE_LIBRARIES = new Set(['fflate']);

/** Every module specifier in a source text, and whether it is written down as a string (computed ones are not). */
function imports(text: string): string[] {
  const code = text.replaceAll(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');
  const found = code.matchAll(/(?<!\.)\b(?:from|import)\s*\(?\s*(['"])([^'"]+)\1/g);
  return [...found].map((match) => match[2]!);
}

/** What is wrong with a file of `src`, given by its path there. */
function violations(path: string, text: string): string[] {
  const [layer] = path.split('/') as [string];
  const wrong: string[] = [];
  for (const specifier of imports(text)) {
    if (!specifier.startsWith('.')) {
      if (PORTABLE.has(layer) && !PORTABLE_LIBRARIES.has(specifier))
        wrong.push(`${path}: imports ${specifier}`);
      continue;
    }
    const [target] = normalize(join(dirname(path), specifier)).split(sep) as [string];
    if (!LAYERS.includes(target)) wrong.push(`${path}: ${specifier} is in no layer`);
    else if (LAYERS.indexOf(target) > LAYERS.indexOf(layer))
      wrong.push(`${path}: imports upward, ${specifier}`);
  }
  if (/^(?:export )?(?:let|var) /m.test(text)) wrong.push(`${path}: state at module level`);
  return wrong;
}

const files = readdirSync(SRC, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && /(?<!\.d|\.test)\.ts$/.test(entry.name))
  .map((entry) => relative(SRC, join(entry.parentPath, entry.name)).split(sep).join('/'));

describe('layers', () => {
  it('are what src consists of', () => {
    const folders = readdirSync(SRC, { withFileTypes: true }).filter((entry) => entry.isDirectory());
    expect(folders.map((entry) => entry.name).filter((name) => !LAYERS.includes(name))).toEqual([]);
    expect(files.length).toBeGreaterThan(10);
  });

  it('import downward only, and nothing of a host below the toolstack', () => {
    expect(files.flatMap((path) => violations(path, readFileSync(join(SRC, path), 'utf8')))).toEqual([]);
  });

  it.each([
    ['xen/a.ts', `import { x } from '../dom0/b.ts';`, 'imports upward'],
    ['xen/a.ts', `import type { X } from "../toolstack/b.ts";`, 'imports upward'],
    ['machine/a.ts', `export * from '../x86/cpu.ts';`, 'imports upward'],
    ['dom0/a/b.ts', `const x = await import('../../toolstack/b.ts');`, 'imports upward'],
    ['dom0/a.ts', `import {\n  readFile,\n} from 'node:fs';`, 'imports node:fs'],
    ['x86/a.ts', `import 'left-pad';`, 'imports left-pad'],
    ['x86/a.ts', `import '../web/a.ts';`, 'in no layer'],
    ['x86/a.ts', 'let count = 0;', 'module level'],
  ])('would see a violation: %s %s', (path, text, message) => {
    expect(violations(path, text)).toEqual([expect.stringContaining(message)]);
  });

  it.each([
    ['xen/a.ts', `import { x } from '../x86/cpu.ts';\nimport { y } from './b.ts';`],
    ['toolstack/a.ts', `import { x } from 'node:fs';`],
    ['dom0/a.ts', `// import from '../toolstack/b.ts'\n/* import 'node:fs' */\n  let inside = 1;`],
  ])('allows %s %s', (path, text) => {
    expect(violations(path, text)).toEqual([]);
  });

  it('the portable ones compile without the types of Node or of the DOM', () => {
    const tsc = join(ROOT, 'node_modules/.bin/tsc');
    const { status, stdout } = spawnSync(tsc, ['-p', join(ROOT, 'test/portable')], { encoding: 'utf8' });
    expect(stdout).toBe('');
    expect(status).toBe(0);
  });
});
