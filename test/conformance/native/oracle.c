/*
 * The oracle: runs single instructions on the host's own CPU with a complete, given state.
 *
 * Reads a batch (see wire.ts, which also supplies every offset used here as a -D definition) from standard input
 * and writes one result for each case to standard output.
 *
 * How a case is run: everything happens in a signal handler on its own stack. The handler puts the next case's
 * registers into the signal frame and returns; the kernel loads them all and the instruction runs. The code region is
 * full of int3, so the instruction is followed by a trap wherever it goes, or it faults itself: either way the kernel
 * comes back to the handler with the complete state, which is the result. One signal a case, no system call of ours.
 *
 * The handler is entered with the case's fs and gs bases and selectors; it must not touch thread-local storage before
 * it restored its own, so it is built without a stack protector and calls nothing of the C library but the inlined
 * string functions. Once the tests run, seccomp's strict mode makes sure that a stray SYSCALL does no harm.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <immintrin.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#define OUTPUT_ROOM (4ull << 30)
#define HWCAP2_FSGSBASE_BIT 2
#define USER_CS 0x33
#define USER_SS 0x2b
#define WATCHDOG_US 200000
/* Flags that survive sigreturn from the frame (arch/x86 FIX_EFLAGS); the others are cleared by hand. */
#define FLAG_TF 0x100
#define FLAGS_HARMFUL 0x244500 /* ID, AC, NT, DF, TF */

static uint8_t *input, *output, *out;
static uint8_t *current; /* the case that runs, or NULL */
static uint8_t *next;
static uint32_t left;
static uint64_t own_fs, own_gs;
static uint16_t own_selectors[4];
static uint32_t ticks, last_ticks, finished;

/* Writable aliases of the two regions, and what the data region held when the case began. */
static uint8_t *code_alias;
static uint64_t *data_alias, *initial;
static const uint64_t *background;

static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                              REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

#define U16(p, field) (*(uint16_t *)((p) + (field)))
#define U32(p, field) (*(uint32_t *)((p) + (field)))
#define U64(p, field) (*(uint64_t *)((p) + (field)))

static inline void read_selectors(uint16_t *s) {
  __asm__ volatile("mov %%es, %0" : "=r"(s[0]));
  __asm__ volatile("mov %%ds, %0" : "=r"(s[1]));
  __asm__ volatile("mov %%fs, %0" : "=r"(s[2]));
  __asm__ volatile("mov %%gs, %0" : "=r"(s[3]));
}

static inline void write_selectors(const uint16_t *s) {
  __asm__ volatile("mov %0, %%es" : : "r"(s[0]));
  __asm__ volatile("mov %0, %%ds" : : "r"(s[1]));
  __asm__ volatile("mov %0, %%fs" : : "r"(s[2]));
  __asm__ volatile("mov %0, %%gs" : : "r"(s[3]));
}

static _Noreturn void leave(int status) {
  syscall(SYS_exit, status);
  __builtin_unreachable();
}

static void write_all(const uint8_t *p, size_t n) {
  while (n > 0) {
    ssize_t done = write(1, p, n);
    if (done <= 0) leave(3);
    p += done;
    n -= done;
  }
}

