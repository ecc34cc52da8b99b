import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { lines, Session, xenolith } from './cli.ts';

const VERSION = (JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }).version;

const seq = (last: number) => Array.from({ length: last }, (_, n) => `${n + 1}\n`).join('');
const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');

describe("Debian's stock kernel", () => {
  it('boots, runs the lines and powers off with status 0', async () => {
    const script = 'uname -a\ndmesg | grep "kernel on Xen"\nnproc\npoweroff\n';
    const { status, stdout, stderr } = await xenolith(['-q'], script);
    expect(lines(stdout)).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^Linux \S+ \S+-amd64 #1 SMP .* x86_64 GNU\/Linux$/),
        expect.stringMatching(/Booting (paravirtualized )?kernel on Xen$/),
        '1',
      ]),
    );
    expect(stderr).toBe('');
    expect(status).toBe(0);
  });

  it('powers off at the end of input; the status is the shell’s', async () => {
    const end = await xenolith(['-q'], 'echo begin-$((6 * 7))-end\n');
    expect(lines(end.stdout)).toContain('begin-42-end');
    expect(end.status).toBe(0);
    expect((await xenolith(['-q'], 'exit 7\n')).status).toBe(7);
  });

  it('does what people do in a shell', async () => {
    const script = `
cd /tmp && printf 'b\\na\\nc\\n' > f && sort f | tr '\\n' ' '; echo
seq 1 100000 | sha256sum
seq 1 5000 > g && gzip -9 g && gunzip g.gz && sha256sum g
echo 20 2 7 | awk '{ printf "%.6f\\n", ($1 + $2) / $3 }'
sleep 100 & kill %1; wait; echo jobs done
(sleep 1; echo slept) & wait
date -u -d @86400 +%F
ls -lR / > /dev/null 2>&1; echo listed
mkfifo p; (echo through the pipe > p) & cat p
top -b -n 1 | head -n 1 | cut -c1-4
stty rows 24 cols 80; echo old > text; vi text
:s/old/new/
:wq
echo; cat text
yes | head -n 1000 | wc -l
poweroff
`;
    const { status, stdout } = await xenolith(['-q'], script);
    const seen = lines(stdout);
    for (const line of [
      'a b c ',
      `${sha256(seq(100_000))}  -`,
      `${sha256(seq(5_000))}  g`,
      '3.142857',
      'jobs done',
      'slept',
      '1970-01-02',
      'listed',
      'through the pipe',
      'Mem:',
      'new',
      '1000',
    ]) {
      expect(seen).toContain(line);
    }
    expect(status).toBe(0);
  });

  it('has the memory that it was given', async () => {
    const script = 'awk \'/MemTotal/ { print "total", $2 }\' /proc/meminfo; poweroff\n';
    const kib = async (memory: string) => {
      const { stdout } = await xenolith(['-q', '--memory', memory], script);
      return Number(/total (\d+)/.exec(stdout)?.[1]);
    };
    const small = await kib('128M');
    const large = await kib('1G');
    expect(small).toBeGreaterThan(40 << 10);
    expect(small).toBeLessThan(128 << 10);
    expect(large).toBeGreaterThan(850 << 10);
    expect(large).toBeLessThan(1 << 20);
  });

  it('keeps time', async () => {
    const before = Math.floor(Date.now() / 1000);
    const { stdout } = await xenolith(
      ['-q'],
      'echo at $(date +%s); sleep 3; echo at $(date +%s); poweroff\n',
    );
    const [first, second] = [...stdout.matchAll(/^at (\d+)/gm)].map((match) => Number(match[1]));
    expect(first).toBeGreaterThanOrEqual(before);
    expect(first).toBeLessThanOrEqual(Math.ceil(Date.now() / 1000));
    expect(second! - first!).toBeGreaterThanOrEqual(3);
    expect(second! - first!).toBeLessThan(6);
  });

  it('restarts on reboot', async () => {
    const session = new Session([]);
    session.type('echo first boot; reboot\n');
    const first = await session.see(/^first boot/m);
    // What is typed into a domain that goes down is lost, as on any machine.
    while (!session.stderr.includes('the domain reboots'))
      await new Promise((resolve) => setTimeout(resolve, 50));
    session.type('echo second boot; cut -d. -f1 /proc/uptime; poweroff\n');
    const second = await session.see(/^second boot\r?\n/m, first);
    const { status, stdout } = await session.ended;
    expect(status).toBe(0);
    expect(Number.parseInt(stdout.slice(second), 10)).toBeLessThan(60);
  });

  it('crashes with status 70, one reason and a dump', async () => {
    const { status, stderr } = await xenolith(['-q'], 'echo c > /proc/sysrq-trigger\n');
    expect(status).toBe(70);
    expect(lines(stderr)[0]).toMatch(/^xenolith: the domain crashed/);
    expect(stderr).toMatch(/rip/i);
  });

  it('panics without an init, and says so early', async () => {
    const args = ['-q', '--no-ramdisk', '--append', 'earlyprintk=xen panic=1'];
    const { status, stdout } = await xenolith(args);
    expect(stdout).toContain('Kernel panic - not syncing');
    expect(status).not.toBe(0);
  });

  it('traces hypercalls by name', async () => {
    const { status, stderr } = await xenolith(['-q', '--trace'], 'poweroff\n');
    expect(status).toBe(0);
    for (const name of ['set_trap_table', 'mmu_update', 'mmuext_op', 'event_channel_op', 'sched_op']) {
      expect(stderr).toContain(name);
    }
  });

  it('ends on a signal', async () => {
    for (const [signal, status] of [
      ['SIGTERM', 143],
      ['SIGINT', 130],
    ] as const) {
      const session = new Session(['-q']);
      session.type('echo up\n');
      await session.see(/^up/m);
      session.child.kill(signal);
      expect((await session.ended).status).toBe(status);
    }
  });
});

describe('a small domain', () => {
  it('boots in 128 MiB and uses no CPU when idle', async () => {
    const session = new Session(['-q', '--memory', '128']);
    session.type('echo up\n');
    await session.see(/^up/m);
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    const ticks = () => {
      const stat = readFileSync(`/proc/${session.child.pid}/stat`, 'latin1')
        .replace(/^.*\) /, '')
        .split(' ');
      return Number(stat[11]) + Number(stat[12]);
    };
    const before = ticks();
    await new Promise((resolve) => setTimeout(resolve, 10_000));
    // 10 s of one core are 1000 ticks; below 2 % is what we promise.
    expect(ticks() - before).toBeLessThan(20);
    session.type('poweroff\n');
    expect((await session.ended).status).toBe(0);
  });
});

describe('the program', () => {
  it('tells its version and its options without booting', async () => {
    expect(await xenolith(['--version'])).toEqual({ status: 0, stdout: `xenolith ${VERSION}\n`, stderr: '' });
    const help = await xenolith(['--help']);
    expect(help).toMatchObject({ status: 0, stderr: '' });
    expect(help.stdout).toMatch(/^Usage: xenolith/);
  });
});
