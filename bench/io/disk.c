/*
 * Reads and writes of a block device, past the page cache; or of a file, through it. A guest's disk is a file in the
 * host's page cache, and that is what the host itself is measured with.
 *
 * A depth is so many threads, each with one request at a time. Sequential rows share one position.
 */
#define _GNU_SOURCE
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH_MAX 64

static const struct row {
  const char *name;
  int random, write, size, depth;
} rows[] = {
    {"seq-read", 0, 0, 262144, 4},   {"seq-write", 0, 1, 262144, 4},   {"rand-read-1", 1, 0, 4096, 1},
    {"rand-write-1", 1, 1, 4096, 1}, {"rand-read-32", 1, 0, 4096, 32}, {"rand-write-32", 1, 1, 4096, 32},
    {NULL, 0, 0, 0, 0},
};

static const struct row *row;
static int file;
static uint64_t blocks;
static _Atomic uint64_t position, done;
static _Atomic int stop;

static void *work(void *argument) {
  uint64_t seed = (uint64_t)(uintptr_t)argument * 0x9e3779b97f4a7c15u + 1;
  char *buffer;
  if (posix_memalign((void **)&buffer, 4096, (size_t)row->size) != 0) die("memory");
  memset(buffer, (int)seed, (size_t)row->size);
  while (!stop) {
    uint64_t block = position++;
    if (row->random) {
      seed ^= seed << 13;
      seed ^= seed >> 7;
      seed ^= seed << 17;
      block = seed;
    }
    off_t at = (off_t)(block % blocks) * row->size;
    ssize_t size = row->write ? pwrite(file, buffer, (size_t)row->size, at) : pread(file, buffer, (size_t)row->size, at);
    if (size != row->size) die(row->name);
    done++;
  }
  free(buffer);
  return NULL;
}

static void run(double warm, double measure) {
  pthread_t threads[DEPTH_MAX];
  stop = 0;
  position = 0;
  for (int i = 0; i < row->depth; i++)
    if (pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)(i + 1)) != 0) die("threads");
  usleep((useconds_t)(warm * 1e3));
  begin(row->name);
  uint64_t before = done;
  double started = now();
  usleep((useconds_t)(measure * 1e3));
  uint64_t count = done - before;
  double time = now() - started;
  stop = 1;
  for (int i = 0; i < row->depth; i++) pthread_join(threads[i], NULL);
  report(row->name, (double)count, (double)count * row->size, time);
}

int disk(int argc, char **argv) {
  struct stat status;
  if (stat(argv[2], &status) != 0) die(argv[2]);
  file = open(argv[2], O_RDWR | (S_ISBLK(status.st_mode) ? O_DIRECT : 0));
  if (file < 0) die(argv[2]);
  for (int i = 6; i < argc; i++) {
    for (row = rows; row->name && strcmp(row->name, argv[i]) != 0; row++) {
    }
    errno = EINVAL;
    if (!row->name) die(argv[i]);
    blocks = strtoull(argv[3], NULL, 10) / (uint64_t)row->size;
    if (blocks == 0) die(argv[3]);
    run(atof(argv[4]), atof(argv[5]));
  }
  return 0;
}

int sync_row(int argc, char **argv) {
  static char block[4096];
  (void)argc;
  int log = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (log < 0) die(argv[2]);
  double warm = now() + atof(argv[3]) * 1e6, started = 0;
  uint64_t count = 0;
  for (;;) {
    if (write(log, block, sizeof block) != sizeof block || fdatasync(log) != 0) die("fsync");
    double time = now();
    if (started == 0) {
      if (time < warm) continue;
      begin("fsync");
      started = now();
    } else {
      count++;
      if (time - started >= atof(argv[4]) * 1e6) break;
    }
  }
  report("fsync", (double)count, (double)count * sizeof block, now() - started);
  close(log);
  unlink(argv[2]);
  return 0;
}
