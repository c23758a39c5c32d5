/* Reads a tar stream in pieces whose size the first byte says, and writes every
 * entry anew: what is then read must be the same. Where the first byte is odd,
 * checksums are made right first, without which few mutations would get far. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/str.h"
#include "codec/tar.h"

#define COPY_LIMIT 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct source {
        const char *data;
        size_t size, piece;
};

static ssize_t pull(void *arg, const void **ret, struct err *err)
{
        (void)err;
        struct source *source = arg;
        size_t size = source->size < source->piece ? source->size : source->piece;
        *ret = source->data;
        source->data += size;
        source->size -= size;
        return (ssize_t)size;
}

static int append(void *arg, const void *data, size_t size, struct err *err)
{
        (void)err;
        return buf_append(arg, data, size);
}

static void describe(const struct tar_entry *e, struct buf *text)
{
        buf_printf(text, "%o %u:%u %llu %lld %u:%u %d %s|%s", e->mode, e->uid, e->gid,
                   (unsigned long long)e->size_bytes, (long long)e->mtime_ns, e->dev_major,
                   e->dev_minor, e->hard_link, e->path, e->link ? e->link : "");
        for (size_t i = 0; i < e->xattrs_length; i++) {
                buf_printf(text, " %s=", e->xattrs[i].name);
                buf_append(text, e->xattrs[i].value, e->xattrs[i].size_bytes);
        }
}

/* The data of an entry, holes filled. Returns 0, 1 where the entry is too large, or -errno. */
static int read_data(struct tar_reader *reader, const struct tar_entry *e, struct buf *out)
{
        const void *data;
        size_t size;
        uint64_t offset, end = 0;
        struct err err;
        int r;
        while ((r = tar_reader_data(reader, &data, &size, &offset, &err)) > 0) {
                if (offset < end || size == 0 || offset + size > e->size_bytes)
                        abort();
                end = offset + size;
                if (end > COPY_LIMIT)
                        continue;
                while (out->size < offset)
                        buf_putc(out, 0);
                buf_append(out, data, size);
        }
        if (r < 0)
                return r;
        if (e->size_bytes > COPY_LIMIT)
                return 1;
        while (out->size < e->size_bytes)
                buf_putc(out, 0);
        return 0;
}

/* Writes an archive of one entry and reads it again. */
static void round_trip(const struct tar_entry *e, const struct buf *data)
{
        auto_buf tar = { 0 }, before = { 0 }, after = { 0 }, data_after = { 0 };
        auto_tar_writer writer = NULL;
        auto_tar_reader reader = NULL;
        struct tar_entry again;
        struct err err;

        describe(e, &before);
        tar_writer_create(append, &tar, &writer, &err);
        if (tar_writer_entry(writer, e, &err) < 0)
                return; /* an attribute with a '=' in its name */
        if (tar_writer_data(writer, data->data, data->size, &err) < 0 ||
            tar_writer_finish(writer, &err) < 0)
                abort();
        struct source source = { tar.data, tar.size, 512 };
        tar_reader_create(pull, &source, NULL, &reader, &err);
        if (tar_reader_next(reader, &again, &err) != 1)
                abort();
        describe(&again, &after);
        if (before.size != after.size || memcmp(before.data, after.data, before.size) != 0)
                abort();
        if (read_data(reader, &again, &data_after) != 0 || data_after.size != data->size ||
            (data->size && memcmp(data->data, data_after.data, data->size) != 0))
                abort();
        if (tar_reader_next(reader, &again, &err) != 0)
                abort();
}

static void mend_checksums(char *tar, size_t size)
{
        for (size_t at = 0; at + 512 <= size; at += 512) {
                char *h = tar + at;
                unsigned sum = 0;
                if (memcmp(h + 257, "ustar", 5) != 0)
                        continue;
                memset(h + 148, ' ', 8);
                for (size_t i = 0; i < 512; i++)
                        sum += (unsigned char)h[i];
                snprintf(h + 148, 8, "%06o", sum);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        if (size < 1)
                return 0;
        auto_free char *tar = xmemdup(data + 1, size - 1);
        if (data[0] & 1)
                mend_checksums(tar, size - 1);
        struct source source = { tar, size - 1, (size_t)data[0] * 8 + 1 };
        struct tar_limits limits = { .entries = 100, .header_bytes = 1 << 20 };
        auto_tar_reader reader = NULL;
        struct tar_entry entry;
        struct err err;

        if (tar_reader_create(pull, &source, &limits, &reader, &err) < 0)
                return 0;
        while (tar_reader_next(reader, &entry, &err) > 0) {
                auto_buf content = { 0 };
                int r = read_data(reader, &entry, &content);
                if (r < 0)
                        return 0;
                if (r == 0)
                        round_trip(&entry, &content);
        }
        return 0;
}
