#include "engine/tar_source.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/str.h"
#include "codec/compress.h"

/* Small pieces bound what a bomb can blow up to in one step: 1000 times this. */
#define PIECE 16384u

struct tar_source {
        int fd;
        bool ended;
        struct decompressor *decompressor;
        struct buf block;
        char piece[PIECE];
};

static int collect(void *arg, const void *data, size_t size, struct err *err)
{
        struct tar_source *source = arg;
        (void)err;
        return buf_append(&source->block, data, size);
}

int tar_source_create(int fd, struct tar_source **ret, struct err *err)
{
        struct tar_source *source = new0(struct tar_source);
        source->fd = fd;
        int r = decompressor_create(COMPRESSION_AUTO, collect, source, &source->decompressor, err);
        if (r < 0) {
                free(source);
                return r;
        }
        *ret = source;
        return 0;
}

ssize_t tar_source_read(void *arg, const void **ret_block, struct err *err)
{
        struct tar_source *source = arg;
        buf_reset(&source->block);
        while (source->block.size == 0 && !source->ended) {
                ssize_t n = read(source->fd, source->piece, sizeof(source->piece));
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_set(err, errno, "read the archive");
                source->ended = n == 0;
                int r = n ? decompressor_write(source->decompressor, source->piece, (size_t)n, err)
                          : decompressor_finish(source->decompressor, err);
                if (r < 0)
                        return r;
        }
        *ret_block = source->block.data;
        return (ssize_t)source->block.size;
}

void tar_source_destroy(struct tar_source *source)
{
        if (!source)
                return;
        decompressor_destroy(source->decompressor);
        buf_finish(&source->block);
        free(source);
}