/* Records how the current case ended, and puts the two regions back as they were. */
static void finish(const ucontext_t *uc, int hung, const uint16_t *selectors, uint64_t fs, uint64_t gs) {
  const greg_t *g = uc->uc_mcontext.gregs;
  uint32_t vector = hung ? HUNG : (uint32_t)g[REG_TRAPNO];
  uint32_t words = 0;
  memset(out, 0, RESULT_end);
  U32(out, RESULT_vector) = vector;
  U32(out, RESULT_error) = vector == COMPLETE || hung ? 0 : (uint32_t)g[REG_ERR];
  U64(out, RESULT_cr2) = vector == 14 ? (uint64_t)g[REG_CR2] : 0;
  U64(out, RESULT_rip) = (uint64_t)g[REG_RIP] - (vector == COMPLETE ? 1 : 0);
  for (int i = 0; i < 16; i++) U64(out, RESULT_regs + 8 * i) = (uint64_t)g[order[i]];
  U64(out, RESULT_rflags) = (uint64_t)g[REG_EFL];
  U64(out, RESULT_fsBase) = fs;
  U64(out, RESULT_gsBase) = gs;
  memcpy(out + RESULT_selectors, selectors, 8);
  memcpy(out + RESULT_fx, uc->uc_mcontext.fpregs, FX_SIZE);
  U32(out, RESULT_fx + 28) = 0; /* MXCSR_MASK is no state */
  uint8_t *word = out + RESULT_end;
  for (uint32_t i = 0; i < PLACE_dataSize / 8; i++) {
    if (data_alias[i] == initial[i]) continue;
    U32(word, 0) = i * 8;
    U32(word, 4) = 0;
    U64(word, 8) = data_alias[i];
    word += 16;
    words++;
    data_alias[i] = initial[i];
  }
  U32(out, RESULT_words) = words;
  U32(out, RESULT_size) = (uint32_t)(word - out);
  out = word;
  const uint8_t *patch = current + CASE_end;
  for (uint32_t n = U32(current, CASE_patches); n > 0; n--) {
    uint32_t at = U32(patch, 0), length = U32(patch, 4);
    memcpy((uint8_t *)data_alias + at, (const uint8_t *)background + at, length);
    memcpy((uint8_t *)initial + at, (const uint8_t *)background + at, length);
    patch += 8 + ((length + 7) & ~7u);
  }
  memset(code_alias + U32(current, CASE_codeOffset), 0xcc, U32(current, CASE_codeLength));
}

static void begin(ucontext_t *uc) {
  greg_t *g = uc->uc_mcontext.gregs;
  current = next;
  next += U32(current, CASE_size);
  left--;
  const uint8_t *patch = current + CASE_end;
  for (uint32_t n = U32(current, CASE_patches); n > 0; n--) {
    uint32_t at = U32(patch, 0), length = U32(patch, 4);
    if (at > PLACE_dataSize || length > PLACE_dataSize - at) leave(4);
    memcpy((uint8_t *)data_alias + at, patch + 8, length);
    memcpy((uint8_t *)initial + at, patch + 8, length);
    patch += 8 + ((length + 7) & ~7u);
  }
  uint32_t at = U32(current, CASE_codeOffset), length = U32(current, CASE_codeLength);
  if (at > PLACE_codeSize || length > PLACE_codeSize - at || length > 16) leave(4);
  memcpy(code_alias + at, current + CASE_code, length);
  for (int i = 0; i < 16; i++) g[order[i]] = (greg_t)U64(current, CASE_regs + 8 * i);
  g[REG_RIP] = PLACE_codeBase + at;
  g[REG_EFL] = (greg_t)U64(current, CASE_rflags);
  g[REG_CSGSFS] = USER_CS | ((greg_t)USER_SS << 48);
  uint8_t *fx = (uint8_t *)uc->uc_mcontext.fpregs;
  memcpy(fx, current + CASE_fx, FX_SIZE);
  U64(fx, 512) |= 3; /* XSTATE_BV: the x87 and SSE parts are there */
}

static void handler(int signal, siginfo_t *info, void *context) {
  (void)info;
  ucontext_t *uc = context;
  uint16_t selectors[4];
  uint64_t fs, gs;
  read_selectors(selectors);
  fs = _readfsbase_u64();
  gs = _readgsbase_u64();
  write_selectors(own_selectors);
  _writefsbase_u64(own_fs);
  _writegsbase_u64(own_gs);
  __writeeflags(__readeflags() & ~(uint64_t)FLAGS_HARMFUL);

  int hung = 0;
  if (signal == SIGALRM) {
    ticks++;
    /* The same case at two ticks: it does not end. */
    hung = current && last_ticks == finished;
    last_ticks = finished;
    if (!hung) goto resume;
  }
  if (current) {
    finish(uc, hung, selectors, fs, gs);
    finished++;
  }
  if (left == 0) {
    write_all(output, out - output);
    leave(0);
  }
  begin(uc);
  memcpy(selectors, current + CASE_selectors, 8);
  fs = U64(current, CASE_fsBase);
  gs = U64(current, CASE_gsBase);
resume:
  write_selectors(selectors);
  _writefsbase_u64(fs);
  _writegsbase_u64(gs);
}

