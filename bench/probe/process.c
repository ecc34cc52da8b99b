/* Processes: made, replaced, ended, and speaking to each other. */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN = 4, TRIPS = 100, RING = 8, LAPS = 10, TOUCHED = 16384 };

static double prepare_children(void) { return CHILDREN; }

static uint64_t exit_status(pid_t child) {
  int status;
  if (child < 0) die("fork");
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) die("waitpid");
  return (uint64_t)status;
}

static uint64_t forks(void) {
  uint64_t sum = 0;
  for (int i = 0; i < CHILDREN; i++) {
    pid_t child = fork();
    if (child == 0) _exit(i + 1);
    sum = sum * 31 + exit_status(child);
  }
  return sum;
}

static uint64_t execs(void) {
  uint64_t sum = 0;
  for (int i = 0; i < CHILDREN; i++) {
    pid_t child = fork();
    if (child == 0) {
      execl("/proc/self/exe", "probe", "exit", (char *)NULL);
      _exit(99);
    }
    sum = sum * 31 + exit_status(child);
  }
  return sum;
}

/* A ring of processes: a byte goes round, and each adds to a part of its own memory before it passes it on. */
static int from_last = -1, to_first = -1;
static unsigned ring_size, touched;
static unsigned char memory[TOUCHED];

static unsigned char pass(int in, int out) {
  unsigned char byte;
  if (read(in, &byte, 1) != 1) _exit(0);
  for (unsigned i = 0; i < touched; i += 64) memory[i] += byte;
  byte = (unsigned char)(byte + 1);
  if (write(out, &byte, 1) != 1) _exit(0);
  return byte;
}

/* The parent is one of the ring. Children end when its pipes are closed. */
static void make_ring(unsigned size, unsigned bytes) {
  int pipes[RING][2];
  ring_size = size;
  touched = bytes;
  for (unsigned i = 0; i < size; i++)
    if (pipe(pipes[i]) != 0) die("pipe");
  for (unsigned i = 1; i < size; i++) {
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child > 0) continue;
    int in = dup(pipes[i - 1][0]), out = dup(pipes[i][1]);
    for (unsigned j = 0; j < size; j++) close(pipes[j][0]), close(pipes[j][1]);
    for (;;) pass(in, out);
  }
  from_last = pipes[size - 1][0];
  to_first = pipes[0][1];
  for (unsigned i = 0; i < size; i++) {
    if (i != size - 1) close(pipes[i][0]);
    if (i != 0) close(pipes[i][1]);
  }
}

static uint64_t go_round(unsigned laps) {
  uint64_t sum = 0;
  for (unsigned lap = 0; lap < laps; lap++) {
    unsigned char byte = (unsigned char)lap;
    for (unsigned i = 0; i < touched; i += 64) memory[i] += byte;
    if (write(to_first, &byte, 1) != 1 || read(from_last, &byte, 1) != 1) die("ring");
    sum = sum * 31 + byte;
  }
  return sum;
}

static void finish_ring(void) {
  close(to_first);
  close(from_last);
  for (unsigned i = 1; i < ring_size; i++) wait(NULL);
}

static double prepare_pair(void) {
  make_ring(2, 0);
  return TRIPS;
}

static uint64_t ping_pong(void) { return go_round(TRIPS); }

static double prepare_switches(void) {
  make_ring(RING, TOUCHED);
  return RING * LAPS;
}

static uint64_t switches(void) { return go_round(LAPS); }

const struct row process_rows[] = {
    {"system", "pipe ping-pong", "us/round trip", prepare_pair, ping_pong, finish_ring},
    {"system", "context switch, 8 of 16 KiB", "us/switch", prepare_switches, switches, finish_ring},
    {"system", "fork, exit, wait", "us/process", prepare_children, forks, NULL},
    {"system", "fork, exec, exit, wait", "us/process", prepare_children, execs, NULL},
    {0},
};
