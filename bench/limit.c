/* The limit of the machine, `limit RUNS AT_ONCE WORKERS PROGRAM [ARGUMENT...]`: starts PROGRAM so many times, so many at
   once, over so many processes, and waits for it. posix_spawn and waitpid, nothing else: no pipe, no record, no clock. */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int work(long runs, long at_once, char **argv) {
    long live = 0;
    while (runs > 0 || live > 0) {
        if (runs > 0 && live < at_once) {
            pid_t child;
            if (posix_spawnp(&child, argv[0], NULL, NULL, argv, environ) != 0) return 1;
            runs--, live++;
        } else {
            int status;
            if (waitpid(-1, &status, 0) < 0 || status != 0) return 1;
            live--;
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    long runs = atol(argv[1]), at_once = atol(argv[2]), workers = atol(argv[3]);
    for (long n = 0; n < workers; n++)
        if (fork() == 0) _exit(work(runs / workers, at_once / workers > 0 ? at_once / workers : 1, argv + 4));
    int status, failed = 0;
    while (wait(&status) > 0) failed |= status;
    return failed != 0;
}
