/* Preloaded: the first write of each process whose bytes hold the text FAILS_AT fails, as on a disk that is full for a
 * moment. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

ssize_t write(int file, const void *bytes, size_t len) {
    static int failed;
    ssize_t (*real)(int, const void *, size_t);
    *(void **)&real = dlsym(RTLD_NEXT, "write");
    const char *text = getenv("FAILS_AT");
    /* Not what is printed. */
    if (!failed && file > 2 && text && memmem(bytes, len, text, strlen(text))) {
        failed = 1;
        errno = ENOSPC;
        return -1;
    }
    return real(file, bytes, len);
}
