/*
 * What the domains of the isolation experiment do.
 *
 *   neighbour build FROM TO    as a build: processes come and go, small files are written, read, sorted and removed
 *   neighbour serve FROM TO    as a server: requests over TCP, each for one of many files
 *   neighbour bomb             processes that make processes and use all memory that they get, over and over
 *   neighbour hog DEVICE       writes and reads a disk as fast as it can, beside a storm of small files
 *
 * The first two print "count N", the rounds that they did between two times (CLOCK_REALTIME, ns), and end then; they
 * begin at once. The others say "neighbour ready" and do not end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void need(int good, const char *what) {
  if (good) return;
  perror(what);
  exit(1);
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static void write_all(int fd, const char *data, size_t length) {
  while (length > 0) {
    ssize_t done = write(fd, data, length);
    need(done > 0, "write");
    data += done, length -= (size_t)done;
  }
}

/* --- A build ---------------------------------------------------------------------------------------------------------- */

enum { FILES = 1, LINES = 100 };

static int compare(const void *a, const void *b) { return strcmp(a, b); }

/* What a compiler is for one file: reads it, works on its lines, writes another one. */
static int compile(const char *path) {
  static char lines[LINES][32], text[LINES * 32];
  int fd = open(path, O_RDONLY);
  need(fd >= 0, path);
  ssize_t length = read(fd, text, sizeof text);
  close(fd);
  int count = 0;
  for (char *line = strtok(text, "\n"); line && count < LINES && length > 0; line = strtok(NULL, "\n"))
    snprintf(lines[count++], sizeof *lines, "%s", line);
  qsort(lines, (size_t)count, sizeof *lines, compare);
  char to[64];
  snprintf(to, sizeof to, "%s.o", path);
  fd = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  for (int i = 0; i < count; i++) write_all(fd, lines[i], strlen(lines[i]));
  close(fd);
  return 0;
}

static void build(unsigned round) {
  char path[64], text[32];
  for (unsigned file = 0; file < FILES; file++) {
    snprintf(path, sizeof path, "/tmp/build-%u", file);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    need(fd >= 0, path);
    for (unsigned line = 0; line < LINES; line++)
      write_all(fd, text, (size_t)snprintf(text, sizeof text, "line %u\n", (line * 7919u + round * 31u + file) % 9973u));
    close(fd);
    pid_t child = fork();
    need(child >= 0, "fork");
    if (child == 0) {
      execl("/proc/self/exe", "neighbour", "compile", path, (char *)NULL);
      _exit(127);
    }
    int status;
    need(waitpid(child, &status, 0) == child && status == 0, "compile");
  }
  for (unsigned file = 0; file < FILES; file++) {
    snprintf(path, sizeof path, "/tmp/build-%u", file);
    need(unlink(path) == 0, path);
    strcat(path, ".o");
    need(unlink(path) == 0, path);
  }
}

/* --- A server --------------------------------------------------------------------------------------------------------- */

enum { PORT = 8080, DOCUMENTS = 32, DOCUMENT = 3000 };

static void make_documents(void) {
  char path[64], text[DOCUMENT];
  for (int i = 0; i < DOCUMENTS; i++) {
    snprintf(path, sizeof path, "/tmp/document-%d", i);
    memset(text, 'a' + i % 26, sizeof text);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    write_all(fd, text, sizeof text);
    close(fd);
  }
}

static int listener(void) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  need(bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 16) == 0, "listen");
  return fd;
}

static void answer(int listening) {
  for (;;) {
    int fd = accept(listening, NULL, NULL), number;
    need(fd >= 0, "accept");
    char request[256] = "", path[64], text[DOCUMENT];
    if (read(fd, request, sizeof request - 1) > 0 && sscanf(request, "GET /document-%d", &number) == 1) {
      snprintf(path, sizeof path, "/tmp/document-%d", number);
      int file = open(path, O_RDONLY);
      ssize_t length = read(file, text, sizeof text);
      close(file);
      write_all(fd, text, (size_t)length);
    }
    close(fd);
  }
}

static void request(unsigned round) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  need(connect(fd, (struct sockaddr *)&address, sizeof address) == 0, "connect");
  char text[DOCUMENT + 1];
  write_all(fd, text, (size_t)snprintf(text, sizeof text, "GET /document-%u HTTP/1.0\r\n\r\n", round % DOCUMENTS));
  size_t length = 0;
  for (ssize_t got; (got = read(fd, text, sizeof text)) > 0; length += (size_t)got) continue;
  need(length == DOCUMENT, "a document of another length");
  close(fd);
}

/* --- Those that do harm -------------------------------------------------------------------------------------------------- */

static void touch_memory(void) {
  enum { PIECE = 1 << 20 };
  for (;;) {
    char *piece = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (piece == MAP_FAILED) _exit(0);
    for (int i = 0; i < PIECE; i += 4096) piece[i] = 1;
  }
}

/* How gladly the kernel kills us when memory runs out. */
static void adjust(const char *score) {
  int fd = open("/proc/self/oom_score_adj", O_WRONLY);
  need(fd >= 0, "oom_score_adj");
  write_all(fd, score, strlen(score));
  close(fd);
}

static void bomb(void) {
  setsid();
  signal(SIGHUP, SIG_IGN);
  /* This process stays, so that there is a next time; its children go first. */
  adjust("-1000");
  for (;;) {
    pid_t group = fork();
    if (group == 0) {
      setpgid(0, 0);
      adjust("1000");
      if (fork() == 0) touch_memory();
      int64_t until = now() + 2000000000;
      while (now() < until) fork();
      _exit(0);
    }
    usleep(2500000);
    kill(-group, SIGKILL);
    while (waitpid(-1, NULL, WNOHANG) > 0) continue;
  }
}

static void small_files(void) {
  char path[64];
  for (unsigned i = 0;; i++) {
    snprintf(path, sizeof path, "/tmp/small-%u", i % 512);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd >= 0) write_all(fd, path, sizeof path), close(fd);
    if (i % 3 == 0) unlink(path);
  }
}

static void hog(const char *device) {
  enum { BLOCK = 1 << 18, PART = 48 << 20 };
  if (fork() == 0) small_files();
  char *block = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(block, 0x5a, BLOCK);
  int fd = open(device, O_RDWR | O_DIRECT);
  need(fd >= 0, device);
  for (unsigned i = 0;; i++) {
    off_t at = (off_t)(i * 7919u % (PART / BLOCK)) * BLOCK;
    need((i % 4 ? pwrite(fd, block, BLOCK, at) : pread(fd, block, BLOCK, at)) == BLOCK, device);
  }
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "";
  if (strcmp(what, "compile") == 0) return compile(argv[2]);
  int builds = strcmp(what, "build") == 0;
  if (argc == 4 && (builds || strcmp(what, "serve") == 0)) {
    int64_t from = atoll(argv[2]), to = atoll(argv[3]);
    pid_t server = 0;
    if (!builds) {
      make_documents();
      int listening = listener();
      if ((server = fork()) == 0) answer(listening);
      close(listening);
    }
    unsigned round = 0, counted = 0;
    for (int64_t at = now(); at < to; at = now(), counted += at > from && at <= to)
      if (builds) build(round++);
      else request(round++);
    if (server) kill(server, SIGKILL);
    printf("count %u\n", counted);
    return 0;
  }
  puts("neighbour ready");
  fflush(stdout);
  if (strcmp(what, "bomb") == 0) bomb();
  if (strcmp(what, "hog") == 0 && argc == 3) hog(argv[2]);
  return 2;
}
