/*
 * What a row of the probe is. How rows are timed: main.c.
 *
 * A batch is a fixed amount of work from a fixed state: every batch of a row, on every system, must give the same
 * checksum, and work that is left out or done twice must change it. Natively a batch takes a few milliseconds at most.
 */
#ifndef PROBE_H
#define PROBE_H

#include <stddef.h>
#include <stdint.h>

struct row {
  const char *group, *name;
  /* What one operation is, as "ns/byte" or "us/fork". The probe itself prints ns. */
  const char *unit;
  /* Makes the state that a batch starts from. Gives the number of operations in a batch. */
  double (*prepare)(void);
  uint64_t (*batch)(void);
  /* Ends what prepare began; may be NULL. */
  void (*finish)(void);
};

/* Each ends with a row without a name. */
extern const struct row integer_rows[], program_rows[], float_rows[], kernel_rows[], process_rows[];

/* Says what went wrong (with errno) and ends the process. */
_Noreturn void die(const char *what);

/* A random number after another (xorshift). The state must not be 0. */
static inline uint64_t next_random(uint64_t *state) {
  uint64_t x = *state;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return *state = x;
}

/* Adds bytes to a checksum (FNV-1a, eight bytes at a time). */
static inline uint64_t digest(uint64_t sum, const void *data, size_t length) {
  const unsigned char *bytes = data;
  for (size_t i = 0; i < length; i += 8) {
    uint64_t word = 0;
    size_t rest = length - i < 8 ? length - i : 8;
    for (size_t j = 0; j < rest; j++) word |= (uint64_t)bytes[i + j] << (8 * j);
    sum = (sum ^ word) * 1099511628211ull;
    sum ^= sum >> 29;
  }
  return sum;
}

#endif
