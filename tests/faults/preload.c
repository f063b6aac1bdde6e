/* Loaded before the other libraries (LD_PRELOAD): the time of day is moved, syncing to disk is slow or fails.
 *
 * What it does is read, at every call, from a file that REPEATER_SHIM names and the test changes: three 64-bit numbers,
 * nanoseconds that the time of day is ahead, microseconds that a sync takes longer, and the errno that it ends with.
 * The monotonic clock stays as it is: that is the fault.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *orders;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("REPEATER_SHIM");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *there = mmap(0, 24, PROT_READ, MAP_SHARED, fd, 0);
    if (there != MAP_FAILED) orders = there;
    close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && orders && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t total = now->tv_sec * 1000000000LL + now->tv_nsec + orders[0];
        now->tv_sec = total / 1000000000LL;
        now->tv_nsec = total % 1000000000LL;
    }
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (out) *out = exact.tv_sec;
    return exact.tv_sec;
}

static int synced(long call, int fd) {
    if (orders && orders[1]) usleep((useconds_t)orders[1]);
    if (orders && orders[2]) {
        errno = (int)orders[2];
        return -1;
    }
    return (int)syscall(call, fd);
}

int fsync(int fd) { return synced(SYS_fsync, fd); }
int fdatasync(int fd) { return synced(SYS_fdatasync, fd); }
