/* A small tree that the fuzz targets of virtio-fs serve, and what lies outside of it: that must
 * never come in an answer nor change, and the tree has links to it. */
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"

#define FUZZ_FILE_BYTES (1 << 20)

static char fuzz_top[64], fuzz_root[80];
static char fuzz_secret[33];
static int fuzz_top_fd;

static inline void must(bool good)
{
        if (!good)
                abort();
}

static inline void fuzz_put(int dirfd, const char *name, const char *text)
{
        must(file_replace(dirfd, name, text, strlen(text), 0644, false, NULL) == 0);
}

static inline void fuzz_remove_all(void)
{
        file_remove_tree(AT_FDCWD, fuzz_top, NULL);
}

/* top/secret stays outside of what is served, top/root. */
static inline void fuzz_tree_once(void)
{
        uint64_t random[2];
        if (fuzz_top[0])
                return;
        strcpy(fuzz_top,
               access("/dev/shm", W_OK) == 0 ? "/dev/shm/fuzz-fs-XXXXXX" : "/tmp/fuzz-fs-XXXXXX");
        must(mkdtemp(fuzz_top) != NULL && getrandom(random, sizeof(random), 0) == sizeof(random));
        atexit(fuzz_remove_all);
        snprintf(fuzz_root, sizeof(fuzz_root), "%s/root", fuzz_top);
        snprintf(fuzz_secret, sizeof(fuzz_secret), "%016llx%016llx", (unsigned long long)random[0],
                 (unsigned long long)random[1]);
        fuzz_top_fd = open(fuzz_top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        fuzz_put(fuzz_top_fd, "secret", fuzz_secret);
        const struct rlimit limit = { FUZZ_FILE_BYTES, FUZZ_FILE_BYTES };
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
}

/* A new one for each input. */
static inline void fuzz_tree_make(void)
{
        must(file_remove_tree(fuzz_top_fd, "root", NULL) == 0 &&
             mkdirat(fuzz_top_fd, "root", 0755) == 0);
        auto_fd fd = openat(fuzz_top_fd, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        must(fd >= 0 && mkdirat(fd, "d", 0755) == 0);
        fuzz_put(fd, "f", "some text");
        fuzz_put(fd, "d/g", "more text");
        must(symlinkat("../secret", fd, "s") == 0 && symlinkat("..", fd, "u") == 0);
        must(mkfifoat(fd, "p", 0600) == 0);
}

static inline bool fuzz_secret_unchanged(void)
{
        auto_free char *text = NULL;
        return file_read(fuzz_top_fd, "secret", 100, &text, NULL, NULL) == 0 &&
               strcmp(text, fuzz_secret) == 0;
}
