/* A hostile tar is unpacked into a directory: it ends, and nothing beside the
 * directory has changed. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "codec/tests/hostile_tar.h"
#include "image/image_store.h"
#include "image/layer.h"
#include "image/unpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char base[64];

static void make_base(void)
{
        strcpy(base, access("/dev/shm", W_OK) == 0 ? "/dev/shm/isle-fuzz-XXXXXX"
                                                   : "/tmp/isle-fuzz-XXXXXX");
        if (!mkdtemp(base))
                abort();
}

static void remove_base(void)
{
        file_remove_tree(AT_FDCWD, base, NULL);
}

static size_t entries(int dirfd)
{
        struct stat st;
        return fstat(dirfd, &st) == 0 ? (size_t)st.st_nlink : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        if (!base[0]) {
                make_base();
                atexit(remove_base);
        }
        auto_hostile_tar tar = hostile_tar_of(data, size);
        auto_fd outer = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (outer < 0 || mkdirat(outer, "fs", 0755) < 0)
                abort();
        auto_fd dirfd = openat(outer, "fs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        size_t before = entries(outer);
        struct layer_limits limits = { .size_bytes = 1 << 20, .entries = 200 };
        auto_unpack unpack = NULL;
        auto_tar_reader reader = NULL;
        struct err err;
        if (unpack_create(dirfd, &limits, NULL, &unpack, &err) == 0 &&
            tar_reader_create(hostile_tar_pull, &tar, NULL, &reader, &err) == 0)
                unpack_tar(unpack, reader, &err);
        if (entries(outer) != before)
                abort();
        struct unpack_totals totals = { 0 };
        if (unpack)
                unpack_totals(unpack, &totals);
        if (totals.size_bytes > limits.size_bytes)
                abort();
        if (file_remove_tree(outer, "fs", &err) < 0)
                abort();
        return 0;
}
