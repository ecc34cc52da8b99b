/*
 * count: computes without end, and counts. Lines on standard input:
 *
 *   (empty)      is answered with "count N NANOSECONDS": rounds so far, and the time (CLOCK_REALTIME)
 *   FROM TO      with "count N": rounds between two such times, the last minutes of which are remembered; the answer
 *                waits until a later time was noted
 *   q            ends it
 *
 * A round is the same work each time and touches next to no memory. The answers come from a process of its own, which
 * sleeps; and because the one that computes notes now and then how far it is, nobody has to ask while time is taken.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/* Steps of a round, rounds between two looks at the clock, ns between two notes, how many notes are kept, and us between
   two looks for one. */
enum { STEPS = 1000, LOOK = 16, INTERVAL = 100 * 1000 * 1000, NOTES = 4096, PATIENCE = 10 * 1000 };

struct note {
  int64_t at;
  uint64_t rounds;
};

struct shared {
  volatile uint64_t rounds, sink;
  /* How many there were so far; the last NOTES of them are there. */
  volatile uint64_t count;
  struct note notes[NOTES];
};

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static void note(struct shared *shared, int64_t at) {
  struct note *next = &shared->notes[shared->count % NOTES];
  next->at = at;
  next->rounds = shared->rounds;
  shared->count++;
}

static void compute(struct shared *shared) {
  uint64_t x = 88172645463325252u;
  int64_t last = 0;
  for (;;) {
    for (int round = 0; round < LOOK; round++) {
      for (int step = 0; step < STEPS; step++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
      }
      shared->sink = x;
      shared->rounds++;
    }
    int64_t at = now();
    if (at - last < INTERVAL) continue;
    last = at;
    note(shared, at);
  }
}

static int noted(const struct shared *shared, int64_t at) {
  uint64_t count = shared->count;
  return count > 0 && shared->notes[(count - 1) % NOTES].at >= at;
}

/* Rounds at a time, in a straight line between the notes before and after it. */
static double rounds_at(const struct shared *shared, int64_t at) {
  uint64_t count = shared->count, first = count > NOTES / 2 ? count - NOTES / 2 : 0;
  struct note before = {0, 0};
  for (uint64_t i = first; i < count; i++) {
    struct note after = shared->notes[i % NOTES];
    if (after.at >= at) {
      if (before.at == 0) return after.rounds;
      return before.rounds +
             (double)(after.rounds - before.rounds) * (at - before.at) / (after.at - before.at);
    }
    before = after;
  }
  return before.rounds;
}

int main(void) {
  struct shared *shared =
      mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return 1;
  pid_t child = fork();
  if (child < 0) return 1;
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    compute(shared);
  }
  puts("count ready");
  fflush(stdout);
  char line[256];
  while (fgets(line, sizeof line, stdin) && line[0] != 'q') {
    char *rest;
    int64_t from = strtoll(line, &rest, 10);
    if (rest == line)
      printf("count %llu %lld\n", (unsigned long long)shared->rounds, (long long)now());
    else {
      int64_t to = strtoll(rest, NULL, 10);
      while (!noted(shared, to)) usleep(PATIENCE);
      printf("count %.0f\n", rounds_at(shared, to) - rounds_at(shared, from));
    }
    fflush(stdout);
  }
  kill(child, SIGKILL);
  return 0;
}
