/**
 * Ordinary programs, native and in a domain: the same bytes come out. Debian's own dynamic programs with their
 * libraries, busybox (static), and programs compiled here, all put into one more archive behind the initramfs.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { shellInitramfs } from '../../src/toolstack/images/index.ts';
import { type Outcome, xenolith } from './cli.ts';

/** Arithmetic that compilers like to emit, floating point in all sizes, signals, and what libc makes of them. */
const NUMBERS = `
#include <complex.h>
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t state = 88172645463325252ull;
static uint64_t next(void) {
  state ^= state << 13; state ^= state >> 7; state ^= state << 17;
  return state;
}

static sigjmp_buf back;
static void on_fault(int signal, siginfo_t *info, void *context) {
  (void)context;
  printf("signal %d code %d\\n", signal, info->si_code);
  siglongjmp(back, 1);
}

int main(void) {
  uint64_t sum = 0;
  for (int i = 0; i < 20000; i++) {
    uint64_t a = next(), b = next() | 1;
    sum += a / b + a % b + (uint64_t)((int64_t)a / (int64_t)(b >> 40 | 1));
    sum ^= (uint64_t)(((unsigned __int128)a * b) >> 64);
    sum = (sum << (a & 63)) | (sum >> (-a & 63));
    sum += (uint64_t)__builtin_popcountll(a) + (uint64_t)__builtin_clzll(b) + (uint64_t)__builtin_ctzll(a | 1);
    sum ^= __builtin_bswap64(a) + (uint16_t)b * (int8_t)a;
  }
  printf("integers %016" PRIx64 "\\n", sum);

  float f = 1; double d = 1; long double e = 1;
  for (int i = 1; i < 3000; i++) {
    f = f * 1.0001f + 1.0f / (float)i; d = d * 1.0001 + sin(i) / i; e = e * 1.0001L + cosl(i) / i;
  }
  printf("%a %.17g %La %.21Lg\\n", (double)f, d, e, e);
  printf("%.17g %.17g %.17g %.17g\\n", exp(1), pow(2, 0.5), tgamma(5.5), atan2(-1, -2));
  printf("%.20Lg %.20Lg %.20Lg\\n", expl(1), powl(3, 0.3L), fmodl(1e30L, 7));
  printf("%g %g %g %g %d\\n", 1 / 0.0, -1 / 0.0, fmax(NAN, 2), copysign(0, -1.0), fpclassify(1e-310));
  printf("%ld %ld %lld %.0f %.1f\\n", lrint(2.5), lround(2.5), llrintl(-3.5L), rint(3.5), 0.05);
  double complex z = cexp(I * 1.25);
  printf("%.17g %.17g\\n", creal(z), cimag(z));

  char text[4096];
  for (int i = 0; i < 4095; i++) text[i] = (char)('a' + next() % 26);
  text[4095] = 0;
  printf("%zu %ld %d\\n", strlen(text), (long)(strstr(text, "ab") - text), memcmp(text, text + 1, 4000) > 0);

  struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER };
  int faults[] = { SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV };
  for (int i = 0; i < 5; i++) sigaction(faults[i], &action, NULL);
  char *page = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (!sigsetjmp(back, 1)) *(volatile char *)page = 1;
  if (!sigsetjmp(back, 1)) *(volatile int *)NULL = 1;
  volatile int zero = 0;
  if (!sigsetjmp(back, 1)) printf("%d\\n", 1 / zero);
  if (!sigsetjmp(back, 1)) __builtin_trap();
  if (!sigsetjmp(back, 1)) __asm__ volatile("int3");
  if (!sigsetjmp(back, 1)) __asm__ volatile("cli");
  if (!sigsetjmp(back, 1)) *(volatile char *)0x8000000000000000 = 1;

  int shared[2], status = 0;
  if (pipe(shared) == 0 && fork() == 0) {
    if (write(shared[1], "child", 6) == 6) _exit(42);
    _exit(1);
  }
  char word[6] = "";
  if (read(shared[0], word, 6) == 6 && wait(&status) > 0) printf("%s %d\\n", word, WEXITSTATUS(status));
  return (int)(sum & 0x3f);
}
`;

