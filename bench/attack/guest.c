/*
 * A guest kernel that measures, and one that attacks: which one, its command line says.
 *
 *   work           computes over a megabyte that it knows every word of, and counts the rounds
 *   sleep          sleeps for a short time, over and over, and measures how late it wakes
 *   spin           uses its share of the processor, and does no more
 *   ATTACK SEED    does one kind of harm without end (attacks, below); "mixed": each in turn
 *
 * Ten times a second it says on the emergency console: "beat NAME NOW COUNT BAD SUM MOST", numbers since its start but
 * for the last two. NOW is system time in ns (the time-stamp counter runs at 1 GHz), which is the same for all domains
 * of a machine. For sleep, SUM and MOST are of its lateness since the last line, in ns.
 */
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

/* Hypercalls: public/xen.h */
enum {
  set_trap_table = 0, mmu_update = 1, set_gdt = 2, stack_switch = 3, set_callbacks = 4, sched_op_compat = 6,
  memory_op = 12, update_va_mapping = 14, set_timer_op = 15, event_channel_op_compat = 16, console_io = 18,
  grant_table_op = 20, iret = 23, vcpu_op = 24, mmuext_op = 26, sched_op = 29, event_channel_op = 32,
};

enum { PAGE = 4096, DOMID_SELF = 0x7ff0, KERNEL_CS = 0xe033 };
enum { PRESENT = 1, RW = 2, USER = 4, MAPPED = 0x60 | USER | PRESENT, UVMF_INVLPG = 2 };
#define VIRT_BASE 0xffffffff80000000ul
#define MACH2PHYS ((const u64 *)0xffff800000000000ul)

struct start_info {
  char magic[32];
  u64 nr_pages, shared_info;
  u32 flags;
  u64 store_mfn;
  u32 store_evtchn;
  u64 console_mfn;
  u32 console_evtchn;
  u64 pt_base, nr_pt_frames, mfn_list, mod_start, mod_len;
  char cmd_line[1024];
};

/* The first of vcpu_info, and the bitmaps behind all 32 of them. */
struct shared_info {
  u8 upcall_pending, upcall_mask;
  u64 pending_selector;
  u8 rest[2048 - 16];
  u64 pending[64], mask[64];
};

extern int guard(void (*work)(void));
extern void on_exception(void), on_event(void);

static struct start_info *info;
static const char *name;
static u64 seed, count, bad, sum, most;

/* Page-aligned room of ours: what the attacks use as tables, code and arguments. */
enum { PAGES = 64 };
static u8 area[PAGES][PAGE] __attribute__((aligned(4096)));
static u8 shared_page[PAGE] __attribute__((aligned(4096)));
static u8 arguments[2 * PAGE] __attribute__((aligned(4096)));
#define shared ((volatile struct shared_info *)shared_page)

/* --- The ground ---------------------------------------------------------------------------------------------------- */

static long call(u64 number, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f) {
  register u64 r10 asm("r10") = d;
  register u64 r8 asm("r8") = e;
  register u64 r9 asm("r9") = f;
  long result;
  asm volatile("syscall"
               : "=a"(result), "+D"(a), "+S"(b), "+d"(c), "+r"(r10), "+r"(r8), "+r"(r9)
               : "a"(number)
               : "rcx", "r11", "memory");
  return result;
}
#define CALL(number, a, b, c, d) call(number, (u64)(a), (u64)(b), (u64)(c), (u64)(d), 0, 0)

static u64 now(void) {
  u32 low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high));
  return (u64)high << 32 | low;
}

static u64 next(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed;
}

static u64 below(u64 limit) { return next() % limit; }

void *memset(void *to, int value, size_t length) {
  void *at = to;
  asm volatile("rep stosb" : "+D"(at), "+c"(length) : "a"(value) : "memory");
  return to;
}

void *memcpy(void *to, const void *from, size_t length) {
  void *at = to;
  asm volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(length) : : "memory");
  return to;
}

static u64 mfn_of(u64 pfn) { return ((const u64 *)info->mfn_list)[pfn]; }
static u64 mfn_at(const void *page) { return mfn_of(((u64)page - VIRT_BASE) / PAGE); }
static void *at_mfn(u64 mfn) { return (void *)(VIRT_BASE + MACH2PHYS[mfn] * PAGE); }

static long map(void *at, u64 mfn, u64 flags) {
  return CALL(update_va_mapping, at, flags ? mfn << 12 | flags : 0, UVMF_INVLPG, 0);
}

