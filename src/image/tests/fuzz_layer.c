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
#include "image/image_store.h"
#include "image/layer.h"
#include "image/unpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct source {
        const uint8_t *data;
        size_t size;
};

static ssize_t pull(void *arg, const void **ret, struct err *err)
{
        struct source *source = arg;
        size_t size = source->size < 4096 ? source->size : 4096;
        (void)err;
        if (size == 0)
                return 0;
        *ret = source->data;
        source->data += size;
        source->size -= size;
        return (ssize_t)size;
}

/* The header checksum is mended so that mutations get past it. */
static void mend(uint8_t *block)
{
        unsigned sum = 0;
        memset(block + 148, ' ', 8);
        for (unsigned i = 0; i < 512; i++)
                sum += block[i];
        for (int i = 5; i >= 0; i--, sum >>= 3)
                block[148 + i] = (uint8_t)('0' + (sum & 7));
        block[154] = '\0';
}

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
        uint8_t *tar = malloc(size ? size : 1);
        memcpy(tar, data, size);
        for (size_t at = 0; at + 512 <= size; at += 512)
                if (memcmp(tar + at + 257, "ustar", 5) == 0)
                        mend(tar + at);
        auto_fd outer = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (outer < 0 || mkdirat(outer, "fs", 0755) < 0)
                abort();
        auto_fd dirfd = openat(outer, "fs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        size_t before = entries(outer);
        struct layer_limits limits = { .size_bytes = 1 << 20, .entries = 200 };
        struct source source = { tar, size };
        auto_unpack unpack = NULL;
        auto_tar_reader reader = NULL;
        struct err err;
        if (unpack_create(dirfd, &limits, NULL, &unpack, &err) == 0 &&
            tar_reader_create(pull, &source, NULL, &reader, &err) == 0)
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
        free(tar);
        return 0;
}
