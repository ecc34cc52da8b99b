/* The loads of the soak that are programs: what guest/soak.sh does not do with busybox. */
#define _GNU_SOURCE
#include "load.h"
#include "probe.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Seconds from one line to the next. */
enum { PACE = 5 };

static void report(const char *name, unsigned long rounds) {
  static time_t next;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  if (now.tv_sec < next) return;
  next = now.tv_sec + PACE;
  printf("soak: %s %lu\n", name, rounds);
  fflush(stdout);
}

static void check(const char *name, int good, const char *what) {
  if (good) return;
  printf("soak: %s failed: %s\n", name, what);
  fflush(stdout);
  _exit(1);
}

/* --- Code that is written, run, changed and run again ------------------------------------------------------------- */

enum { PAGE = 4096, AREA = 4 * PAGE, OPS = 120 };
enum kind { ADD, XOR, SUBTRACT, MULTIPLY, ROTATE, INVERT, ADDRESS, SWAP, CHANGE_NEXT, KINDS };

/* One operation on the accumulator (rax). CHANGE_NEXT adds to the operand of the next one, which is in the code. */
struct op {
  enum kind kind;
  int32_t operand;
  uint8_t *encoded_operand;
};

struct function {
  struct op ops[OPS];
  unsigned count, iterations;
};

static void put32(uint8_t **at, int32_t value) {
  memcpy(*at, &value, sizeof value);
  *at += sizeof value;
}

static void put(uint8_t **at, const char *bytes, size_t length) {
  memcpy(*at, bytes, length);
  *at += length;
}

/* Writes uint64_t f(uint64_t): the operations, some times over; rcx counts down. */
static void encode(struct function *f, uint8_t *at) {
  put(&at, "\x48\x89\xf8\xb9", 4); /* mov rax, rdi; mov ecx, iterations */
  put32(&at, (int32_t)f->iterations);
  uint8_t *top = at;
  for (unsigned i = 0; i < f->count; i++) {
    struct op *op = &f->ops[i];
    switch (op->kind) {
      case ADD: put(&at, "\x48\x05", 2); break;
      case XOR: put(&at, "\x48\x35", 2); break;
      case SUBTRACT: put(&at, "\x48\x2d", 2); break;
      case MULTIPLY: put(&at, "\x48\x69\xc0", 3); break;
      case ADDRESS: put(&at, "\x48\x8d\x84\x88", 4); break; /* lea rax, [rax + 4 * rcx + operand] */
      case ROTATE: put(&at, "\x48\xc1\xc0", 3), *at++ = (uint8_t)op->operand; continue;
      case INVERT: put(&at, "\x48\xf7\xd0", 3); continue;
      case SWAP: put(&at, "\x48\x0f\xc8", 3); continue;
      case CHANGE_NEXT: /* add dword [rip + 2], operand: 2 bytes on is the operand of the ADD that follows */
        put(&at, "\x81\x05", 2);
        put32(&at, 2);
        break;
      case KINDS: break;
    }
    op->encoded_operand = at;
    put32(&at, op->operand);
  }
  put(&at, "\xff\xc9\x0f\x85", 4); /* dec ecx; jnz top */
  put32(&at, (int32_t)(top - (at + 4)));
  *at = 0xc3;
}

static uint64_t expected(const struct function *f, uint64_t x) {
  struct function copy = *f;
  for (uint64_t left = f->iterations; left > 0; left--)
    for (unsigned i = 0; i < f->count; i++) {
      uint64_t operand = (uint64_t)(int64_t)copy.ops[i].operand;
      switch (copy.ops[i].kind) {
        case ADD: x += operand; break;
        case XOR: x ^= operand; break;
        case SUBTRACT: x -= operand; break;
        case MULTIPLY: x *= operand; break;
        case ROTATE: x = x << (operand & 63) | x >> (-operand & 63); break;
        case INVERT: x = ~x; break;
        case ADDRESS: x += 4 * left + operand; break;
        case SWAP: x = __builtin_bswap64(x); break;
        case CHANGE_NEXT:
          copy.ops[i + 1].operand = (int32_t)((uint32_t)copy.ops[i + 1].operand + (uint32_t)operand);
          break;
        case KINDS: break;
      }
    }
  return x;
}

/* What the code has added to its own operands. */
static void read_back(struct function *f) {
  for (unsigned i = 0; i < f->count; i++)
    if (f->ops[i].encoded_operand) memcpy(&f->ops[i].operand, f->ops[i].encoded_operand, 4);
}

static void invent(struct function *f, uint64_t *random, int changes_itself) {
  f->count = 1 + (unsigned)(next_random(random) % (OPS - 1));
  for (unsigned i = 0; i < f->count; i++) {
    uint64_t r = next_random(random);
    enum kind kind = (enum kind)(r % CHANGE_NEXT);
    if (changes_itself && (r >> 32) % 8 == 0 && i + 1 < f->count) kind = CHANGE_NEXT;
    if (i > 0 && f->ops[i - 1].kind == CHANGE_NEXT) kind = ADD;
    f->ops[i] = (struct op){kind, (int32_t)(r >> 8), NULL};
    if (kind == ROTATE) f->ops[i].operand &= 63;
  }
  f->iterations = 1 + (unsigned)(next_random(random) % (changes_itself ? 50 : 5000));
}

