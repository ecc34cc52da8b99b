/** xl from the shell: every command, on domains of Debian's kernel, GRUB and one that crashes. */
import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, readSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { testKernel } from '../../src/dom0/builder/test-kernels.ts';
import { lines } from './cli.ts';
import { XlUser } from './xl-cli.ts';

const MAIN = fileURLToPath(new URL('../../dist/toolstack/main.js', import.meta.url));
const user = new XlUser();
afterEach(() => user.destroyAll());
afterAll(() => user.leave());

const HEAD = 'Name                                        ID   Mem VCPUs\tState\tTime(s)';
const SHELL = 'guests/shell.cfg';
const PROMPT = /xenolith:~# /;

/** What is driven here from end to end; only where something else is the subject, other tests go another way in. */
const TRANSCRIPT = [
  ...['create', 'create -c', 'create -p', 'list', 'list -l', 'list -v', 'list --long', 'console', 'shutdown'],
  ...[
    'reboot',
    'destroy',
    'pause',
    'unpause',
    'rename',
    'domid',
    'domname',
    'info',
    'dmesg',
    'top',
    'uptime',
  ],
  ...['vcpu-list', 'vcpu-pin', 'vcpu-set', 'mem-set', 'mem-max', 'sysrq', 'trigger', 'config-update'],
  ...['dump-core', 'sched-bvt', 'sched-bvt -d', 'sched-bvt -c', 'fork', 'save', 'restore', 'daemon'],
];

/** A line of `xl list`. */
function row(name: string, state: string, mem = '\\d+'): RegExp {
  return new RegExp(`^${name} +\\d+ +${mem} +\\d+     ${state} +\\d+\\.\\d$`, 'm');
}

function file(name: string, content: string | Uint8Array): string {
  const path = join(user.folder, name);
  writeFileSync(path, content);
  return path;
}

/** A command that fails: its status, and what it says on standard error, in full. */
async function fails(args: string[], status: number, said: string | RegExp): Promise<void> {
  const outcome = await user.run(args);
  expect(outcome.stderr).toMatch(said);
  expect(outcome.stderr).not.toMatch(/\n {4}at |internal error/);
  expect(outcome.status).toBe(status);
}