/** Threads, locks, atomics: what one virtual CPU must switch between. */
const THREADS = `
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long plain;
static atomic_long counted;
static __thread long own;
static void *work(void *n) {
  for (long i = 0; i < 20000; i++) {
    pthread_mutex_lock(&lock); plain += (long)n; pthread_mutex_unlock(&lock);
    atomic_fetch_add(&counted, 1); own++;
  }
  return (void *)own;
}
int main(void) {
  pthread_t thread[8];
  long total = 0;
  for (long i = 0; i < 8; i++) pthread_create(&thread[i], NULL, work, (void *)i);
  for (int i = 0; i < 8; i++) { void *result; pthread_join(thread[i], &result); total += (long)result; }
  printf("%ld %ld %ld\\n", plain, (long)counted, total);
}
`;

/** Each is run by a shell in a folder of its own, natively and in the domain. */
const COMMANDS: Record<string, string> = {
  'static numbers': '/programs/numbers-static',
  'dynamic numbers': '/programs/numbers-dynamic',
  'numbers without optimisation': '/programs/numbers-O0',
  threads: '/programs/threads',
  'sha256sum, md5sum, b2sum':
    'cd /programs; for p in sha256sum sha512sum md5sum b2sum cksum; do $p data; done',
  'sort and friends':
    'sort -R --random-source=/programs/data /programs/words | sort -k2n | uniq -c | tail -n 20',
  'gzip, cmp':
    'gzip -9n < /programs/data > d.gz; sha256sum d.gz; gunzip < d.gz | cmp - /programs/data; echo $?',
  'sed, grep, tr': "sed -nE 's/(.*)([0-9])/\\2\\1/p' /programs/words | grep -v 7 | tr 0-9 a-j | tail -n 5",
  'awk floating point': `awk 'BEGIN { for (i = 1; i < 200; i++) s += sqrt(i) * log(i) / exp(1 / i); printf "%.15g %e\\n", s, s }'`,
  'busybox awk': `/programs/busybox awk 'BEGIN { for (i = 1; i < 200; i++) s += 1 / (i * i) - i / 7; printf "%.15g\\n", s }'`,
  perl: `perl -e 'my %h; $h{$_ % 97} .= sprintf("%.3f;", sin $_) for 1..5000; print length(join ",", map { "$_=$h{$_}" } sort { $a <=> $b } keys %h), "\\n"; print 2**0.5, " ", 1e100 / 3, " ", 0x7fffffffffffffff + 0, "\\n"'`,
  'od, dd, head':
    'head -c 5000 /programs/data | dd bs=7 skip=3 2>/dev/null | od -A d -t x1z -t f8 | tail -n 8',
  'numfmt, printf, date': `numfmt --to=iec 123456789; printf '%.10f %x %s\\n' 3.14159265358979 255 ok; date -u -d '2024-02-29 12:34:56' +%s`,
  factor: 'factor 18446744073709551557 9007199254740993 600851475143',
  'bash arithmetic': `bash -c 'x=1; for ((i = 1; i <= 2000; i++)); do ((x = (x * 6364136223846793005 + i) ^ (x >> 7))); done; echo $x'`,
  'tar, find, diff':
    'mkdir a b; for n in 1 2 3; do echo $n > a/$n; done; tar -cf - a | tar -xf - -C b; diff -r a b/a; find . -type f | sort',
  'exit statuses and signals': `sh -c 'exit 3'; echo $?; sh -c 'kill -SEGV $$' 2>/dev/null; echo $?; sh -c 'kill -9 $$' 2>/dev/null; echo $?`,
  'a deep recursion and a large heap': `perl -e 'sub f { my $n = shift; $n ? 1 + f($n - 1) : 0 } print f(20000), "\\n"; my @a = (1..300000); print scalar(@a), "\\n"'`,
};

const PROGRAMS =
  'bash sh sort uniq tail head sed grep tr gzip gunzip cmp mawk awk perl od dd numfmt printf date factor mkdir tar find ' +
  'diff sha256sum sha512sum md5sum b2sum cksum cat rm env kill';

/** libm has variants for processors with FMA, whose last bits differ: both sides use those that ours has. */
const TUNABLES = 'glibc.cpu.hwcaps=-AVX,-AVX2,-FMA,-FMA4,-AVX512F';