static char *put(char *to, const char *text) {
  while (*text) *to++ = *text++;
  return to;
}

static char *put_number(char *to, u64 value) {
  char digits[20];
  int length = 0;
  do digits[length++] = (char)('0' + value % 10);
  while (value /= 10);
  *to++ = ' ';
  while (length) *to++ = digits[--length];
  return to;
}

/* Says how far it is, if it is time to. */
static void beat(void) {
  static u64 due;
  u64 time = now();
  if (time < due) return;
  due = time + 100 * 1000 * 1000;
  char line[200], *to = put(line, "beat ");
  to = put(to, name);
  const u64 numbers[] = {time, count, bad, sum, most};
  for (int i = 0; i < 5; i++) to = put_number(to, numbers[i]);
  *to++ = '\n';
  CALL(console_io, 0, to - line, line, 0);
  sum = most = 0;
}

void take_events(void) {
  shared->upcall_pending = 0;
  shared->pending_selector = 0;
  for (int i = 0; i < 64; i++) shared->pending[i] = 0;
}

static void set_up(void) {
  static struct { u8 vector, flags; u16 cs; u32 pad; u64 address; } traps[21];
  for (u8 i = 0; i < 20; i++) traps[i].vector = i, traps[i].cs = KERNEL_CS, traps[i].address = (u64)on_exception;
  CALL(set_trap_table, traps, 0, 0, 0);
  CALL(set_callbacks, on_event, on_exception, on_exception, 0);
  CALL(update_va_mapping, shared_page, info->shared_info | RW | MAPPED, UVMF_INVLPG, 0);
}

/* --- Those that measure --------------------------------------------------------------------------------------------- */

enum { WORDS = (1 << 20) / 8 };
static u64 pattern[WORDS];

static u64 expected(u64 round, u64 i) { return (round * WORDS + i) * 0x9e3779b97f4a7c15ul; }

/* Every word is looked at and written in every round: one that somebody else changed is noticed. */
static void work(void) {
  for (u64 i = 0; i < WORDS; i++) pattern[i] = expected(0, i);
  for (;; beat()) {
    for (u64 i = 0; i < WORDS; i++) {
      bad += pattern[i] != expected(count, i);
      pattern[i] = expected(count + 1, i);
    }
    count++;
  }
}

enum { NAP = 5 * 1000 * 1000 };

static void sleep(void) {
  for (;; beat()) {
    u64 due = now() + NAP;
    struct { u32 *ports; u32 nr_ports; u64 timeout; } poll = {NULL, 0, due};
    CALL(sched_op, 3, &poll, 0, 0); /* SCHEDOP_poll */
    u64 time = now(), late = time > due ? time - due : 0;
    bad += time < due;
    sum += late;
    if (late > most) most = late;
    count++;
  }
}

static void spin(void) {
  for (;; beat())
    for (int i = 0; i < 100000; i++) asm volatile("");
}

/* --- Attacks: each does a little harm and returns --------------------------------------------------------------------- */

/* Whether the calls may be told to write into memory of ours that we need. */
static int reckless;

/* A number that may mean something somewhere. */
static u64 number(void) {
  switch (below(12)) {
    case 0: case 1: case 2: return below(40);
    case 3: case 4: return (u64)arguments + below(PAGE);
    case 5: return (u64)area + below(sizeof area - PAGE);
    case 6: return reckless ? mfn_of(below(info->nr_pages)) : mfn_at(area[below(PAGES)]);
    case 7: return mfn_of(below(info->nr_pages)) << 12 | below(PAGE);
    case 8: {
      static const u64 edges[] = {DOMID_SELF, 0x7fff, 4095, 4096, 0xffffffff, 1ul << 31, -1ul, -1ul << 47,
                                  (1ul << 47) - 8, 0xffff800000000000ul, 0xffff87fffffffff8ul, 1ul << 52, 0x80000000};
      return edges[below(sizeof edges / sizeof *edges)];
    }
    case 9: return next();
    case 10: return (u32)next();
    default: return reckless ? VIRT_BASE + below(info->nr_pages * PAGE) : (u64)area + below(sizeof area - PAGE);
  }
}

static void invent_arguments(void) {
  u64 *words = (u64 *)arguments;
  for (int i = 0; i < 64; i++) words[i] = below(2) ? number() : number() << 32 | (u32)number();
}

