/* Has one write, fsync or rename below a folder fail: the `turn`-th, or with `for_good` that and all later ones. With
   the error 0 the process is killed there. Files that are opened, and connections, are written to the file that
   FAILING_IO_LOG names.

   Preloaded (LD_PRELOAD); a test arms it by ctypes. Covers what is called through the dynamic linker, Python's own
   calls and those of C++ and Rust libraries alike. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long turn, count;
static int error, for_good, armed;

void arm(const char *below, long which, int number, int lasting) {
    snprintf(folder, sizeof folder, "%s", below);
    turn = which, count = 0, error = number, for_good = lasting, armed = 1;
}

long disarm(void) {
    armed = 0;
    return count;
}

static int fails(const char *path) {
    if (!armed || strncmp(path, folder, strlen(folder)) != 0) return 0;
    count++;
    if (count == turn || (for_good && turn && count > turn)) {
        if (!error) kill(getpid(), SIGKILL);
        errno = error;
        return 1;
    }
    return 0;
}

static int fails_on(int file) {
    if (!armed) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int file, const void *data, size_t size) {
    return fails_on(file) ? -1 : REAL(write)(file, data, size);
}
ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
    return fails_on(file) ? -1 : REAL(pwrite)(file, data, size, at);
}
ssize_t pwrite64(int file, const void *data, size_t size, off_t at) {
    return fails_on(file) ? -1 : REAL(pwrite64)(file, data, size, at);
}
ssize_t writev(int file, const struct iovec *parts, int parts_count) {
    return fails_on(file) ? -1 : REAL(writev)(file, parts, parts_count);
}
ssize_t sendfile(int out, int in, off_t *at, size_t size) {
    return fails_on(out) ? -1 : ((ssize_t(*)(int, int, off_t *, size_t))dlsym(RTLD_NEXT, "sendfile"))(out, in, at, size);
}
ssize_t sendfile64(int out, int in, off_t *at, size_t size) {
    return fails_on(out) ? -1 : ((ssize_t(*)(int, int, off_t *, size_t))dlsym(RTLD_NEXT, "sendfile64"))(out, in, at, size);
}
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    return fails_on(out) ? -1 : REAL(copy_file_range)(in, from, out, to, size, flags);
}
size_t fwrite(const void *data, size_t size, size_t items, FILE *file) {
    return fails_on(fileno(file)) ? 0 : REAL(fwrite)(data, size, items, file);
}
int ftruncate(int file, off_t size) { return fails_on(file) ? -1 : REAL(ftruncate)(file, size); }
int fsync(int file) { return fails_on(file) ? -1 : REAL(fsync)(file); }
int fdatasync(int file) { return fails_on(file) ? -1 : REAL(fdatasync)(file); }
int rename(const char *from, const char *to) { return fails(to) ? -1 : REAL(rename)(from, to); }
int renameat(int one, const char *from, int other, const char *to) {
    return fails(to) ? -1 : REAL(renameat)(one, from, other, to);
}
int mkdir(const char *path, mode_t mode) {
    return fails(path) ? -1 : ((int (*)(const char *, mode_t))dlsym(RTLD_NEXT, "mkdir"))(path, mode);
}

static void note(const char *what, const char *path) {
    const char *log = getenv("FAILING_IO_LOG");
    if (!log) return;
    char line[PATH_MAX + 16];
    int size = snprintf(line, sizeof line, "%s %s\n", what, path), kept = errno;
    int file = ((int (*)(const char *, int, mode_t))dlsym(RTLD_NEXT, "open"))(log, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (file >= 0) {
        if (REAL(write)(file, line, size) < 0) abort();
        close(file);
    }
    errno = kept;
}

int connect(int file, const struct sockaddr *address, socklen_t size) {
    note("connects", "");
    return ((int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "connect"))(file, address, size);
}

#define OPENING(name)                                                                                                  \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;                                                      \
        va_end(rest);                                                                                                  \
        note(flags & (O_WRONLY | O_RDWR) ? "writes" : "reads", path);                                                  \
        if (flags & O_CREAT && fails(path)) return -1;                                                                 \
        return ((int (*)(const char *, int, mode_t))dlsym(RTLD_NEXT, #name))(path, flags, mode);                       \
    }
OPENING(open)
OPENING(open64)

FILE *fopen(const char *path, const char *mode) {
    note(*mode == 'r' ? "reads" : "writes", path);
    return *mode != 'r' && fails(path) ? NULL : REAL(fopen)(path, mode);
}
FILE *fopen64(const char *path, const char *mode) {
    note(*mode == 'r' ? "reads" : "writes", path);
    return *mode != 'r' && fails(path) ? NULL : REAL(fopen64)(path, mode);
}
