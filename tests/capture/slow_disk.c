/* Preloaded, makes each write to a trace and its log take 20 ms for as long as a file is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_slow(int fd)
{
    const char *flag = getenv("SLOW_WHILE");
    char link[64], path[4096];
    if (!flag || access(flag, F_OK)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, ".trace") != NULL;
}

#define SLOWED(name, offset_type)                                                     \
    ssize_t name(int fd, const void *bytes, size_t count, offset_type offset)         \
    {                                                                                 \
        static ssize_t (*real)(int, const void *, size_t, offset_type);               \
        if (!real) real = dlsym(RTLD_NEXT, #name);                                    \
        if (is_slow(fd)) usleep(20000);                                               \
        return real(fd, bytes, count, offset);                                        \
    }

SLOWED(pwrite, off_t)
SLOWED(pwrite64, off64_t)
