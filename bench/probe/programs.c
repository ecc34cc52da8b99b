/* Pieces of programs as people run them: a hash, a compressor, a sort, an interpreter. */
#include "probe.h"

#include <stdlib.h>
#include <string.h>

/* SHA-256 (FIPS 180-4) of 64 KiB, and its constants computed as the standard derives them: from the first primes. */
enum { MESSAGE = 1 << 16 };
static uint8_t message[MESSAGE];
static uint32_t round_constants[64], initial[8];

/* The first 32 bits of the fractional part of the root (2nd or 3rd) of n. */
static uint32_t root_fraction(uint32_t n, int power) {
  unsigned __int128 low = 0, high = (unsigned __int128)20 << 32;
  unsigned __int128 wanted = (unsigned __int128)n << (32 * power);
  while (high - low > 1) {
    unsigned __int128 middle = (low + high) / 2, value = middle * middle;
    if (power == 3) value *= middle;
    if (value <= wanted) low = middle;
    else high = middle;
  }
  return (uint32_t)low;
}

static double prepare_hash(void) {
  uint64_t random = 99;
  for (size_t i = 0; i < MESSAGE; i++) message[i] = (uint8_t)next_random(&random);
  for (uint32_t n = 2, found = 0; found < 64; n++) {
    int prime = 1;
    for (uint32_t d = 2; d * d <= n; d++) prime &= n % d != 0;
    if (!prime) continue;
    if (found < 8) initial[found] = root_fraction(n, 2);
    round_constants[found++] = root_fraction(n, 3);
  }
  return MESSAGE;
}

static inline uint32_t rotate(uint32_t x, int by) { return x >> by | x << (32 - by); }

static void hash_block(uint32_t state[8], const uint8_t *block) {
  uint32_t w[64], s[8];
  for (int t = 0; t < 16; t++)
    w[t] = (uint32_t)block[4 * t] << 24 | (uint32_t)block[4 * t + 1] << 16 | (uint32_t)block[4 * t + 2] << 8 |
           block[4 * t + 3];
  for (int t = 16; t < 64; t++) {
    uint32_t a = w[t - 15], b = w[t - 2];
    w[t] = (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10) + w[t - 7] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[t - 16];
  }
  memcpy(s, state, sizeof s);
  for (int t = 0; t < 64; t++) {
    uint32_t e = s[4], a = s[0];
    uint32_t first = s[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & s[5]) ^ (~e & s[6])) +
                     round_constants[t] + w[t];
    uint32_t second = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
    memmove(s + 1, s, 7 * sizeof *s);
    s[4] += first;
    s[0] = first + second;
  }
  for (int i = 0; i < 8; i++) state[i] += s[i];
}

static uint64_t hash(void) {
  uint32_t state[8];
  uint8_t last[64] = {0x80};
  memcpy(state, initial, sizeof state);
  for (size_t i = 0; i < MESSAGE; i += 64) hash_block(state, message + i);
  for (int i = 0; i < 8; i++) last[63 - i] = (uint8_t)((uint64_t)MESSAGE * 8 >> (8 * i));
  hash_block(state, last);
  return (uint64_t)state[0] << 32 | state[1];
}

/* Greedy LZ77 with hash chains over text made of words: a literal is one byte, a match three. */
enum { TEXT = 1 << 16, HASHES = 1 << 13, CHAIN = 12, SHORTEST = 4, LONGEST = 130 };
static uint8_t text[TEXT], packed[TEXT + TEXT / 8], unpacked[TEXT];

static double prepare_compressor(void) {
  static const char *const words[] = {"the ", "machine ", "of ",    "a ",    "domain ", "page ",    "and ",  "frame ",
                                      "in ",  "memory ",  "table ", "to ",   "is ",     "pointer ", "call ", "which "};
  uint64_t random = 7;
  for (size_t i = 0; i < TEXT;) {
    uint64_t r = next_random(&random);
    const char *word = words[r & 15];
    if ((r >> 8 & 7) == 0) text[i++] = (uint8_t)(32 + (r >> 16) % 95);
    for (; *word && i < TEXT; word++) text[i++] = (uint8_t)*word;
  }
  return TEXT;
}

static uint32_t hash_at(const uint8_t *at) {
  uint32_t word;
  memcpy(&word, at, sizeof word);
  return word * 2654435761u >> 19;
}

static size_t compress(void) {
  static int32_t head[HASHES], previous[TEXT];
  size_t out = 0, flags = 0;
  unsigned bit = 8;
  memset(head, 0xff, sizeof head);
  for (size_t at = 0; at < TEXT;) {
    size_t best = 0, best_distance = 0;
    if (at + SHORTEST <= TEXT) {
      uint32_t h = hash_at(text + at);
      size_t limit = TEXT - at < LONGEST ? TEXT - at : LONGEST;
      int32_t candidate = head[h];
      for (int tries = CHAIN; candidate >= 0 && tries > 0; tries--, candidate = previous[candidate]) {
        const uint8_t *a = text + candidate, *b = text + at;
        size_t length = 0;
        if (best && a[best] != b[best]) continue;
        while (length < limit && a[length] == b[length]) length++;
        if (length > best) {
          best = length;
          best_distance = at - (size_t)candidate;
          if (length == limit) break;
        }
      }
      previous[at] = head[h];
      head[h] = (int32_t)at;
    }
    if (bit == 8) {
      flags = out++;
      packed[flags] = 0;
      bit = 0;
    }
    if (best < SHORTEST) packed[out++] = text[at++];
    else {
      packed[flags] |= (uint8_t)(1 << bit);
      packed[out++] = (uint8_t)best_distance;
      packed[out++] = (uint8_t)(best_distance >> 8);
      packed[out++] = (uint8_t)(best - SHORTEST);
      at += best;
    }
    bit++;
  }
  return out;
}