static void die(const char *what) {
  fprintf(stderr, "oracle: %s: %s\n", what, strerror(errno));
  exit(2);
}

/* Maps `size` bytes at `base` with the protection given, and again elsewhere, writable. */
static void *region(uint64_t base, size_t size, int protection) {
  int fd = memfd_create("region", 0);
  if (fd < 0 || ftruncate(fd, (off_t)size) < 0) die("memfd");
  void *fixed = mmap((void *)base, size, protection, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd, 0);
  void *alias = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (fixed != (void *)base || alias == MAP_FAILED) die("mmap of a region");
  close(fd);
  return alias;
}

/* Every page of a region must be present before it is tested: a fault must be the case's own. */
static void touch(volatile uint8_t *p, size_t size, int write) {
  for (size_t i = 0; i < size; i += 4096) {
    uint8_t value = p[i];
    if (write) p[i] = value;
  }
}

static size_t read_all(void) {
  size_t room = 1 << 24, used = 0;
  input = malloc(room);
  for (;;) {
    if (used == room) input = realloc(input, room *= 2);
    if (!input) die("malloc");
    ssize_t n = read(0, input + used, room - used);
    if (n < 0) die("read");
    if (n == 0) return used;
    used += (size_t)n;
  }
}

int main(void) {
  if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT)) {
    fprintf(stderr, "oracle: this host does not let user mode set segment bases (FSGSBASE)\n");
    return 2;
  }
  size_t size = read_all();
  if (size < BATCH_cases || U32(input, BATCH_magic) != MAGIC) {
    fprintf(stderr, "oracle: not a batch\n");
    return 2;
  }
  left = U32(input, BATCH_count);
  next = input + BATCH_cases;
  uint8_t *at = next;
  for (uint32_t i = 0; i < left; i++) {
    if ((size_t)(input + size - at) < CASE_end || U32(at, CASE_size) < CASE_end ||
        U32(at, CASE_size) > (size_t)(input + size - at)) {
      fprintf(stderr, "oracle: case %u is cut off\n", i);
      return 2;
    }
    at += U32(at, CASE_size);
  }
  background = (const uint64_t *)(input + BATCH_background);
  output = out = mmap(NULL, OUTPUT_ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (output == MAP_FAILED) die("mmap of the output");
  initial = malloc(PLACE_dataSize);
  code_alias = region(PLACE_codeBase, PLACE_codeSize, PROT_READ | PROT_EXEC);
  data_alias = region(PLACE_dataBase, PLACE_dataSize, PROT_READ | PROT_WRITE);
  memset(code_alias, 0xcc, PLACE_codeSize);
  memcpy(data_alias, background, PLACE_dataSize);
  memcpy(initial, background, PLACE_dataSize);
  touch((uint8_t *)PLACE_codeBase, PLACE_codeSize, 0);
  touch((uint8_t *)PLACE_dataBase, PLACE_dataSize, 1);
  if (mprotect((uint8_t *)PLACE_dataBase + PLACE_dataWritable, PLACE_dataSize - PLACE_dataWritable, PROT_READ) < 0)
    die("mprotect");

  own_fs = _readfsbase_u64();
  own_gs = _readgsbase_u64();
  read_selectors(own_selectors);

  size_t stack_size = 1 << 18;
  stack_t stack = {.ss_sp = malloc(stack_size), .ss_size = stack_size, .ss_flags = 0};
  if (sigaltstack(&stack, NULL) < 0) die("sigaltstack");
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  sigfillset(&action.sa_mask);
  const int signals[] = {SIGTRAP, SIGSEGV, SIGILL, SIGFPE, SIGBUS, SIGALRM};
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
    if (sigaction(signals[i], &action, NULL) < 0) die("sigaction");
  struct itimerval timer = {{0, WATCHDOG_US}, {0, WATCHDOG_US}};
  if (setitimer(ITIMER_REAL, &timer, NULL) < 0) die("setitimer");
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) < 0) die("seccomp");
  __asm__ volatile("int3");
  return 2;
}