describe('xl and its daemon', () => {
  it('the first xl starts it, and no second one comes up', async () => {
    expect(await user.run(['daemon', 'status'])).toMatchObject({ status: 3, stdout: 'no daemon runs\n' });
    const [first, second] = await Promise.all([user.run(['list']), user.run(['list'])]);
    for (const { status, stdout, stderr } of [first, second]) {
      expect(stderr).toBe('');
      expect(status).toBe(0);
      expect(lines(stdout)[0]).toBe(HEAD);
      expect(stdout).toMatch(/^Domain-0 +0 +\d+ +1 {5}r----- +\d+\.\d$/m);
    }
    const pid = await user.daemonPid();
    await fails(['daemon', 'run'], 1, `xl: a daemon runs already (process ${pid})\n`);
    await fails(['daemon', 'start'], 1, `xl: a daemon runs already (process ${pid})\n`);
    const run = user.env['XENOLITH_DIR']!;
    expect(statSync(run).mode & 0o777).toBe(0o700);
    expect(statSync(join(run, 'socket')).mode & 0o777).toBe(0o600);
  });

  it('says what a wrong command line lacks, with the statuses of xl', async () => {
    await fails([], 1, /^Usage xl \[-vfNtT\] <subcommand> \[args\]\n/);
    await fails(['frobnicate'], 1, "command 'frobnicate' not implemented\n");
    await fails(['list', '-y'], 2, "option `y' not supported.\n");
    await fails(['pause'], 2, /^'xl pause' requires at least 1 argument\.\n\nUsage: xl/);
    await fails(['rename', 'x'], 2, /^'xl rename' requires at least 2 arguments\./);
    await fails(['shutdown'], 1, 'You must specify -a or a domain id.\n');
    await fails(['pause', 'nobody'], 1, 'nobody is an invalid domain identifier (rc=-6)\n');
    await fails(['list', '77'], 1, "Error: Domain '77' does not exist.\n");
    await fails(
      ['domid', 'nobody'],
      1,
      "Can't get domid of domain name 'nobody', maybe this domain does not exist.\n",
    );
    await fails(['destroy', '0'], 1, 'Not destroying domain 0');
    expect(await user.xl('help')).toMatch(/ create +Creates a domain/);
    expect(await user.xl('create', '-h')).toContain('--defconfig=FILE');
  });

  it('says where a configuration is wrong: file, line and key', async () => {
    const bad = (text: string) => ['create', '-q', file('bad.cfg', text)];
    const at = (line: number, what: string) => `${join(user.folder, 'bad.cfg')}:${line}: ${what}`;
    await fails(bad('name="x"\nkernel="k\n'), 1, at(2, 'kernel: a string without its closing "'));
    await fails(bad('kernel="k"\n'), 1, at(1, 'name: is missing'));
    await fails(bad('name="x"\nkernel="k"\n\nmemory="much"'), 1, at(4, 'memory: must be a number'));
    await fails(bad('name="x"\nkernel="k"\ndisk=["x"]'), 1, at(3, 'disk: vdev is missing'));
    await fails(['create', '-q', SHELL, 'memory=[]'], 1, '<command line>:1: memory: must be a number');
    await fails(
      ['create', '/no/such.cfg'],
      1,
      'Failed to read config file: /no/such.cfg: No such file or directory\n',
    );
    await fails(['create', '-q', SHELL, 'kernel="/no/kernel"'], 1, '/no/kernel: no such file\n');
    await fails(['create', '-q', SHELL, 'kernel="/bin/sh"'], 1, /^\/bin\/sh: .*Xen/);
    await fails(
      ['create', '-q', SHELL, 'memory=100000'],
      1,
      /^shell: needs 100000 MiB, and \d+ MiB are free\n$/,
    );
    await fails(['create', '-q', SHELL, 'disk=["/no/disk,raw,xvda,rw"]'], 1, /\/no\/disk/);
    expect(await user.xl('vm-list')).toBe('UUID                                  ID    name\n');
    const dry = await user.run(['create', '-q', '--dryrun', SHELL, 'name="x"; colour="red"']);
    expect(dry.stderr).toMatch(/^WARNING: <command line>:1: colour: unknown key, ignored\n$/);
    expect(JSON.parse(dry.stdout)).toMatchObject({ c_info: { name: 'x' }, b_info: { max_memkb: 256 << 10 } });
  });
});

describe('the package', () => {
  it('has the toolstack for programs, and xl under its own name', async () => {
    const program = `
      import { RemoteToolstack, readDomainConfig } from 'xenolith/toolstack';
      const toolstack = new RemoteToolstack({ socketPath: process.env.XENOLITH_DIR + '/socket' });
      const { config } = readDomainConfig([{ name: 'x', text: 'name="p"; firmware="pvgrub64"; memory=64' }], '/');
      const { domid } = await toolstack.create(config, true);
      console.log((await toolstack.list()).map(({ name }) => name).join());
      await toolstack.destroy(domid);`;
    await user.xl('list');
    const same = execFileSync(process.execPath, [MAIN, 'vm-list'], { env: user.env, encoding: 'utf8' });
    expect(same).toBe(await user.xl('vm-list'));
    const args = ['--input-type=module', '-e', program];
    expect(execFileSync(process.execPath, args, { env: user.env, encoding: 'utf8' })).toBe('Domain-0,p\n');
  });
});

