/* Floating point: scalar doubles, vectors of floats, roots and divisions, conversions. No FMA: all results are exact. */
#include "probe.h"

#include <emmintrin.h>
#include <string.h>

static uint64_t bits(double x) {
  uint64_t result;
  memcpy(&result, &x, sizeof result);
  return result;
}

/* The square root instruction: the C library's function would look for errors. */
static inline double square_root(double x) {
  __m128d v = _mm_set_sd(x);
  return _mm_cvtsd_f64(_mm_sqrt_sd(v, v));
}

/* Five bodies that attract each other. */
enum { BODIES = 5, TIMES = 1000 };

struct body {
  double at[3], speed[3], mass;
};

static double prepare_bodies(void) { return TIMES; }

static uint64_t bodies(void) {
  struct body all[BODIES];
  uint64_t random = 31415;
  for (int i = 0; i < BODIES; i++) {
    for (int k = 0; k < 3; k++) {
      all[i].at[k] = (double)(next_random(&random) >> 40) / (1 << 20) - 8;
      all[i].speed[k] = (double)(next_random(&random) >> 40) / (1 << 24) - 0.5;
    }
    all[i].mass = 1.0 / (i + 1);
  }
  for (int step = 0; step < TIMES; step++) {
    for (int i = 0; i < BODIES; i++) {
      struct body *a = &all[i];
      for (int j = i + 1; j < BODIES; j++) {
        struct body *b = &all[j];
        double x = a->at[0] - b->at[0], y = a->at[1] - b->at[1], z = a->at[2] - b->at[2];
        double square = x * x + y * y + z * z + 0.01, pull = 0.001 / (square * square_root(square));
        a->speed[0] -= x * b->mass * pull, a->speed[1] -= y * b->mass * pull, a->speed[2] -= z * b->mass * pull;
        b->speed[0] += x * a->mass * pull, b->speed[1] += y * a->mass * pull, b->speed[2] += z * a->mass * pull;
      }
    }
    for (int i = 0; i < BODIES; i++)
      for (int k = 0; k < 3; k++) all[i].at[k] += 0.001 * all[i].speed[k];
  }
  uint64_t sum = 0;
  for (int i = 0; i < BODIES; i++)
    for (int k = 0; k < 3; k++) sum = sum * 31 + bits(all[i].at[k]);
  return sum;
}

/* The Mandelbrot set on a small grid. */
enum { GRID = 48, MOST = 200 };

static uint64_t mandelbrot_count(uint64_t *picture) {
  uint64_t iterations = 0;
  for (int row = 0; row < GRID; row++)
    for (int column = 0; column < GRID; column++) {
      double cx = 3.0 * column / GRID - 2.25, cy = 2.5 * row / GRID - 1.25, x = 0, y = 0;
      int i = 0;
      for (; i < MOST && x * x + y * y <= 4; i++) {
        double next = x * x - y * y + cx;
        y = 2 * x * y + cy;
        x = next;
      }
      iterations += (uint64_t)i;
      *picture = *picture * 31 + (uint64_t)i + (bits(x) & 0xff);
    }
  return iterations;
}

static double prepare_mandelbrot(void) {
  uint64_t picture = 0;
  return (double)mandelbrot_count(&picture);
}

static uint64_t mandelbrot(void) {
  uint64_t picture = 0;
  mandelbrot_count(&picture);
  return picture;
}

/* The product of two matrices of doubles, as one writes it. */
enum { SIDE = 72 };
static double a[SIDE][SIDE], b[SIDE][SIDE], c[SIDE][SIDE];

static double prepare_product(void) {
  uint64_t random = 271828;
  for (int i = 0; i < SIDE; i++)
    for (int j = 0; j < SIDE; j++) {
      a[i][j] = (double)(next_random(&random) >> 44) / 1024 - 512;
      b[i][j] = (double)(next_random(&random) >> 44) / 1024 - 512;
    }
  return (double)SIDE * SIDE * SIDE;
}

static uint64_t product(void) {
  memset(c, 0, sizeof c);
  for (int i = 0; i < SIDE; i++)
    for (int j = 0; j < SIDE; j++) {
      double sum = 0;
      for (int k = 0; k < SIDE; k++) sum += a[i][k] * b[k][j];
      c[i][j] = sum;
    }
  return digest(1, c, sizeof c);
}

/* The same of floats, four at a time. */
enum { WIDE = 96 };
static float wa[WIDE][WIDE] __attribute__((aligned(16))), wb[WIDE][WIDE] __attribute__((aligned(16))),
    wc[WIDE][WIDE] __attribute__((aligned(16)));

static double prepare_vectors(void) {
  uint64_t random = 161803;
  for (int i = 0; i < WIDE; i++)
    for (int j = 0; j < WIDE; j++) {
      wa[i][j] = (float)(next_random(&random) >> 50) / 64 - 128;
      wb[i][j] = (float)(next_random(&random) >> 50) / 64 - 128;
    }
  return (double)WIDE * WIDE * WIDE;
}

static uint64_t vectors(void) {
  memset(wc, 0, sizeof wc);
  for (int i = 0; i < WIDE; i++)
    for (int j = 0; j < WIDE; j += 8) {
      __m128 low = _mm_setzero_ps(), high = _mm_setzero_ps();
      for (int k = 0; k < WIDE; k++) {
        __m128 scale = _mm_set1_ps(wa[i][k]);
        low = _mm_add_ps(low, _mm_mul_ps(scale, _mm_load_ps(&wb[k][j])));
        high = _mm_add_ps(high, _mm_mul_ps(scale, _mm_load_ps(&wb[k][j + 4])));
      }
      _mm_store_ps(&wc[i][j], low);
      _mm_store_ps(&wc[i][j + 4], high);
    }
  return digest(1, wc, sizeof wc);
}

/* Roots and divisions, each of the result of the one before. */
enum { CHAIN = 50000 };

static double prepare_chain(void) { return CHAIN; }

static uint64_t roots(void) {
  double x = 2, sum = 0;
  for (int i = 1; i <= CHAIN; i++) {
    x = square_root(x + i) / (1.0 + 1.0 / (x + 0.5));
    sum += x;
  }
  return bits(sum) ^ bits(x);
}

/* Integers of both widths to doubles and floats, and back, by truncation and by rounding. */
static uint64_t conversions(void) {
  uint64_t random = 577215, sum = 0;
  for (int i = 0; i < CHAIN; i++) {
    int64_t wide = (int64_t)next_random(&random) >> 12;
    double large = (double)wide * 0.37;
    float small = (float)large;
    int32_t narrow = (int32_t)(large * 0x1p-22);
    double again = (double)small + (double)narrow;
    sum = sum * 3 + (uint64_t)(int64_t)again + (uint64_t)(int64_t)((float)narrow * 1.25f) +
          (uint64_t)_mm_cvtsd_si64(_mm_set_sd(large * 0.001));
  }
  return sum;
}

const struct row float_rows[] = {
    {"float", "n-body", "ns/step", prepare_bodies, bodies, NULL},
    {"float", "Mandelbrot", "ns/iteration", prepare_mandelbrot, mandelbrot, NULL},
    {"float", "matrix product, double", "ns/term", prepare_product, product, NULL},
    {"float", "matrix product, float vectors", "ns/term", prepare_vectors, vectors, NULL},
    {"float", "roots and divisions", "ns/step", prepare_chain, roots, NULL},
    {"float", "conversions", "ns/step", prepare_chain, conversions, NULL},
    {0},
};