const folder = mkdtempSync(join(tmpdir(), 'xenolith-programs-'));
/** What the domain finds under /, natively. */
const files = new Map<string, Uint8Array>();

function compile(name: string, source: string, ...flags: string[]): void {
  const [text, program] = [join(folder, `${name}.c`), join(folder, 'programs', name)];
  writeFileSync(text, source);
  execFileSync('gcc', ['-std=gnu11', '-o', program, text, ...flags, '-lm']);
}

/** Files of the shared libraries that a program loads, the loader included. */
function libraries(program: string): string[] {
  const { stdout } = spawnSync('ldd', [program], { encoding: 'utf8' });
  return [...stdout.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1]!);
}

/** One script that runs all commands, each in an empty folder. @param base where /programs and /debian are */
function script(base: string): string {
  const environment = `PATH=${base}/debian LC_ALL=C TZ=UTC HOME=/ GLIBC_TUNABLES=${TUNABLES}`;
  return Object.entries(COMMANDS)
    .map(([name, command]) => {
      const here = command.replaceAll('/programs', `${base}/programs`);
      return (
        `echo '<<${name}>>'; mkdir -p /tmp/x; cd /tmp/x; env -i ${environment} ${base}/debian/bash 2>/dev/null <<'COMMAND'\n` +
        `${here}\nCOMMAND\necho "<<end $?>>"; cd /; rm -rf /tmp/x\n`
      );
    })
    .join('');
}

const sections = (output: string) =>
  new Map(
    [...output.matchAll(/<<(.*?)>>\n([\s\S]*?)<<end (\d+)>>/g)].map((m) => [m[1]!, `${m[2]}status ${m[3]}`]),
  );

let native: Map<string, string>;
let domain: Map<string, string>;
let outcome: Outcome;

function prepare(): void {
  for (const place of ['programs', 'debian']) mkdirSync(join(folder, place));
  compile('numbers-static', NUMBERS, '-O2', '-static');
  compile('numbers-dynamic', NUMBERS, '-O3', '-msse2');
  compile('numbers-O0', NUMBERS, '-O0');
  compile('threads', THREADS, '-O2', '-pthread');
  copyFileSync('/bin/busybox', join(folder, 'programs/busybox'));
  let noise = 1;
  const next = () => {
    noise = (Math.imul(noise, 1103515245) + 12345) >>> 0;
    return noise >>> 16;
  };
  const words = Array.from({ length: 5_000 }, () => `w${next() % 500} ${next() % 900}\n`);
  writeFileSync(join(folder, 'programs/data'), Uint8Array.from({ length: 300_000 }, next));
  writeFileSync(join(folder, 'programs/words'), words.join(''));
  for (const name of PROGRAMS.split(' ')) {
    const path = ['/usr/bin', '/bin'].map((place) => join(place, name)).find(existsSync);
    if (!path) throw new Error(`this machine has no ${name}`);
    copyFileSync(realpathSync(path), join(folder, 'debian', name));
  }
  for (const place of ['programs', 'debian']) {
    for (const name of readdirSync(join(folder, place))) {
      const path = join(folder, place, name);
      files.set(`${place}/${name}`, readFileSync(path));
      for (const library of libraries(path)) files.set(library.slice(1), readFileSync(library));
    }
  }
}

beforeAll(async () => {
  prepare();
  const extra = [...files].map(([path, bytes]) => ({ path, bytes, permissions: 0o755 }));
  writeFileSync(join(folder, 'ramdisk'), await shellInitramfs({}, extra));
  native = sections(spawnSync('bash', { input: script(folder), encoding: 'utf8' }).stdout);
  const args = ['-q', '--memory', '512', '--ramdisk', join(folder, 'ramdisk')];
  outcome = await xenolith([...args, '--append', 'quiet xenolith.script'], `${script('')}\npoweroff\n`);
  domain = sections(outcome.stdout);
});

afterAll(() => rmSync(folder, { recursive: true }));

describe('programs give the same output natively and in a domain:', () => {
  it.each(Object.keys(COMMANDS))('%s', (name) => {
    expect(native.get(name)).toMatch(/\S[\s\S]*status \d+$/);
    expect(domain.get(name)).toBe(native.get(name));
  });

  it('and the domain powers off', () => {
    expect(outcome.status).toBe(0);
  });
});