/* Any call with any arguments: this may well end us. */
static void any_call(void) {
  reckless = 1;
  invent_arguments();
  call(below(50), number(), number(), number(), number(), number(), number());
}

/* Those that can hardly end us, so that they are made for long. */
static void calls(void) {
  static const u8 deadly[] = {set_trap_table, mmu_update, set_gdt, stack_switch, set_callbacks, sched_op_compat,
                              13, update_va_mapping, 22, iret, mmuext_op, 10};
  u64 which = below(50), command = number();
  for (size_t i = 0; i < sizeof deadly; i++)
    if (which == deadly[i]) return;
  if (which == sched_op && command != 0 && command != 4) return;
  if (which == vcpu_op && (command <= 2 || command > 9)) return;
  invent_arguments();
  call(which, command, number(), number(), number(), number(), number());
}

static void events(void) {
  struct { u32 words[4]; } op = {{0}};
  static u32 ports;
  switch (below(16)) {
    case 0: /* alloc_unbound, for ourselves */
      op.words[0] = DOMID_SELF | DOMID_SELF << 16;
      if (CALL(event_channel_op, 6, &op, 0, 0) == 0) ports = op.words[1];
      return;
    case 1: /* bind_interdomain */
      op.words[0] = DOMID_SELF, op.words[1] = (u32)below(ports + 2);
      CALL(event_channel_op, 0, &op, 0, 0);
      return;
    case 2: /* bind_ipi */
      CALL(event_channel_op, 7, &op, 0, 0);
      return;
    case 3: /* close, but not what the console and the store need */
      op.words[0] = 3 + (u32)below(ports + 2);
      CALL(event_channel_op, 3, &op, 0, 0);
      return;
    case 4:
      shared->upcall_mask = (u8)below(2);
      return;
    case 5:
      shared->mask[below(64)] = next();
      return;
    case 6: /* unmask */
      op.words[0] = (u32)below(ports + 2);
      CALL(event_channel_op, 9, &op, 0, 0);
      return;
    case 7: case 8: case 9: /* send, to Domain 0 */
      op.words[0] = below(2) ? info->store_evtchn : info->console_evtchn;
      CALL(event_channel_op, 4, &op, 0, 0);
      return;
    default: /* send */
      op.words[0] = (u32)below(ports + 2);
      CALL(event_channel_op, 4, &op, 0, 0);
  }
}

static void timers(void) {
  u64 time = now();
  struct { u64 when; u32 flags; } timer = {time + below(3000), (u32)below(2)};
  u64 period = 1000 * 1000 + below(100);
  struct { u32 *ports; u32 nr_ports; u64 timeout; } poll = {NULL, 0, time + below(2000)};
  switch (below(6)) {
    case 0: CALL(vcpu_op, 8, 0, &timer, 0); return; /* set_singleshot_timer */
    case 1: CALL(vcpu_op, 6, 0, &period, 0); return; /* set_periodic_timer */
    case 2: CALL(sched_op, 0, 0, 0, 0); return; /* yield */
    case 3: CALL(sched_op, 3, &poll, 0, 0); return; /* poll */
    default: CALL(set_timer_op, timer.when, 0, 0, 0);
  }
}

