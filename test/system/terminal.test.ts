/** The console with a person at it: xenolith on a pseudo-terminal, which `script` (of Debian's bsdutils) makes. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, it } from 'vitest';

const MAIN = fileURLToPath(new URL('../../dist/toolstack/main.js', import.meta.url));

class Person {
  screen = '';
  private readonly child;
  private readonly done: Promise<unknown>;

  constructor(before: string, after: string) {
    const command = `${before}; ${process.execPath} ${MAIN} -q; echo "[status $?]"; ${after}`;
    this.child = spawn('script', ['-q', '-c', command, '/dev/null'], { stdio: 'pipe' });
    this.child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.screen += text;
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

  async leaves(): Promise<void> {
    this.child.stdin.end();
    await this.done;
  }
}

const PROMPT = /xenolith:~# $/;

describe('a person at the terminal', () => {
  it('has a shell with a window, Ctrl-C and job control, and gets the terminal back', async () => {
    const person = new Person('stty rows 33 cols 101', 'stty size; stty -a | grep -o " icanon"');
    await person.sees(/Linux version/);
    await person.sees(PROMPT);
    person.type('stty size; echo $((6*7))\r');
    await person.sees(/\n33 101\r\n42\r\n/);
    await person.sees(PROMPT);
    person.type('sleep 1000\r');
    await person.sees(/sleep 1000\r\n/);
    person.type('\x03');
    await person.sees(/\^C\r\n/);
    await person.sees(PROMPT);
    person.type('sleep 1000\r');
    await person.sees(/sleep 1000\r\n/);
    person.type('\x1a');
    await person.sees(/Stopped/);
    await person.sees(PROMPT);
    person.type('jobs; kill %1; echo gone\r');
    await person.sees(/Stopped +sleep 1000\r\n/);
    await person.sees(PROMPT);
    person.type('poweroff\r');
    await person.sees(/\[status 0\]\r\n33 101\r\n icanon/);
    await person.leaves();
  });

  it('pulls the plug with Ctrl-]', async () => {
    const person = new Person('true', 'stty -a | grep -o " icanon"');
    await person.sees(PROMPT);
    person.type('while :; do :; done\r');
    await person.sees(/done\r\n/);
    person.type('\x1d');
    await person.sees(/\[status 0\]\r\n icanon/, 20);
    await person.leaves();
  });
});
