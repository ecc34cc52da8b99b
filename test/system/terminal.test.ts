/** The console with a person at it: xenolith on a pseudo-terminal, which `script` (of Debian's bsdutils) makes. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, it } from 'vitest';

const MAIN = fileURLToPath(new URL('../../dist/toolstack/main.js', import.meta.url));

class Person {
  screen = '';
  private readonly child;
  private readonly done: Promise<unknown>;

  constructor(before: string, after: string) {
    const command = `${before}; ${process.execPath} ${MAIN} -q; echo "[status $?]"; ${after}`;
    this.child = spawn('script', ['-q', '-c', command, '/dev/null'], { stdio: 'pipe' });
    this.child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.screen = (this.screen + text).replaceAll(ASK, '');
    });
    this.done = new Promise((resolve) => this.child.on('close', resolve));
  }

  type(keys: string): void {
    this.child.stdin.write(keys);
  }

  async sees(pattern: RegExp, seconds = 120): Promise<void> {
    const end = Date.now() + seconds * 1000;
    while (!pattern.test(this.screen)) {
      if (Date.now() > end) throw new Error(`not seen: ${pattern}\n${this.screen.slice(-1500)}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    this.screen = this.screen.slice(pattern.exec(this.screen)!.index);
  }

  /** Takes the terminal away, whatever runs there. */
  async leaves(): Promise<void> {
    this.child.kill('SIGTERM');
    await this.done;
  }
}

/** The shell asks the terminal where the cursor is (ESC [ 6 n) and goes on without an answer: that is left out. */
const ASK = '\x1b[6n';
const PROMPT = /xenolith:~# $/;

const persons: Person[] = [];
afterEach(async () => {
  for (const person of persons.splice(0)) await person.leaves();
});

function sits(before: string, after: string): Person {
  const person = new Person(before, after);
  persons.push(person);
  return person;
}

describe('a person at the terminal', () => {
  it('has a shell with a window, Ctrl-C and job control, and gets the terminal back', async () => {
    const person = sits('stty rows 33 cols 101', 'stty size; stty -a | grep -o " icanon"');
    await person.sees(/Linux version/);
    await person.sees(PROMPT);
    person.type('stty size; echo $((6*7))\r');
    await person.sees(/\n33 101\r\n42\r\n/);
    await person.sees(PROMPT);
    // The program itself says that it runs: a key before that is the shell's, which is about to start it.
    const program = "sh -c 'echo $((40+1)); sleep 1000'\r";
    person.type(program);
    await person.sees(/\n41\r\n/);
    person.type('\x03');
    await person.sees(/\^C/);
    await person.sees(PROMPT);
    person.type(program);
    await person.sees(/\n41\r\n/);
    person.type('\x1a');
    await person.sees(/Stopped/);
    await person.sees(PROMPT);
    person.type('jobs; kill %1; echo $((40+2))\r');
    await person.sees(/Stopped[^\n]*\n[\s\S]*42\r\n/);
    await person.sees(PROMPT);
    person.type('poweroff\r');
    await person.sees(/\[status 0\]\r\n33 101\r\n icanon/);
  });

  it('pulls the plug with Ctrl-]', async () => {
    const person = sits('true', 'stty -a | grep -o " icanon"');
    await person.sees(PROMPT);
    person.type('while :; do :; done\r');
    await person.sees(/done\r\n/);
    person.type('\x1d');
    await person.sees(/\[status 0\]\r\n icanon/, 20);
  });
});
