/* Loads that run until they are stopped, for the soak: each prints "soak: NAME ROUNDS" every few seconds. */
#ifndef LOAD_H
#define LOAD_H

/* Runs a load by its name; gives 2 if there is none of that name. */
int run_load(const char *name);

#endif
