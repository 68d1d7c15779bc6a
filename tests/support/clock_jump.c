/* Preloaded: adds the seconds that the file $CLOCK_JUMP holds to the wall clock, and to no other clock. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time)
{
	int result = (int)syscall(SYS_clock_gettime, clock, time);
	const char *path = getenv("CLOCK_JUMP");

	if (result == 0 && clock == CLOCK_REALTIME && path) {
		FILE *file = fopen(path, "r");
		long seconds = 0;

		if (file) {
			if (fscanf(file, "%ld", &seconds) == 1)
				time->tv_sec += seconds;
			fclose(file);
		}
	}
	return result;
}