/* Tables of garbage, of all levels, that name one another; they are pinned, changed, mapped and given up. */
static void tables(void) {
  u8 *page = area[below(PAGES)];
  u64 *entries = (u64 *)page, mfn = mfn_at(page);
  struct { u64 a, b; u64 c; } ops[8];
  u64 done;
  switch (below(8)) {
    case 0: case 1: /* contents, if it is writable */
      if (map(page, mfn, RW | MAPPED) != 0) return;
      memset(page, 0, PAGE);
      for (u64 i = below(PAGE / 8); i; i--) {
        u64 target = below(4) ? mfn_at(area[below(PAGES)]) : number();
        entries[below(PAGE / 8)] = target << 12 | (below(8) ? MAPPED : below(PAGE)) | (below(4) ? 0 : RW);
      }
      return;
    case 2: map(page, mfn, MAPPED); return;
    case 3: map(page, below(2) ? mfn : mfn_at(area[below(PAGES)]), below(3) ? MAPPED : below(PAGE)); return;
    case 4: case 5: /* pin (0 to 3) and unpin (4) */
      map(page, mfn, MAPPED);
      for (int i = 0; i < 8; i++) ops[i].a = below(5), ops[i].b = mfn_at(area[below(PAGES)]), ops[i].c = 0;
      CALL(mmuext_op, ops, 1 + below(8), below(2) ? 0 : (u64)&done, DOMID_SELF);
      return;
    case 6: /* mmu_update, of tables of ours or of what are none */
      for (int i = 0; i < 8; i++) {
        u64 *op = (u64 *)ops + i * 2;
        op[0] = mfn_at(area[below(PAGES)]) << 12 | (below(PAGE) & ~7ul) | below(4);
        op[1] = (below(4) ? mfn_at(area[below(PAGES)]) : number()) << 12 | (below(8) ? MAPPED : below(PAGE));
      }
      CALL(mmu_update, ops, 1 + below(8), below(2) ? 0 : (u64)&done, DOMID_SELF);
      return;
    default: /* flushes, and what else mmuext_op has, without new roots (5, 15) and LDTs (13) */
      for (int i = 0; i < 8; i++) {
        do ops[i].a = below(24);
        while (ops[i].a == 5 || ops[i].a == 15 || ops[i].a == 13);
        ops[i].b = below(2) ? mfn_at(area[below(PAGES)]) : number(), ops[i].c = number();
        /* Pages of ours are not overwritten. */
        if (ops[i].a >= 16 && ops[i].a <= 17) ops[i].b = mfn_at(area[below(PAGES)]);
      }
      CALL(mmuext_op, ops, 1 + below(8), below(2) ? 0 : (u64)&done, DOMID_SELF);
  }
}

/* A tree of as many tables as we have memory for, pinned and unpinned: the longest single calls that there are. */
static void pins(void) {
  enum { L2S = PAGES - 4 };
  static u64 built;
  u64 *l3 = (u64 *)area[0], *template = (u64 *)area[1];
  struct { u32 op; u64 a, b; } op;
  if (!built) {
    u64 first = ((u64)pattern - VIRT_BASE) / PAGE, tables = 0;
    for (int i = 0; i < 512; i++) template[i] = mfn_of(first + (u64)i % (sizeof pattern / PAGE)) << 12 | MAPPED;
    memset(l3, 0, PAGE);
    /* The bootstrap mapping ends at a multiple of 4 MiB; what lies behind is nobody's. */
    u64 pfn = (info->pt_base - VIRT_BASE + (8ul << 20)) / PAGE & ~1023ul;
    for (int i = 0; i < L2S && pfn < info->nr_pages; i++) {
      u64 *l2 = (u64 *)area[4 + i];
      memset(l2, 0, PAGE);
      for (int j = 0; j < 512 && pfn < info->nr_pages; j++, pfn++) {
        op.op = 17, op.a = mfn_of(pfn), op.b = mfn_at(template); /* MMUEXT_COPY_PAGE */
        if (CALL(mmuext_op, &op, 1, 0, DOMID_SELF) == 0) l2[j] = op.a << 12 | RW | MAPPED, tables++;
      }
      l3[i] = mfn_at(l2) << 12 | RW | MAPPED;
      map(l2, mfn_at(l2), MAPPED);
    }
    map(l3, mfn_at(l3), MAPPED);
    built = tables;
  }
  op.op = 2, op.a = mfn_at(l3), op.b = 0; /* MMUEXT_PIN_L3_TABLE */
  bad += CALL(mmuext_op, &op, 1, 0, DOMID_SELF) != 0;
  op.op = 4; /* MMUEXT_UNPIN_TABLE */
  CALL(mmuext_op, &op, 1, 0, DOMID_SELF);
}

/* What any program may do: memory that passes through the caches. */
static void stream(void) {
  static u64 words[4 << 17];
  for (u64 i = 0; i < sizeof words / sizeof *words; i += 8) words[i]++;
}

