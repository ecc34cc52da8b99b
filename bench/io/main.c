/*
 * Work for a disk and for a network, the same program on the host and in every guest:
 *
 *   io disk FILE BYTES WARM MEASURE ROW...     reads and writes FILE, a block device or a file of BYTES (disk.c)
 *   io fsync FILE WARM MEASURE                 appends 4 KiB and waits until they are durable
 *   io tree FOLDER [drop]                      unpacks, packs and removes a tree of small files (tree.c)
 *   io serve PORT                              serves streams, echoes and pages (serve.c)
 *   io stream HOST PORT send|receive WARM MEASURE
 *   io ping HOST PORT WARM MEASURE
 *   io load HOST PORT CONNECTIONS keep|close WARM MEASURE     (client.c)
 *
 * WARM and MEASURE are milliseconds. Each row prints "io begin ROW" when its time begins, and at the end "io row ROW
 * OPERATIONS BYTES NANOSECONDS", with the processor time of this process behind it, also in ns.
 */
#include "io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static double cpu_begin;

_Noreturn void die(const char *what) {
  printf("io failed: %s: %s\n", what, strerror(errno));
  fflush(stdout);
  exit(1);
}

double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static double cpu(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e9 +
         (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e3;
}

void begin(const char *row) {
  printf("io begin %s\n", row);
  fflush(stdout);
  cpu_begin = cpu();
}

void report(const char *row, double operations, double bytes, double nanoseconds) {
  printf("io row %s %.0f %.0f %.0f %.0f\n", row, operations, bytes, nanoseconds, cpu() - cpu_begin);
  fflush(stdout);
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    int least;
    int (*run)(int, char **);
  } commands[] = {
      {"disk", 7, disk},     {"fsync", 5, sync_row}, {"tree", 3, tree}, {"serve", 3, serve},
      {"stream", 7, stream}, {"ping", 6, ping},      {"load", 8, load},
  };
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
    if (argc >= commands[i].least && strcmp(argv[1], commands[i].name) == 0) return commands[i].run(argc, argv);
  fprintf(stderr, "io: see the head of main.c\n");
  return 2;
}
