/* A hostile guest's archive of "tree": with an odd first byte as it stands in its frames, else
 * framed here with its headers made right. What goes on is an archive of a tree of that name: every
 * name is beneath it, and in a directory that came before. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/str.h"
#include "base/table.h"
#include "codec/tests/hostile_tar.h"
#include "guest/tests/framed.h"

#define KEEP_BYTES_MAX (4u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool holds)
{
        if (!holds)
                abort();
}

/* A map of holes makes much of little. */
static int keep(void *arg, const void *data, size_t size, struct err *err)
{
        const struct buf *buf = arg;
        if (buf->size + size > KEEP_BYTES_MAX)
                return err_plain(err, EFBIG, "enough");
        return framed_keep(arg, data, size, err);
}

static void check(struct buf *out)
{
        struct hostile_tar tar = { .at = (uint8_t *)out->data, .left = out->size };
        auto_tar_reader reader = NULL;
        struct table directories = { 0 };
        struct tar_entry entry;
        struct err err;
        int r;
        need(tar_reader_create(hostile_tar_pull, &tar, NULL, &reader, &err) == 0);
        for (bool first = true; (r = tar_reader_next(reader, &entry, &err)) > 0; first = false) {
                const char *slash = strrchr(entry.path, '/');
                auto_free char *parent = xstrndup(entry.path,
                                                  slash ? (size_t)(slash - entry.path) : 0);
                need(first ? streq(entry.path, "tree") : table_get(&directories, parent) != NULL);
                need(!slash || (slash[1] && !streq(slash + 1, ".") && !streq(slash + 1, "..")));
                need(!entry.hard_link || str_starts(entry.link, "tree/"));
                table_remove(&directories, entry.path);
                if (S_ISDIR(entry.mode))
                        table_put(&directories, entry.path, out);
        }
        need(r == 0);
        table_finish(&directories);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct framed framed = { 0 };
        auto_buf out = { 0 };
        struct err err;
        if (size == 0)
                return 0;
        if (data[0] & 1) {
                buf_append(&framed.bytes, data + 1, size - 1);
        } else {
                auto_hostile_tar tar = hostile_tar_of(data + 1, size - 1);
                framed_put(&framed, STDCOPY_STDOUT, tar.start, size - 1);
                framed_put(&framed, STDCOPY_SYSTEM, "{\"ok\":true}\n", 12);
        }
        if (relay_archive(framed_read, &framed, "tree", keep, &out, &err) == 0)
                check(&out);
        buf_finish(&framed.bytes);
        return 0;
}