static void grants(void) {
  /* More than there are, but few enough to come to an end. */
  enum { FRAMES = 4, LONG = 0xfff };
  static u64 frames[FRAMES];
  static int ready;
  if (!ready) {
    struct { u16 dom; u32 nr_frames; short status; u64 *list; } setup = {DOMID_SELF, FRAMES, 0, frames};
    CALL(grant_table_op, 2, &setup, 1, 0);
    for (int i = 0; i < FRAMES; i++) map(area[i], frames[i], RW | MAPPED);
    ready = 1;
  }
  switch (below(6)) {
    case 0: { /* entries: flags, domain, frame */
      u16 *entry = (u16 *)(area[below(FRAMES)] + (below(PAGE) & ~7ul));
      entry[0] = (u16)next(), entry[1] = below(2) ? 0 : (u16)DOMID_SELF;
      *(u32 *)(entry + 2) = (u32)mfn_at(area[below(PAGES)]);
      return;
    }
    case 1: { /* map a grant of our own */
      struct { u64 host; u32 flags, ref; u16 dom; short status; u32 handle; u64 bus; } op = {
          (u64)area[8 + below(PAGES - 8)], (u32)below(64), (u32)below(2048), DOMID_SELF, 0, 0, 0};
      CALL(grant_table_op, 0, &op, 1, 0);
      return;
    }
    case 2: { /* unmap */
      struct { u64 host, bus; u32 handle; short status; } op = {(u64)area[8 + below(PAGES - 8)], 0, (u32)below(64), 0};
      CALL(grant_table_op, 1, &op, 1, 0);
      return;
    }
    case 3: /* anything, often with a count that is too large */
      invent_arguments();
      CALL(grant_table_op, below(13), arguments + below(PAGE), below(3) ? below(64) : number() & LONG, 0);
      return;
    case 4: { /* copy */
      struct { u64 ref; u16 dom, offset; u32 pad; } ends[2];
      struct { u64 words[5]; } op;
      for (int i = 0; i < 2; i++) ends[i].ref = number(), ends[i].dom = DOMID_SELF, ends[i].offset = (u16)below(PAGE);
      memcpy(&op, ends, 32), op.words[4] = below(PAGE) | below(4) << 16;
      CALL(grant_table_op, 5, &op, below(3) ? 1 : number() & LONG, 0);
      return;
    }
    default: calls();
  }
}

static void memory(void) {
  static u64 pfns[32];
  u64 first = info->nr_pages - 2048 + below(2000);
  struct { u64 *list; u64 extents; u32 order, flags; u16 domid; } op = {pfns, 1 + below(32), 0, 0, DOMID_SELF};
  switch (below(5)) {
    case 0: case 1: /* decrease_reservation */
      for (int i = 0; i < 32; i++) pfns[i] = mfn_of(first + (u64)i);
      CALL(memory_op, 1, &op, 0, 0);
      return;
    case 2: case 3: /* populate_physmap */
      for (int i = 0; i < 32; i++) pfns[i] = first + (u64)i;
      CALL(memory_op, 6, &op, 0, 0);
      for (u64 i = 0; i < 32; i++) ((u64 *)info->mfn_list)[first + i] = pfns[i] ? pfns[i] : 0;
      return;
    default:
      invent_arguments();
      op.extents = number(), op.order = (u32)below(20), op.flags = (u32)next(), op.list = (u64 *)number();
      memcpy(arguments, &op, sizeof op);
      CALL(memory_op, below(28), arguments, 0, 0);
  }
}

/* Exceptions, and stores into page tables that the hypervisor has to carry out. */
static void faults(void) {
  static u64 *table;
  if (!table) {
    table = (u64 *)area[0];
    memset(table, 0, PAGE);
    map(table, mfn_at(table), MAPPED);
    struct { u32 op; u64 a, b; } op = {0, mfn_at(table), 0}; /* MMUEXT_PIN_L1_TABLE */
    CALL(mmuext_op, &op, 1, 0, DOMID_SELF);
  }
  volatile u64 *entry = table + below(512);
  switch (below(5)) {
    case 0: asm volatile("ud2"); return;
    case 1: (void)*(volatile u8 *)next(); return;
    case 2: *(volatile u8 *)number() = 0; return;
    case 3: *entry = number() << 12 | MAPPED; return;
    default: *entry = mfn_at(area[below(PAGES)]) << 12 | MAPPED | (below(3) ? 0 : RW);
  }
}

/* Code that is hot, and new every time. */
static void code(void) {
  u8 *at = area[below(PAGES - 1)] + below(PAGE);
  u8 *to = at;
  *to++ = 0xb9, *(u32 *)to = 200 + (u32)below(2000), to += 4; /* mov ecx, */
  u8 *top = to;
  for (u64 i = 1 + below(60); i; i--) *to++ = 0x05, *(u32 *)to = (u32)next(), to += 4; /* add eax, */
  *to++ = 0xff, *to++ = 0xc9, *to++ = 0x0f, *to++ = 0x85; /* dec ecx; jnz top */
  *(u32 *)to = (u32)(top - (to + 4)), to += 4;
  *to = 0xc3;
  asm volatile("call *%0" : : "r"(at) : "rax", "rcx", "memory", "cc");
}

