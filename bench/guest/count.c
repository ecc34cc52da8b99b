/*
 * count: computes without end, and counts. For each line on standard input it answers with a line
 * "count N NANOSECONDS": rounds so far, and the guest's time. A line that begins with "q" ends it.
 *
 * A round takes the same work each time and touches no memory that another domain could have an interest in. The
 * answer comes from a process of its own, which sleeps; so asking costs next to nothing.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum { STEPS = 1000 };

int main(void) {
  volatile uint64_t *shared =
      mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return 1;
  pid_t child = fork();
  if (child < 0) return 1;
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    uint64_t x = 88172645463325252u;
    for (;;) {
      for (int step = 0; step < STEPS; step++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
      }
      shared[1] = x;
      shared[0]++;
    }
  }
  puts("count ready");
  fflush(stdout);
  char line[256];
  while (fgets(line, sizeof line, stdin) && line[0] != 'q') {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("count %llu %lld\n", (unsigned long long)shared[0],
           (long long)now.tv_sec * 1000000000LL + now.tv_nsec);
    fflush(stdout);
  }
  kill(child, SIGKILL);
  return 0;
}