describe('a domain of Debian’s kernel', () => {
  it('is created, seen, changed and ended by every command', async () => {
    await user.xl('create', '-q', '-p', SHELL, 'name="a"', 'memory=160; on_poweroff="restart"');
    expect(await user.xl('list', 'a')).toMatch(row('a', '--p---', '160'));
    await fails(['create', '-q', SHELL, 'name="a"'], 1, 'Domain with name "a" already exists.\n');
    const [{ config }] = JSON.parse(await user.xl('list', '-l', 'a')) as [
      { config: { c_info: { uuid: string } } },
    ];
    await fails(
      ['create', '-q', SHELL, `uuid="${config.c_info.uuid}"`],
      1,
      /^shell: domain \d+ \(a\) has this UUID\n$/,
    );
    const console = user.start(['console', 'a']);
    const other = user.start(['console', 'a']);
    await new Promise((resolve) => setTimeout(resolve, 500));
    await user.xl('unpause', 'a');

    // What does not need the guest, while it boots.
    const domid = (await user.xl('domid', 'a')).trim();
    expect(await user.xl('domname', domid)).toBe('a\n');
    await user.xl('rename', 'a', 'b.1');
    await fails(['domid', 'a'], 1, "Can't get domid");
    await user.xl('rename', domid, 'a');
    await fails(['rename', 'a', 'Domain-0'], 1, /already exists\.\nCan't rename domain 'a'\.\n$/);
    const [long] = JSON.parse(await user.xl('list', '-l', 'a')) as [
      {
        domid: number;
        config: { c_info: { name: string; uuid: string }; b_info: unknown; on_poweroff: string };
      },
    ];
    expect(long.domid).toBe(Number(domid));
    expect(long.config).toMatchObject({ c_info: { name: 'a', type: 'pv' }, on_poweroff: 'restart' });
    expect(long.config.b_info).toMatchObject({
      kernel: 'xenolith:debian',
      max_memkb: 160 << 10,
      max_vcpus: 1,
    });
    const { uuid } = long.config.c_info;
    expect(JSON.parse(await user.xl('list', '--long', 'a', domid))).toHaveLength(2);
    expect(lines(await user.xl('list', '0', 'a')).map((line) => line.split(' ')[0])).toEqual([
      ...['Name', 'Domain-0', 'a', ''],
    ]);
    expect(await user.xl('list', '-v', 'a')).toContain(` ${uuid}        -                -\n`);
    expect(await user.xl('vm-list')).toContain(`${uuid}  ${domid}    a`);
    const info = await user.xl('info');
    for (const field of [
      'total_memory',
      'free_memory',
      'nr_cpus',
      'nr_nodes',
      'cores_per_socket',
      'xen_major',
      'xen_minor',
    ])
      expect(info).toMatch(new RegExp(`^${field} +: \\d+$`, 'm'));
    expect(await user.xl('info', 'xen_major')).toBe('4\n');
    expect(await user.xl('vcpu-list', 'a')).toMatch(/^a +\d+ +0 +0 +[r-][b-]- +\d+\.\d {2}all \/ all$/m);
    await user.xl('vcpu-pin', 'a', 'all', 'all');
    await fails(['vcpu-pin', 'a', '0', '99'], 1, 'names none of the machine');
    await fails(['vcpu-set', 'a', '2'], 1, /overcommmitting|can have 1 to 1/);
    await user.xl('vcpu-set', 'a', '1');
    expect(await user.xl('uptime', 'a')).toMatch(/^Name +ID Uptime\na +\d+ {2}\d:\d\d:\d\d\n$/);
    expect(await user.xl('dmesg')).toMatch(/^\(XEN\) Domain \d+ \(a\) created$/m);
    const top = lines(await user.xl('top', '-b', '-i', '2', '-d', '1'));
    expect(top.filter((line) => / NAME +STATE +CPU\(sec\) +CPU\(%\)/.test(line))).toHaveLength(2);
    expect(top.filter((line) => /^ +a [r-][b-]-{4} +\d+ +\d+\.\d +163840 /.test(line))).toHaveLength(2);
    await user.xl('sched-bvt', '-d', 'a', '-m', '5', '-b', '1', '-v', '100', '-l', '2000', '-u', '1000');
    expect(await user.xl('sched-bvt', '-d', 'a')).toMatch(/^a +\d+ +5 +1 +100 +2000 +1000$/m);
    await user.xl('sched-bvt', '-s', '-c', '50000');
    expect(await user.xl('sched-bvt', '-s')).toBe('ctx_allow=50000us\n');
    await user.xl('sched-bvt', '-s', '-c', '5000');
    await fails(['sched-bvt', '-d', 'a', '-m', '0'], 1, /body\/mcuAdvance/);

    // The console, for two.
    await console.sees(/Linux version/);
    await other.sees(/Linux version/);
    await console.sees(PROMPT);
    console.type('echo sum $((6 * 7))\n');
    await console.sees(/^sum 42/m);
    await other.sees(/^sum 42/m);
    await user.xl('pause', 'a');
    expect(await user.xl('list', 'a')).toMatch(row('a', '-[b-]p---'));
    await user.xl('unpause', 'a');
    await user.until(['list', 'a'], row('a', '-b----'));

    // What the guest has to do with it.
    const core = join(user.folder, 'core');
    await user.xl('sysrq', 'a', 'h');
    await console.sees(/sysrq: HELP/);
    await user.xl('trigger', 'a', 'nmi');
    await console.sees(/NMI received for unknown reason/);
    const image = file('hot.img', new Uint8Array(1 << 20));
    await user.xl('block-attach', 'a', `${image},raw,xvdb,rw`);
    console.type(
      'modprobe xen-blkfront; until [ -b /dev/xvdb ]; do sleep 1; done; echo sum-$((40 + 2)) >/dev/xvdb; sync; echo hot\n',
    );
    await console.sees(/^hot/m);
    expect(await user.xl('block-list', 'a')).toMatch(/^51728 0 +\d+ +4 +\d+ +\d+ +\/local/m);
    await user.xl('block-detach', 'a', 'xvdb');
    expect(readFileSync(image, 'latin1')).toMatch(/^sum-42\n/);
    await fails(['mem-set', 'a', '200'], 1, /goes up to 163840 KiB/);
    await user.xl('mem-set', 'a', '144m');
    await user.until(['list', 'a'], row('a', '[r-][b-]----', '144'));
    await fails(['mem-max', 'a', '100'], 1, /less than the target/);
    await user.xl('mem-max', 'a', '160');
    expect(await user.xl('fork', '-n', '2', 'a')).toBe('a-1\na-2\n');
    expect(Number(await user.xl('info', 'sharing_freed_memory'))).toBeGreaterThan(100);
    const copy = user.start(['console', 'a-2']);
    copy.type('echo copy $((6 * 8))\n');
    await copy.sees(/^copy 48/m);
    await user.xl('destroy', 'a-1');
    await user.xl('destroy', 'a-2');
    console.type('echo still $((6 * 9))\n');
    await console.sees(/^still 54/m);

    // Into a file and back: what it was doing goes on, under the same name and another number.
    const saved = join(user.folder, 'saved');
    console.type('SINCE=before\n');
    await user.xl('save', '-c', 'a', saved);
    console.type('echo goes $((6 * 10))\n');
    await console.sees(/^goes 60/m);
    expect(await user.run(['save', 'a', saved])).toMatchObject({ status: 0, stderr: `Saving to ${saved}\n` });
    expect((await console.ended).status).toBe(0);
    expect((await other.ended).status).toBe(0);
    await fails(['domid', 'a'], 1, "Can't get domid");
    await fails(['restore', core], 1, /No such file|no such file/);
    await user.xl('restore', '-p', saved);
    expect(await user.xl('list', 'a')).toMatch(row('a', '-[b-]p---', '144'));
    const restored = (await user.xl('domid', 'a')).trim();
    expect(restored).not.toBe(domid);
    const back = user.start(['console', 'a']);
    await user.xl('unpause', 'a');
    back.type('echo $SINCE $((6 * 11))\n');
    await back.sees(/^before 66/m);
    await user.xl('dump-core', 'a', core);
    expect(statSync(core).size).toBeGreaterThan(144 << 20);
    expect([...head(core, 4)]).toEqual([0x7f, 0x45, 0x4c, 0x46]);
    await user.xl('config-update', 'a', SHELL, 'on_reboot="destroy"; memory=128');

    // Down, and up again as its configuration says now; then down for good.
    const down = await user.run(['shutdown', '-w', 'a']);
    expect(down).toMatchObject({ status: 0 });
    expect(down.stderr).toMatch(/^Shutting down domain \d+\nWaiting for 1 domains\nDomain \d+ has been /);
    expect((await back.ended).status).toBe(0);
    await user.until(['list', 'a'], row('a', '[r-][b-]----', '128'));
    expect(await user.xl('domid', 'a')).not.toBe(`${restored}\n`);
    const second = user.start(['console', 'a']);
    await second.sees(PROMPT);
    expect(await user.xl('reboot', '-w', '-w', 'a')).toBe('');
    expect((await second.ended).status).toBe(0);
    await fails(['destroy', 'a'], 1, 'a is an invalid domain identifier (rc=-6)\n');
    // Two boots, which take their time on a busy machine.
  }, 600_000);
});

describe('a small domain', () => {
  const GRUB = () => file('grub.cfg', 'name="g"; firmware="pvgrub64"; memory=64; on_poweroff="preserve"');

  it('has its console on a terminal; Ctrl-] leaves it, and the terminal is as it was', async () => {
    const person = user.onTerminal(
      `xl create -q -c ${GRUB()}; echo "[status $?]"; stty -a | grep -o " icanon"`,
    );
    await person.sees(/grub> /);
    person.type('echo hello\r');
    // GRUB moves the cursor between the letters that are typed, so this is its answer.
    await person.sees(/hello/);
    person.type('\x1d');
    await person.sees(/\[status 0\]\r\n icanon/);
    expect(await user.xl('list', 'g')).toMatch(row('g', '[r-][b-]----'));
    // It goes on, and what it prints is there for who comes.
    const again = user.onTerminal('xl console g');
    await new Promise((resolve) => setTimeout(resolve, 500));
    again.type('echo again\r');
    await again.sees(/again/);
    const domid = await user.xl('domid', 'g');
    again.type('reboot\r');
    await again.ended;
    await user.until(['domid', 'g'], new RegExp(`^(?!${domid})\\d+\n$`));
    const last = user.onTerminal('xl console g');
    await last.sees(/grub> /);
    last.type('halt\r');
    await last.ended;
    expect(await user.until(['list', 'g'], row('g', '---s--'))).toContain('64');
    await user.xl('destroy', 'g');
  });

  it('that crashes says why, and leaves what its configuration asks for', async () => {
    // ud2, where it starts.
    const code = new Uint8Array(4096);
    code.set([0x0f, 0x0b], 0x10);
    const kernel = file('crash', testKernel({ code }));
    const config = file('crash.cfg', `name="c"; kernel="${kernel}"; memory=16; on_crash="coredump-destroy"`);
    await user.xl('create', '-q', config);
    await user.until(['list'], /^Domain-0.*\n$/m);
    expect(await user.xl('dmesg')).toMatch(/\(XEN\) Domain \d+ \(c\) crashed: /);
    expect(existsSync(join(user.env['XENOLITH_DIR']!, 'dump/c'))).toBe(true);
    await user.xl('create', '-q', config, 'on_crash="rename-restart"');
    expect(await user.until(['list', '-v'], /^c-\d{8}T\d{4}Z +\d+ .* ---sc- .* 3 +-$/m)).toMatch(/^c-/m);
    // It would do so for ever; it is not restarted when it did it five times.
    await user.until(['dmesg'], /\(c\) ended at once too often: it is not restarted/);
    expect([...(await user.xl('vm-list')).matchAll(/ {4}c\b/g)]).toHaveLength(5);
  });

  it('is given devices, and they are taken from it', async () => {
    const image = file('disk.img', new Uint8Array(1 << 20));
    await user.xl('create', '-q', '-p', GRUB(), 'vif=["mac=00:16:3e:00:00:07"]');
    const domid = (await user.xl('domid', 'g')).trim();
    await user.xl('block-attach', 'g', image, 'raw', 'xvdb', 'ro');
    await fails(['block-attach', 'g', image, 'raw', 'xvdb', 'ro'], 1, 'has a disk xvdb already');
    await fails(['block-attach', 'g', '/no/image,raw,xvdc,rw'], 1, '/no/image');
    await fails(['block-attach', 'g', 'raw'], 1, 'vdev is missing');
    expect(lines(await user.xl('block-list', 'g'))).toEqual([
      'Vdev  BE  handle state evt-ch ring-ref BE-path                       ',
      `51728 0   ${domid.padEnd(6)} 2     -1     -1       /local/domain/0/backend/vbd/${domid}/51728`.padEnd(
        68,
      ),
      '',
    ]);
    await user.xl('network-attach', 'g', 'mac=00:16:3E:00:00:08', 'bridge=xenbr1');
    const vifs = lines(await user.xl('network-list', 'g'));
    expect(vifs[0]).toBe(
      'Idx BE Mac Addr.         handle state evt-ch   tx-/rx-ring-ref BE-path                       ',
    );
    expect(vifs[1]).toContain(
      `0   0  00:16:3e:00:00:07      0     2     -1    -1/-1          /local/domain/0/backend/vif/${domid}/0`,
    );
    expect(vifs[2]).toContain(
      `1   0  00:16:3e:00:00:08      1     2     -1    -1/-1          /local/domain/0/backend/vif/${domid}/1`,
    );
    await user.xl('block-detach', '--force', 'g', 'xvdb');
    await fails(['block-detach', 'g', 'xvdb'], 1, `domain ${domid} has no disk xvdb`);
    await user.xl('network-detach', '--force', 'g', '00:16:3e:00:00:07');
    expect(await user.xl('network-list', 'g')).not.toContain('00:16:3e:00:00:07');
    expect(await user.xl('list', '-l', 'g')).toContain('mac=00:16:3E:00:00:08,bridge=xenbr1');
  });

  it('is in the store that Xen’s own clients read', async () => {
    await user.xl('create', '-q', '-p', GRUB());
    const store = join(user.env['XENOLITH_DIR']!, 'xenstored');
    try {
      const env = { ...process.env, XENSTORED_PATH: join(store, 'socket') };
      const domid = (await user.xl('domid', 'g')).trim();
      expect(execFileSync('xenstore-read', [`/local/domain/${domid}/name`], { env, encoding: 'utf8' })).toBe(
        'g\n',
      );
    } catch (error) {
      // They are in xenstore-utils; where that is not installed there is nobody to ask.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    await user.xl('destroy', 'g');
  });
});

describe('the daemon', () => {
  it('that is killed is told of by the next one, which works', async () => {
    await user.xl('create', '-q', '-p', file('g.cfg', 'name="lost"; firmware="pvgrub64"; memory=64'));
    const pid = await user.daemonPid();
    process.kill(pid, 'SIGKILL');
    const next = await user.run(['list']);
    expect(next.status).toBe(0);
    expect(next.stderr).toMatch(
      new RegExp(
        `^xl: the daemon before this one \\(process ${pid}, since .*\\) was killed; its domains ended with it: lost\n$`,
      ),
    );
    expect(next.stdout).not.toContain('lost');
    expect((await user.run(['list'])).stderr).toBe('');
    expect(readFileSync(join(user.env['XENOLITH_DIR']!, 'daemon.log'), 'utf8')).toContain('was killed');
  });

  it('was asked for everything that xl can be asked for', () => {
    expect(TRANSCRIPT.filter((command) => !user.used.has(command))).toEqual([]);
  });

  it('ends when it is told to; with domains only by force', async () => {
    await user.xl('create', '-q', '-p', file('g.cfg', 'name="g"; firmware="pvgrub64"; memory=64'));
    await fails(['daemon', 'stop'], 1, 'there is 1 domain; --force ends them\n');
    await user.xl('daemon', 'stop', '--force');
    expect((await user.run(['daemon'])).status).toBe(3);
    expect(existsSync(join(user.env['XENOLITH_DIR']!, 'socket'))).toBe(false);
    // A new one has nothing to tell.
    expect((await user.run(['list'])).stderr).toBe('');
  });
});

function head(path: string, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  const descriptor = openSync(path, 'r');
  readSync(descriptor, bytes);
  closeSync(descriptor);
  return bytes;
}
