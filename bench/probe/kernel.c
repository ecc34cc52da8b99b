/* What the kernel does for one process: system calls, files, memory, signals. */
#define _GNU_SOURCE
#include "probe.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { CALLS = 1000, FILES = 300, MAPPINGS = 100, PAGES = 256, PAGE = 4096, SIGNALS = 200 };

static double prepare_calls(void) { return CALLS; }

static uint64_t calls(void) {
  uint64_t same = 0;
  long parent = getppid();
  for (int i = 0; i < CALLS; i++) same += syscall(SYS_getppid) == parent;
  return same;
}

/* A file of 1000 bytes in memory, three directories down. */
static char file[64];

static double prepare_file(void) {
  static const char bytes[1000];
  const char *folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
  snprintf(file, sizeof file, "%s/probe-%d", folder, (int)getpid());
  int fd = open(file, O_CREAT | O_TRUNC | O_WRONLY, 0600);
  if (fd < 0 || write(fd, bytes, sizeof bytes) != sizeof bytes) die(file);
  close(fd);
  return FILES;
}

static void finish_file(void) { unlink(file); }

static uint64_t stats(void) {
  uint64_t sum = 0;
  struct stat status;
  for (int i = 0; i < FILES; i++) {
    if (stat(file, &status) != 0) die("stat");
    sum = sum * 31 + (uint64_t)status.st_size + (uint64_t)i;
  }
  return sum;
}

static uint64_t opens(void) {
  uint64_t sum = 0;
  for (int i = 0; i < FILES; i++) {
    int fd = open(file, O_RDONLY);
    if (fd < 0) die("open");
    sum += (uint64_t)i * (close(fd) == 0);
  }
  return sum;
}

/* Areas of 64 KiB in which only one page is ever touched. */
static double prepare_mappings(void) { return MAPPINGS; }

static unsigned char *map(size_t length, int protection) {
  unsigned char *area = mmap(NULL, length, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (area == MAP_FAILED) die("mmap");
  return area;
}

static uint64_t mappings(void) {
  uint64_t sum = 0;
  for (int i = 0; i < MAPPINGS; i++) {
    unsigned char *area = map(16 * PAGE, PROT_READ | PROT_WRITE);
    area[5 * PAGE] = (unsigned char)i;
    sum = sum * 31 + area[5 * PAGE] + area[5 * PAGE + 1];
    if (munmap(area, 16 * PAGE) != 0) die("munmap");
  }
  return sum;
}

static double prepare_pages(void) { return PAGES; }

static uint64_t pages(void) {
  uint64_t sum = 0;
  unsigned char *area = map(PAGES * PAGE, PROT_READ | PROT_WRITE);
  for (int i = 0; i < PAGES; i++) {
    area[i * PAGE] += (unsigned char)(i + 1);
    sum = sum * 31 + area[i * PAGE];
  }
  if (munmap(area, PAGES * PAGE) != 0) die("munmap");
  return sum;
}

static volatile uint64_t caught;

static void count_signal(int number) { caught += (uint64_t)number; }

static double prepare_signals(void) { return SIGNALS; }

static uint64_t installs(void) {
  uint64_t sum = 0;
  for (int i = 0; i < SIGNALS; i++) {
    struct sigaction action = {.sa_handler = i & 1 ? SIG_IGN : count_signal}, old;
    if (sigaction(SIGUSR2, &action, &old) != 0) die("sigaction");
    sum = sum * 3 + (old.sa_handler == count_signal);
  }
  return sum | 1ull << 63;
}

static uint64_t handles(void) {
  struct sigaction action = {.sa_handler = count_signal};
  if (sigaction(SIGUSR1, &action, NULL) != 0) die("sigaction");
  caught = 0;
  for (int i = 0; i < SIGNALS; i++) raise(SIGUSR1);
  return caught;
}

/* Stores to a page that may only be read; the handler goes on behind the store. */
static unsigned char *readable;

static void skip_store(int number, siginfo_t *info, void *context) {
  ucontext_t *interrupted = context;
  if (info->si_addr != readable) _exit(9);
  caught += (uint64_t)number;
  interrupted->uc_mcontext.gregs[REG_RIP] += 3; /* movb $1, (%rax) */
}

static double prepare_faults(void) {
  readable = map(PAGE, PROT_READ);
  return SIGNALS;
}

static void finish_faults(void) {
  munmap(readable, PAGE);
  signal(SIGSEGV, SIG_DFL);
}

static uint64_t faults(void) {
  struct sigaction action = {.sa_sigaction = skip_store, .sa_flags = SA_SIGINFO};
  if (sigaction(SIGSEGV, &action, NULL) != 0) die("sigaction");
  caught = 0;
  for (int i = 0; i < SIGNALS; i++) __asm__ volatile(".byte 0xc6, 0x00, 0x01" : : "a"(readable) : "memory");
  return caught;
}

const struct row kernel_rows[] = {
    {"system", "system call", "us/call", prepare_calls, calls, NULL},
    {"system", "stat", "us/call", prepare_file, stats, finish_file},
    {"system", "open and close", "us/pair", prepare_file, opens, finish_file},
    {"system", "mmap and munmap", "us/pair", prepare_mappings, mappings, NULL},
    {"system", "page fault", "us/page", prepare_pages, pages, NULL},
    {"system", "protection fault", "us/fault", prepare_faults, faults, finish_faults},
    {"system", "signal, install", "us/call", prepare_signals, installs, NULL},
    {"system", "signal, handle", "us/signal", prepare_signals, handles, NULL},
    {0},
};
