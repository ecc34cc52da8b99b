/* wake COUNT MICROSECONDS: sleeps so often for so long, and prints "wake MEAN MOST" of its lateness, in microseconds. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  int count = atoi(argv[1]);
  int64_t nap = atoll(argv[2]) * 1000, sum = 0, most = 0;
  prctl(PR_SET_TIMERSLACK, 1);
  for (int i = 0; i < count; i++) {
    int64_t due = now() + nap;
    struct timespec until = {due / 1000000000, due % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL)) continue;
    int64_t late = now() - due;
    sum += late;
    if (late > most) most = late;
  }
  printf("wake %.0f %.0f\n", sum / 1e3 / count, most / 1e3);
  return 0;
}
