/*
 * The integer probe: a fixed amount of ordinary integer work (hashing, sorting, a sieve, a matrix, a list to chase,
 * text), about 70 million instructions a round. It rests before and after, so that whoever counts instructions from
 * outside has time to look.
 *
 * Prints "probe begin", then "probe end SECONDS CHECKSUM".
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { N = 1 << 16, SIDE = 96, SIEVE = 1 << 20 };

static uint32_t numbers[N], sorted[N], next_of[N];
static uint32_t a[SIDE][SIDE], b[SIDE][SIDE], c[SIDE][SIDE];
static uint8_t composite[SIEVE];
static char text[N * 12];

static uint64_t state = 88172645463325252ull;

static uint64_t next(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

static int compare(const void *x, const void *y) {
  uint32_t p = *(const uint32_t *)x, q = *(const uint32_t *)y;
  return p < q ? -1 : p > q;
}

static uint64_t round_of_work(void) {
  uint64_t sum = 0;

  for (int i = 0; i < N; i++) numbers[i] = (uint32_t)next();
  memcpy(sorted, numbers, sizeof sorted);
  qsort(sorted, N, sizeof *sorted, compare);
  for (int i = 0; i < N; i += 97) sum = sum * 31 + sorted[i];

  memset(composite, 0, sizeof composite);
  for (uint32_t p = 2; p * p < SIEVE; p++)
    if (!composite[p])
      for (uint32_t q = p * p; q < SIEVE; q += p) composite[q] = 1;
  for (int i = 2; i < SIEVE; i++) sum += (uint64_t)!composite[i] * (uint64_t)i;

  for (int i = 0; i < SIDE; i++)
    for (int j = 0; j < SIDE; j++) {
      a[i][j] = numbers[i * SIDE + j];
      b[i][j] = numbers[j * SIDE + i] | 1;
    }
  for (int i = 0; i < SIDE; i++)
    for (int j = 0; j < SIDE; j++) {
      uint32_t dot = 0;
      for (int k = 0; k < SIDE; k++) dot += a[i][k] * b[k][j] ^ (a[i][k] >> (b[k][j] & 7));
      c[i][j] = dot;
    }
  sum ^= c[SIDE / 2][SIDE / 3];

  for (uint32_t i = 0; i < N; i++) next_of[i] = (i * 40503u + 12345u) & (N - 1);
  uint32_t at = 0;
  for (int i = 0; i < 4 * N; i++) at = next_of[at];
  sum += at;

  size_t length = 0;
  for (int i = 0; i < N / 8; i++) length += (size_t)sprintf(text + length, "%x,", numbers[i]);
  uint32_t words = 0, hash = 2166136261u;
  for (size_t i = 0; i < length; i++) {
    hash = (hash ^ (uint8_t)text[i]) * 16777619u;
    if (text[i] == ',') words++;
  }
  for (char *p = text; (p = strchr(p, ',')) != NULL; p++) sum += (uint64_t)(p - text);
  return sum ^ ((uint64_t)hash << 32) ^ words;
}

int main(int argc, char **argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 1;
  struct timespec begin, end;
  uint64_t sum = 0;
  puts("probe begin");
  fflush(stdout);
  sleep(1);
  clock_gettime(CLOCK_MONOTONIC, &begin);
  for (int i = 0; i < rounds; i++) sum = sum * 6364136223846793005ull + round_of_work();
  clock_gettime(CLOCK_MONOTONIC, &end);
  sleep(1);
  double seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
  printf("probe end %.6f %016llx\n", seconds, (unsigned long long)sum);
  return 0;
}