static void decompress(size_t length) {
  size_t out = 0, in = 0;
  while (in < length && out < TEXT) {
    unsigned flags = packed[in++];
    for (unsigned bit = 0; bit < 8 && in < length; bit++) {
      if (!(flags >> bit & 1)) unpacked[out++] = packed[in++];
      else {
        size_t distance = packed[in] | (size_t)packed[in + 1] << 8, count = packed[in + 2] + (size_t)SHORTEST;
        for (in += 3; count > 0; count--, out++) unpacked[out] = unpacked[out - distance];
      }
    }
  }
}

static uint64_t compressor(void) {
  memset(unpacked, 0, sizeof unpacked);
  size_t length = compress();
  decompress(length);
  return digest(length, packed, length) ^ (uint64_t)(memcmp(text, unpacked, TEXT) == 0);
}

/* The C library's qsort, with a function to compare. */
enum { NUMBERS = 1 << 14 };
static uint32_t numbers[NUMBERS], sorted[NUMBERS];

static double prepare_sort(void) {
  uint64_t random = 2024;
  for (size_t i = 0; i < NUMBERS; i++) numbers[i] = (uint32_t)next_random(&random);
  return NUMBERS;
}

static int compare(const void *x, const void *y) {
  uint32_t p = *(const uint32_t *)x, q = *(const uint32_t *)y;
  return p < q ? -1 : p > q;
}

static uint64_t sort(void) {
  memcpy(sorted, numbers, sizeof sorted);
  qsort(sorted, NUMBERS, sizeof *sorted, compare);
  return digest(1, sorted, sizeof sorted);
}

/* An interpreter of bytecode with a stack, and a program for it: the steps of Collatz sequences. */
enum { PUSH, LOAD, STORE, ADD, MULTIPLY, HALVE, AND, LESS, EQUAL, JUMP, JUMP_IF_ZERO, STOP };
enum { X, STEPS, N, LIMIT = 700 };

/* clang-format off */
static const uint8_t program[] = {
    /*  0 */ PUSH, 1, STORE, N,
    /*  4 */ LOAD, N, STORE, X,
    /*  8 */ LOAD, X, PUSH, 1, EQUAL, JUMP_IF_ZERO, 17, JUMP, 50,
    /* 17 */ LOAD, X, PUSH, 1, AND, JUMP_IF_ZERO, 36,
    /* 24 */ LOAD, X, PUSH, 3, MULTIPLY, PUSH, 1, ADD, STORE, X, JUMP, 41,
    /* 36 */ LOAD, X, HALVE, STORE, X,
    /* 41 */ LOAD, STEPS, PUSH, 1, ADD, STORE, STEPS, JUMP, 8,
    /* 50 */ LOAD, N, PUSH, 1, ADD, STORE, N,
    /* 57 */ LOAD, N, LESS, JUMP_IF_ZERO, 64, JUMP, 4,
    /* 64 */ STOP,
};
/* clang-format on */

/* Runs the program; counts its instructions. */
static __attribute__((noinline)) uint64_t interpret(const uint8_t *code, uint64_t limit, uint64_t *count) {
  uint64_t stack[16], variables[3] = {0}, executed = 0, *top = stack;
  const uint8_t *at = code;
  for (;;) {
    executed++;
    switch (*at++) {
      case PUSH: *top++ = *at++; break;
      case LOAD: *top++ = variables[*at++]; break;
      case STORE: variables[*at++] = *--top; break;
      case ADD: top--, top[-1] += *top; break;
      case MULTIPLY: top--, top[-1] *= *top; break;
      case HALVE: top[-1] >>= 1; break;
      case AND: top--, top[-1] &= *top; break;
      case LESS: top[-1] = top[-1] < limit; break;
      case EQUAL: top--, top[-1] = top[-1] == *top; break;
      case JUMP: at = code + *at; break;
      case JUMP_IF_ZERO: at = *--top ? at + 1 : code + *at; break;
      case STOP: *count = executed; return variables[STEPS];
    }
  }
}

static uint64_t bytecode(void) {
  uint64_t count, steps = interpret(program, LIMIT, &count);
  return steps << 32 | count;
}

static double prepare_bytecode(void) {
  uint64_t count;
  interpret(program, LIMIT, &count);
  return (double)count;
}

const struct row program_rows[] = {
    {"cpu", "SHA-256", "ns/byte", prepare_hash, hash, NULL},
    {"cpu", "LZ77 compressor", "ns/byte", prepare_compressor, compressor, NULL},
    {"cpu", "qsort", "ns/element", prepare_sort, sort, NULL},
    {"cpu", "bytecode interpreter", "ns/instruction", prepare_bytecode, bytecode, NULL},
    {0},
};
