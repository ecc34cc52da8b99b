#pragma once
#include <stdint.h>

_Noreturn void die(const char *what);
/* Nanoseconds of a clock that only goes on. */
double now(void);
/* What a row did: operations and bytes in so many nanoseconds. */
void report(const char *row, double operations, double bytes, double nanoseconds);
/* The part that is timed begins. */
void begin(const char *row);

int disk(int argc, char **argv);
int sync_row(int argc, char **argv);
int tree(int argc, char **argv);
int serve(int argc, char **argv);
int stream(int argc, char **argv);
int ping(int argc, char **argv);
int load(int argc, char **argv);