static void change(struct function *f, uint64_t *random) {
  for (unsigned i = 0; i < f->count; i++) {
    struct op *op = &f->ops[i];
    if (!op->encoded_operand || next_random(random) % 4) continue;
    op->operand = (int32_t)next_random(random);
    memcpy(op->encoded_operand, &op->operand, sizeof op->operand);
  }
}

static void code(void) {
  uint64_t random = 20031019 + (uint64_t)getpid();
  for (unsigned long round = 0;; round++) {
    /* Writable and executable at once, or first one and then the other. */
    int both = round & 1, changes_itself = round % 4 == 1;
    uint8_t *area = mmap(NULL, AREA, PROT_READ | PROT_WRITE | (both ? PROT_EXEC : 0), MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check("code", area != MAP_FAILED, "mmap");
    /* Anywhere in the first pages, so that it often crosses a border. */
    uint8_t *at = area + next_random(&random) % (2 * PAGE);
    struct function f;
    invent(&f, &random, changes_itself);
    encode(&f, at);
    for (int run = 0; run < 6; run++) {
      if (!both) check("code", mprotect(area, AREA, PROT_READ | PROT_EXEC) == 0, "mprotect");
      uint64_t seed = next_random(&random), wanted = expected(&f, seed);
      check("code", ((uint64_t(*)(uint64_t))(uintptr_t)at)(seed) == wanted, "wrong result");
      read_back(&f);
      if (!both) check("code", mprotect(area, AREA, PROT_READ | PROT_WRITE) == 0, "mprotect");
      change(&f, &random);
    }
    check("code", munmap(area, AREA) == 0, "munmap");
    report("code", round);
  }
}

/* --- Fork storms -------------------------------------------------------------------------------------------------- */

enum { CHILDREN = 12, GRANDCHILDREN = 3 };

static int reap(int count) {
  int sum = 0, status;
  while (count > 0) {
    if (wait(&status) < 0) {
      if (errno == EINTR) continue;
      return -1;
    }
    if (!WIFEXITED(status)) return -1;
    sum += WEXITSTATUS(status);
    count--;
  }
  return sum;
}

static void storm(void) {
  static volatile uint8_t memory[64 * PAGE];
  for (unsigned long round = 0;; round++) {
    for (int i = 0; i < CHILDREN; i++) {
      pid_t child = fork();
      check("storm", child >= 0, "fork");
      if (child > 0) continue;
      for (int j = 0; j < GRANDCHILDREN; j++) {
        pid_t grandchild = fork();
        if (grandchild < 0) _exit(200);
        if (grandchild > 0) continue;
        for (size_t k = 0; k < sizeof memory; k += PAGE) memory[k] += (uint8_t)j;
        _exit(1);
      }
      _exit(reap(GRANDCHILDREN) == GRANDCHILDREN ? 1 : 201);
    }
    check("storm", reap(CHILDREN) == CHILDREN, "a child is lost");
    report("storm", round);
  }
}

/* --- Signals: to and fro between two processes, and a timer through a computation ---------------------------------- */

static volatile sig_atomic_t ticks, answers;

static void tick(int number) { ticks += number == SIGALRM; }
static void answer(int number) { answers += number == SIGUSR1; }

static void signals(void) {
  sigset_t blocked, open;
  struct sigaction on_tick = {.sa_handler = tick}, on_answer = {.sa_handler = answer};
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  sigprocmask(SIG_BLOCK, &blocked, &open);
  sigdelset(&open, SIGUSR1);
  sigaction(SIGALRM, &on_tick, NULL);
  sigaction(SIGUSR1, &on_answer, NULL);
  pid_t parent = getpid(), child = fork();
  check("signals", child >= 0, "fork");
  if (child == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (child == 0)
    for (;;) {
      while (!answers) sigsuspend(&open);
      answers = 0;
      if (kill(parent, SIGUSR1) != 0) _exit(0);
    }
  for (unsigned long round = 0;; round++) {
    for (int i = 0; i < 50; i++) {
      answers = 0;
      check("signals", kill(child, SIGUSR1) == 0, "kill");
      while (!answers) sigsuspend(&open);
    }
    struct itimerval timer = {{0, 2000}, {0, 2000}}, off = {{0, 0}, {0, 0}};
    uint64_t x = 1, y = 1;
    ticks = 0;
    setitimer(ITIMER_REAL, &timer, NULL);
    while (ticks < 10) {
      double root = (double)(next_random(&x) >> 12);
      check("signals", next_random(&y) == x && (uint64_t)root == x >> 12, "a register changed");
    }
    setitimer(ITIMER_REAL, &off, NULL);
    report("signals", round);
  }
}

int run_load(const char *name) {
  if (strcmp(name, "code") == 0) code();
  if (strcmp(name, "storm") == 0) storm();
  if (strcmp(name, "signals") == 0) signals();
  return 2;
}
