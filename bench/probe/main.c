/*
 * The probe: small pieces of work, each timed by the system's own clock.
 *
 *   probe list                          rows: INDEX GROUP UNIT NAME, separated by tabs
 *   probe WARM MEASURE [INDEX...]       runs rows (all without an index): "row INDEX NANOSECONDS CHECKSUM" for each,
 *                                       "row INDEX failed" for one that changes its mind, and "probe end"
 *   probe exit                          does nothing (the program that the exec row runs)
 *   probe load NAME                     a load of the soak (load.c)
 *
 * WARM and MEASURE are milliseconds. A row runs its batch over and over for WARM, and then again for MEASURE, which
 * alone is timed. The warm-up is part of the measurement's design: systems that translate code are slow at first, and
 * what they are later is the question here. It is the same on every system.
 *
 * The time of a row is that of the batch in the middle when all are sorted by their times. Other programs that have
 * the CPU for a while make some batches last longer; as long as they are less than half, they do not count.
 *
 * All runs on one CPU, so that processes that speak to each other do not profit from a second one where there is one.
 */
#define _GNU_SOURCE
#include "load.h"
#include "probe.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct row *const groups[] = {integer_rows, program_rows, float_rows, kernel_rows, process_rows};

_Noreturn void die(const char *what) {
  fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
  fflush(NULL);
  exit(1);
}

static const struct row *find(int index) {
  for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
    for (const struct row *row = groups[i]; row->name; row++)
      if (index-- == 0) return row;
  return NULL;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static int compare(const void *x, const void *y) {
  double p = *(const double *)x, q = *(const double *)y;
  return p < q ? -1 : p > q;
}

/* Runs batches for some nanoseconds, at least one. Gives the time of one, negative if a checksum changed. */
static double repeat(const struct row *row, double nanoseconds, uint64_t expected) {
  static double times[1 << 16];
  double begin = now(), last = begin, end = begin;
  unsigned batches = 0, wrong = 0;
  do {
    wrong += row->batch() != expected;
    end = now();
    times[batches++] = end - last;
    last = end;
  } while (end - begin < nanoseconds && batches < sizeof times / sizeof *times);
  qsort(times, batches, sizeof *times, compare);
  return wrong ? -1 : times[batches / 2];
}

static void run(int index, const struct row *row, double warm, double measure) {
  double operations = row->prepare();
  uint64_t checksum = row->batch();
  int wrong = repeat(row, warm, checksum) < 0;
  double time = repeat(row, measure, checksum);
  if (row->finish) row->finish();
  if (wrong || time < 0) printf("row %d failed\n", index);
  else printf("row %d %.4f %016llx\n", index, time / operations, (unsigned long long)checksum);
  fflush(stdout);
}

static void stay_on_one_cpu(void) {
  cpu_set_t set;
  int cpu = sched_getcpu();
  if (cpu < 0) return;
  CPU_ZERO(&set);
  CPU_SET((unsigned)cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
}

int main(int argc, char **argv) {
  const struct row *row;
  if (argc == 2 && strcmp(argv[1], "exit") == 0) return 3;
  if (argc == 2 && strcmp(argv[1], "list") == 0) {
    for (int i = 0; (row = find(i)); i++) printf("%d\t%s\t%s\t%s\n", i, row->group, row->unit, row->name);
    return 0;
  }
  if (argc == 3 && strcmp(argv[1], "load") == 0) return run_load(argv[2]);
  if (argc < 3) {
    fputs("usage: probe list | probe WARM MEASURE [INDEX...] (milliseconds)\n", stderr);
    return 2;
  }
  double warm = atof(argv[1]) * 1e6, measure = atof(argv[2]) * 1e6;
  stay_on_one_cpu();
  if (argc == 3)
    for (int i = 0; (row = find(i)); i++) run(i, row, warm, measure);
  for (int i = 3; i < argc; i++)
    if ((row = find(atoi(argv[i])))) run(atoi(argv[i]), row, warm, measure);
  puts("probe end");
  return 0;
}
