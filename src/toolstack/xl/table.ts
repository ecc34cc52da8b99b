/** The commands of xl: what they take, what help says of them, and where they are done. */
import type { Run } from './context.ts';

export interface Command {
  readonly name: string;
  readonly summary: string;
  readonly synopsis: string;
  /** Its options, for a person. */
  readonly help?: string;
  /** As getopt has them; -h is every command's. */
  readonly short?: string;
  readonly long?: Readonly<Record<string, string>>;
  /** It needs so many operands. */
  readonly operands?: number;
  /** It has no meaning with xl -N, which does nothing. */
  readonly changes?: boolean;
  /** Operands are its own business, options among them. */
  readonly raw?: boolean;
  readonly load: () => Promise<Run>;
}

const lists = () => import('./commands/list.ts');
const lives = () => import('./commands/lifecycle.ts');
const sizes = () => import('./commands/cpu-memory.ts');

const devices = () => import('./commands/devices.ts');

const WAIT_AND_ALL = { all: 'a', wait: 'w' };

/** Whether a word is a command of xl's. */
export function isXlCommand(word: string | undefined): boolean {
  return word === 'help' || COMMANDS.some(({ name }) => name === word);
}

export const COMMANDS: readonly Command[] = [
  {
    name: 'create',
    summary: 'Creates a domain from a configuration file',
    synopsis: '[CONFIGFILE] [options] [KEY=VALUE ...]',
    help: `-p                      Leaves the domain paused.
-c                      Connects to its console.
-f FILE, --defconfig=FILE
                        Takes this configuration file.
-q, --quiet             Says nothing.
-n, --dryrun            Prints the configuration, and does nothing.
-F                      Stays until the domain is gone.
-d, -e                  Are accepted, and have no effect.`,
    short: 'pcf:qndFeVA',
    long: { defconfig: 'f', quiet: 'q', dryrun: 'n', vncviewer: 'V', 'vncviewer-autopass': 'A' },
    load: async () => (await import('./commands/create.ts')).create,
  },
  {
    name: 'config-update',
    summary: 'Changes what a domain is made of when it restarts',
    synopsis: 'DOMAIN [CONFIGFILE] [options] [KEY=VALUE ...]',
    help: `-f FILE, --defconfig=FILE
                        Takes this configuration file.
-q                      Says nothing.
-d                      Prints the configuration, too.`,
    short: 'f:qd',
    long: { defconfig: 'f' },
    operands: 1,
    load: async () => (await import('./commands/create.ts')).configUpdate,
  },
  {
    name: 'list',
    summary: 'Lists domains',
    synopsis: '[options] [DOMAIN ...]',
    help: `-l, --long              Everything, as JSON.
-v, --verbose           Identifiers and reasons of shutdowns, too.
-Z, --context           Security labels, too.
-c, --cpupool           CPU pools, too.
-n, --numa              NUMA nodes, too.`,
    short: 'lvZcn',
    long: { long: 'l', verbose: 'v', context: 'Z', cpupool: 'c', numa: 'n' },
    load: async () => (await lists()).list,
  },
  {
    name: 'console',
    summary: "Connects to a domain's console; Ctrl-] leaves it",
    synopsis: '[options] DOMAIN',
    help: `-t pv                   The type of the console.
-n 0                    Its number.`,
    short: 't:n:',
    operands: 1,
    load: async () => (await import('./commands/console.ts')).console,
  },
  {
    name: 'fork',
    summary: 'Makes copies of a running domain, and prints their names',
    synopsis: '[options] DOMAIN',
    help: `-n COUNT, --count=COUNT
                        So many (1).
-p                      Leaves them paused.`,
    short: 'n:p',
    long: { count: 'n' },
    operands: 1,
    changes: true,
    load: async () => (await lives()).fork,
  },
  {
    name: 'destroy',
    summary: 'Ends a domain at once',
    synopsis: '[options] DOMAIN',
    help: '-f                      Is accepted, and has no effect.',
    short: 'f',
    operands: 1,
    changes: true,
    load: async () => (await lives()).destroy,
  },
  {
    name: 'shutdown',
    summary: 'Asks a domain to power off',
    synopsis: '[options] -a|DOMAIN',
    help: `-a, --all               All domains.
-w, --wait              Waits until it has shut down; twice: until it is gone.
-F                      Is accepted: there are no other ways.`,
    short: 'awF',
    long: WAIT_AND_ALL,
    changes: true,
    load: async () => (await lives()).shutdown,
  },
  {
    name: 'reboot',
    summary: 'Asks a domain to reboot',
    synopsis: '[options] -a|DOMAIN',
    help: `-a, --all               All domains.
-w, --wait              Waits until it has gone down; twice: until it is gone.
-F                      Is accepted: there are no other ways.`,
    short: 'awF',
    long: WAIT_AND_ALL,
    changes: true,
    load: async () => (await lives()).reboot,
  },
  {
    name: 'pause',
    summary: 'Pauses a domain',
    synopsis: 'DOMAIN',
    operands: 1,
    changes: true,
    load: async () => (await lives()).pause,
  },
  {
    name: 'unpause',
    summary: 'Lets a paused domain run',
    synopsis: 'DOMAIN',
    operands: 1,
    changes: true,
    load: async () => (await lives()).unpause,
  },
  {
    name: 'rename',
    summary: 'Renames a domain',
    synopsis: 'DOMAIN NEWNAME',
    operands: 2,
    changes: true,
    load: async () => (await lives()).rename,
  },
  {
    name: 'domid',
    summary: 'Tells the number of a domain',
    synopsis: 'DOMAINNAME',
    operands: 1,
    load: async () => (await lists()).domid,
  },
  {
    name: 'domname',
    summary: 'Tells the name of a domain',
    synopsis: 'DOMAINID',
    operands: 1,
    load: async () => (await lists()).domname,
  },
  {
    name: 'vm-list',
    summary: 'Lists domains by their identifiers, without Domain 0',
    synopsis: '',
    load: async () => (await lists()).vmList,
  },
  {
    name: 'uptime',
    summary: 'Tells for how long domains have been up',
    synopsis: '[-s] [DOMAIN ...]',
    help: '-s                      In short.',
    short: 's',
    load: async () => (await lists()).uptime,
  },
  {
    name: 'sysrq',
    summary: 'Sends a magic SysRq',
    synopsis: 'DOMAIN LETTER',
    operands: 2,
    changes: true,
    load: async () => (await lives()).sysrq,
  },
  {
    name: 'trigger',
    summary: 'Sends a trigger',
    synopsis: 'DOMAIN nmi|reset|init|power|sleep|s3resume [VCPU]',
    help: 'power and reset ask the guest to go down, as shutdown and reboot do.',
    operands: 2,
    changes: true,
    load: async () => (await lives()).trigger,
  },
  {
    name: 'save',
    summary: 'Saves a domain into a file, and ends it',
    synopsis: '[options] DOMAIN FILE [CONFIGFILE]',
    help: `-c                      Lets the domain go on.
-p                      Leaves the domain paused.
CONFIGFILE is what it is made of when it is restored.`,
    short: 'cp',
    operands: 2,
    changes: true,
    load: async () => (await import('./commands/saved.ts')).save,
  },
  {
    name: 'restore',
    summary: 'Makes a domain of a saved one',
    synopsis: '[options] [CONFIGFILE] FILE',
    help: `-p                      Leaves the domain paused.
-c                      Connects to its console.
-d, -e                  Are accepted, and have no effect.`,
    short: 'pcdeVA',
    operands: 1,
    changes: true,
    load: async () => (await import('./commands/saved.ts')).restore,
  },
  {
    name: 'dump-core',
    summary: "Writes a domain's state and memory into a file",
    synopsis: 'DOMAIN [FILE]',
    operands: 1,
    changes: true,
    load: async () => (await lives()).dumpCore,
  },
  {
    name: 'vcpu-list',
    summary: 'Lists virtual CPUs',
    synopsis: '[DOMAIN ...]',
    load: async () => (await lists()).vcpuList,
  },
  {
    name: 'vcpu-pin',
    summary: 'Sets on which CPUs a virtual CPU may run',
    synopsis: '[options] DOMAIN VCPU|all CPUS|-|all [SOFT CPUS|-|all]',
    help: '-f, --force             Is accepted, and has no effect.',
    short: 'f',
    long: { force: 'f' },
    operands: 3,
    changes: true,
    load: async () => (await sizes()).vcpuPin,
  },
  {
    name: 'vcpu-set',
    summary: 'Sets how many virtual CPUs a domain has up',
    synopsis: '[options] DOMAIN COUNT',
    help: '-i, --ignore-host       More than the machine has processors, too.',
    short: 'i',
    long: { 'ignore-host': 'i' },
    operands: 2,
    changes: true,
    load: async () => (await sizes()).vcpuSet,
  },
  {
    name: 'mem-set',
    summary: "Sets the target of a domain's balloon",
    synopsis: 'DOMAIN SIZE',
    help: 'SIZE is in MiB, or has a suffix: b, k, m, g or t.',
    operands: 2,
    changes: true,
    load: async () => (await sizes()).memSet,
  },
  {
    name: 'mem-max',
    summary: 'Sets the most memory that a domain may own',
    synopsis: 'DOMAIN SIZE',
    help: 'SIZE is in MiB, or has a suffix: b, k, m, g or t.',
    operands: 2,
    changes: true,
    load: async () => (await sizes()).memMax,
  },
  {
    name: 'sched-bvt',
    summary: 'Shows or sets parameters of Borrowed Virtual Time',
    synopsis: '[-d DOMAIN [-m MCUADV] [-b 0|1] [-v WARPVALUE] [-l US] [-u US]] | -s [-c US]',
    help: `-d, --domain=DOMAIN     This domain; without it, all are shown.
-m, --mcuadv=NUMBER     Virtual time for a charging unit: twice as much is half the share.
-b, --warpback=0|1      It borrows when it wakes.
-v, --warpvalue=NUMBER  How far ahead it is then, in virtual time.
-l, --warplimit=US      For how long it may run so; 0: without limit.
-u, --unwarp=US         Until it may again.
-s, --schedparam        About the whole machine.
-c, --ctxallow=US       The context-switch allowance.`,
    short: 'd:m:b:v:l:u:sc:',
    long: {
      domain: 'd',
      mcuadv: 'm',
      warpback: 'b',
      warpvalue: 'v',
      warplimit: 'l',
      unwarp: 'u',
      schedparam: 's',
      ctxallow: 'c',
    },
    load: async () => (await sizes()).schedBvt,
  },
  {
    name: 'block-list',
    summary: "Lists domains' virtual disks",
    synopsis: 'DOMAIN ...',
    operands: 1,
    load: async () => (await devices()).blockList,
  },
  {
    name: 'block-attach',
    summary: 'Gives a domain a virtual disk',
    synopsis: 'DOMAIN PART-OF-SPEC ...',
    operands: 2,
    changes: true,
    load: async () => (await devices()).blockAttach,
  },
  {
    name: 'block-detach',
    summary: 'Takes a virtual disk from a domain',
    synopsis: '[options] DOMAIN VDEV',
    help: '--force                 Does not ask the guest.',
    short: 'f',
    long: { force: 'f' },
    operands: 2,
    changes: true,
    load: async () => (await devices()).blockDetach,
  },
  {
    name: 'network-list',
    summary: "Lists domains' network interfaces",
    synopsis: 'DOMAIN ...',
    operands: 1,
    load: async () => (await devices()).networkList,
  },
  {
    name: 'network-attach',
    summary: 'Gives a domain a network interface',
    synopsis: 'DOMAIN [KEY=VALUE ...]',
    operands: 1,
    changes: true,
    load: async () => (await devices()).networkAttach,
  },
  {
    name: 'network-detach',
    summary: 'Takes a network interface from a domain',
    synopsis: '[options] DOMAIN DEVID|MAC',
    help: '--force                 Does not ask the guest.',
    short: 'f',
    long: { force: 'f' },
    operands: 2,
    changes: true,
    load: async () => (await devices()).networkDetach,
  },
  {
    name: 'info',
    summary: 'Tells about the machine',
    synopsis: '[-n] [NAME]',
    help: '-n, --numa              NUMA nodes, too.',
    short: 'n',
    long: { numa: 'n' },
    load: async () => (await import('./commands/host.ts')).info,
  },
  {
    name: 'dmesg',
    summary: "Shows the hypervisor's messages",
    synopsis: '[-c]',
    help: '-c, --clear             Forgets them then.',
    short: 'c',
    long: { clear: 'c' },
    load: async () => (await import('./commands/host.ts')).dmesg,
  },
  {
    name: 'top',
    summary: 'Shows what domains use, again and again; q ends it',
    synopsis: '[options]',
    help: `-d SECONDS, --delay=SECONDS
                        Between two looks (3).
-b, --batch             One table after the other.
-i COUNT, --iterations=COUNT
                        Ends after so many.`,
    short: 'd:bi:',
    long: { delay: 'd', batch: 'b', iterations: 'i' },
    load: async () => (await import('./commands/top.ts')).top,
  },
  {
    name: 'daemon',
    summary: 'Shows, starts or stops the daemon that has the domains',
    synopsis: '[status | start [options] | stop [--force] | run [options]]',
    help: `status                  Whether one runs: exit status 0, or 3.
start                   Starts one in the background. Every command that needs one does so.
stop                    Ends it; with --force, if there are domains, too.
run                     Runs in the foreground, for service managers.

Options of start and run:
--memory SIZE           Memory for all domains together (what the host has, up to 4 GiB).
--listen ADDRESS:PORT   Serves its HTTP interface there, too, to who has the token.
--idle-exit SECONDS     Ends when it had neither domains nor clients for so long.
--no-translator         Interprets everything.`,
    raw: true,
    load: async () => (await import('./commands/daemon.ts')).daemon,
  },
];
