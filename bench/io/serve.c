/*
 * The server of the network's rows. The first byte of a connection says what it wants: S sends us a stream, R receives
 * one, P gets back each byte that it sends, and G is the beginning of GET: pages of one size, as a web server of static
 * files would give them.
 */
#define _GNU_SOURCE
#include "io.h"

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

#define PAGE_BYTES 4096
#define CHUNK (128 << 10)
#define CONNECTIONS 1024

static char chunk[CHUNK], page[PAGE_BYTES + 256];
static size_t page_size;

/* What is known of each connection: its kind, and how far the empty line at a request's end has been seen. */
static struct {
  char kind, matched;
  int ends;
} states[CONNECTIONS];

static void watch(int poll, int socket, uint32_t events, int operation) {
  struct epoll_event event = {.events = events, .data.fd = socket};
  if (epoll_ctl(poll, operation, socket, &event) != 0) die("epoll");
}

/* Answers each request of which the end has come. Requests are short and pages fit the socket's buffer. */
static int answer(int socket, const char *text, ssize_t size) {
  static const char end[] = "\r\n\r\n";
  for (ssize_t i = 0; i < size; i++) {
    char *matched = &states[socket].matched;
    *matched = text[i] == end[(int)*matched] ? *matched + 1 : text[i] == '\r';
    // "Connection: close" is the only header with a "cl" in it.
    if (text[i] == 'l' && i > 0 && text[i - 1] == 'c') states[socket].ends = 1;
    if (*matched < 4) continue;
    *matched = 0;
    if (write(socket, page, page_size) != (ssize_t)page_size) return 0;
    if (states[socket].ends) return 0;
  }
  return 1;
}

/* Returns 0 when the connection is at its end. */
static int attend(int poll, int socket) {
  if (states[socket].kind == 'R') {
    ssize_t sent = write(socket, chunk, sizeof chunk);
    return sent > 0 || errno == EAGAIN;
  }
  ssize_t size = read(socket, chunk, sizeof chunk);
  if (size <= 0) return size < 0 && errno == EAGAIN;
  const char *text = chunk;
  if (states[socket].kind == 0) {
    states[socket].kind = chunk[0];
    if (chunk[0] == 'R') watch(poll, socket, EPOLLOUT, EPOLL_CTL_MOD);
    if (chunk[0] != 'G') {
      text++;
      size--;
    }
  }
  if (states[socket].kind == 'G') return answer(socket, text, size);
  return states[socket].kind != 'P' || size == 0 || write(socket, text, (size_t)size) == size;
}

int serve(int argc, char **argv) {
  (void)argc;
  signal(SIGPIPE, SIG_IGN);
  int head = snprintf(page, sizeof page, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n",
                      PAGE_BYTES);
  memset(page + head, 'x', PAGE_BYTES);
  page_size = (size_t)head + PAGE_BYTES;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
  if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 128) != 0) die("listen");
  int poll = epoll_create1(0);
  watch(poll, listener, EPOLLIN, EPOLL_CTL_ADD);
  printf("io serves\n");
  fflush(stdout);
  for (;;) {
    struct epoll_event events[64];
    int count = epoll_wait(poll, events, 64, -1);
    for (int i = 0; i < count; i++) {
      int socket = events[i].data.fd;
      if (socket != listener) {
        if (!attend(poll, socket)) close(socket);
        continue;
      }
      for (int one; (one = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        if (one >= CONNECTIONS) {
          close(one);
          continue;
        }
        memset(&states[one], 0, sizeof states[one]);
        setsockopt(one, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        watch(poll, one, EPOLLIN, EPOLL_CTL_ADD);
      }
    }
  }
}