/* --- Domain 0's services ------------------------------------------------------------------------------------------------ */

static void notify(u32 port) { CALL(event_channel_op, 4, &port, 0, 0); }

static void print(void) {
  u8 *ring = at_mfn(info->console_mfn);
  volatile u32 *index = (volatile u32 *)(ring + 3072); /* in_cons, in_prod, out_cons, out_prod */
  for (int i = 0; i < 64; i++) ring[1024 + below(2048)] = (u8)next();
  index[3] = below(50) ? index[2] + (u32)below(2049) : (u32)next();
  notify(info->console_evtchn);
  static const char text[] = "................................................................\n";
  if (!below(16)) CALL(console_io, 0, sizeof text - 1, text, 0);
}

/* Requests to the store: nodes until there is no room for more, watches, transactions, garbage. */
static void store(void) {
  u8 *ring = at_mfn(info->store_mfn);
  volatile u32 *index = (volatile u32 *)(ring + 2048); /* req_cons, req_prod, rsp_cons, rsp_prod, features, connection */
  if (below(8)) index[2] = index[3];
  if (below(4096) == 0) index[1] = (u32)next();
  if (index[6] != 0 || below(2048) == 0) index[5] = 1; /* XENSTORE_RECONNECT */
  u8 message[256];
  u32 header[4] = {(u32)below(24), (u32)next(), below(3) ? 0 : (u32)below(16), 0}, length = 0;
  static const u8 common[] = {11, 4, 1, 6, 2, 12, 13, 3};
  if (below(4)) header[0] = common[below(sizeof common)]; /* write, watch, directory, transaction, read, mkdir, rm ... */
  char *to = put((char *)message, "data/");
  for (u64 i = below(24); i; i--) *to++ = below(6) ? (char)('a' + below(4)) : '/';
  *to++ = 0;
  for (u64 i = below(180); i; i--) *to++ = (char)next();
  length = (u32)(to - (char *)message);
  header[3] = below(200) ? length : (u32)number();
  u32 at = index[1];
  if (1024 - (at - index[0]) < sizeof header + length) {
    notify(info->store_evtchn);
    return;
  }
  for (u32 i = 0; i < sizeof header; i++, at++) ring[at % 1024] = ((u8 *)header)[i];
  for (u32 i = 0; i < length; i++, at++) ring[at % 1024] = message[i];
  asm volatile("" : : : "memory");
  index[1] = at;
  notify(info->store_evtchn);
}

/* --- Which ---------------------------------------------------------------------------------------------------------------- */

static const struct { const char *name; void (*harm)(void); } attacks[] = {
    {"calls", calls}, {"events", events}, {"timers", timers}, {"tables", tables},
    {"grants", grants}, {"memory", memory}, {"faults", faults}, {"code", code},
    {"print", print}, {"store", store}, {"stream", stream}, {"pins", pins}, {"any", any_call},
};
enum { ATTACKS = sizeof attacks / sizeof *attacks, MIXED = ATTACKS - 2 };

static void mixed(void) {
  static u64 until, which;
  u64 time = now();
  if (time > until) until = time + 5 * 1000 * 1000, which = below(MIXED);
  attacks[which].harm();
}

static int is(const char *word, const char *text) {
  while (*word && *word == *text) word++, text++;
  return !*word && (!*text || *text == ' ');
}

void start(struct start_info *given) {
  info = given;
  set_up();
  const char *text = info->cmd_line;
  seed = 0x9e3779b97f4a7c15ul;
  for (const char *at = text; *at; at++) seed = seed * 31 + (u8)*at;
  name = "work";
  if (is(name, text)) work();
  name = "sleep";
  if (is(name, text)) sleep();
  name = "spin";
  if (is(name, text)) spin();
  void (*harm)(void) = mixed;
  name = "mixed";
  for (int i = 0; i < ATTACKS; i++)
    if (is(attacks[i].name, text)) harm = attacks[i].harm, name = attacks[i].name;
  for (;; beat()) {
    /* One that an exception ends is an attack too. */
    for (int i = harm == pins || harm == stream ? 1 : 16; i; i--, count++) bad += (u64)guard(harm);
    shared->upcall_mask = 1;
  }
}
