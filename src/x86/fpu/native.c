/*
 * Runs single instructions on this machine's own CPU, for comparison with ours.
 *
 * Standard input is a sequence of records, standard output one answer for each. The instruction finds the address of
 * its memory operand in rdi and may change rax and the flags; the whole x87 and SSE state is loaded before it with
 * FXRSTOR64 and stored after it with FXSAVE64. A fault (an unmasked exception, say) ends the instruction; the answer
 * then holds the state that the kernel put into the signal frame.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

struct record {
  uint8_t state[512];
  uint8_t memory[512];
  uint8_t code[16];
  uint64_t length; /* bytes of code */
  uint64_t rax;
  uint64_t flags;
  uint64_t signal;
} __attribute__((aligned(64)));

static struct record now;
static uint8_t *page;
static sigjmp_buf escape;
static uint8_t clean[512] __attribute__((aligned(64)));

static void caught(int number, siginfo_t *info, void *context) {
  ucontext_t *frame = context;
  (void)info;
  if (frame->uc_mcontext.fpregs) memcpy(now.state, frame->uc_mcontext.fpregs, 464);
  memset(now.state + 464, 0, 48);
  siglongjmp(escape, number);
}

__attribute__((noinline)) static void run(void) {
  register uint8_t *target asm("rdi") = now.memory;
  __asm__ volatile(
      "fxrstor64 %[state]\n"
      "mov %[rax], %%rax\n"
      "pushq %[flags]\n"
      "popfq\n"
      "call *%[page]\n"
      "fxsave64 %[state]\n"
      "mov %%rax, %[rax]\n"
      "pushfq\n"
      "popq %[flags]\n"
      : [state] "+m"(now.state), [rax] "+m"(now.rax), [flags] "+m"(now.flags)
      : "r"(target), [page] "r"(page)
      : "rax", "memory", "cc");
}

int main(void) {
  static char stack[65536];
  stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
  struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  const int signals[] = {SIGFPE, SIGSEGV, SIGILL, SIGBUS, SIGTRAP};
  uint8_t loaded[16];
  uint64_t length = 0;

  page = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return 2;
  sigaltstack(&alternate, 0);
  for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) sigaction(signals[i], &action, 0);
  __asm__ volatile("fxsave64 %0" : "=m"(clean));

  while (fread(&now, sizeof now, 1, stdin) == 1) {
    if (now.length > 16) return 3;
    if (length != now.length || memcmp(loaded, now.code, now.length)) {
      length = now.length;
      memcpy(loaded, now.code, length);
      memcpy(page, now.code, length);
      page[length] = 0xc3;
    }
    now.signal = 0;
    int number = sigsetjmp(escape, 0);
    if (number == 0) run();
    else now.signal = number;
    __asm__ volatile("fxrstor64 %0" : : "m"(clean));
    /* The kernel's answer for a fault carries its own words behind the registers. */
    memset(now.state + 464, 0, 48);
    if (fwrite(&now, sizeof now, 1, stdout) != 1) return 4;
  }
  return 0;
}
