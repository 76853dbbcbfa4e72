// A wall clock with an offset in seconds that is read from a file: preloaded into one node of a test cluster.
// The file is $CLOCK_OFFSETS/N for the node whose configuration is named node-N.toml; a process without such an argument
// is left alone.
// Only CLOCK_REALTIME is changed: the monotonic clocks stay as they are.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int (*real)(clockid_t, struct timespec *);
static char file[512];

__attribute__((constructor)) static void find_file(void) {
  real = dlsym(RTLD_NEXT, "clock_gettime");
  const char *directory = getenv("CLOCK_OFFSETS");
  FILE *arguments = fopen("/proc/self/cmdline", "r");
  char text[4096] = {0};
  if (!directory || !arguments) return;
  size_t length = fread(text, 1, sizeof text - 1, arguments);
  fclose(arguments);
  for (size_t i = 0; i < length; i++)
    if (!text[i]) text[i] = ' ';
  const char *name = strstr(text, "serve") ? strstr(text, "node-") : NULL;
  if (name) snprintf(file, sizeof file, "%s/%d", directory, atoi(name + 5));
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  int result = real(clock, time);
  if (result || clock != CLOCK_REALTIME || !file[0]) return result;
  FILE *offset = fopen(file, "r");
  long seconds = 0;
  if (offset) {
    if (fscanf(offset, "%ld", &seconds) != 1) seconds = 0;
    fclose(offset);
  }
  time->tv_sec += seconds;
  return 0;
}
