/* Loops over integers and over memory. */
#include "probe.h"

#include <errno.h>
#include <string.h>

/* Shifts, a multiplication, a branch that depends on data, and a chain from one step to the next. */
enum { STEPS = 200000 };

static double prepare_loop(void) { return STEPS; }

static uint64_t integer_loop(void) {
  uint64_t x = 88172645463325252ull, sum = 0;
  for (int i = 0; i < STEPS; i++) {
    next_random(&x);
    if (x & 0x100) sum += x * 0x9e3779b97f4a7c15ull;
    else sum ^= (x << 9) - (uint64_t)i;
    sum = (sum << 5 | sum >> 59) + (x & 0xffff) / 7;
  }
  return sum;
}

enum { SIEVE = 1 << 19 };
static uint8_t composite[SIEVE];

static double prepare_sieve(void) { return SIEVE; }

static uint64_t sieve(void) {
  uint64_t sum = 0;
  memset(composite, 0, sizeof composite);
  for (uint32_t p = 2; p * p < SIEVE; p++)
    if (!composite[p])
      for (uint32_t q = p * p; q < SIEVE; q += p) composite[q] = 1;
  for (uint32_t i = 2; i < SIEVE; i++)
    if (!composite[i]) sum = sum * 31 + i;
  return sum;
}

/* A list through 2 MiB, one element to a cache line, in random order. */
enum { ELEMENTS = 32768 };

struct element {
  struct element *next;
  uint64_t value;
} __attribute__((aligned(64)));

static struct element elements[ELEMENTS];

static double prepare_chase(void) {
  static uint32_t order[ELEMENTS];
  uint64_t random = 1234567;
  for (uint32_t i = 0; i < ELEMENTS; i++) order[i] = i;
  for (uint32_t i = ELEMENTS - 1; i > 0; i--) {
    uint32_t j = (uint32_t)(next_random(&random) % (i + 1)), swapped = order[i];
    order[i] = order[j];
    order[j] = swapped;
  }
  for (uint32_t i = 0; i < ELEMENTS; i++) {
    elements[order[i]].next = &elements[order[(i + 1) % ELEMENTS]];
    elements[order[i]].value = i;
  }
  return ELEMENTS;
}

static uint64_t chase(void) {
  uint64_t sum = 0;
  struct element *at = elements;
  do {
    sum = sum * 5 + at->value;
    at = at->next;
  } while (at != elements);
  return sum;
}

/* The C library's memcpy: as many bytes in short copies (13, 200), in copies of a page, and in long ones. */
enum { BUFFER = 1 << 17, EACH = 1 << 17 };
static uint8_t source[BUFFER + 64], target[BUFFER + 64];

static double prepare_copies(void) {
  uint64_t random = 42;
  for (size_t i = 0; i < sizeof source; i++) source[i] = (uint8_t)next_random(&random);
  return 4 * EACH / 1024.0;
}

static uint64_t copies(void) {
  static const volatile size_t lengths[] = {13, 200, 4096, BUFFER};
  uint64_t sum = 0;
  for (unsigned kind = 0; kind < 4; kind++) {
    size_t length = lengths[kind], count = EACH / length, at = 0;
    for (size_t i = 0; i < count; i++) {
      uint8_t *from = source + at + (i & 15), *to = target + at + (i & 7);
      uint8_t kept = *from;
      *from = (uint8_t)i; /* a copy that is not done shows */
      memcpy(to, from, length);
      *from = kept;
      sum = sum * 31 + to[0] + to[length / 2] + to[length - 1];
      at = at + 2 * length > BUFFER ? 0 : at + length;
    }
  }
  return sum;
}

/*
 * A loop that begins at the end of a page and goes on in the next one; the border runs through the middle of an
 * instruction (imul, of 7 bytes), as borders do.
 */
uint64_t border_loop(uint64_t count, uint64_t seed);
extern const uint8_t border_top[], border_across[], border_after[], border_bottom[];

__asm__(
    ".pushsection .text.border, \"ax\", @progbits\n"
    ".balign 4096\n"
    ".skip 4096 - 21, 0x90\n"
    ".globl border_loop, border_top, border_across, border_after, border_bottom\n"
    ".type border_loop, @function\n"
    "border_loop:\n"
    "  movq %rsi, %rax\n" /* 3 bytes */
    "border_top:\n"
    "  movq %rax, %rcx\n" /* 3 */
    "  shrq $7, %rcx\n"   /* 4 */
    "  xorq %rcx, %rax\n" /* 3 */
    "  addq %rdi, %rax\n" /* 3 */
    "  .byte 0x66, 0x90\n" /* 2: xchg ax, ax */
    "border_across:\n"
    "  imulq $0x19660d, %rax, %rax\n" /* 7: the first 3 of them in this page */
    "border_after:\n"
    "  testb $8, %al\n"
    "  jz 1f\n"
    "  addq $0x3c6ef35f, %rax\n"
    "1:\n"
    "  rolq $3, %rax\n"
    "  decq %rdi\n"
    "  jnz border_top\n"
    "border_bottom:\n"
    "  ret\n"
    ".size border_loop, . - border_loop\n"
    ".popsection\n");

static uintptr_t page_of(const uint8_t *address) { return (uintptr_t)address >> 12; }

static double prepare_border(void) {
  errno = ENOEXEC;
  if (page_of(border_top) + 1 != page_of(border_bottom)) die("the loop does not straddle a page border");
  if (page_of(border_across) == page_of(border_after)) die("no instruction straddles the page border");
  return STEPS;
}

static uint64_t border(void) { return border_loop(STEPS, 12345); }

/* Calls, 22 deep, that are calls: not inlined, not made loops. */
static __attribute__((noinline, noclone, optimize("no-inline", "no-optimize-sibling-calls"))) uint64_t fibonacci(unsigned n) {
  return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static double prepare_calls(void) { return 2 * 28657 - 1; }

static uint64_t calls(void) {
  volatile unsigned n = 22;
  return fibonacci(n);
}

const struct row integer_rows[] = {
    {"cpu", "integer loop", "ns/step", prepare_loop, integer_loop, NULL},
    {"cpu", "sieve", "ns/number", prepare_sieve, sieve, NULL},
    {"cpu", "pointer chase, 2 MiB", "ns/element", prepare_chase, chase, NULL},
    {"cpu", "memcpy", "ns/KiB", prepare_copies, copies, NULL},
    {"cpu", "loop across a page border", "ns/step", prepare_border, border, NULL},
    {"cpu", "deep calls", "ns/call", prepare_calls, calls, NULL},
    {0},
};
