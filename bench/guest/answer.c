/* answer PORT: sends every UDP datagram back to where it came from. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
  int socket_ = socket(AF_INET, SOCK_DGRAM, 0);
  if (socket_ < 0 || bind(socket_, (struct sockaddr *)&own, sizeof own) != 0) {
    perror("answer");
    return 1;
  }
  puts("answer ready");
  fflush(stdout);
  for (;;) {
    char datagram[2048];
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    ssize_t size = recvfrom(socket_, datagram, sizeof datagram, 0, (struct sockaddr *)&from, &length);
    if (size >= 0) sendto(socket_, datagram, size, 0, (struct sockaddr *)&from, length);
  }
}
