/* The clients of serve.c: a stream, round trips of one byte, and pages over several connections at once. */
#define _GNU_SOURCE
#include "io.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK (128 << 10)

static char chunk[CHUNK];

static int open_connection(char **argv) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[3]))};
  if (inet_pton(AF_INET, argv[2], &address.sin_addr) != 1) die(argv[2]);
  int one = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
  if (one < 0 || connect(one, (struct sockaddr *)&address, sizeof address) != 0) die("connect");
  setsockopt(one, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  return one;
}

/* Repeats a step, untimed and then timed; reports it. */
static void repeat(const char *row, double warm, double measure, double (*step)(int), int socket) {
  double end = now() + warm * 1e6, bytes = 0, count = 0;
  while (now() < end) step(socket);
  begin(row);
  double started = now(), time = 0;
  while (time < measure * 1e6) {
    bytes += step(socket);
    count++;
    time = now() - started;
  }
  report(row, count, bytes, time);
}

static double send_chunk(int socket) {
  ssize_t size = write(socket, chunk, sizeof chunk);
  if (size <= 0) die("send");
  return (double)size;
}

static double receive_chunk(int socket) {
  ssize_t size = read(socket, chunk, sizeof chunk);
  if (size <= 0) die("receive");
  return (double)size;
}

int stream(int argc, char **argv) {
  (void)argc;
  int sends = strcmp(argv[4], "send") == 0;
  int socket = open_connection(argv);
  if (write(socket, sends ? "S" : "R", 1) != 1) die("stream");
  repeat(argv[4], atof(argv[5]), atof(argv[6]), sends ? send_chunk : receive_chunk, socket);
  return 0;
}

static double round_trip(int socket) {
  if (write(socket, "p", 1) != 1 || read(socket, chunk, 1) != 1) die("ping");
  return 1;
}

int ping(int argc, char **argv) {
  (void)argc;
  int socket = open_connection(argv);
  if (write(socket, "P", 1) != 1) die("ping");
  repeat("ping", atof(argv[4]), atof(argv[5]), round_trip, socket);
  return 0;
}

static const char keep_request[] = "GET / HTTP/1.1\r\nHost: guest\r\n\r\n";
static const char close_request[] = "GET / HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n";

/*
 * Reads what is there of a page; returns 1 at its end, which its length tells: what becomes of the connection after that
 * is not waited for. *left is what is missing, -1 before its header.
 */
static int read_page(int socket, long *left) {
  ssize_t size = read(socket, chunk, sizeof chunk);
  if (size <= 0) die("load");
  if (*left < 0) {
    char *end = memmem(chunk, (size_t)size, "\r\n\r\n", 4), *length = memmem(chunk, (size_t)size, "Length: ", 8);
    if (!end || !length) die("a page's header in pieces");
    *left = atol(length + 8);
    size -= end + 4 - chunk;
  }
  *left -= size;
  return *left <= 0;
}

int load(int argc, char **argv) {
  (void)argc;
  signal(SIGPIPE, SIG_IGN);
  int connections = atoi(argv[4]), closes = strcmp(argv[5], "close") == 0;
  double warm = now() + atof(argv[6]) * 1e6, measure = atof(argv[7]) * 1e6, started = 0, pages = 0, bytes = 0;
  const char *request = closes ? close_request : keep_request, *row = closes ? "load-close" : "load-keep";
  static long left[1024];
  int poll = epoll_create1(0);
  for (int i = 0; i < connections; i++) {
    int one = open_connection(argv);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = one};
    if (one >= 1024 || epoll_ctl(poll, EPOLL_CTL_ADD, one, &event) != 0) die("epoll");
    left[one] = -1;
    if (write(one, request, strlen(request)) < 0) die("load");
  }
  for (;;) {
    struct epoll_event events[64];
    int count = epoll_wait(poll, events, 64, -1);
    double time = now();
    if (started == 0 && time > warm) {
      begin(row);
      started = time;
      pages = bytes = 0;
    }
    if (started > 0 && time - started > measure) break;
    for (int i = 0; i < count; i++) {
      int one = events[i].data.fd;
      if (!read_page(one, &left[one])) continue;
      pages++;
      bytes += 4096;
      if (closes) {
        close(one);
        one = open_connection(argv);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = one};
        if (one >= 1024 || epoll_ctl(poll, EPOLL_CTL_ADD, one, &event) != 0) die("epoll");
      }
      left[one] = -1;
      if (write(one, request, strlen(request)) < 0) die("load");
    }
  }
  report(row, pages, bytes, now() - started);
  return 0;
}
