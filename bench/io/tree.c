/*
 * A tree like that of a program's source: unpacked and made durable, packed into one file (which reads all of it, from
 * the disk if "drop" was said: for guests, whose disks are in the host's caches), and removed. What tar and rm do, without their own work.
 */
#define _GNU_SOURCE
#include "io.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDERS 24
#define FILES 25
#define LARGEST (48 << 10)

static char contents[LARGEST];
static double bytes, files;

static void drop_caches(void) {
  int file = open("/proc/sys/vm/drop_caches", O_WRONLY);
  if (file < 0 || write(file, "3", 1) != 1) die("drop_caches");
  close(file);
}

/* Most files of a source tree are small, a few are large. */
static size_t size_of(int number) {
  uint32_t mixed = (uint32_t)number * 2654435761u;
  size_t size = 200 + mixed % 9000;
  return number % 16 == 0 ? size * 5 : size;
}

static void unpack(const char *top) {
  char path[512];
  if (mkdir(top, 0755) != 0) die(top);
  for (int folder = 0; folder < FOLDERS; folder++) {
    snprintf(path, sizeof path, "%s/folder%02d", top, folder);
    if (mkdir(path, 0755) != 0) die(path);
    for (int i = 0; i < FILES; i++) {
      snprintf(path, sizeof path, "%s/folder%02d/file-%02d.c", top, folder, i);
      int file = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
      size_t size = size_of(folder * FILES + i);
      if (file < 0 || write(file, contents, size) != (ssize_t)size) die(path);
      struct timespec times[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
      futimens(file, times);
      close(file);
      files++;
      bytes += (double)size;
    }
  }
  int folder = open(top, O_RDONLY);
  if (folder < 0 || syncfs(folder) != 0) die("sync");
  close(folder);
}

static void walk(const char *path, int archive) {
  DIR *folder = opendir(path);
  if (!folder) die(path);
  for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
    char name[512];
    struct stat status;
    if (entry->d_name[0] == '.') continue;
    snprintf(name, sizeof name, "%s/%.200s", path, entry->d_name);
    if (lstat(name, &status) != 0) die(name);
    int is_folder = S_ISDIR(status.st_mode);
    if (archive >= 0) {
      char header[512] = {0};
      snprintf(header, sizeof header, "%.400s %lld", name, (long long)status.st_size);
      if (write(archive, header, sizeof header) != sizeof header) die("archive");
    }
    if (is_folder) walk(name, archive);
    else if (archive >= 0) {
      int file = open(name, O_RDONLY);
      ssize_t size = file < 0 ? -1 : read(file, contents, sizeof contents);
      if (size != status.st_size || write(archive, contents, (size_t)size) != size) die(name);
      close(file);
    }
    if (archive < 0 && (is_folder ? rmdir(name) : unlink(name)) != 0) die(name);
  }
  closedir(folder);
}

static void finish(const char *row, double started) { report(row, files, bytes, now() - started); }

int tree(int argc, char **argv) {
  char top[256], packed[256];
  memset(contents, 'x', sizeof contents);
  snprintf(top, sizeof top, "%s/tree", argv[2]);
  snprintf(packed, sizeof packed, "%s/packed", argv[2]);
  // The first time warms up; the second one counts.
  for (int round = 0; round < 2; round++) {
    const char *rows[] = {"tree-unpack", "tree-pack", "tree-remove"};
    files = bytes = 0;
    if (round) begin(rows[0]);
    double started = now();
    unpack(top);
    if (round) finish(rows[0], started);
    if (argc > 3) drop_caches();
    if (round) begin(rows[1]);
    started = now();
    int archive = open(packed, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (archive < 0) die(packed);
    walk(top, archive);
    if (fsync(archive) != 0) die(packed);
    close(archive);
    if (round) finish(rows[1], started);
    if (round) begin(rows[2]);
    started = now();
    walk(top, -1);
    if (rmdir(top) != 0 || unlink(packed) != 0) die(top);
    int folder = open(argv[2], O_RDONLY);
    if (folder < 0 || syncfs(folder) != 0) die("sync");
    close(folder);
    if (round) finish(rows[2], started);
  }
  return 0;
}
